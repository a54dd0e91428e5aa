/** What translates for devices, as the simulated kernel sees it: the counterpart of `struct iommu_domain`. @module */
import type { MemoryObject } from '../machine/memory-object.js';

/** What a mapping permits; several are or-ed (linux/iommu.h IOMMU_READ …). */
export const Protection = { Read: 1, Write: 2, Cache: 4 } as const;

/** One for each kind of `iommu_domain` that can be attached. */
export type Domain = PagingDomain | NestedDomain | BlockedDomain | IdentityDomain;

/** Something the driver of an IOMMU keeps about a domain, and how faults of devices behind it are answered. */
interface DomainBase {
  /** Set by iommufd for a domain whose page faults go to a fault queue. */
  faultHandler?: FaultHandler | undefined;
  free(): void;
}

/** Every DMA is refused. */
export interface BlockedDomain extends DomainBase {
  readonly kind: 'blocked';
}

/** Every bus address is the physical one. */
export interface IdentityDomain extends DomainBase {
  readonly kind: 'identity';
}

/** A page table that user mode makes, on top of a parent's. */
export interface NestedDomain extends DomainBase {
  readonly kind: 'nested';
  /**
   * Invalidates caches as the requests in the array say.
   *
   * @returns the errno (0 or negative), and how many entries were handled
   */
  invalidate?(array: UserArray): { result: number; handled: number };
}

/** A page table that the kernel makes. */
export interface PagingDomain extends DomainBase {
  readonly kind: 'paging';
  /** Which driver it belongs to: a device takes only its own driver's domains. */
  readonly driver: string;
  /** Page sizes it can map, each its own bit (pgsize_bitmap). */
  readonly pageSizes: bigint;
  /** The IOVAs it can translate. */
  readonly aperture: { readonly first: bigint; readonly last: bigint };
  /** Maps whole pages. @returns 0, or minus the errno, with nothing mapped */
  map(iova: bigint, address: bigint, length: bigint, protection: number): number;
  /** Unmaps. @returns how many bytes were mapped */
  unmap(iova: bigint, length: bigint): bigint;
  /** The physical address behind an IOVA (iova_to_phys); undefined where there is none. */
  translate(iova: bigint): bigint | undefined;
  /** Makes DMA coherent whatever the device says. @returns whether it can. Absent: it cannot */
  enforceCacheCoherency?(): boolean;
  /** Absent where nothing records what is written. */
  readonly dirty?: DirtyTracking | undefined;
}

export interface DirtyTracking {
  /** @returns 0, or minus the errno */
  enable(enabled: boolean): number;
  readonly enabled: boolean;
  /**
   * Calls `mark` for every range in `[iova, iova + length)` that was written, and forgets unless `keep`.
   *
   * @returns 0, or minus the errno
   */
  read(iova: bigint, length: bigint, keep: boolean, mark: (iova: bigint, length: bigint) => void): number;
}

/** A page fault that somebody must answer (struct iopf_fault). */
export interface PageFault {
  /** -1: no PASID. */
  readonly pasid: number;
  readonly group: number;
  /** IOMMU_PGFAULT_PERM_*. */
  readonly permissions: number;
  readonly address: bigint;
  readonly last: boolean;
}

/** Takes a group of faults, the last of them last. @returns 0, or minus the errno */
export type FaultHandler = (
  handle: AttachHandle,
  faults: readonly PageFault[],
  respond: (code: number) => void,
) => number;

/** One attachment of a group to a domain (struct iommu_attach_handle). */
export interface AttachHandle {
  readonly domain: Domain;
  /** What whoever attached it knows it by. */
  readonly owner: object;
}

/** Bytes in user memory with a type, that a driver reads (struct iommu_user_data). */
export interface UserData {
  readonly type: number;
  /** As user mode says, in bytes. */
  readonly length: number;
  /** Reads `length` bytes from `offset`. @returns minus EFAULT where they are not there */
  read(offset: number, length: number): Uint8Array | number;
  /** @returns 0, or minus EFAULT */
  write(offset: number, data: Uint8Array): number;
}

/** Entries in user memory (struct iommu_user_data_array). */
export interface UserArray {
  readonly type: number;
  /** In bytes. */
  readonly entryLength: number;
  readonly entries: number;
  /** Reads entry `index`. @returns minus EFAULT where it is not there */
  read(index: number): Uint8Array | number;
}

/** IOVAs that a device keeps for itself or cannot use (struct iommu_resv_region). */
export interface ReservedRegion {
  readonly first: bigint;
  readonly last: bigint;
  readonly kind: 'direct' | 'direct-relaxable' | 'reserved' | 'msi' | 'software-msi';
}

/** Devices that an IOMMU cannot tell apart (struct iommu_group). */
export class IommuGroup {
  readonly id: number;
  readonly devices = new Set<IommuDevice>();
  /** Who uses it for DMA: nobody (the kernel's own drivers may), or an owner, such as an iommufd context. */
  owner: object | undefined;
  ownerCount = 0;
  /** What all its devices are attached to, by PASID; -1 is without PASID. */
  readonly attached = new Map<number, Domain>();
  /** The attachments, by PASID, of an owner that takes page faults. */
  readonly handles = new Map<number, AttachHandle>();

  constructor(id: number) {
    this.id = id;
  }
}

