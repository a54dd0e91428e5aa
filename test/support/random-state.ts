/** Random saved states: every kind of record, any order, what is kept as well. @module */
import type { Iova, PhysicalAddress } from '../../src/address.js';
import { RlimitMode } from '../../src/iommufd/iommufd.js';
import { ExtentTable } from '../../src/keepalive/state/extent-table.js';
import type { FdtNode } from '../../src/keepalive/state/fdt.js';
import { MappingTable } from '../../src/keepalive/state/mapping-table.js';
import type {
  Kept,
  SavedArena,
  SavedBar,
  SavedDevice,
  SavedHwpt,
  SavedInterrupts,
  SavedIoas,
  State,
} from '../../src/keepalive/state/saved-state.js';
import { PageSize } from '../../src/memory/memfd.js';
import type { PciAddress } from '../../src/pci/address.js';
import type { PciCapability } from '../../src/vfio/config-space.js';
import { InterruptKind } from '../../src/vfio/interrupts.js';
import type { Random } from './random.js';

const PAGE = 4096;

const chance = (random: Random, percent: number): boolean => random.below(100) < percent;

function bits(random: Random, count: number): bigint {
  let value = 0n;
  for (let have = 0; have < count; have += 16) value = (value << 16n) | BigInt(random.below(0x10000));
  return BigInt.asUintN(count, value);
}

function pick<T>(random: Random, values: readonly T[]): T {
  return values[random.below(values.length)] as T;
}

function randomBytes(random: Random, limit: number): Uint8Array {
  return Uint8Array.from({ length: random.below(limit + 1) }, () => random.below(256));
}

const nameCharacters = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,._+-';

function randomName(random: Random, prefix: string): string {
  const length = chance(random, 2) ? 200 : random.below(12);
  return prefix + Array.from({ length }, () => pick(random, [...nameCharacters])).join('');
}

function randomProperties(random: Random, limit: number): Map<string, Uint8Array> {
  return new Map(
    Array.from({ length: random.below(limit + 1) }, (_, index) => [
      randomName(random, `x${index}`),
      randomBytes(random, chance(random, 5) ? 5000 : 20),
    ]),
  );
}

export function randomNode(random: Random, name: string, depth: number): FdtNode {
  const children = depth === 0 ? 0 : random.below(4);
  return {
    name,
    properties: randomProperties(random, 4),
    children: Array.from({ length: children }, (_, index) =>
      randomNode(random, randomName(random, `n${index}`), depth - 1),
    ),
  };
}

function randomKept(random: Random): { kept?: Kept } {
  if (!chance(random, 20)) return {};
  const properties = randomProperties(random, 3);
  const nodes = Array.from({ length: random.below(3) }, (_, index) =>
    randomNode(random, randomName(random, `k${index}`), 2),
  );
  return properties.size + nodes.length > 0 ? { kept: { properties, nodes } } : {};
}

/** Pages of a mapping or extent: mostly powers of two, as page tables and allocators have it. */
function randomPages(random: Random): number {
  if (chance(random, 70)) return 2 ** random.below(10);
  return chance(random, 90) ? 1 + random.below(5000) : 2 ** (14 + random.below(4)) + random.below(2);
}

export function randomMappings(random: Random, arenas: readonly SavedArena[], count: number): MappingTable {
  const table = new MappingTable();
  if (arenas.length === 0) return table;
  const ends = new Map<bigint, number>();
  let page = chance(random, 50) ? random.below(1000) : Number(bits(random, 52));
  let arena = pick(random, arenas);
  let access = 3;
  for (let index = 0; index < count; index++) {
    if (chance(random, 15)) arena = pick(random, arenas);
    if (chance(random, 15)) page += 1 + (chance(random, 80) ? random.below(4096) : Number(bits(random, 40)));
    if (chance(random, 5)) access = 1 + random.below(3);
    const arenaPages = arena.size / PAGE;
    const pages = Math.min(randomPages(random), arenaPages);
    let offset = ends.get(arena.token) ?? 0;
    if (chance(random, 10) || offset + pages > arenaPages) {
      offset = Math.floor((random.below(2 ** 30) / 2 ** 30) * (arenaPages - pages + 1));
    }
    if (page + pages > 2 ** 52) break;
    table.push({
      iova: (BigInt(page) << 12n) as Iova,
      length: pages * PAGE,
      arena: arena.token,
      offset: offset * PAGE,
      readable: (access & 1) !== 0,
      writeable: (access & 2) !== 0,
    });
    ends.set(arena.token, offset + pages);
    page += pages;
  }
  return table;
}

