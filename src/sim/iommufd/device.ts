/** Devices that are bound to an iommufd context: the counterpart of `struct iommufd_device`. @module */
import { EFAULT, EINVAL, ENOENT, EOPNOTSUPP, EPERM } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_GET_HW_INFO,
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE,
  IOMMU_HW_INFO_TYPE_DEFAULT,
  IOMMU_HW_INFO_TYPE_NONE,
} from '../../../bindings/uapi/iommufd.js';
import type { IommuDevice, IommuGroup } from '../iommu/domain.js';
import { claimOwner, releaseOwner } from '../iommu/group-attach.js';
import type { IommufdContext } from './context.js';
import { IommufdGroup } from './group.js';
import { Hwpt, HwptPaging } from './hwpt.js';
import { IoasObject } from './ioas-object.js';
import { MOCK_DRIVER } from './mock/domain.js';
import { IommufdObject, ObjectType } from './objects.js';
import { command, type UserCommand } from './user-command.js';
import type { VdeviceObject } from './vdevice.js';

/** How attaching went. */
export interface AttachResult {
  /** 0, or minus the errno. */
  readonly result: number;
  /** The page table that the device uses now: that of `ptId`, or one made or found for the address space `ptId`. */
  readonly ptId: number;
}

/** Brings a device to a page table. @returns the one it had and a reference to it, undefined for none, minus the errno */
type Attach = (hwpt: Hwpt) => Hwpt | undefined | number;

export class IommufdDevice extends IommufdObject {
  override readonly type = ObjectType.Device;
  readonly context: IommufdContext;
  readonly device: IommuDevice;
  readonly #group: IommufdGroup;
  /** It has an id in a virtual IOMMU. */
  vdevice: VdeviceObject | undefined;
  /** It gets no virtual device any more. */
  destroying = false;

  private constructor(context: IommufdContext, device: IommuDevice, group: IommufdGroup) {
    super();
    this.context = context;
    this.device = device;
    this.#group = group;
  }

  /**
   * Takes the device, and all of its group, for the context (iommufd_device_bind).
   *
   * @returns minus EINVAL for DMA that is not coherent, EPERM for interrupts that are not isolated or a group that
   * somebody else has, EBUSY for a group that the kernel uses
   */
  // `override`: a class is a function, and functions have a `bind` too.
  static override bind(context: IommufdContext, device: IommuDevice): IommufdDevice | number {
    const group = device.noiommu ? IommufdGroup.withoutIommu(context) : claim(context, device);
    if (typeof group === 'number') return group;
    const bound = context.reserve(new IommufdDevice(context, device, group));
    if (device.driver !== MOCK_DRIVER) context.file.get();
    // The driver that binds it.
    bound.users++;
    context.finalize(bound);
    return bound;
  }

  /** Whether a device of the group is bound to the context (iommufd_ctx_has_group). */
  static hasGroup(context: IommufdContext, group: IommuGroup): boolean {
    return context.groups.has(group);
  }

  /** Undoes {@link bind}; the device must be detached. */
  unbind(): void {
    this.context.destroyUser(this);
  }

  /** The IOMMU before it, of those that can be virtualized. */
  get iommu(): object | undefined {
    return this.device.noiommu ? undefined : this.device.viommus?.iommu;
  }

  get group(): IommufdGroup {
    return this.#group;
  }

