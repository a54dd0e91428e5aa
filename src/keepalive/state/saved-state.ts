/**
 * What a saved state says: what to rebuild after the driver's process, or the kernel under it, was replaced. It is
 * intent, without object ids and descriptors of the kernel. These types are apart from those at run time.
 *
 * A state is a flattened device tree. Each record is a node; its `compatible` names its type and version, and only that
 * version is understood:
 *
 *     /                        iommufd,state-v1     crc32c
 *       arena-<token>          iommufd,arena-v1     token size page-size label
 *                                                   place: <iommufd ioas>, place-iova: of its own mapping
 *                                                   extent-count extent-crc32c extents: with physical addresses only
 *       device-<address>       iommufd,device-v1    address vendor-id device-id subsystem-vendor-id
 *                                                   subsystem-device-id class-code interface translation
 *                                                   address-space: where attached, <iommufd ioas>
 *                                                   address-space-hwpt: where attached to an HWPT of that IOAS
 *                                                   serial reset-methods bars capabilities interrupts-enabled:
 *                                                   where known
 *       driver-<address>       iommufd,driver-v1    device
 *         state                the driver's own     the driver's own, nodes below it as well
 *       iommufd-<id>           iommufd,iommufd-v1   id
 *                                                   rlimit-mode: "process", where it is not the user's
 *         ioas-<id>            iommufd,ioas-v1      id allowed-iovas
 *                                                   mapping-arenas mapping-count mapping-crc32c mappings
 *                                                   no-huge-pages: empty, where huge pages are off
 *           hwpt-<id>          iommufd,hwpt-v1      id flags device
 *       session-<n>            iommufd,session-v1   label token-purposes tokens
 *
 * Numbers are cells: one for ids, counts, classes and checksums, two for sizes, tokens, serials and addresses. `mappings`
 * and `extents` are packed (assembly/codec/mappings.ts, extents.ts), with the number of rows and the CRC32C of the packed
 * bytes beside them; `bars`, `capabilities` and `interrupts-enabled` are rows of cells (device-lists.ts). `crc32c` of the
 * root is that of the whole state, with its own four bytes 0. Nodes and properties are in order of their names, and
 * records have no other names than these: equal content makes equal bytes.
 *
 * What a reader does not know it keeps and passes on ({@link Kept}): nodes with an unknown `compatible` or none, and
 * unknown properties. Not so what is required: a node with an empty property `required` must be understood by whoever
 * reads the state, and where `required` lists strings, so must the properties and nodes of these names in that node.
 *
 * So records may come to say more without a new version, where it can be done without. What those of version 1 did not
 * say at first is what they need not say: of an arena `place` and `place-iova`; of a device `address-space-hwpt`,
 * `serial`, `reset-methods`, `bars`, `capabilities` and `interrupts-enabled`; of an iommufd `rlimit-mode`; of an IOAS
 * `no-huge-pages` and its HWPTs.
 *
 * @module
 */
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
} from '../../../bindings/uapi/iommufd.js';
import type { Iova, IovaRange } from '../../address.js';
import type { Translation } from '../../iommufd/ioas.js';
import type { RlimitMode } from '../../iommufd/iommufd.js';
import type { PageSize } from '../../memory/memfd.js';
import type { PciAddress } from '../../pci/address.js';
import type { BarShape, PciIdentity } from '../../pci/identity.js';
import type { PciCapability } from '../../vfio/config-space.js';
import type { InterruptKind } from '../../vfio/interrupts.js';
import type { ExtentTable } from './extent-table.js';
import type { FdtNode } from './fdt.js';
import type { MappingTable } from './mapping-table.js';

/** What was found in a record, is not understood here, and is not required: written back as it was. */
export interface Kept {
  readonly properties: ReadonlyMap<string, Uint8Array>;
  readonly nodes: readonly FdtNode[];
}

/** DMA memory. */
export interface SavedArena {
  /** By which it is known in all of the state, and in a live-update session. */
  readonly token: bigint;
  /** In bytes, a multiple of the page size. */
  readonly size: number;
  readonly pageSize: PageSize;
  /** Of its memfd. */
  readonly name: string;
  /** Where it lies in physical memory, for devices without IOMMU. */
  readonly extents?: ExtentTable;
  /** The mapping of all of it that it is known by, and that device addresses are counted from: ids of the state. */
  readonly place?: { readonly iommufd: number; readonly ioas: number; readonly iova: Iova };
  readonly kept?: Kept;
}

/** The mappings of an IOAS: in a table, or piece by piece in ascending order, all with the same list of arenas. */
export type MappingSource = MappingTable | Iterable<MappingTable>;

/** A page table that was made on purpose, rather than by the kernel at an attach. */
export interface SavedHwpt {
  /** Chosen by whoever saves, unique in its IOAS, from 0 to 2^32-1. */
  readonly id: number;
  /** `IOMMU_HWPT_ALLOC_*`: of NEST_PARENT, DIRTY_TRACKING and PASID. */
  readonly flags: number;
  /** For which it was made, from its IOAS: a device of the state. */
  readonly device: PciAddress;
  readonly kept?: Kept;
}

