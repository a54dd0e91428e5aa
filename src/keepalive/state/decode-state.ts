/** Reads saved states: see `saved-state.ts` for what they consist of. @module */
import type { Iova, IovaRange } from '../../address.js';
import { hex } from '../../hex.js';
import { RlimitMode } from '../../iommufd/iommufd.js';
import { PageSize } from '../../memory/memfd.js';
import { by } from '../../order.js';
import { isPciAddress, type PciAddress } from '../../pci/address.js';
import { checkReferences } from './check-references.js';
import { type Codec, giveBackCodec, OK, reasonOf, takeCodec, withCodec } from './codec.js';
import { barList, capabilityList, type DeviceList, interruptList } from './device-lists.js';
import { ExtentTable } from './extent-table.js';
import { type Blob, readBlob, type TreeProperty } from './fdt-tree.js';
import { MappingTable } from './mapping-table.js';
import { RecordReader } from './record-reader.js';
import {
  HWPT_FLAGS,
  isResetMethods,
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
import { StateError, StateErrorCode } from './state-error.js';

const PAGE = 4096;
/** Bytes of a row, of mappings as of extents. */
const ROW = 24;
const ARENA_ENTRY = 24;
const MAX_SESSION_NAME = 63;

/** Where a packed property is, and what is said of it. */
interface Packed {
  /** Of its node. */
  readonly path: string;
  readonly name: 'mappings' | 'extents';
  readonly place: TreeProperty;
  readonly count: number;
}

/** The mappings of an IOAS, before they are unpacked. */
interface PackedIoas {
  readonly packed: Packed;
  readonly arenas: readonly bigint[];
}

class Decoder {
  readonly codec: Codec;
  readonly blob: Blob;
  /** Which node says what; for what is found wrong only later. */
  readonly #readers = new Map<object, RecordReader>();

  constructor(codec: Codec, bytes: Uint8Array) {
    this.codec = codec;
    this.blob = readBlob(codec, bytes);
  }

  /** Everything but mappings, which come as they are packed. */
  state(): State<PackedIoas> {
    const root = new RecordReader(this.codec, this.blob.root);
    root.expect(RecordType.State);
    this.#checkCrc(root);
    if (this.blob.reservations.length > 0) {
      throw new StateError(
        StateErrorCode.Unsupported,
        { path: '/' },
        'it has memory reservations, which mean nothing in a saved state',
      );
    }
    const { Arena, Iommufd, Device, Driver, Session } = RecordType;
    const records = root.records([Arena, Iommufd, Device, Driver, Session]);
    const read = <T extends object>(
      type: RecordType,
      make: (reader: RecordReader) => T,
      key: (record: T) => string | number | bigint,
      name: (record: T, index: number) => string,
    ): T[] => this.#named(records.get(type as typeof Arena) as RecordReader[], make, key, name);
    const state: State<PackedIoas> = {
      arenas: read(
        Arena,
        reader => this.#arena(reader),
        ({ token }) => token,
        ({ token }) => nodeName.arena(token),
      ),
      iommufds: read(
        Iommufd,
        reader => this.#iommufd(reader),
        ({ id }) => id,
        ({ id }) => nodeName.iommufd(id),
      ),
      devices: read(
        Device,
        device,
        ({ address }) => address,
        ({ address }) => nodeName.device(address),
      ),
      sessions: read(
        Session,
        session,
        ({ name }) => name,
        (_, index) => nodeName.session(index),
      ),
      drivers: read(
        Driver,
        driver,
        record => record.device,
        record => nodeName.driver(record.device),
      ),
      ...root.kept(),
    };
    checkReferences(
      state,
      (ioas: SavedIoas<PackedIoas>) => ioas.mappings.arenas,
      (record, property, reason) => (this.#readers.get(record) as RecordReader).invalid(property, reason),
    );
    return state;
  }

  /** Makes records, in order of their keys, and checks the names of their nodes. */
  #named<T extends object>(
    readers: readonly RecordReader[],
    make: (reader: RecordReader) => T,
    key: (record: T) => string | number | bigint,
    name: (record: T, index: number) => string,
  ): T[] {
    const records = readers.map(reader => {
      const record = make(reader);
      this.#readers.set(record, reader);
      return record;
    });
    records.sort(by(key));
    for (const [index, record] of records.entries()) {
      (this.#readers.get(record) as RecordReader).expectName(name(record, index));
    }
    return records;
  }

  #checkCrc(root: RecordReader): void {
    const said = root.u32('crc32c');
    const at = this.codec.free + (root.place('crc32c') as TreeProperty).offset;
    const { bytes } = this.codec;
    bytes.fill(0, at, at + 4);
    const found = this.codec.crc32c(this.codec.free, this.blob.size);
    if (found === said) return;
    root.refuse(
      StateErrorCode.Damaged,
      `the checksum of the whole state should be ${hex(said)}, and is ${hex(found)}`,
      'crc32c',
    );
  }

  /** The packed property of a record, intact and with a count that it can have. */
  #packed(reader: RecordReader, row: 'mapping' | 'extent'): Packed {
    const name = `${row}s` as const;
    const count = reader.u32(`${row}-count`);
    const said = reader.u32(`${row}-crc32c`);
    const place = reader.place(name) ?? reader.invalid(name, 'the record must have it, and has not');
    // A row takes a byte or more: so nothing is allocated for rows that are not there.
    if (count > place.length)
      reader.invalid(`${row}-count`, `there cannot be ${count} rows in ${place.length} bytes`);
    const found = this.codec.crc32c(this.codec.free + place.offset, place.length);
    if (found !== said) {
      reader.refuse(
        StateErrorCode.Damaged,
        `the checksum of its rows should be ${hex(said)}, and is ${hex(found)}`,
        name,
      );
    }
    return { path: reader.node.path, name, place, count };
  }

  #arena(reader: RecordReader): SavedArena {
    const size = reader.size('size');
    const pageSize = reader.size('page-size');
    const known = Object.values(PageSize).find(value => value === pageSize);
    if (known === undefined) reader.invalid('page-size', `${pageSize} is not a page size`);
    if (size === 0 || size % pageSize !== 0) {
      reader.invalid('size', `it must be a multiple of the page size, ${pageSize}, and not 0`);
    }
    const hasExtents = ['extents', 'extent-count', 'extent-crc32c'].some(name =>
      reader.node.properties.has(name),
    );
    const place = placeOf(reader);
    return {
      token: reader.u64('token'),
      size,
      pageSize: known,
      name: reader.string('label'),
      ...(place && { place }),
      ...(hasExtents && { extents: this.#extents(this.#packed(reader, 'extent'), size) }),
      ...keptOf(reader),
    };
  }

  #extents(packed: Packed, size: number): ExtentTable {
    const { codec } = this;
    const { core, free, staging, stagingSize } = codec;
    const table = new ExtentTable(packed.count);
    const limit = Math.floor(stagingSize / ROW);
    let at = free + packed.place.offset;
    const end = at + packed.place.length;
    core.codecExtentsBegin(BigInt(size / PAGE));
    while (table.length < packed.count) {
      const status = core.codecExtentsDecode(at, end, staging, Math.min(limit, packed.count - table.length));
      const rows = core.codecExtentsRows();
      if (status !== OK) refuseRow(packed, table.length + rows, (core.codecFault() >>> 0) - free, status);
      if (rows === 0) break;
      table.decodedRows(codec.bytes.subarray(staging, staging + rows * ROW));
      at = core.codecExtentsPackedEnd() >>> 0;
    }
    checkCount(packed, table.length, end - at);
    return table;
  }

  #iommufd(reader: RecordReader): SavedIommufd<PackedIoas> {
    const records = reader.records([RecordType.Ioas]).get(RecordType.Ioas) as RecordReader[];
    return {
      id: reader.u32('id'),
      ioases: this.#named(
        records,
        ioas => this.#ioas(ioas),
        ({ id }) => id,
        ({ id }) => nodeName.ioas(id),
      ),
      ...(reader.optionalOneOf('rlimit-mode', ['process']) && { rlimitMode: RlimitMode.Process }),
      ...reader.kept(),
    };
  }

  #ioas(reader: RecordReader): SavedIoas<PackedIoas> {
    const bounds = reader.u64s('allowed-iovas');
    if (bounds.length % 2 !== 0) reader.invalid('allowed-iovas', 'it must be a list of first and last IOVAs');
    const allowed: IovaRange[] = [];
    for (let index = 0; index < bounds.length; index += 2) {
      allowed.push({ first: bounds[index], last: bounds[index + 1] } as IovaRange);
    }
    const arenas = reader.u64s('mapping-arenas');
    if (arenas.some((token, index) => index > 0 && token <= (arenas[index - 1] as bigint))) {
      reader.invalid('mapping-arenas', 'tokens must be in ascending order, each once');
    }
    const hwpts = this.#named(
      reader.records([RecordType.Hwpt]).get(RecordType.Hwpt) as RecordReader[],
      hwpt,
      ({ id }) => id,
      ({ id }) => nodeName.hwpt(id),
    );
    return {
      id: reader.u32('id'),
      allowed,
      mappings: { packed: this.#packed(reader, 'mapping'), arenas },
      ...(hwpts.length > 0 && { hwpts }),
      ...(reader.flag('no-huge-pages') && { hugePages: false as const }),
      ...reader.kept(),
    };
  }
}

