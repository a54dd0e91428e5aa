/** What two saved states say differently. @module */
import { isDeepStrictEqual } from 'node:util';
import type { Iova, PhysicalAddress } from '../../address.js';
import { RlimitMode } from '../../iommufd/iommufd.js';
import { by } from '../../order.js';
import { compareRuns, type Run, type RunDifference } from './compare-tables.js';
import type { ExtentTable } from './extent-table.js';
import type { FdtNode } from './fdt.js';
import { FdtValue } from './fdt-value.js';
import { MappingTable, type SavedMapping } from './mapping-table.js';
import { nothingMore } from './nothing-more.js';
import {
  type Kept,
  type MappingSource,
  nodeName,
  RecordType,
  type SavedArena,
  type SavedDevice,
  type SavedDriver,
  type SavedHwpt,
  type SavedIoas,
  type SavedIommufd,
  type SavedSession,
  type State,
} from './saved-state.js';

const PAGE = 4096n;
/** Ranges of a table that a difference lists. */
const MOST_RANGES = 16;

/** What a property says: bytes where it is not understood. */
export type StateValue =
  | string
  | number
  | bigint
  | boolean
  | Uint8Array
  | readonly StateValue[]
  | { readonly [name: string]: StateValue };

/** A record, or a node that was kept, which only one of the states has. */
export interface RecordDifference {
  readonly kind: 'record';
  /** As in a {@link StateError}, but `/session "name"`, since the number of a session depends on the others. */
  readonly path: string;
  /** Its `compatible`, where it has one. */
  readonly type: string | undefined;
  readonly in: 'a' | 'b';
}

/** A property that is not the same in both. */
export interface PropertyDifference {
  readonly kind: 'property';
  readonly path: string;
  /** By its name in the format (saved-state.ts). */
  readonly property: string;
  /** What each of them says, `undefined` where it does not have it. */
  readonly a: StateValue | undefined;
  readonly b: StateValue | undefined;
}

/** A range of IOVAs behind which there is not the same in both. */
export interface MappingDifference {
  readonly iova: Iova;
  /** In bytes. */
  readonly length: bigint;
  /** What is mapped at `iova` in each of them, `undefined` where nothing is. */
  readonly a: Omit<Required<SavedMapping>, 'iova' | 'length'> | undefined;
  readonly b: Omit<Required<SavedMapping>, 'iova' | 'length'> | undefined;
}

/** The mappings of an IOAS that are not the same in both. */
export interface MappingsDifference {
  readonly kind: 'mappings';
  readonly path: string;
  /** The first of them, 16 at most. */
  readonly ranges: readonly MappingDifference[];
  /** How many there are in all. */
  readonly count: number;
}

/** A range of an arena that does not lie in the same physical memory in both. */
export interface ExtentDifference {
  /** In bytes from the start of the arena. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
  /** Where it begins in each of them, `undefined` where that is not known. */
  readonly a: PhysicalAddress | undefined;
  readonly b: PhysicalAddress | undefined;
}

/** The extents of an arena that are not the same in both. */
export interface ExtentsDifference {
  readonly kind: 'extents';
  readonly path: string;
  /** The first of them, 16 at most. */
  readonly ranges: readonly ExtentDifference[];
  /** How many there are in all. */
  readonly count: number;
}

/** What {@link compareStates} finds. */
export type StateDifference = RecordDifference | PropertyDifference | MappingsDifference | ExtentsDifference;

/** A record in a form that is the same for all. */
interface View {
  readonly path: string;
  readonly type: string | undefined;
  readonly properties: ReadonlyMap<string, StateValue>;
  readonly mappings?: MappingSource;
  readonly extents?: ExtentTable;
  readonly children: readonly View[];
}

type Properties = Readonly<Record<string, StateValue | undefined>>;

function view(
  path: string,
  type: string | undefined,
  properties: Properties,
  kept: Kept | undefined,
  children: readonly View[] = [],
): View {
  const known = Object.entries(properties).filter(
    (entry): entry is [string, StateValue] => entry[1] !== undefined,
  );
  return {
    path,
    type,
    properties: new Map([...known, ...(kept?.properties ?? [])]),
    children: [...children, ...(kept?.nodes ?? []).map(node => nodeView(path, node))],
  };
}

const below = (path: string, name: string): string => (path === '/' ? `/${name}` : `${path}/${name}`);

function nodeView(parent: string, { name, properties, children }: FdtNode): View {
  const path = below(parent, name);
  const compatible = FdtValue.readStrings(properties.get('compatible') ?? new Uint8Array(0));
  return view(path, compatible?.[0], {}, { properties, nodes: children });
}

