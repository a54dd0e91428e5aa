// What the golden files in test/golden hold. `node dist/test/support/golden-states.js` writes those that are missing: a
// new version of a record gets a new file, and a file that exists is never written again.
import { existsSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Iova, PhysicalAddress } from '../../src/address.js';
import { RlimitMode } from '../../src/iommufd/iommufd.js';
import { AreaTable } from '../../src/keepalive/state/area-table.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import { ExtentTable } from '../../src/keepalive/state/extent-table.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { MappingTable, type SavedMapping } from '../../src/keepalive/state/mapping-table.js';
import { exportRfc, type RfcState } from '../../src/keepalive/state/rfc.js';
import type { State } from '../../src/keepalive/state/saved-state.js';
import { PageSize } from '../../src/memory/memfd.js';
import { pciAddress } from '../../src/pci/address.js';
import { InterruptKind } from '../../src/vfio/interrupts.js';

const { u32, u64, string } = FdtValue;
const MiB = 2 ** 20;

const empty: State = { arenas: [], iommufds: [], devices: [], sessions: [], drivers: [] };

function mappings(...list: (Omit<SavedMapping, 'iova'> & { iova: bigint })[]): MappingTable {
  const table = new MappingTable();
  for (const mapping of list) table.push({ ...mapping, iova: mapping.iova as Iova });
  return table;
}

function extents(...list: [offset: number, address: bigint, length: number][]): ExtentTable {
  const table = new ExtentTable();
  for (const [offset, address, length] of list)
    table.push({ offset, address: address as PhysicalAddress, length });
  return table;
}

const arenas: State['arenas'] = [
  { token: 1n, size: 64 * MiB, pageSize: PageSize.Huge2M, name: 'queues' },
  { token: 0xfedc_ba98_7654_3210n, size: 2 * MiB, pageSize: PageSize.Small, name: 'data ä' },
];

const device: State['devices'][number] = {
  address: pciAddress('0000:00:04.0'),
  vendorId: 0x1b36,
  deviceId: 0x0010,
  subsystemVendorId: 0x1af4,
  subsystemDeviceId: 0x1100,
  classCode: 0x010802,
  interface: 'cdev',
  translation: 'none',
};

const ioas: State['iommufds'][number]['ioases'][number] = {
  id: 0,
  allowed: [{ first: 0n as Iova, last: 0xfedf_ffffn as Iova }],
  mappings: new MappingTable(),
};

const each: Readonly<Record<string, State>> = {
  'state-v1': empty,
  'arena-v1': {
    ...empty,
    arenas: [
      ...arenas,
      {
        token: 2n,
        size: 8 * MiB,
        pageSize: PageSize.Small,
        name: '',
        extents: extents(
          [0, 0x1_0000_0000n, 4096],
          [4096, 0x1_0000_1000n, 3 * 4096],
          [4 * 4096, 0x4000n, 2 * MiB],
          [4 * MiB, 0xffff_ffff_ffff_f000n, 4096],
        ),
      },
    ],
  },
  'iommufd-v1': {
    ...empty,
    iommufds: [
      { id: 0, ioases: [] },
      { id: 0xffff_ffff, ioases: [] },
    ],
  },
  'ioas-v1': {
    ...empty,
    arenas,
    iommufds: [
      {
        id: 7,
        ioases: [
          ioas,
          {
            id: 12,
            allowed: [],
            mappings: mappings(
              { iova: 0x10000n, length: 4096, arena: 0xfedc_ba98_7654_3210n, offset: 0 },
              { iova: 0x11000n, length: 65536, arena: 0xfedc_ba98_7654_3210n, offset: 4096 },
              { iova: 0x21000n, length: 2 * MiB, arena: 1n, offset: 4 * MiB, writeable: false },
              { iova: 0x221000n, length: 3 * 4096, arena: 1n, offset: 4096, readable: false },
              { iova: 0xffff_ffff_fe00_0000n, length: 32 * MiB, arena: 1n, offset: 32 * MiB },
            ),
          },
        ],
      },
    ],
  },
  'device-v1': {
    ...empty,
    iommufds: [{ id: 1, ioases: [ioas] }],
    devices: [
      { ...device, translation: 'iommu', addressSpace: { iommufd: 1, ioas: 0 } },
      { ...device, address: pciAddress('10000:ff:1f.7'), interface: 'legacy' },
    ],
  },
  'driver-v1': {
    ...empty,
    devices: [device],
    drivers: [
      {
        device: device.address,
        compatible: 'nvme-v1',
        properties: new Map([
          ['doorbell-stride', u32(4)],
          ['serial', string('S3RI4L')],
        ]),
        children: [
          {
            name: 'queue-1',
            properties: new Map([
              ['submission-queue', u64(0x20_0000n)],
              ['phase', u32(1)],
            ]),
            children: [],
          },
        ],
      },
    ],
  },
  'session-v1': {
    ...empty,
    sessions: [
      {
        name: 'iommufd',
        tokens: new Map([
          ['arena 1', 1n],
          ['state', 0xffff_ffff_ffff_ffffn],
        ]),
      },
      { name: 'a', tokens: new Map() },
    ],
  },
  kept: {
    ...empty,
    devices: [{ ...device, kept: { properties: new Map([['slot', string('3')]]), nodes: [] } }],
    kept: {
      properties: new Map([['generation', u32(9)]]),
      nodes: [
        {
          name: 'fault-queue-0',
          properties: new Map([['compatible', string('iommufd,fault-queue-v1')]]),
          children: [{ name: 'pending', properties: new Map(), children: [] }],
        },
      ],
    },
  },
};