/** Of a record that has no records within. */
function keptOf(reader: RecordReader): ReturnType<RecordReader['kept']> {
  reader.records([]);
  return reader.kept();
}

function refuseRow({ path, name }: Packed, row: number, offset: number, status: number): never {
  throw new StateError(
    StateErrorCode.Invalid,
    { path, property: name, offset },
    `row ${row}: ${reasonOf(status)}`,
  );
}

function checkCount({ path, name, place, count }: Packed, found: number, left: number): void {
  if (found === count && left === 0) return;
  const excess = left > 0 ? `, and ${left} bytes after them` : '';
  throw new StateError(
    StateErrorCode.Invalid,
    { path, property: name, offset: place.offset },
    `there should be ${count} rows, and there are ${found}${excess}`,
  );
}

function pciAddressOf(reader: RecordReader, name: string): PciAddress {
  const text = reader.string(name);
  return isPciAddress(text) && text === text.toLowerCase()
    ? text
    : reader.invalid(name, `${JSON.stringify(text)} is not a PCI address such as 0000:00:04.0`);
}

function hwpt(reader: RecordReader): SavedHwpt {
  const flags = reader.u32('flags');
  if (flags & ~HWPT_FLAGS)
    reader.invalid('flags', `they must be of ${hex(HWPT_FLAGS)}, and are ${hex(flags)}`);
  return { id: reader.u32('id'), flags, device: pciAddressOf(reader, 'device'), ...keptOf(reader) };
}