/** An I/O address space. */
export interface SavedIoas<Mappings = MappingTable> {
  /** Chosen by whoever saves, unique in its iommufd, from 0 to 2^32-1. It is not the kernel's. */
  readonly id: number;
  /** IOVAs that mappings are restricted to, ascending and disjoint; none when they are not restricted. */
  readonly allowed: readonly IovaRange[];
  readonly mappings: Mappings;
  /** None when absent. */
  readonly hwpts?: readonly SavedHwpt[];
  /** That pages must not be joined to huge ones; the kernel's default, that they may, when absent. */
  readonly hugePages?: false;
  readonly kept?: Kept;
}

/** An iommufd context. */
export interface SavedIommufd<Mappings = MappingTable> {
  /** Chosen by whoever saves, unique in the state, from 0 to 2^32-1. */
  readonly id: number;
  readonly ioases: readonly SavedIoas<Mappings>[];
  /** The kernel's default, `User`, when absent. */
  readonly rlimitMode?: RlimitMode;
  readonly kept?: Kept;
}

/** A base address register of a device: what must be the same wherever its registers lie next. */
export type SavedBar = BarShape;

/** Interrupts of one kind that are enabled: vectors 0 to `count` - 1. */
export interface SavedInterrupts {
  readonly kind: InterruptKind;
  readonly count: number;
}

/** A device, and how it was used. */
export interface SavedDevice extends PciIdentity {
  /** Through which it was opened: its own file, or group and container. */
  readonly interface: 'cdev' | 'legacy';
  readonly translation: Translation;
  /** The address space it was attached to, through an HWPT of it or without one: ids of the state. */
  readonly addressSpace?: { readonly iommufd: number; readonly ioas: number; readonly hwpt?: number };
  /** In the order of its lists. */
  readonly capabilities?: readonly PciCapability[];
  /**
   * How the kernel might reset it before it was kept, as sysfs `reset_method` has it: names in order of preference, a
   * space between two; empty when it might not.
   */
  readonly resetMethods?: string;
  /** At most one of INTx, MSI and MSI-X; in any order. */
  readonly interrupts?: readonly SavedInterrupts[];
  readonly kept?: Kept;
}

/** A live-update session, and the tokens in it. */
export interface SavedSession {
  /** 1 to 63 bytes of UTF-8. */
  readonly name: string;
  /** By purpose. */
  readonly tokens: ReadonlyMap<string, bigint>;
  readonly kept?: Kept;
}

/** What the driver of a device needs to go on. */
export interface SavedDriver {
  readonly device: PciAddress;
  /** Type and version of what follows, such as `'nvme-v1'`. */
  readonly compatible: string;
  /** Any but `compatible`. */
  readonly properties: ReadonlyMap<string, Uint8Array>;
  readonly children: readonly FdtNode[];
  readonly kept?: Kept;
}

/** A saved state. The order of its records says nothing. */
export interface State<Mappings = MappingTable> {
  readonly arenas: readonly SavedArena[];
  readonly iommufds: readonly SavedIommufd<Mappings>[];
  readonly devices: readonly SavedDevice[];
  readonly sessions: readonly SavedSession[];
  readonly drivers: readonly SavedDriver[];
  readonly kept?: Kept;
}

/** The types of records, with the one version of each that is written and understood. */
export const RecordType = {
  State: 'iommufd,state-v1',
  Arena: 'iommufd,arena-v1',
  Iommufd: 'iommufd,iommufd-v1',
  Ioas: 'iommufd,ioas-v1',
  Hwpt: 'iommufd,hwpt-v1',
  Device: 'iommufd,device-v1',
  Driver: 'iommufd,driver-v1',
  Session: 'iommufd,session-v1',
} as const;
export type RecordType = (typeof RecordType)[keyof typeof RecordType];

/** Longest value of a property that is not packed and not the driver's own, in bytes. */
export const MAX_VALUE = 2 ** 20;

/** What {@link SavedHwpt.flags} may have: what asks for nothing else that would have to be saved. */
export const HWPT_FLAGS =
  IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_ALLOC_PASID;

/** Whether a text can be {@link SavedDevice.resetMethods}: it will be written to sysfs. */
export function isResetMethods(text: string): boolean {
  return text.length <= 255 && /^(?:[a-z0-9_]+(?: [a-z0-9_]+)*)?$/.test(text);
}

/** A `compatible` taken apart, `undefined` where it does not end in `-vN`. */
export function typeAndVersion(compatible: string): { type: string; version: string } | undefined {
  const match = /^(.*)-v([0-9]+)$/s.exec(compatible);
  return match ? { type: match[1] as string, version: match[2] as string } : undefined;
}

/** Names of nodes; those of PCI addresses cannot have colons. */
export const nodeName = {
  arena: (token: bigint): string => `arena-${token.toString(16)}`,
  iommufd: (id: number): string => `iommufd-${id}`,
  ioas: (id: number): string => `ioas-${id}`,
  hwpt: (id: number): string => `hwpt-${id}`,
  device: (address: PciAddress): string => `device-${address.replaceAll(':', '-')}`,
  driver: (address: PciAddress): string => `driver-${address.replaceAll(':', '-')}`,
  /** @param index of the session, in order of names */
  session: (index: number): string => `session-${index}`,
} as const;