function arenaView(arena: SavedArena): View {
  const { token, size, pageSize, name, extents, place, kept, ...rest } = arena;
  nothingMore(rest);
  // Extents that are not known are something else than none.
  const properties = {
    size,
    'page-size': pageSize,
    label: name,
    extents: extents !== undefined,
    place: place && { iommufd: place.iommufd, ioas: place.ioas },
    'place-iova': place?.iova,
  };
  const made = view(`/${nodeName.arena(token)}`, RecordType.Arena, properties, kept);
  return extents ? { ...made, extents } : made;
}

function iommufdView(iommufd: SavedIommufd<MappingSource>): View {
  const { id, ioases, rlimitMode, kept, ...rest } = iommufd;
  nothingMore(rest);
  const path = `/${nodeName.iommufd(id)}`;
  const properties = { 'rlimit-mode': rlimitMode === RlimitMode.Process ? 'process' : undefined };
  const children = ioases.map(ioas => ioasView(path, ioas));
  return view(path, RecordType.Iommufd, properties, kept, children);
}

function ioasView(parent: string, ioas: SavedIoas<MappingSource>): View {
  const { id, allowed, mappings, hwpts = [], hugePages, kept, ...rest } = ioas;
  nothingMore(rest);
  const path = below(parent, nodeName.ioas(id));
  const properties = {
    'allowed-iovas': allowed.map(({ first, last }) => ({ first, last })),
    'no-huge-pages': hugePages === false ? true : undefined,
  };
  const children = hwpts.map(hwpt => hwptView(path, hwpt));
  return { ...view(path, RecordType.Ioas, properties, kept, children), mappings };
}

function hwptView(parent: string, hwpt: SavedHwpt): View {
  const { id, flags, device, kept, ...rest } = hwpt;
  nothingMore(rest);
  return view(below(parent, nodeName.hwpt(id)), RecordType.Hwpt, { flags, device }, kept);
}

function deviceView(device: SavedDevice): View {
  const { address, addressSpace, bars, capabilities, interrupts, kept, ...rest } = device;
  const { vendorId, deviceId, subsystemVendorId, subsystemDeviceId, classCode, ...more } = rest;
  const { interface: kind, translation, serial, resetMethods, ...nothing } = more;
  nothingMore(nothing);
  return view(
    `/${nodeName.device(address)}`,
    RecordType.Device,
    {
      'vendor-id': vendorId,
      'device-id': deviceId,
      'subsystem-vendor-id': subsystemVendorId,
      'subsystem-device-id': subsystemDeviceId,
      'class-code': classCode,
      interface: kind,
      translation,
      'address-space': addressSpace && { iommufd: addressSpace.iommufd, ioas: addressSpace.ioas },
      'address-space-hwpt': addressSpace?.hwpt,
      serial,
      'reset-methods': resetMethods,
      bars: bars?.toSorted(by(({ index }) => index)).map(bar => ({ ...bar })),
      capabilities: capabilities?.map(capability => ({ ...capability })),
      'interrupts-enabled': interrupts?.toSorted(by(item => item.kind)).map(item => ({ ...item })),
    },
    kept,
  );
}

function driverView(driver: SavedDriver): View {
  const { device, compatible, properties, children, kept, ...rest } = driver;
  nothingMore(rest);
  const path = `/${nodeName.driver(device)}`;
  const own = view(below(path, 'state'), compatible, { compatible }, { properties, nodes: children });
  return view(path, RecordType.Driver, {}, kept, [own]);
}

function sessionView(session: SavedSession): View {
  const { name, tokens, kept, ...rest } = session;
  nothingMore(rest);
  return view(
    `/session ${JSON.stringify(name)}`,
    RecordType.Session,
    { tokens: Object.fromEntries(tokens) },
    kept,
  );
}

function stateView(state: State<MappingSource>): View {
  const { arenas, iommufds, devices, drivers, sessions, kept, ...rest } = state;
  nothingMore(rest);
  return view('/', RecordType.State, {}, kept, [
    ...arenas.toSorted(by(({ token }) => token)).map(arenaView),
    ...iommufds.toSorted(by(({ id }) => id)).map(iommufdView),
    ...devices.toSorted(by(({ address }) => address)).map(deviceView),
    ...drivers.toSorted(by(({ device }) => device)).map(driverView),
    ...sessions.toSorted(by(({ name }) => name)).map(sessionView),
  ]);
}

function same(a: StateValue | undefined, b: StateValue | undefined): boolean {
  if (a instanceof Uint8Array && b instanceof Uint8Array) return Buffer.compare(a, b) === 0;
  return isDeepStrictEqual(a, b);
}

/** Where two states differ, record by record. */
class Comparison {
  readonly differences: StateDifference[] = [];
  /** Arenas that mappings refer to, by number. */
  readonly #tokens: bigint[] = [];
  readonly #numberOf = new Map<bigint, number>();

