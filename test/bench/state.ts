// Saved states: a million mappings to bytes and back. Ours validates all that it reads and adds checksums; the peers do
// neither. Each is given the data as a user of it would have them: arrays of objects for the JavaScript ones, arrays of
// structs for libfdt, which writes a node for each mapping, as the kernel's RFC does. For cbor-x there is a second way:
// to turn the objects into columns of typed arrays and back, which takes longer than the coding itself.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Encoder as CborEncoder } from 'cbor-x';
import { Packr } from 'msgpackr';
import protobuf from 'protobufjs';
import type { Iova } from '../../src/address.js';
import { decodeState } from '../../src/keepalive/state/decode-state.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import { MappingTable } from '../../src/keepalive/state/mapping-table.js';
import { exportRfc, importRfc } from '../../src/keepalive/state/rfc.js';
import type { State } from '../../src/keepalive/state/saved-state.js';
import { PageSize } from '../../src/memory/memfd.js';
import { random } from '../support/random.js';
import { type BenchCase, nanoseconds } from './measure.js';
import { buildPeer, nativePeer } from './native.js';

const COUNT = 1_000_000;
const PAGE = 4096;
const ARENAS = 8;

/** A mapping in plain numbers, which hold all addresses that occur here exactly. */
interface PlainMapping {
  iova: number;
  length: number;
  arena: number;
  offset: number;
  access: number;
}

/** Columns of typed arrays, which binary formats may take whole. */
interface Columns {
  iova: Float64Array;
  length: Float64Array;
  arena: Uint32Array;
  offset: Float64Array;
  access: Uint8Array;
}

/**
 * Mappings as a driver of a large guest has them: 70 % of 4 KiB, 20 % of 64 KiB, 10 % of 2 MiB; nine of ten go on in
 * their arena and at the IOVA where the one before ended.
 */
function realisticMappings(): PlainMapping[] {
  const { below } = random(20_240_916);
  const ends = new Float64Array(ARENAS);
  const mappings: PlainMapping[] = [];
  let iova = 2 ** 32;
  let arena = 0;
  for (let index = 0; index < COUNT; index++) {
    const kind = below(100);
    const length = kind < 70 ? PAGE : kind < 90 ? 16 * PAGE : 512 * PAGE;
    if (below(100) < 10) {
      arena = below(ARENAS);
      ends[arena] = (ends[arena] as number) + PAGE * below(4096);
    }
    if (below(100) < 5) iova += PAGE * (1 + below(65536));
    const offset = ends[arena] as number;
    mappings.push({ iova, length, arena, offset, access: below(100) < 2 ? 1 : 3 });
    ends[arena] = offset + length;
    iova += length;
  }
  return mappings;
}

function tableOf(mappings: readonly PlainMapping[]): MappingTable {
  const table = new MappingTable();
  for (const { iova, length, arena, offset, access } of mappings) {
    table.push({ iova: BigInt(iova) as Iova, length, arena: BigInt(arena), offset, writeable: access === 3 });
  }
  return table;
}

function columnsOf(mappings: readonly PlainMapping[]): Columns {
  return {
    iova: Float64Array.from(mappings, ({ iova }) => iova),
    length: Float64Array.from(mappings, ({ length }) => length),
    arena: Uint32Array.from(mappings, ({ arena }) => arena),
    offset: Float64Array.from(mappings, ({ offset }) => offset),
    access: Uint8Array.from(mappings, ({ access }) => access),
  };
}

function mappingsOf({ iova, length, arena, offset, access }: Columns): PlainMapping[] {
  return Array.from({ length: iova.length }, (_, index) => ({
    iova: iova[index] as number,
    length: length[index] as number,
    arena: arena[index] as number,
    offset: offset[index] as number,
    access: access[index] as number,
  }));
}

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** A job is repeated until it has taken this long, since the slower ones take about as long once. */
const MILLISECONDS = 100;

/** Nanoseconds per mapping, without the garbage of whoever was measured before. */
function timed(job: () => unknown): () => number {
  return () => {
    collectGarbage();
    const end = performance.now() + MILLISECONDS;
    let runs = 0;
    const total = nanoseconds(COUNT, () => {
      do {
        job();
        runs++;
      } while (performance.now() < end);
    });
    return total / runs;
  };
}