/** A device with an IOMMU before it, or none: `struct device` with its `iommu_ops`. */
export interface IommuDevice {
  readonly name: string;
  /** The driver of its IOMMU: `'vtd'`, `'amd'`, `'noiommu'`, `'mock'`. */
  readonly driver: string;
  readonly group: IommuGroup;
  /** No IOMMU: mappings are books alone. */
  readonly noiommu: boolean;
  /** What it can do (iommu_capable). */
  readonly cacheCoherent: boolean;
  readonly dirtyTracking: boolean;
  /** MSIs of this device cannot reach what is not its own. */
  readonly isolatedMsi: boolean;
  /** 0: it has none. */
  readonly maxPasids: number;
  readonly reservedRegions: readonly ReservedRegion[];
  /** IOMMU_HW_CAP_PCI_* bits beyond dirty tracking. */
  readonly hardwareCapabilities: bigint;
  /**
   * What its IOMMU says of itself (iommu_ops::hw_info).
   *
   * @param type what user mode asked for, IOMMU_HW_INFO_TYPE_DEFAULT for whatever there is
   * @returns minus EOPNOTSUPP for a type it does not have; undefined when it has nothing to say
   */
  hardwareInfo(type: number): { readonly type: number; readonly bytes: Uint8Array } | number | undefined;
  /** A page table that suits the device (iommu_ops::domain_alloc_paging_flags). @returns minus the errno */
  allocatePaging(flags: number, data: UserData | undefined): PagingDomain | number;
  /** @returns minus the errno */
  allocateNested(parent: PagingDomain, flags: number, data: UserData): NestedDomain | number;
  /** The device is translated by `domain` from now on (attach_dev). @returns minus the errno, with nothing changed */
  attach(domain: Domain, old: Domain | undefined): number;
  /** The same for one PASID (set_dev_pasid). */
  attachPasid(domain: Domain, pasid: number, old: Domain | undefined): number;
  readonly blocked: BlockedDomain;
  /** Its IOMMU can make DMA coherent whatever the device says (IOMMU_CAP_ENFORCE_CACHE_COHERENCY). */
  readonly enforcesCacheCoherency?: boolean;
  /** What translates for it while nobody owns its group; absent: {@link blocked}. */
  readonly defaultDomain?: Domain;
  /** User mode keeps the table of its PASIDs: faults of any PASID go to the nested domain of the device. */
  readonly userPasidTable?: boolean;
  /** Its IOMMU can be virtualized. Devices with the same `iommu` can share a virtual IOMMU. */
  readonly viommus?: ViommuDriver;
  /** A fault has its answer (iommu_ops::page_response). */
  pageResponse?(fault: PageFault, code: number): void;
}

/** The driver of an IOMMU that can be virtualized. */
export interface ViommuDriver {
  /** The IOMMU itself (struct iommu_device). */
  readonly iommu: object;
  /** Whether it has this IOMMU_VIOMMU_TYPE_*. */
  supports(type: number): boolean;
  /**
   * Makes one (iommu_ops::viommu_init).
   *
   * @param data undefined when user mode gives none
   * @returns minus the errno
   */
  create(core: ViommuCore, parent: PagingDomain, data: UserData | undefined): ViommuOperations | number;
}

/** What iommufd does for the driver of a virtual IOMMU. */
export interface ViommuCore {
  /** The device that user mode gave the id. */
  device(virtualId: bigint): IommuDevice | undefined;
  /** The id that user mode gave the device. */
  virtualId(device: IommuDevice): bigint | undefined;
  /** Sends an event to the queue of that IOMMU_VEVENTQ_TYPE_*. @returns minus EOPNOTSUPP without a queue */
  report(type: number, event: Uint8Array): number;
  /** Offers memory to `mmap` of /dev/iommu, taking over the caller's reference. @returns its offset, in bytes */
  offer(memory: MemoryObject): { readonly offset: number; withdraw(): void };
}

/** What a driver does for a virtual IOMMU (struct iommufd_viommu_ops). */
export interface ViommuOperations {
  destroy?(): void;
  /** @returns minus the errno */
  allocateNested?(flags: number, data: UserData): NestedDomain | number;
  /** As {@link NestedDomain.invalidate}. */
  invalidate?(array: UserArray): { result: number; handled: number };
  /** A device has been given an id. @returns 0, or minus the errno; and what undoes it */
  addDevice?(device: IommuDevice, virtualId: bigint): { result: number; remove?(): void };
  readonly hardwareQueues?: HardwareQueueOperations;
}

/** Queues in guest memory that hardware works on. */
export interface HardwareQueueOperations {
  /** Whether it has this IOMMU_HW_QUEUE_TYPE_*. */
  supports(type: number): boolean;
  /**
   * Starts one (hw_queue_init_phys).
   *
   * @returns minus the errno, or what stops it
   */
  create(queue: HardwareQueueCore, index: number, address: bigint): (() => void) | number;
}

export interface HardwareQueueCore {
  /** Where user mode put it, in the nesting parent's address space. */
  readonly iova: bigint;
  /** In bytes. */
  readonly length: bigint;
  /** Keeps another queue from being destroyed before this one. @returns what lets go of it */
  dependOn(other: HardwareQueueCore): () => void;
}