function listOf<Item>(reader: RecordReader, list: DeviceList<Item>): Item[] | undefined {
  const rows = reader.cellRows(list.property, list.width);
  const fault = rows && list.fault(rows);
  if (fault !== undefined) reader.invalid(list.property, fault);
  return rows && list.items(rows);
}

function placeOf(reader: RecordReader): SavedArena['place'] {
  const space = reader.u32Pair('place');
  const iova = reader.optionalU64('place-iova');
  if ((space === undefined) !== (iova === undefined)) {
    reader.invalid('place', 'it must be there together with place-iova, or neither');
  }
  if (space === undefined || iova === undefined) return undefined;
  if (iova % BigInt(PAGE) !== 0n) reader.invalid('place-iova', `it must be a multiple of ${PAGE}`);
  return { iommufd: space[0], ioas: space[1], iova: iova as Iova };
}

function attachment(reader: RecordReader): SavedDevice['addressSpace'] {
  const space = reader.u32Pair('address-space');
  const hwpt = reader.optionalU32('address-space-hwpt');
  if (space) return { iommufd: space[0], ioas: space[1], ...(hwpt !== undefined && { hwpt }) };
  if (hwpt !== undefined) reader.invalid('address-space-hwpt', 'it must not be there without address-space');
  return undefined;
}