export function randomExtents(random: Random, size: number, count: number): ExtentTable {
  const table = new ExtentTable();
  let offset = 0;
  let address = bits(random, 48) & ~0xfffn;
  for (let index = 0; index < count; index++) {
    if (chance(random, 10)) offset += PAGE * (1 + random.below(100));
    if (chance(random, 60)) address = bits(random, chance(random, 90) ? 40 : 64) & ~0xfffn;
    const length = randomPages(random) * PAGE;
    if (offset + length > size || address + BigInt(length) > 2n ** 64n) break;
    table.push({ offset, address: address as PhysicalAddress, length });
    offset += length;
    address += BigInt(length);
  }
  return table;
}

function randomBars(random: Random): SavedBar[] {
  const bars: SavedBar[] = [];
  for (let index = 0; index < 6; index++) {
    if (chance(random, 50)) continue;
    const kind = pick(random, ['io', 'memory32', ...(index < 5 ? (['memory64'] as const) : [])] as const);
    bars.push({
      index,
      size: 1n << BigInt(random.below(kind === 'memory64' ? 64 : 32)),
      kind,
      prefetchable: kind !== 'io' && chance(random, 50),
    });
    if (kind === 'memory64') index++;
  }
  return random.shuffle(bars);
}

/** Their order says something: it stays. */
function randomCapabilities(random: Random): PciCapability[] {
  const offsets = (first: number, count: number): number[] => [
    ...new Set(Array.from({ length: random.below(6) }, () => first + 4 * random.below(count))),
  ];
  return [
    ...offsets(0x40, 48).map(offset => ({ id: random.below(0x100), offset, extended: false, version: 0 })),
    ...offsets(0x100, 960).map(offset => ({
      id: random.below(0x10000),
      offset,
      extended: true,
      version: random.below(16),
    })),
  ];
}

function randomInterrupts(random: Random): SavedInterrupts[] {
  const { Intx, Msi, Msix, Error: AnError, Request } = InterruptKind;
  const each: SavedInterrupts[] = [
    { kind: AnError, count: 1 },
    { kind: Request, count: 1 },
    pick(random, [
      { kind: Intx, count: 1 },
      { kind: Msi, count: 1 + random.below(32) },
      { kind: Msix, count: 1 + random.below(2048) },
    ]),
  ];
  return random.shuffle(each.filter(() => chance(random, 50)));
}

/** What a device may say of itself beyond what it must. */
function randomDetails(random: Random): Partial<SavedDevice> {
  return {
    ...(chance(random, 30) && { serial: bits(random, 64) }),
    ...(chance(random, 50) && { bars: randomBars(random) }),
    ...(chance(random, 50) && { capabilities: randomCapabilities(random) }),
    ...(chance(random, 50) && { resetMethods: pick(random, ['', 'flr', 'device_specific flr bus']) }),
    ...(chance(random, 50) && { interrupts: randomInterrupts(random) }),
  };
}

