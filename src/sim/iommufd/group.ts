/**
 * What an iommufd context knows about a group of devices: which page table each PASID of them uses. The counterpart of
 * `struct iommufd_group`.
 *
 * @module
 */
import { EBUSY, EINVAL, ENODEV, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import type { AttachHandle, IommuGroup } from '../iommu/domain.js';
import {
  attachGroup,
  attachPasid,
  detachGroup,
  detachPasid,
  NO_PASID,
  replaceGroup,
  replacePasid,
} from '../iommu/group-attach.js';
import type { IommufdContext } from './context.js';
import type { IommufdDevice } from './device.js';
import type { Hwpt } from './hwpt.js';

/** The driver of page tables that no IOMMU reads. */
const NOIOMMU_DRIVER = 'noiommu';

/** A page table that devices of a group use. */
interface Attachment {
  hwpt: Hwpt;
  readonly devices: Set<IommufdDevice>;
}

export class IommufdGroup {
  readonly #context: IommufdContext;
  /** Undefined for a device without an IOMMU, which has nobody to share anything with. */
  readonly group: IommuGroup | undefined;
  readonly #attachments = new Map<number, Attachment>();
  #references = 1;

  private constructor(context: IommufdContext, group: IommuGroup | undefined) {
    this.#context = context;
    this.group = group;
  }

  /** What the context has for the group, with one more reference. */
  static get(context: IommufdContext, group: IommuGroup): IommufdGroup {
    const found = context.groups.get(group) as IommufdGroup | undefined;
    if (found !== undefined) {
      found.#references++;
      return found;
    }
    const made = new IommufdGroup(context, group);
    context.groups.set(group, made);
    return made;
  }

  static withoutIommu(context: IommufdContext): IommufdGroup {
    return new IommufdGroup(context, undefined);
  }

  put(): void {
    if (--this.#references > 0) return;
    if (this.#attachments.size > 0) throw new Error('the group is still attached');
    if (this.group !== undefined) this.#context.groups.delete(this.group);
  }

  #compatible(hwpt: Hwpt, pasid: number): number {
    if (pasid === NO_PASID) {
      const pasids = [...this.#attachments.keys()].some(each => each !== NO_PASID);
      if (!hwpt.pasidCompatible && pasids) return -EINVAL;
    } else {
      const whole = this.#attachments.get(NO_PASID);
      if (!hwpt.pasidCompatible || whole?.hwpt.pasidCompatible === false) return -EINVAL;
    }
    return 0;
  }

  /** Only without PASID do the IOVAs of the device matter, which it keeps for itself. */
  #reserves(pasid: number): boolean {
    return pasid === NO_PASID && this.group !== undefined;
  }

  /** @returns 0, or minus EBUSY for a device that is attached, EINVAL for another page table than the group has */
  attach(device: IommufdDevice, pasid: number, hwpt: Hwpt): number {
    const attachment = this.#attachments.get(pasid);
    if (attachment?.devices.has(device)) return -EBUSY;
    if (attachment !== undefined && attachment.hwpt !== hwpt) return -EINVAL;
    const { table } = hwpt.paging.ioas;
    if (this.#reserves(pasid)) {
      const result = table.enforceReservedRegions(device.device);
      if (result < 0) return result;
    }
    if (attachment === undefined) {
      const result = this.#attachFirst(device, pasid, hwpt);
      if (result < 0) {
        if (this.#reserves(pasid)) table.removeReservedIova(device.device);
        return result;
      }
      this.#attachments.set(pasid, { hwpt, devices: new Set([device]) });
    } else attachment.devices.add(device);
    hwpt.users++;
    return 0;
  }

  #attachFirst(device: IommufdDevice, pasid: number, hwpt: Hwpt): number {
    const compatible = this.#compatible(hwpt, pasid);
    if (compatible < 0 || this.group === undefined) return compatible;
    const handle: AttachHandle = { domain: hwpt.domain, owner: device };
    const usable = checkDriver(hwpt, device, pasid === NO_PASID ? EINVAL : EOPNOTSUPP);
    if (usable < 0) return usable;
    return pasid === NO_PASID ? attachGroup(this.group, handle) : attachPasid(this.group, pasid, handle);
  }

  /** @returns the page table that the device used; undefined when it used none */
  detach(device: IommufdDevice, pasid: number): Hwpt | undefined {
    const attachment = this.#attachments.get(pasid);
    if (attachment === undefined) return undefined;
    const { hwpt, devices } = attachment;
    devices.delete(device);
    if (devices.size === 0) {
      const handle = this.group?.handles.get(pasid);
      if (this.group !== undefined) {
        if (pasid === NO_PASID) detachGroup(this.group);
        else detachPasid(this.group, pasid);
      }
      if (handle !== undefined) hwpt.fault?.answerAll(handle);
      this.#attachments.delete(pasid);
    }
    if (pasid === NO_PASID) hwpt.paging.ioas.table.removeReservedIova(device.device);
    hwpt.put();
    return hwpt;
  }

  /**
   * Moves all devices of the group that use what this one uses.
   *
   * @returns the page table that they used, on which the caller has a reference; undefined when it is the same; minus the
   * errno, with nothing changed
   */
  replace(device: IommufdDevice, pasid: number, hwpt: Hwpt): Hwpt | undefined | number {
    const attachment = this.#attachments.get(pasid);
    if (attachment === undefined || !attachment.devices.has(device)) return -EINVAL;
    const { hwpt: old, devices } = attachment;
    if (old === hwpt) return undefined;
    const { table } = hwpt.paging.ioas;
    const oldTable = old.paging.ioas.table;
    if (this.#reserves(pasid) && table !== oldTable) {
      for (const each of devices) {
        const result = table.enforceReservedRegions(each.device);
        if (result < 0) {
          this.#removeReserved(devices, hwpt);
          return result;
        }
      }
    }
    const result = this.#replaceAll(device, pasid, hwpt, old);
    if (result < 0) {
      if (this.#reserves(pasid)) this.#removeReserved(devices, hwpt);
      return result;
    }
    if (pasid === NO_PASID && table !== oldTable) this.#removeReserved(devices, old);
    attachment.hwpt = hwpt;
    hwpt.users += devices.size;
    old.users -= devices.size - 1;
    return old;
  }

  #removeReserved(devices: ReadonlySet<IommufdDevice>, hwpt: Hwpt): void {
    for (const each of devices) hwpt.paging.ioas.table.removeReservedIova(each.device);
  }

  #replaceAll(device: IommufdDevice, pasid: number, hwpt: Hwpt, old: Hwpt): number {
    const compatible = this.#compatible(hwpt, pasid);
    if (compatible < 0 || this.group === undefined) return compatible;
    const usable = checkDriver(hwpt, device, pasid === NO_PASID ? ENODEV : EOPNOTSUPP);
    if (usable < 0) return usable;
    const oldHandle = this.group.handles.get(pasid);
    const handle: AttachHandle = { domain: hwpt.domain, owner: device };
    const result =
      pasid === NO_PASID ? replaceGroup(this.group, handle) : replacePasid(this.group, pasid, handle);
    if (result === 0 && oldHandle !== undefined) old.fault?.answerAll(oldHandle);
    return result;
  }
}

/**
 * A device behind an IOMMU uses page tables of its driver only.
 *
 * @param noiommu the errno for a page table that no IOMMU reads
 */
function checkDriver(hwpt: Hwpt, { device }: IommufdDevice, noiommu: number): number {
  if (hwpt.driver === device.driver) return 0;
  return hwpt.driver === NOIOMMU_DRIVER ? -noiommu : -EINVAL;
}