  /**
   * Attaches the device to an address space or a page table.
   *
   * @param pasid -1 for none
   */
  attach(pasid: number, ptId: number): AttachResult {
    const attached = this.#change(pasid, ptId, true, hwpt => {
      const result = this.#group.attach(this, pasid, hwpt);
      return result < 0 ? result : undefined;
    });
    if (attached.result === 0) this.users++;
    return attached;
  }

  /** Attaches to something else, without a moment in between; all devices of the group that are attached follow. */
  replace(pasid: number, ptId: number): AttachResult {
    return this.#change(pasid, ptId, false, hwpt => this.#group.replace(this, pasid, hwpt));
  }

  detach(pasid: number): void {
    if (this.#group.detach(this, pasid) !== undefined) this.users--;
  }

  #change(pasid: number, ptId: number, immediate: boolean, attach: Attach): AttachResult {
    const target = this.context.get(ptId);
    if (target === undefined) return { result: -ENOENT, ptId };
    let hwpt: Hwpt;
    let old: Hwpt | undefined | number;
    if (target instanceof Hwpt) {
      hwpt = target;
      old = attach(hwpt);
    } else if (target instanceof IoasObject) {
      const found = this.#changeAutomatically(pasid, target, immediate, attach);
      if (typeof found === 'number') return { result: found, ptId };
      ({ hwpt, old } = found);
    } else return { result: -EINVAL, ptId };
    if (typeof old === 'number') return { result: old, ptId };
    old?.put();
    return { result: 0, ptId: hwpt.id };
  }

  /** Takes the first page table of those made automatically that the device can use, or makes one. */
  #changeAutomatically(
    pasid: number,
    ioas: IoasObject,
    immediate: boolean,
    attach: Attach,
  ): { hwpt: Hwpt; old: Hwpt | undefined } | number {
    for (const hwpt of ioas.hwpts) {
      if (!hwpt.automatic) continue;
      const old = attach(hwpt);
      if (typeof old !== 'number') return { hwpt, old };
      // It does not suit the device.
      if (old !== -EINVAL) return old;
    }
    const made = HwptPaging.allocate(this, ioas, 0, undefined, immediate ? pasid : undefined);
    if (typeof made === 'number') return made;
    const old = immediate ? undefined : attach(made);
    if (typeof old === 'number') {
      this.context.abort(made);
      return old;
    }
    made.automatic = true;
    this.context.finalize(made);
    return { hwpt: made, old };
  }

  override preDestroy(): void {
    this.destroying = true;
    const { vdevice } = this;
    if (vdevice === undefined) return;
    vdevice.users++;
    this.context.tombstone(vdevice);
  }

  override destroy(): void {
    if (!this.device.noiommu) releaseOwner(this.device.group);
    this.#group.put();
    if (this.device.driver !== MOCK_DRIVER) this.context.file.put();
  }
}

/** Makes the context the owner of the device's group. */
function claim(context: IommufdContext, device: IommuDevice): IommufdGroup | number {
  if (!device.cacheCoherent) return -EINVAL;
  const group = IommufdGroup.get(context, device.group);
  const isolated = [...device.group.devices].every(each => each.isolatedMsi);
  const result = isolated ? claimOwner(device.group, context) : -EPERM;
  if (result === 0) return group;
  group.put();
  return result;
}

/** The device with that id. @returns minus ENOENT */
export function getDevice(context: IommufdContext, id: number): IommufdDevice | number {
  const found = context.get(id, ObjectType.Device);
  return found instanceof IommufdDevice ? found : -ENOENT;
}

export const getHardwareInfo = command(IOMMU_GET_HW_INFO, request => {
  const { values, context } = request;
  if (values.flags & ~IOMMU_HW_INFO_FLAG_INPUT_TYPE) return -EOPNOTSUPP;
  if (values.__reserved.some(byte => byte !== 0)) return -EOPNOTSUPP;
  const chosen = values.flags & IOMMU_HW_INFO_FLAG_INPUT_TYPE;
  const type = chosen ? values.in_data_type : IOMMU_HW_INFO_TYPE_DEFAULT;
  const found = getDevice(context, values.dev_id);
  if (typeof found === 'number') return found;
  const { device } = found;
  if (device.noiommu) return -EOPNOTSUPP;
  const info = device.hardwareInfo(type);
  if (typeof info === 'number') return info;
  const result = writeInfo(request, info?.bytes ?? new Uint8Array(0));
  if (result < 0) return result;
  values.in_data_type = info?.type ?? IOMMU_HW_INFO_TYPE_NONE;
  values.out_data_type = values.in_data_type;
  values.out_capabilities =
    device.hardwareCapabilities | (device.dirtyTracking ? IOMMU_HW_CAP_DIRTY_TRACKING : 0n);
  values.out_max_pasid_log2 = device.maxPasids > 0 ? Math.floor(Math.log2(device.maxPasids)) : 0;
  return request.respond();
});

/** Memory is cleared in pieces, in bytes. */
const PIECE = 65536;

/** As much as user mode has room for, with zero behind it; its length tells how much there is. */
function writeInfo(request: UserCommand<typeof IOMMU_GET_HW_INFO.argument>, bytes: Uint8Array): number {
  const { values } = request;
  const room = values.data_len;
  values.data_len = bytes.byteLength;
  for (let at = 0; at < room; at += PIECE) {
    const piece = new Uint8Array(Math.min(PIECE, room - at));
    piece.set(bytes.subarray(at, at + piece.byteLength));
    if (request.process.copyOut(values.data_uptr + BigInt(at), piece) < 0) return -EFAULT;
  }
  return 0;
}
