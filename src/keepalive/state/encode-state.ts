/** Writes saved states: see `saved-state.ts` for what they consist of. @module */
import { checkAligned, checkInteger, checkU64 } from '../../check.js';
import { hex } from '../../hex.js';
import { RlimitMode } from '../../iommufd/iommufd.js';
import { PageSize } from '../../memory/memfd.js';
import { by } from '../../order.js';
import { isPciAddress } from '../../pci/address.js';
import { checkReferences } from './check-references.js';
import { type Codec, NO_MEMORY, OK, reasonOf, withCodec } from './codec.js';
import { barList, capabilityList, type DeviceList, interruptList } from './device-lists.js';
import { ExtentTable } from './extent-table.js';
import type { FdtNode } from './fdt.js';
import { MAX_ENTRIES } from './fdt-tree.js';
import { FdtValue } from './fdt-value.js';
import { FdtWriter } from './fdt-writer.js';
import { MappingTable } from './mapping-table.js';
import { nothingMore } from './nothing-more.js';
import type { RowTable } from './row-table.js';
import {
  HWPT_FLAGS,
  isResetMethods,
  type Kept,
  MAX_VALUE,
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

const { u32, u32s, u64, u64s, string, strings } = FdtValue;
const ARENA_ENTRY = 24;
const MAX_SESSION_NAME = 63;

/** Writes the packed property of a node. `place` gives the address of a value of the node that is written already. */
type PackedProperty = (place: (name: string) => number) => void;

/** A node to be written, in any order. */
interface Draft {
  readonly name: string;
  readonly properties: Map<string, Uint8Array | PackedProperty>;
  readonly children: Draft[];
}

function draft(name: string, properties: Iterable<readonly [string, Uint8Array]>, kept?: Kept): Draft {
  const made: Draft = { name, properties: new Map(properties), children: (kept?.nodes ?? []).map(draftOf) };
  for (const [property, value] of made.properties as Map<string, Uint8Array>) {
    if (value.length > MAX_VALUE)
      throw new RangeError(`${name}: ${property} is longer than ${MAX_VALUE} bytes`);
  }
  for (const [property, value] of kept?.properties ?? []) {
    if (made.properties.has(property)) {
      throw new RangeError(`${name}: kept property ${property} is one that the record has itself`);
    }
    made.properties.set(property, value);
  }
  return made;
}

function draftOf(node: FdtNode): Draft {
  return { name: node.name, properties: new Map(node.properties), children: node.children.map(draftOf) };
}

function oneOf<T>(title: string, value: T, allowed: readonly T[]): T {
  if (!allowed.includes(value))
    throw new RangeError(`${title} must be one of ${allowed.join(', ')}, got ${value}`);
  return value;
}

function address(title: string, value: string): string {
  if (typeof value !== 'string' || !isPciAddress(value) || value !== value.toLowerCase()) {
    throw new RangeError(`${title} must be a PCI address such as 0000:00:04.0, got ${JSON.stringify(value)}`);
  }
  return value;
}

function text(title: string, value: string, minimum: number, maximum: number): Uint8Array {
  const bytes = string(value);
  if (bytes.length - 1 < minimum || bytes.length - 1 > maximum) {
    throw new RangeError(`${title} must be of ${minimum} to ${maximum} bytes, got ${JSON.stringify(value)}`);
  }
  return bytes;
}

class Encoder {
  readonly #codec: Codec;
  readonly #writer: FdtWriter;
  /** Pages of each arena, by token. */
  readonly #arenaSizes: ReadonlyMap<bigint, number>;
  /** Where the codec finds the arenas of the mappings that are being packed. */
  readonly #arenaTable: number;
  readonly #blob: number;
  #entries = 0;

  constructor(codec: Codec, arenas: readonly SavedArena[], maxArenas: number) {
    this.#codec = codec;
    this.#arenaTable = codec.free;
    this.#arenaSizes = new Map(arenas.map(({ token, size }) => [token, size / 4096]));
    this.#blob = (codec.free + maxArenas * ARENA_ENTRY + 15) & ~15;
    codec.reserve(this.#blob);
    this.#writer = new FdtWriter(codec, this.#blob);
  }

  /** Writes `node` and all below it in order of names. @returns the addresses of its values */
  node(node: Draft): ReadonlyMap<string, number> {
    const { name, properties, children } = node;
    this.#entries += 1 + properties.size;
    if (this.#entries > MAX_ENTRIES) {
      throw new RangeError(`a state must not have more than ${MAX_ENTRIES} nodes and properties`);
    }
    this.#writer.beginNode(name);
    const places = new Map<string, number>();
    for (const [property, value] of [...properties].sort(by(([name]) => name))) {
      if (typeof value === 'function') value(other => places.get(other) as number);
      else places.set(property, this.#writer.property(property, value));
    }
    let last: string | undefined;
    for (const child of children.toSorted(by(({ name }) => name))) {
      if (child.name === last) {
        throw new RangeError(`two nodes are named ${child.name}; is there a kept one of that name?`);
      }
      last = child.name;
      this.node(child);
    }
    this.#writer.endNode();
    return places;
  }

  finish(crcAt: number): Uint8Array {
    const size = this.#writer.end();
    this.#writer.patchU32(crcAt, this.#codec.crc32c(this.#blob, size));
    return this.#codec.copy(this.#blob, size);
  }

  /** The packed rows of `tables`, as property `name`, with their number and checksum. */
  packed(
    name: 'mapping' | 'extent',
    tables: Iterable<RowTable<unknown>>,
    encode: (rows: number, count: number) => number,
    rowsDone: () => number,
    title: string,
  ): PackedProperty {
    return place => {
      const codec = this.#codec;
      const writer = this.#writer;
      writer.beginProperty(`${name}s`);
      let total = 0;
      for (const table of tables) {
        const { rows, rowSize } = table;
        const chunk = Math.floor(codec.stagingSize / rowSize) * rowSize;
        for (let offset = 0; offset < rows.length; offset += chunk) {
          const piece = rows.subarray(offset, offset + chunk);
          codec.bytes.set(piece, codec.staging);
          const status = encode(codec.staging, piece.length / rowSize);
          if (status === NO_MEMORY) codec.exhausted();
          if (status !== OK) {
            const row = total + offset / rowSize + rowsDone();
            throw new RangeError(`${title}, ${name} ${row}: ${reasonOf(status)}`);
          }
        }
        total += table.length;
      }
      const { at, length } = writer.endProperty();
      writer.patchU32(place(`${name}-count`), total);
      writer.patchU32(place(`${name}-crc32c`), codec.crc32c(at, length));
    };
  }

  arena(arena: SavedArena): Draft {
    const { token, size, pageSize, name, extents, place, kept, ...rest } = arena;
    nothingMore(rest);
    const made = draft(
      nodeName.arena(checkU64('arena token', token)),
      [
        ['compatible', string(RecordType.Arena)],
        ['token', u64(token)],
        ['size', u64(size)],
        ['page-size', u64(oneOf('arena pageSize', pageSize, Object.values(PageSize)))],
        ['label', string(name)],
        ...(place ? placeOf(place) : []),
        ...(extents ? packedCount('extent') : []),
      ],
      kept,
    );
    if (extents === undefined) return made;
    if (!(extents instanceof ExtentTable)) throw new TypeError('extents must be an ExtentTable');
    const { core } = this.#codec;
    made.properties.set('extents', place => {
      core.codecExtentsBegin(BigInt(size) >> 12n);
      const { codecExtentsEncode: encode, codecExtentsRows: rows } = core;
      this.packed('extent', [extents], encode, rows, made.name)(place);
    });
    return made;
  }

  iommufd(iommufd: SavedIommufd<Pieces>): Draft {
    const { id, ioases, rlimitMode = RlimitMode.User, kept, ...rest } = iommufd;
    nothingMore(rest);
    const mode = oneOf('rlimitMode', rlimitMode, Object.values(RlimitMode));
    const made = draft(
      nodeName.iommufd(id),
      [
        ['compatible', string(RecordType.Iommufd)],
        ['id', u32(id)],
        ...(mode === RlimitMode.Process ? [['rlimit-mode', string('process')] as const] : []),
      ],
      kept,
    );
    for (const ioas of ioases) made.children.push(this.#ioas(ioas, made.name));
    return made;
  }

  #ioas(ioas: SavedIoas<Pieces>, parent: string): Draft {
    const { id, allowed, mappings, hwpts = [], hugePages, kept, ...rest } = ioas;
    nothingMore(rest);
    const canonical = mappings.arenas.toSorted(by(token => token));
    const made = draft(
      nodeName.ioas(id),
      [
        ['compatible', string(RecordType.Ioas)],
        ['id', u32(id)],
        ['allowed-iovas', u64s(allowed.flatMap(({ first, last }) => [first, last]))],
        ['mapping-arenas', u64s(canonical)],
        ...packedCount('mapping'),
        ...(oneOf('hugePages', hugePages, [false, undefined]) === false
          ? [['no-huge-pages', new Uint8Array(0)] as const]
          : []),
      ],
      kept,
    );
    made.children.push(...hwpts.map(hwpt));
    const { core } = this.#codec;
    made.properties.set('mappings', place => {
      this.#fillArenaTable(mappings.arenas, canonical);
      const { codecMappingsEncode: encode, codecMappingsRows: rows } = core;
      this.packed('mapping', mappings.tables, encode, rows, `${parent}/${made.name}`)(place);
    });
    return made;
  }

  /** See assembly/codec/mappings.ts for its layout. */
  #fillArenaTable(arenas: readonly bigint[], canonical: readonly bigint[]): void {
    const indexOf = new Map(canonical.map((token, index) => [token, index]));
    const { bytes, core } = this.#codec;
    const view = new DataView(bytes.buffer, this.#arenaTable, arenas.length * ARENA_ENTRY);
    for (const [index, token] of arenas.entries()) {
      const at = index * ARENA_ENTRY;
      view.setBigUint64(at, BigInt(this.#arenaSizes.get(token) as number), true);
      view.setBigUint64(at + 8, 0n, true);
      view.setUint32(at + 16, indexOf.get(token) as number, true);
    }
    core.codecMappingsBegin(this.#arenaTable, arenas.length);
  }
}

/** Place holders: what they say is known only when the rows are packed. */
function packedCount(name: 'mapping' | 'extent'): [string, Uint8Array][] {
  return [
    [`${name}-count`, u32(0)],
    [`${name}-crc32c`, u32(0)],
  ];
}

function hwpt(hwpt: SavedHwpt): Draft {
  const { id, flags, device, kept, ...rest } = hwpt;
  nothingMore(rest);
  checkInteger('HWPT flags', flags, 0, 0xffff_ffff);
  if (flags & ~HWPT_FLAGS)
    throw new RangeError(`HWPT flags must be of ${hex(HWPT_FLAGS)}, got ${hex(flags)}`);
  return draft(
    nodeName.hwpt(id),
    [
      ['compatible', string(RecordType.Hwpt)],
      ['id', u32(id)],
      ['flags', u32(flags)],
      ['device', string(address('device of an HWPT', device))],
    ],
    kept,
  );
}

/** A list of a device, where it is known. */
function list<Item>(list: DeviceList<Item>, items: readonly Item[] | undefined): [string, Uint8Array][] {
  const { property } = list;
  if (items === undefined) return [];
  if (!Array.isArray(items)) throw new TypeError(`${property} must be an array`);
  const rows = list.rows(items);
  const fault = list.fault(rows);
  if (fault !== undefined) throw new RangeError(`${property}: ${fault}`);
  return [[property, u32s(rows.flat())]];
}

/** Where a device is attached. */
function placeOf({ iommufd, ioas, iova, ...rest }: NonNullable<SavedArena['place']>): [string, Uint8Array][] {
  nothingMore(rest);
  const at = checkU64('place iova', iova);
  checkAligned('place iova', at, 4096);
  return [
    ['place', u32s([iommufd, ioas])],
    ['place-iova', u64(at)],
  ];
}

function attachment(space: SavedDevice['addressSpace']): [string, Uint8Array][] {
  if (space === undefined) return [];
  const { iommufd, ioas, hwpt, ...rest } = space;
  nothingMore(rest);
  const made: [string, Uint8Array][] = [['address-space', u32s([iommufd, ioas])]];
  if (hwpt !== undefined) made.push(['address-space-hwpt', u32(hwpt)]);
  return made;
}

function resetMethodsOf(text: string): Uint8Array {
  const value = string(text);
  if (isResetMethods(text)) return value;
  throw new RangeError(`resetMethods must be names with a space between, got ${JSON.stringify(text)}`);
}

function device(device: SavedDevice): Draft {
  const {
    address: pci,
    vendorId,
    deviceId,
    subsystemVendorId,
    subsystemDeviceId,
    classCode,
    interface: kind,
    translation,
    addressSpace,
    serial,
    bars,
    capabilities,
    resetMethods,
    interrupts,
    kept,
    ...rest
  } = device;
  nothingMore(rest);
  const id = (title: string, value: number): Uint8Array => u32(checkInteger(title, value, 0, 0xffff));
  return draft(
    nodeName.device(pci),
    [
      ['compatible', string(RecordType.Device)],
      ['address', string(address('device address', pci))],
      ['vendor-id', id('vendorId', vendorId)],
      ['device-id', id('deviceId', deviceId)],
      ['subsystem-vendor-id', id('subsystemVendorId', subsystemVendorId)],
      ['subsystem-device-id', id('subsystemDeviceId', subsystemDeviceId)],
      ['class-code', u32(checkInteger('classCode', classCode, 0, 0xff_ffff))],
      ['interface', string(oneOf('interface', kind, ['cdev', 'legacy']))],
      ['translation', string(oneOf('translation', translation, ['iommu', 'none']))],
      ...attachment(addressSpace),
      ...(serial === undefined ? [] : [['serial', u64(serial)] as const]),
      ...(resetMethods === undefined ? [] : [['reset-methods', resetMethodsOf(resetMethods)] as const]),
      ...list(barList, bars),
      ...list(capabilityList, capabilities),
      ...list(interruptList, interrupts),
    ],
    kept,
  );
}

function driver(driver: SavedDriver): Draft {
  const { device: pci, compatible, properties, children, kept, ...rest } = driver;
  nothingMore(rest);
  const made = draft(
    nodeName.driver(pci),
    [
      ['compatible', string(RecordType.Driver)],
      ['device', string(address('device of a driver', pci))],
    ],
    kept,
  );
  const own = [['compatible', text('compatible of a driver', compatible, 1, 255)] as const];
  made.children.push(draft('state', own, { properties, nodes: children }));
  return made;
}

function session(session: SavedSession, index: number): Draft {
  const { name, tokens, kept, ...rest } = session;
  nothingMore(rest);
  const sorted = [...tokens].sort(by(([purpose]) => purpose));
  return draft(
    nodeName.session(index),
    [
      ['compatible', string(RecordType.Session)],
      ['label', text('session name', name, 1, MAX_SESSION_NAME)],
      ['token-purposes', strings(sorted.map(([purpose]) => purpose))],
      ['tokens', u64s(sorted.map(([, token]) => token))],
    ],
    kept,
  );
}

/** Mappings, with the arenas that all pieces refer to. */
interface Pieces {
  readonly arenas: readonly bigint[];
  readonly tables: Iterable<MappingTable>;
}

/** Takes the first piece, if there is one, to know the arenas. */
function pieces(source: MappingSource): Pieces {
  if (source instanceof MappingTable) return { arenas: source.arenas, tables: [source] };
  if (typeof source?.[Symbol.iterator] !== 'function') {
    throw new TypeError('mappings must be a MappingTable, or an iterable of them');
  }
  const iterator = source[Symbol.iterator]();
  let next = iterator.next();
  const first = next.done === true ? undefined : next.value;
  const arenas = first?.arenas ?? [];
  function* tables(): Generator<MappingTable> {
    for (; next.done !== true; next = iterator.next()) {
      const table = next.value;
      if (!(table instanceof MappingTable)) throw new TypeError('mappings must come in MappingTables');
      if (
        table.arenas.length !== arenas.length ||
        table.arenas.some((token, index) => token !== arenas[index])
      ) {
        throw new RangeError('all pieces of mappings must have the same list of arenas');
      }
      yield table;
    }
  }
  return { arenas, tables: tables() };
}

/**
 * Writes a state. Equal content makes equal bytes, whatever order its records come in.
 *
 * Memory: the output twice, and 256 KiB; mappings that come piece by piece are never all there.
 *
 * @throws TypeError, RangeError when the state is not one: a field has a wrong kind or value, records are there twice or
 * refer to what is not there, a mapping or extent lies outside its arena, or there are more than 65 536 nodes and
 * properties, which is more than is read.
 */
export function encodeState(state: State<MappingSource>): Uint8Array {
  const { arenas, iommufds, devices, sessions, drivers, kept, ...rest } = state;
  nothingMore(rest);
  for (const { size, pageSize } of arenas) {
    checkInteger('arena size', size, 1);
    if (size % pageSize !== 0) {
      throw new RangeError(`arena size must be a multiple of its page size, ${pageSize}, got ${size}`);
    }
  }
  const withPieces: State<Pieces> = {
    ...state,
    iommufds: iommufds.map(iommufd => ({
      ...iommufd,
      ioases: iommufd.ioases.map(ioas => ({ ...ioas, mappings: pieces(ioas.mappings) })),
    })),
  };
  const arenasOf = (ioas: SavedIoas<Pieces>): readonly bigint[] => ioas.mappings.arenas;
  checkReferences(withPieces, arenasOf, (_record, property, reason) => {
    throw new RangeError(`${property}: ${reason}`);
  });
  const maxArenas = withPieces.iommufds
    .flatMap(({ ioases }) => ioases)
    .reduce((most, ioas) => Math.max(most, arenasOf(ioas).length), 0);
  return withCodec(codec => {
    const encoder = new Encoder(codec, arenas, maxArenas);
    const root = draft('', [['compatible', string(RecordType.State)]], kept);
    root.properties.set('crc32c', u32(0));
    const records = [
      arenas.map(arena => encoder.arena(arena)),
      withPieces.iommufds.map(iommufd => encoder.iommufd(iommufd)),
      devices.map(device),
      drivers.map(driver),
      sessions.toSorted(by(({ name }) => name)).map(session),
    ];
    for (const record of records.flat()) root.children.push(record);
    return encoder.finish(encoder.node(root).get('crc32c') as number);
  });
}