/** @param rows mappings and extents in all, at most about so many */
export function randomState(random: Random, rows: number): State {
  const tokens = new Set<bigint>();
  for (let count = random.below(5); tokens.size < count; )
    tokens.add(bits(random, pick(random, [4, 16, 64])));
  const arenas = [...tokens].map((token): SavedArena => {
    const pageSize = pick(random, Object.values(PageSize));
    const size = pageSize * (1 + random.below(pageSize === PAGE ? 1_000_000 : 5000));
    return {
      token,
      size,
      pageSize,
      name: pick(random, ['iommufd', '', 'ö€😀', 'a b']),
      ...(chance(random, 30) && { extents: randomExtents(random, size, random.below(rows + 1)) }),
      ...randomKept(random),
    };
  });
  const ids = (count: number): number[] => [
    ...new Set(Array.from({ length: count }, () => random.below(2 ** random.below(33)))),
  ];
  const iommufdIds = ids(random.below(3));
  const hexDigits = (value: number, width: number): string => value.toString(16).padStart(width, '0');
  const addresses = new Set(
    Array.from({ length: random.below(4) }, () => {
      const domain = hexDigits(chance(random, 80) ? 0 : random.below(2 ** 32), 4);
      const slot = hexDigits(random.below(32), 2);
      return `${domain}:${hexDigits(random.below(256), 2)}:${slot}.${random.below(8)}` as PciAddress;
    }),
  );
  // A device is in one iommufd, or in none.
  const places = new Map(
    [...addresses].map(address => [address, iommufdIds.length > 0 ? pick(random, iommufdIds) : undefined]),
  );
  const randomHwpts = (iommufd: number): SavedHwpt[] =>
    [...places]
      .filter(([, place]) => place === iommufd && chance(random, 40))
      .flatMap(([device]) => ids(random.below(3)).map(id => ({ id, device })))
      .filter(({ id }, index, all) => all.findIndex(other => other.id === id) === index)
      .map(hwpt => ({ ...hwpt, flags: pick(random, [0, 1, 2, 8, 11]), ...randomKept(random) }));
  const iommufds = iommufdIds.map(id => ({
    id,
    ioases: ids(random.below(4)).map((ioasId): SavedIoas => {
      const hwpts = randomHwpts(id);
      return {
        id: ioasId,
        allowed: randomRanges(random),
        mappings: randomMappings(random, arenas, random.below(rows + 1)),
        ...(hwpts.length > 0 && { hwpts }),
        ...(chance(random, 20) && { hugePages: false as const }),
        ...randomKept(random),
      };
    }),
    ...(chance(random, 20) && { rlimitMode: RlimitMode.Process }),
    ...randomKept(random),
  }));
  /** An IOAS, or an HWPT of it, that the device can be attached to. */
  const randomSpace = (address: PciAddress): Pick<SavedDevice, 'addressSpace'> => {
    const iommufd = iommufds.find(({ id }) => id === places.get(address));
    if (iommufd === undefined || iommufd.ioases.length === 0) return {};
    const ioas = pick(random, iommufd.ioases);
    const hwpt = ioas.hwpts && chance(random, 60) ? { hwpt: pick(random, ioas.hwpts).id } : {};
    return { addressSpace: { iommufd: iommufd.id, ioas: ioas.id, ...hwpt } };
  };
  const devices = [...addresses].map(address => ({
    address,
    vendorId: random.below(0x10000),
    deviceId: random.below(0x10000),
    subsystemVendorId: random.below(0x10000),
    subsystemDeviceId: random.below(0x10000),
    classCode: random.below(0x100_0000),
    interface: pick(random, ['cdev', 'legacy'] as const),
    translation: pick(random, ['iommu', 'none'] as const),
    ...(chance(random, 70) && randomSpace(address)),
    ...randomDetails(random),
    ...randomKept(random),
  }));
  const drivers = devices
    .filter(() => chance(random, 70))
    .map(({ address }) => ({
      device: address,
      compatible: pick(random, ['nvme-v1', 'edu-v3', 'iommufd,ioas-v1', 'x']),
      properties: randomProperties(random, 5),
      children: randomNode(random, 'x', 2).children,
      ...randomKept(random),
    }));
  const sessions = Array.from({ length: random.below(3) }, (_, index) => ({
    name: `${pick(random, ['s', 'vm ö', 'b'])}${index}`,
    tokens: new Map(
      [...new Set(Array.from({ length: random.below(4) }, () => bits(random, 64)))].map((token, index) => [
        `purpose ${index}`,
        token,
      ]),
    ),
    ...randomKept(random),
  }));
  /** Where the arena has a mapping of its own. */
  const randomPlace = (): Pick<SavedArena, 'place'> => {
    const iommufd = iommufds.length > 0 ? pick(random, iommufds) : undefined;
    if (iommufd === undefined || iommufd.ioases.length === 0) return {};
    const at = (bits(random, 64) & ~0xfffn) as Iova;
    return { place: { iommufd: iommufd.id, ioas: pick(random, iommufd.ioases).id, iova: at } };
  };
  return {
    arenas: random.shuffle(arenas.map(arena => ({ ...arena, ...(chance(random, 50) && randomPlace()) }))),
    iommufds: random.shuffle(iommufds),
    devices: random.shuffle(devices),
    drivers: random.shuffle(drivers),
    sessions: random.shuffle(sessions),
    ...randomKept(random),
  };
}