/** What records of version 1 came to say later. */
const later: Readonly<Record<string, State>> = {
  'arena-v1-place': {
    ...empty,
    arenas: arenas.slice(0, 1).map(arena => ({
      ...arena,
      place: { iommufd: 1, ioas: 0, iova: 0x8000_0000_0000_0000n as Iova },
    })),
    iommufds: [{ id: 1, ioases: [ioas] }],
  },
  'iommufd-v1-rlimit': { ...empty, iommufds: [{ id: 3, ioases: [], rlimitMode: RlimitMode.Process }] },
  'hwpt-v1': {
    ...empty,
    iommufds: [
      {
        id: 1,
        ioases: [
          {
            ...ioas,
            hugePages: false,
            hwpts: [
              { id: 0, flags: 0, device: device.address },
              { id: 0xffff_ffff, flags: 0xb, device: device.address },
            ],
          },
        ],
      },
    ],
    devices: [
      {
        ...device,
        translation: 'iommu',
        addressSpace: { iommufd: 1, ioas: 0, hwpt: 0xffff_ffff },
      },
    ],
  },
  'device-v1-details': {
    ...empty,
    devices: [
      {
        ...device,
        serial: 0x0123_4567_89ab_cdefn,
        bars: [
          { index: 0, size: 0x4000n, kind: 'memory64', prefetchable: false },
          { index: 2, size: 2n ** 36n, kind: 'memory64', prefetchable: true },
          { index: 4, size: 32n, kind: 'io', prefetchable: false },
          { index: 5, size: 0x8000_0000n, kind: 'memory32', prefetchable: false },
        ],
        capabilities: [
          { id: 0x11, offset: 0x40, extended: false, version: 0 },
          { id: 0x10, offset: 0x80, extended: false, version: 0 },
          { id: 0x01, offset: 0x60, extended: false, version: 0 },
          { id: 0x03, offset: 0x100, extended: true, version: 1 },
        ],
        resetMethods: 'flr bus',
        interrupts: [
          { kind: InterruptKind.Msix, count: 65 },
          { kind: InterruptKind.Request, count: 1 },
        ],
      },
      {
        ...device,
        address: pciAddress('0000:00:05.0'),
        bars: [],
        capabilities: [],
        resetMethods: '',
        interrupts: [],
      },
    ],
  },
};

const extentArena = each['arena-v1']?.arenas[2] as State['arenas'][number];

/** By the name of the file, without its extension. */
export const goldenStates: Readonly<Record<string, State>> = {
  ...each,
  ...later,
  everything: {
    arenas: [...arenas, extentArena],
    iommufds: each['ioas-v1']?.iommufds ?? [],
    devices: [
      ...(each.kept?.devices ?? []),
      { ...device, address: pciAddress('0000:00:05.0'), addressSpace: { iommufd: 7, ioas: 12 } },
    ],
    sessions: each['session-v1']?.sessions ?? [],
    drivers: each['driver-v1']?.drivers ?? [],
    ...(each.kept?.kept && { kept: each.kept.kept }),
  },
};

function areas(...list: [iova: bigint, length: bigint, prot: number][]): AreaTable {
  const table = new AreaTable();
  for (const [iova, length, prot] of list) table.push({ iova: iova as Iova, length, prot });
  return table;
}

/**
 * `everything.dtb` as dtc 1.6.1 writes it from its own source, with a checksum that is right again:
 * `dtc -I dtb -O dts everything.dtb | dtc -I dts -O dtb -V 16 -R 1 -p 60`. It has another order of blocks and strings,
 * a version without the size of the structure, and bytes behind the last block.
 */
export const FROM_DTC = 'dtc';

/** `rfc.dtb` */
export const goldenRfc: RfcState = {
  iommufds: [
    { id: 1, ioases: [] },
    {
      id: 2,
      ioases: [
        {
          id: 3,
          mappings: areas(
            [0x1000n, 0x1000n, 7],
            [0x2000n, 0x1001n, 5],
            [0xffff_ffff_ffff_f000n, 0x1000n, 0x3f],
          ),
        },
        { id: 11, mappings: areas() },
      ],
    },
  ],
};

// The sources are not compiled to dist/, they lie beside this file's own source.
export const goldenFile = (name: string): string =>
  fileURLToPath(new URL(`../../../test/golden/${name}.dtb`, import.meta.url));

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const write = (name: string, bytes: Uint8Array): void => {
    if (!existsSync(goldenFile(name))) writeFileSync(goldenFile(name), bytes);
  };
  for (const [name, state] of Object.entries(goldenStates)) write(name, encodeState(state));
  write('rfc', exportRfc(goldenRfc));
}