function device(reader: RecordReader): SavedDevice {
  const addressSpace = attachment(reader);
  const serial = reader.optionalU64('serial');
  const resetMethods = reader.optionalString('reset-methods');
  if (resetMethods !== undefined && !isResetMethods(resetMethods)) {
    reader.invalid(
      'reset-methods',
      `it must be names with a space between, and is ${JSON.stringify(resetMethods)}`,
    );
  }
  const bars = listOf(reader, barList);
  const capabilities = listOf(reader, capabilityList);
  const interrupts = listOf(reader, interruptList);
  return {
    address: pciAddressOf(reader, 'address'),
    vendorId: reader.u32('vendor-id', 0xffff),
    deviceId: reader.u32('device-id', 0xffff),
    subsystemVendorId: reader.u32('subsystem-vendor-id', 0xffff),
    subsystemDeviceId: reader.u32('subsystem-device-id', 0xffff),
    classCode: reader.u32('class-code', 0xff_ffff),
    interface: reader.oneOf('interface', ['cdev', 'legacy']),
    translation: reader.oneOf('translation', ['iommu', 'none']),
    ...(addressSpace && { addressSpace }),
    ...(serial !== undefined && { serial }),
    ...(bars && { bars }),
    ...(capabilities && { capabilities }),
    ...(resetMethods !== undefined && { resetMethods }),
    ...(interrupts && { interrupts }),
    ...keptOf(reader),
  };
}

function driver(reader: RecordReader): SavedDriver {
  const own = reader.child('state');
  const compatible = own.string('compatible');
  if (compatible === '') own.invalid('compatible', 'it must not be empty');
  const { properties, nodes } = own.rest();
  const pci = pciAddressOf(reader, 'device');
  const { kept } = keptOf(reader);
  return { device: pci, compatible, properties, children: nodes, ...(kept && { kept }) };
}

function session(reader: RecordReader): SavedSession {
  const name = reader.string('label');
  const length = Buffer.byteLength(name);
  if (length === 0 || length > MAX_SESSION_NAME) {
    reader.invalid('label', `it must be of 1 to ${MAX_SESSION_NAME} bytes, and is ${JSON.stringify(name)}`);
  }
  const purposes = reader.strings('token-purposes');
  const tokens = reader.u64s('tokens');
  if (purposes.length !== tokens.length || new Set(purposes).size !== purposes.length) {
    reader.invalid('token-purposes', 'there must be one purpose for each token, and each once');
  }
  return {
    name,
    tokens: new Map(purposes.map((purpose, index) => [purpose, tokens[index] as bigint])),
    ...keptOf(reader),
  };
}

/** Pages of each arena. */
function arenaPages(state: State<unknown>): ReadonlyMap<bigint, bigint> {
  return new Map(state.arenas.map(({ token, size }) => [token, BigInt(size / PAGE)]));
}

/** Tells the codec of the arenas, in a table at `at`; see assembly/codec/mappings.ts. */
function beginMappings(
  codec: Codec,
  at: number,
  arenas: readonly bigint[],
  pages: ReadonlyMap<bigint, bigint>,
): void {
  codec.reserve(at + arenas.length * ARENA_ENTRY);
  const { bytes, core } = codec;
  const view = new DataView(bytes.buffer, at, arenas.length * ARENA_ENTRY);
  for (const [index, token] of arenas.entries()) {
    view.setBigUint64(index * ARENA_ENTRY, pages.get(token) as bigint, true);
    view.setBigUint64(index * ARENA_ENTRY + 8, 0n, true);
    view.setUint32(index * ARENA_ENTRY + 16, index, true);
  }
  core.codecMappingsBegin(at, arenas.length);
}

/** The same state with something else for the mappings of each IOAS. */
function replaceMappings<T>(state: State<PackedIoas>, replace: (mappings: PackedIoas) => T): State<T> {
  return {
    ...state,
    iommufds: state.iommufds.map(iommufd => ({
      ...iommufd,
      ioases: iommufd.ioases.map(ioas => ({ ...ioas, mappings: replace(ioas.mappings) })),
    })),
  };
}

/**
 * Reads a state and checks all of it. What follows the state in `bytes` is ignored, so that it may come out of a file
 * of whole pages.
 *
 * Memory beyond the tables that it returns (24 bytes for each mapping and extent): the state once, 256 KiB, and some hundred
 * bytes for each of at most 65 536 nodes and properties.
 *
 * @throws StateError when it is damaged, requires what this library does not understand, or contradicts itself.
 */
