/** Page tables that devices use: the counterpart of `struct iommufd_hw_pagetable`. @module */
import { EINVAL, ENOENT, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_FAULT_ID_VALID,
} from '../../../bindings/uapi/iommufd.js';
import type { Domain, NestedDomain, PagingDomain, UserData } from '../iommu/domain.js';
import type { IommufdContext } from './context.js';
import type { IommufdDevice } from './device.js';
import type { FaultQueue } from './fault-queue.js';
import type { IoasObject } from './ioas-object.js';
import { IommufdObject, ObjectType } from './objects.js';
import type { ViommuObject } from './viommu.js';

const PAGING_FLAGS =
  IOMMU_HWPT_ALLOC_NEST_PARENT |
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING |
  IOMMU_HWPT_FAULT_ID_VALID |
  IOMMU_HWPT_ALLOC_PASID;
const NESTED_FLAGS = IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID;

export abstract class Hwpt extends IommufdObject {
  readonly context: IommufdContext;
  /** The driver whose devices can use it. */
  readonly driver: string;
  /** PASIDs can use it, and a device that has PASIDs attached. */
  readonly pasidCompatible: boolean;
  abstract readonly domain: Domain;
  /** The table that the kernel makes: itself, or what it is nested in. */
  abstract readonly paging: HwptPaging;
  #fault: FaultQueue | undefined;

  constructor(context: IommufdContext, driver: string, flags: number) {
    super();
    this.context = context;
    this.driver = driver;
    this.pasidCompatible = (flags & IOMMU_HWPT_ALLOC_PASID) !== 0;
  }

  /** Where page faults of devices that use it go. */
  get fault(): FaultQueue | undefined {
    return this.#fault;
  }

  /** Faults go to the queue from now on. */
  reportTo(fault: FaultQueue): void {
    this.#fault = fault;
    this.domain.faultHandler = (handle, faults, respond) => fault.deliver(handle, faults, respond);
    fault.users++;
  }

  /** Gives back a reference that a device had. */
  put(): void {
    this.users--;
  }

  override destroy(): void {
    this.domain.free();
    if (this.#fault !== undefined) this.#fault.users--;
  }
}

export class HwptPaging extends Hwpt {
  override readonly type = ObjectType.HwptPaging;
  override readonly domain: PagingDomain;
  readonly ioas: IoasObject;
  readonly nestParent: boolean;
  /** DMA is coherent whatever the devices say. */
  enforcesCacheCoherency = false;
  /** Made for an attachment, and gone with the last. */
  automatic = false;

  private constructor(device: IommufdDevice, ioas: IoasObject, flags: number, domain: PagingDomain) {
    super(device.context, device.device.driver, flags);
    this.ioas = ioas;
    this.domain = domain;
    this.nestParent = (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0;
    ioas.users++;
  }

  /**
   * Makes a page table that suits the device, with everything that the address space has mapped. It is reserved, not yet
   * finalised.
   *
   * @param pasid attaches the device before the table is filled
   * @returns minus the errno
   */
  static allocate(
    device: IommufdDevice,
    ioas: IoasObject,
    flags: number,
    data: UserData | undefined,
    pasid: number | undefined,
  ): HwptPaging | number {
    const { device: target, context } = device;
    if (flags & ~PAGING_FLAGS) return -EOPNOTSUPP;
    if (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING && !target.dirtyTracking) return -EOPNOTSUPP;
    if (flags & IOMMU_HWPT_FAULT_ID_VALID && flags & IOMMU_HWPT_ALLOC_NEST_PARENT) return -EOPNOTSUPP;
    const domain = target.allocatePaging(flags & ~IOMMU_HWPT_FAULT_ID_VALID, data);
    if (typeof domain === 'number') return domain;
    const hwpt = context.reserve(new HwptPaging(device, ioas, flags, domain));
    const result = hwpt.#fill(device, pasid);
    if (result === 0) return hwpt;
    context.abort(hwpt);
    return result;
  }

  #fill(device: IommufdDevice, pasid: number | undefined): number {
    // Before anything is mapped: some IOMMUs say it in every entry.
    if (device.device.enforcesCacheCoherency === true) {
      if (this.domain.enforceCacheCoherency?.() !== true) return -EINVAL;
      this.enforcesCacheCoherency = true;
    }
    const attached = pasid === undefined ? 0 : device.group.attach(device, pasid, this);
    if (attached < 0) return attached;
    const result = this.ioas.table.addDomain(this.domain);
    if (result === 0) this.ioas.hwpts.push(this);
    else if (pasid !== undefined) device.group.detach(device, pasid);
    return result;
  }

  override get paging(): HwptPaging {
    return this;
  }

  override put(): void {
    super.put();
    if (this.automatic && this.users === 0) this.context.remove(this.id);
  }

  override destroy(): void {
    const { hwpts, table } = this.ioas;
    const index = hwpts.indexOf(this);
    if (index >= 0) {
      hwpts.splice(index, 1);
      table.removeDomain(this.domain);
    }
    super.destroy();
    this.ioas.users--;
  }
}

export class HwptNested extends Hwpt {
  override readonly type = ObjectType.HwptNested;
  override readonly domain: NestedDomain;
  override readonly paging: HwptPaging;
  /** What it holds: the virtual IOMMU that it was made for, or the table that it is nested in. */
  readonly #holds: IommufdObject;

  private constructor(
    driver: string,
    flags: number,
    parent: HwptPaging,
    holds: IommufdObject,
    domain: NestedDomain,
  ) {
    super(parent.context, driver, flags);
    this.domain = domain;
    this.paging = parent;
    this.#holds = holds;
    holds.users++;
  }

  /** A table of user mode's own, which the device uses on top of another. @returns minus the errno */
  static allocate(
    device: IommufdDevice,
    parent: HwptPaging,
    flags: number,
    data: UserData,
  ): HwptNested | number {
    const { device: target, context } = device;
    if (flags & ~NESTED_FLAGS || data.length === 0 || target.noiommu) return -EOPNOTSUPP;
    if (parent.automatic || !parent.nestParent || parent.driver !== target.driver) return -EINVAL;
    const domain = target.allocateNested(parent.domain, flags & ~IOMMU_HWPT_FAULT_ID_VALID, data);
    if (typeof domain === 'number') return domain;
    return context.reserve(new HwptNested(target.driver, flags, parent, parent, domain));
  }

  /** The same for a virtual IOMMU. @returns minus the errno */
  static allocateFor(viommu: ViommuObject, flags: number, data: UserData): HwptNested | number {
    if (flags & ~NESTED_FLAGS || data.length === 0) return -EOPNOTSUPP;
    const { operations, parent, context } = viommu;
    if (operations.allocateNested === undefined) return -EOPNOTSUPP;
    const domain = operations.allocateNested(flags & ~IOMMU_HWPT_FAULT_ID_VALID, data);
    if (typeof domain === 'number') return domain;
    return context.reserve(new HwptNested(parent.driver, flags, parent, viommu, domain));
  }

  override destroy(): void {
    super.destroy();
    this.#holds.users--;
  }
}

/** The page table with that id, if it is one that the kernel makes. @returns minus ENOENT */
export function getHwptPaging(context: IommufdContext, id: number): HwptPaging | number {
  const found = context.get(id, ObjectType.HwptPaging);
  return found instanceof HwptPaging ? found : -ENOENT;
}
