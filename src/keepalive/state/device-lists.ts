/**
 * Lists in the record of a device. Each is a property of rows, and a row is so many cells:
 *
 *     bars                  <index kind prefetchable size-high size-low>, by index; kind is 1 for I/O, 2 for memory below
 *                           4 GiB, 3 for memory anywhere, as in IEEE 1275 (PCI Bus Binding, ss of phys.hi)
 *     capabilities          <id extended offset version>, in the order of the lists that link them
 *     interrupts-enabled    <kind count>, by kind, which is the index of VFIO
 *
 * @module
 */
import { checkInteger, checkU64 } from '../../check.js';
import { by } from '../../order.js';
import type { PciCapability } from '../../vfio/config-space.js';
import { InterruptKind } from '../../vfio/interrupts.js';
import { nothingMore } from './nothing-more.js';
import type { SavedBar, SavedInterrupts } from './saved-state.js';

/** How items become rows, and rows items. */
export interface DeviceList<Item> {
  readonly property: string;
  /** Cells of a row. */
  readonly width: number;
  /** Rows in order. @throws TypeError, RangeError for what has no cells. */
  rows(items: readonly Item[]): number[][];
  /** What is wrong with rows, if anything is. */
  fault(rows: readonly (readonly number[])[]): string | undefined;
  /** Of rows without fault. */
  items(rows: readonly (readonly number[])[]): Item[];
}

const flag = (value: boolean): number => (value ? 1 : 0);

function ascending(keys: readonly number[]): boolean {
  return keys.every((key, index) => index === 0 || key > (keys[index - 1] as number));
}

const barKinds = [undefined, 'io', 'memory32', 'memory64'] as const satisfies readonly (
  | SavedBar['kind']
  | undefined
)[];
const LAST_BAR = 5;
const IO = 1;
const MEMORY64 = 3;

type BarRow = readonly [index: number, kind: number, prefetchable: number, high: number, low: number];
const barSize = ([, , , high, low]: BarRow): bigint => (BigInt(high) << 32n) | BigInt(low);

export const barList: DeviceList<SavedBar> = {
  property: 'bars',
  width: 5,
  rows: bars =>
    bars.toSorted(by(({ index }) => index)).map(({ index, size, kind, prefetchable, ...rest }) => {
      nothingMore(rest);
      checkInteger('BAR index', index, 0, LAST_BAR);
      const bytes = checkU64('BAR size', size);
      return [
        index,
        barKinds.indexOf(kind),
        flag(prefetchable),
        Number(bytes >> 32n),
        Number(bytes & 0xffff_ffffn),
      ];
    }),
  fault(rows) {
    const bars = rows as readonly BarRow[];
    if (!ascending(bars.map(([index]) => index))) return 'each BAR must be there once, in ascending order';
    for (const [position, bar] of bars.entries()) {
      const [index, kind, prefetchable] = bar;
      const size = barSize(bar);
      if (index > LAST_BAR) return `there is no BAR ${index}`;
      if (barKinds[kind] === undefined) return `BAR ${index} must be of kind io, memory32 or memory64`;
      if (prefetchable > flag(kind !== IO)) return `BAR ${index} cannot be prefetchable in that way`;
      if (size === 0n || (size & (size - 1n)) !== 0n)
        return `the size of BAR ${index} must be a power of two, and is ${size}`;
      if (kind !== MEMORY64 && size >= 2n ** 32n)
        return `BAR ${index} has 32 bits, and cannot be of ${size} bytes`;
      if (kind !== MEMORY64) continue;
      if (index === LAST_BAR || bars[position + 1]?.[0] === index + 1) {
        return `BAR ${index} has 64 bits, and there is no place for its upper half`;
      }
    }
    return undefined;
  },
  items: rows =>
    (rows as readonly BarRow[]).map(bar => ({
      index: bar[0],
      size: barSize(bar),
      kind: barKinds[bar[1]] as SavedBar['kind'],
      prefetchable: bar[2] === 1,
    })),
};

const CONFIG_HEADER = 0x40;
const EXTENDED = 0x100;
const CONFIG_END = 0x1000;

type CapabilityRow = readonly [id: number, extended: number, offset: number, version: number];

export const capabilityList: DeviceList<PciCapability> = {
  property: 'capabilities',
  width: 4,
  rows: capabilities =>
    capabilities.map(({ id, extended, offset, version, ...rest }) => {
      nothingMore(rest);
      return [id, flag(extended), offset, version];
    }),
  fault(rows) {
    const capabilities = rows as readonly CapabilityRow[];
    if (new Set(capabilities.map(([, , offset]) => offset)).size < capabilities.length) {
      return 'two capabilities cannot have the same offset';
    }
    for (const [id, extended, offset, version] of capabilities) {
      if (extended > 1) return `a capability is extended, 1, or not, 0, and here ${extended}`;
      const [first, end] = extended ? [EXTENDED, CONFIG_END] : [CONFIG_HEADER, EXTENDED];
      if (offset < first || offset >= end || offset % 4 !== 0) {
        return `no ${extended ? 'extended ' : ''}capability can be at ${offset}`;
      }
      if (id > (extended ? 0xffff : 0xff)) return `the id of the capability at ${offset} cannot be ${id}`;
      if (version > (extended ? 15 : 0))
        return `the version of the capability at ${offset} cannot be ${version}`;
    }
    return undefined;
  },
  items: rows =>
    (rows as readonly CapabilityRow[]).map(([id, extended, offset, version]) => ({
      id,
      offset,
      extended: extended === 1,
      version,
    })),
};

const { Intx, Msi, Msix, Error: AnError, Request } = InterruptKind;
/** Of a device, by kind. */
const mostVectors: Readonly<Record<number, number>> = {
  [Intx]: 1,
  [Msi]: 32,
  [Msix]: 2048,
  [AnError]: 1,
  [Request]: 1,
};

type InterruptRow = readonly [kind: number, count: number];

export const interruptList: DeviceList<SavedInterrupts> = {
  property: 'interrupts-enabled',
  width: 2,
  rows: interrupts =>
    interrupts.toSorted(by(({ kind }) => kind)).map(({ kind, count, ...rest }) => {
      nothingMore(rest);
      return [kind, count];
    }),
  fault(rows) {
    const interrupts = rows as readonly InterruptRow[];
    if (!ascending(interrupts.map(([kind]) => kind))) {
      return 'each kind of interrupt must be there once, in ascending order';
    }
    for (const [kind, count] of interrupts) {
      const most = mostVectors[kind];
      if (most === undefined) return `there is no kind ${kind} of interrupt`;
      if (count < 1 || count > most)
        return `of kind ${kind} there can be 1 to ${most} vectors, and not ${count}`;
    }
    if (interrupts.filter(([kind]) => kind <= Msix).length > 1) {
      return 'a device can have only one of INTx, MSI and MSI-X enabled';
    }
    return undefined;
  },
  items: rows =>
    (rows as readonly InterruptRow[]).map(([kind, count]) => ({ kind: kind as InterruptKind, count })),
};
