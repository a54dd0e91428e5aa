/**
 * What a saved state says: what to rebuild after the driver's process, or the kernel under it, was replaced. It is
 * intent, without object ids and descriptors of the kernel. These types are apart from those at run time.
 *
 * A state is a flattened device tree. Each record is a node; its `compatible` names its type and version, and only that
 * version is understood:
 *
 *     /                        iommufd,state-v1     crc32c
 *       arena-<token>          iommufd,arena-v1     token size page-size label
 *                                                   extent-count extent-crc32c extents: with physical addresses only
 *       device-<address>       iommufd,device-v1    address vendor-id device-id subsystem-vendor-id
 *                                                   subsystem-device-id class-code interface translation
 *                                                   address-space: where attached, <iommufd ioas>
 *       driver-<address>       iommufd,driver-v1    device
 *         state                the driver's own     the driver's own, nodes below it as well
 *       iommufd-<id>           iommufd,iommufd-v1   id
 *         ioas-<id>            iommufd,ioas-v1      id allowed-iovas
 *                                                   mapping-arenas mapping-count mapping-crc32c mappings
 *       session-<n>            iommufd,session-v1   label token-purposes tokens
 *
 * Numbers are cells: one for ids, counts, classes and checksums, two for sizes, tokens and addresses. `mappings` and
 * `extents` are packed (assembly/codec/mappings.ts, extents.ts), with the number of rows and the CRC32C of the packed
 * bytes beside them; `crc32c` of the root is that of the whole state, with its own four bytes 0. Nodes and properties are
 * in order of their names, and records have no other names than these: equal content makes equal bytes.
 *
 * What a reader does not know it keeps and passes on ({@link Kept}): nodes with an unknown `compatible` or none, and
 * unknown properties. Not so what is required: a node with an empty property `required` must be understood by whoever
 * reads the state, and where `required` lists strings, so must the properties and nodes of these names in that node.
 *
 * @module
 */
import type { IovaRange } from '../address.js';
import type { Translation } from '../iommufd/ioas.js';
import type { PageSize } from '../memory/memfd.js';
import type { PciAddress } from '../pci/address.js';
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
  readonly kept?: Kept;
}

/** The mappings of an IOAS: in a table, or piece by piece in ascending order, all with the same list of arenas. */
export type MappingSource = MappingTable | Iterable<MappingTable>;

/** An I/O address space. */
export interface SavedIoas<Mappings = MappingTable> {
  /** Chosen by whoever saves, unique in its iommufd, from 0 to 2^32-1. It is not the kernel's. */
  readonly id: number;
  /** IOVAs that mappings are restricted to, ascending and disjoint; none when they are not restricted. */
  readonly allowed: readonly IovaRange[];
  readonly mappings: Mappings;
  readonly kept?: Kept;
}

/** An iommufd context. */
export interface SavedIommufd<Mappings = MappingTable> {
  /** Chosen by whoever saves, unique in the state, from 0 to 2^32-1. */
  readonly id: number;
  readonly ioases: readonly SavedIoas<Mappings>[];
  readonly kept?: Kept;
}

/** A device, and how it was used. */
export interface SavedDevice {
  readonly address: PciAddress;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly subsystemVendorId: number;
  readonly subsystemDeviceId: number;
  /** Base class, subclass and programming interface. */
  readonly classCode: number;
  /** Through which it was opened: its own file, or group and container. */
  readonly interface: 'cdev' | 'legacy';
  readonly translation: Translation;
  /** The address space it was attached to: ids of the state. */
  readonly addressSpace?: { readonly iommufd: number; readonly ioas: number };
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
  Device: 'iommufd,device-v1',
  Driver: 'iommufd,driver-v1',
  Session: 'iommufd,session-v1',
} as const;
export type RecordType = (typeof RecordType)[keyof typeof RecordType];

/** Longest value of a property that is not packed and not the driver's own, in bytes. */
export const MAX_VALUE = 2 ** 20;

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
  device: (address: PciAddress): string => `device-${address.replaceAll(':', '-')}`,
  driver: (address: PciAddress): string => `driver-${address.replaceAll(':', '-')}`,
  /** @param index of the session, in order of names */
  session: (index: number): string => `session-${index}`,
} as const;

/** Finds what records of a state say about one another that cannot be: calls `refuse` with the first such. */
export function checkReferences(
  state: State<unknown>,
  arenasOf: (ioas: SavedIoas<never>) => readonly bigint[],
  refuse: (record: object, property: string, reason: string) => never,
): void {
  const { arenas, iommufds, devices, sessions, drivers } = state;
  unique(
    arenas,
    arena => arena.token,
    (arena, value) => refuse(arena, 'token', `a second arena has token ${value}`),
  );
  unique(
    iommufds,
    ({ id }) => id,
    (item, value) => refuse(item, 'id', `a second iommufd has id ${value}`),
  );
  const tokens = new Set(arenas.map(arena => arena.token));
  for (const { ioases } of iommufds) {
    unique(
      ioases,
      ({ id }) => id,
      (item, value) => refuse(item, 'id', `a second IOAS has id ${value}`),
    );
    for (const ioas of ioases) {
      let end = -1n;
      for (const { first, last } of ioas.allowed) {
        if (first > last || first <= end) {
          refuse(ioas, 'allowed-iovas', 'ranges must not be empty, and be ascending and disjoint');
        }
        end = last;
      }
      for (const token of arenasOf(ioas as SavedIoas<never>)) {
        if (!tokens.has(token)) refuse(ioas, 'mapping-arenas', `there is no arena with token ${token}`);
      }
    }
  }
  const spaces = new Set(iommufds.flatMap(({ id, ioases }) => ioases.map(ioas => `${id}/${ioas.id}`)));
  unique(
    devices,
    device => device.address,
    (item, value) => refuse(item, 'address', `a second device is ${value}`),
  );
  for (const device of devices) {
    const { addressSpace } = device;
    if (!addressSpace) continue;
    if (!spaces.has(`${addressSpace.iommufd}/${addressSpace.ioas}`)) {
      refuse(
        device,
        'address-space',
        `there is no IOAS ${addressSpace.ioas} in an iommufd ${addressSpace.iommufd}`,
      );
    }
  }
  unique(
    drivers,
    driver => driver.device,
    (item, value) => refuse(item, 'device', `a second driver drives ${value}`),
  );
  const addresses = new Set(devices.map(device => device.address));
  for (const driver of drivers) {
    if (!addresses.has(driver.device)) refuse(driver, 'device', `there is no device ${driver.device}`);
  }
  unique(
    sessions,
    session => session.name,
    (item, value) => refuse(item, 'label', `a second session is named ${value}`),
  );
  for (const session of sessions) {
    unique(
      [...session.tokens],
      ([, token]) => token,
      ([purpose, value]) =>
        refuse(session, 'tokens', `token ${value} is there twice, again for ${JSON.stringify(purpose)}`),
    );
  }
}

function unique<T, K>(items: readonly T[], keyOf: (item: T) => K, twice: (item: T, key: K) => void): void {
  const seen = new Set<K>();
  for (const item of items) {
    const key = keyOf(item);
    if (seen.has(key)) twice(item, key);
    seen.add(key);
  }
}