export function decodeState(bytes: Uint8Array): State {
  return withCodec(codec => {
    const decoder = new Decoder(codec, bytes);
    const state = decoder.state();
    const pages = arenaPages(state);
    const arenaTable = (codec.free + decoder.blob.size + 15) & ~15;
    return replaceMappings(state, ({ packed, arenas }) => {
      const { core, free, staging, stagingSize } = codec;
      const table = MappingTable.decoded(arenas, packed.count);
      beginMappings(codec, arenaTable, arenas, pages);
      let at = free + packed.place.offset;
      const end = at + packed.place.length;
      while (table.length < packed.count) {
        const limit = Math.min(Math.floor(stagingSize / ROW), packed.count - table.length);
        const status = core.codecMappingsDecode(at, end, 1, staging, limit);
        const rows = core.codecMappingsRows();
        if (status !== OK) refuseRow(packed, table.length + rows, (core.codecFault() >>> 0) - free, status);
        if (rows === 0) break;
        table.decodedRows(codec.bytes.subarray(staging, staging + rows * ROW));
        at = core.codecMappingsPackedEnd() >>> 0;
      }
      checkCount(packed, table.length, end - at);
      return table;
    });
  });
}

/** Mappings that are unpacked piece by piece, each time they are iterated over. */
export class PackedMappings implements Iterable<MappingTable> {
  /** Number of mappings. */
  readonly length: number;
  readonly #packed: Packed;
  readonly #arenas: readonly bigint[];
  readonly #pages: ReadonlyMap<bigint, bigint>;
  readonly #bytes: Uint8Array;

  /** @internal */
  constructor(bytes: Uint8Array, { packed, arenas }: PackedIoas, pages: ReadonlyMap<bigint, bigint>) {
    this.length = packed.count;
    this.#packed = packed;
    this.#arenas = arenas;
    this.#pages = pages;
    this.#bytes = bytes.subarray(packed.place.offset, packed.place.offset + packed.place.length);
  }

  /**
   * Tables of up to 5461 mappings.
   *
   * @throws StateError when one of them is not in order; those before it have been seen by then.
   */
  *[Symbol.iterator](): Generator<MappingTable> {
    const packed = this.#packed;
    const bytes = this.#bytes;
    const codec = takeCodec();
    try {
      const { core, free, staging, stagingSize } = codec;
      const window = stagingSize;
      beginMappings(codec, free + window, this.#arenas, this.#pages);
      let done = 0;
      let offset = 0;
      while (done < packed.count) {
        const piece = bytes.subarray(offset, offset + window);
        codec.bytes.set(piece, free);
        const last = offset + piece.length === bytes.length;
        const limit = Math.min(Math.floor(stagingSize / ROW), packed.count - done);
        const status = core.codecMappingsDecode(free, free + piece.length, last ? 1 : 0, staging, limit);
        const rows = core.codecMappingsRows();
        if (status !== OK) {
          const fault = packed.place.offset + offset + (core.codecFault() >>> 0) - free;
          refuseRow(packed, done + rows, fault, status);
        }
        if (rows === 0) break;
        done += rows;
        offset += (core.codecMappingsPackedEnd() >>> 0) - free;
        const table = MappingTable.decoded(this.#arenas, rows);
        table.decodedRows(codec.bytes.subarray(staging, staging + rows * ROW));
        yield table;
      }
      checkCount(packed, done, bytes.length - offset);
    } finally {
      giveBackCodec(codec);
    }
  }
}

/**
 * As {@link decodeState}, but leaves mappings packed in `bytes`, which must not change while they are in use. What is
 * wrong with a mapping is found when it is reached.
 */
export function decodeStateInPieces(bytes: Uint8Array): State<PackedMappings> {
  return withCodec(codec => {
    const state = new Decoder(codec, bytes).state();
    const pages = arenaPages(state);
    return replaceMappings(state, mappings => new PackedMappings(bytes, mappings, pages));
  });
}