  compare(a: View, b: View): void {
    const { path } = a;
    for (const property of new Set([...a.properties.keys(), ...b.properties.keys()])) {
      const [valueA, valueB] = [a.properties.get(property), b.properties.get(property)];
      if (same(valueA, valueB)) continue;
      this.differences.push({ kind: 'property', path, property, a: valueA, b: valueB });
    }
    if (a.mappings && b.mappings) this.#mappings(path, a.mappings, b.mappings);
    if (a.extents && b.extents) this.#extents(path, a.extents, b.extents);
    const others = new Map(b.children.map(child => [child.path, child]));
    for (const child of a.children) {
      const other = others.get(child.path);
      others.delete(child.path);
      if (other) this.compare(child, other);
      else this.differences.push({ kind: 'record', path: child.path, type: child.type, in: 'a' });
    }
    for (const { path, type } of others.values())
      this.differences.push({ kind: 'record', path, type, in: 'b' });
  }

  #mappings(path: string, a: MappingSource, b: MappingSource): void {
    if (a instanceof MappingTable && b instanceof MappingTable && sameRows(a, b)) return;
    const found = firstOf(compareRuns(this.#mapped(a), this.#mapped(b)));
    if (found.count === 0) return;
    const ranges = found.ranges.map(({ first, end, a, b }) => ({
      iova: (BigInt(first) * PAGE) as Iova,
      length: BigInt(end - first) * PAGE,
      a: a && this.#mapping(a, first),
      b: b && this.#mapping(b, first),
    }));
    this.differences.push({ kind: 'mappings', path, ranges, count: found.count });
  }

  *#mapped(source: MappingSource): Generator<Run> {
    for (const table of source instanceof MappingTable ? [source] : source) {
      const numbers = table.arenas.map(token => this.#number(token));
      const numberOf = new Map(table.arenas.map((token, index) => [token, numbers[index] as number]));
      for (const { iova, length, arena, offset, readable, writeable } of table) {
        const first = Number(iova / PAGE);
        yield {
          first,
          end: first + length / Number(PAGE),
          tag: (numberOf.get(arena) as number) * 4 + (readable ? 1 : 0) + (writeable ? 2 : 0),
          delta: offset / Number(PAGE) - first,
        };
      }
    }
  }

  #number(token: bigint): number {
    const known = this.#numberOf.get(token) ?? this.#tokens.push(token) - 1;
    this.#numberOf.set(token, known);
    return known;
  }

  #mapping({ tag, delta }: Run, page: number): MappingDifference['a'] {
    return {
      arena: this.#tokens[tag >>> 2] as bigint,
      offset: (page + delta) * Number(PAGE),
      readable: (tag & 1) !== 0,
      writeable: (tag & 2) !== 0,
    };
  }

  #extents(path: string, a: ExtentTable, b: ExtentTable): void {
    const found = firstOf(compareRuns(located(a), located(b)));
    if (found.count === 0) return;
    const addressOf = (run: Run | undefined, page: number): PhysicalAddress | undefined =>
      run && ((BigInt(page + run.delta) * PAGE) as PhysicalAddress);
    const ranges = found.ranges.map(({ first, end, a, b }) => ({
      offset: first * Number(PAGE),
      length: (end - first) * Number(PAGE),
      a: addressOf(a, first),
      b: addressOf(b, first),
    }));
    this.differences.push({ kind: 'extents', path, ranges, count: found.count });
  }
}

function* located(table: ExtentTable): Generator<Run> {
  for (const { offset, address, length } of table) {
    const first = offset / Number(PAGE);
    yield { first, end: first + length / Number(PAGE), tag: 0, delta: Number(address / PAGE) - first };
  }
}

/** The quick way to see that tables are the same. */
function sameRows(a: MappingTable, b: MappingTable): boolean {
  return isDeepStrictEqual(a.arenas, b.arenas) && Buffer.compare(a.rows, b.rows) === 0;
}

function firstOf(differences: Iterable<RunDifference>): { ranges: RunDifference[]; count: number } {
  const ranges: RunDifference[] = [];
  let count = 0;
  for (const difference of differences) {
    if (count++ < MOST_RANGES) ranges.push(difference);
  }
  return { ranges, count };
}

/**
 * Compares two states, record by record. Records belong together by what identifies them: an arena by its token, a device
 * by its address, an iommufd, an IOAS and an HWPT by their ids, a session by its name. In which order they come says
 * nothing; nor does it say anything where one mapping ends and the next goes on with the next page of the same arena.
 *
 * @returns nothing when they say the same
 * @throws StateError from mappings that are unpacked piece by piece
 */
export function compareStates(a: State<MappingSource>, b: State<MappingSource>): StateDifference[] {
  const comparison = new Comparison();
  comparison.compare(stateView(a), stateView(b));
  return comparison.differences;
}