/** One way to write and read the mappings. */
interface Format<T> {
  readonly data: T;
  encode(data: T): Uint8Array;
  decode(bytes: Uint8Array): unknown;
}

function protobufType(): protobuf.Type {
  const field = (name: string, id: number, type: string): protobuf.Field =>
    new protobuf.Field(name, id, type);
  const mapping = new protobuf.Type('Mapping')
    .add(field('iova', 1, 'double'))
    .add(field('length', 2, 'uint32'))
    .add(field('arena', 3, 'uint32'))
    .add(field('offset', 4, 'double'))
    .add(field('access', 5, 'uint32'));
  const state = new protobuf.Type('State').add(new protobuf.Field('mappings', 1, 'Mapping', 'repeated'));
  new protobuf.Root().define('bench').add(mapping).add(state);
  return state;
}

function formats(mappings: readonly PlainMapping[]): Readonly<Record<string, Format<never>>> {
  const cbor = new CborEncoder({ structures: [], useRecords: true });
  const packr = new Packr({ structures: [], useRecords: true });
  const type = protobufType();
  const made: Record<string, Format<unknown>> = {
    'cbor-x': { data: mappings, encode: data => cbor.encode(data), decode: bytes => cbor.decode(bytes) },
    'cbor-x, columns': {
      data: mappings,
      encode: data => cbor.encode(columnsOf(data as PlainMapping[])),
      decode: bytes => mappingsOf(cbor.decode(bytes)),
    },
    msgpackr: { data: mappings, encode: data => packr.pack(data), decode: bytes => packr.unpack(bytes) },
    protobufjs: {
      data: { mappings },
      encode: data => type.encode(data as protobuf.Message).finish(),
      decode: bytes => type.decode(bytes),
    },
  };
  return made as Readonly<Record<string, Format<never>>>;
}

export function cases(): BenchCase[] {
  const mappings = realisticMappings();
  const table = tableOf(mappings);
  const size = 2 ** 40;
  const state: State = {
    arenas: Array.from({ length: ARENAS }, (_, index) => ({
      token: BigInt(index),
      size,
      pageSize: PageSize.Small,
      name: `arena ${index}`,
    })),
    iommufds: [{ id: 0, ioases: [{ id: 0, allowed: [], mappings: table }] }],
    devices: [],
    sessions: [],
    drivers: [],
  };
  const bytes = encodeState(state);
  const rfc = exportRfc(state);
  const peers = formats(mappings);
  const encoded = Object.fromEntries(
    Object.entries(peers).map(([name, { data, encode }]) => [name, Uint8Array.from(encode(data))]),
  );
  const libfdt = buildPeer('libfdt', ['fdt']);
  const each = <T>(make: (name: string, format: Format<never>) => T): Record<string, T> =>
    Object.fromEntries(Object.entries(peers).map(([name, format]) => [name, make(name, format)]));
  const perMapping = (length: number) => () => length / COUNT;

  return [
    {
      name: 'encode',
      unit: 'ns per mapping',
      ours: timed(() => encodeState(state)),
      peers: {
        ...each(
          (_, { data, encode }) =>
            () =>
              nanoseconds(COUNT, () => encode(data)),
        ),
        libfdt: nativePeer(libfdt, ['write', COUNT]),
      },
    },
    {
      name: 'decode',
      unit: 'ns per mapping',
      ours: timed(() => decodeState(bytes)),
      peers: {
        ...each(
          (name, { decode }) =>
            () =>
              nanoseconds(COUNT, () => decode(encoded[name] as Uint8Array)),
        ),
        libfdt: nativePeer(libfdt, ['read', COUNT]),
      },
    },
    {
      name: 'size',
      unit: 'bytes per mapping',
      ours: perMapping(bytes.length),
      peers: {
        ...each(name => perMapping((encoded[name] as Uint8Array).length)),
        libfdt: nativePeer(libfdt, ['size', COUNT]),
      },
      rounds: 1,
    },
    {
      name: "write the kernel RFC's layout",
      unit: 'ns per mapping',
      ours: timed(() => exportRfc(state)),
      peers: { libfdt: nativePeer(libfdt, ['write', COUNT]) },
    },
    {
      name: "read the kernel RFC's layout",
      unit: 'ns per mapping',
      ours: timed(() => importRfc(rfc)),
      peers: { libfdt: nativePeer(libfdt, ['read', COUNT]) },
    },
  ];
}