function randomRanges(random: Random): { first: Iova; last: Iova }[] {
  const bounds = [...new Set(Array.from({ length: 2 * random.below(4) }, () => bits(random, 64)))].sort(
    (a, b) => (a < b ? -1 : 1),
  );
  const ranges: { first: Iova; last: Iova }[] = [];
  for (let index = 0; index + 1 < bounds.length; index += 2) {
    ranges.push({ first: bounds[index] as Iova, last: bounds[index + 1] as Iova });
  }
  return ranges;
}

/** A state in one form for comparing: order of records says nothing, tables become lists. */
export function plain(state: State): unknown {
  const sort = <T>(items: readonly T[], key: (item: T) => string | number | bigint): T[] =>
    items.toSorted((a, b) => (key(a) < key(b) ? -1 : 1));
  const keptOf = (kept: Kept | undefined): unknown =>
    kept && {
      properties: plainProperties(kept.properties),
      nodes: sort(kept.nodes, node => node.name).map(plainNode),
    };
  const plainNode = (node: FdtNode): unknown => ({
    name: node.name,
    properties: plainProperties(node.properties),
    children: sort(node.children, child => child.name).map(plainNode),
  });
  return {
    arenas: sort(state.arenas, arena => arena.token).map(arena => ({
      ...arena,
      extents: arena.extents && [...arena.extents],
      kept: keptOf(arena.kept),
    })),
    iommufds: sort(state.iommufds, iommufd => iommufd.id).map(iommufd => ({
      ...iommufd,
      ioases: sort(iommufd.ioases, ioas => ioas.id).map(ioas => ({
        ...ioas,
        mappings: [...ioas.mappings],
        hwpts:
          ioas.hwpts && sort(ioas.hwpts, hwpt => hwpt.id).map(hwpt => ({ ...hwpt, kept: keptOf(hwpt.kept) })),
        kept: keptOf(ioas.kept),
      })),
      kept: keptOf(iommufd.kept),
    })),
    devices: sort(state.devices, device => device.address).map(device => ({
      ...device,
      bars: device.bars && sort(device.bars, bar => bar.index),
      interrupts: device.interrupts && sort(device.interrupts, item => item.kind),
      kept: keptOf(device.kept),
    })),
    drivers: sort(state.drivers, driver => driver.device).map(driver => ({
      ...driver,
      properties: plainProperties(driver.properties),
      children: sort(driver.children, child => child.name).map(plainNode),
      kept: keptOf(driver.kept),
    })),
    sessions: sort(state.sessions, session => session.name).map(session => ({
      ...session,
      tokens: [...session.tokens].sort(([a], [b]) => (a < b ? -1 : 1)),
      kept: keptOf(session.kept),
    })),
    kept: keptOf(state.kept),
  };
}

function plainProperties(properties: ReadonlyMap<string, Uint8Array>): unknown {
  return [...properties]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}=${Buffer.from(value).toString('hex')}`);
}
