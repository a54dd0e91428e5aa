/** Typed wrapper of `assembly/codec`: its functions, its memory, and what its failures mean. @module */
import { instantiate } from '../../wasm.js';

/** See assembly/codec/index.ts; addresses come back signed. */
export interface CodecExports extends Record<string, unknown> {
  codecStart(): void;
  codecFault(): number;
  codecFree(): number;
  codecStaging(): number;
  codecReserve(end: number): number;
  codecCrc32c(crc: number, at: number, length: number): number;

  codecFdtOpen(at: number, available: number): number;
  codecFdtTotal(): number;
  codecFdtBootCpu(): number;
  codecFdtReservations(): number;
  codecFdtReservationCount(): number;
  codecFdtIndex(index: number, limit: number): number;
  codecFdtIndexEnd(): number;

  codecFdtBegin(at: number): number;
  codecFdtReservation(address: bigint, size: bigint): number;
  codecFdtBeginNode(length: number): number;
  codecFdtEndNode(): number;
  codecFdtProperty(name: number, length: number): number;
  codecFdtBeginProperty(name: number): number;
  codecFdtEndProperty(): number;
  codecFdtCursor(): number;
  codecFdtFinish(strings: number, bootCpu: number): number;

  codecMappingsBegin(table: number, count: number): void;
  codecMappingsEncode(rows: number, count: number): number;
  codecMappingsDecode(source: number, end: number, last: number, rows: number, limit: number): number;
  codecMappingsRows(): number;
  codecMappingsPackedEnd(): number;

  codecExtentsBegin(pages: bigint): void;
  codecExtentsEncode(rows: number, count: number): number;
  codecExtentsDecode(source: number, end: number, rows: number, limit: number): number;
  codecExtentsRows(): number;
  codecExtentsPackedEnd(): number;

  codecRfcWrite(
    rows: number,
    count: number,
    mappings: number,
    first: number,
    startName: number,
    lengthName: number,
    protName: number,
  ): number;
  codecRfcBegin(): void;
  codecRfcNext(rows: number, limit: number): number;
  codecRfcId(): number;
  codecRfcRows(): number;
  codecRfcInOrder(): number;
}

/** Of assembly/codec/memory.ts: all goes well, and memory is exhausted. */
export const OK = 0;
export const NO_MEMORY = 1;

/** What the other statuses of assembly/codec/memory.ts say of the input. */
const reasons: Readonly<Record<number, string>> = {
  2: 'it is shorter than it says',
  3: 'it does not begin with the magic number of a flattened device tree',
  4: 'it is a device tree of a version other than 16 and 17',
  5: 'one of its blocks is misaligned, or lies beyond its end',
  6: 'its blocks overlap',
  7: 'the list of memory reservations does not end, or has an empty one',
  10: 'there is no such token',
  11: 'a name is empty, does not end, is longer than 255 characters, or has characters that names do not have',
  12: 'nodes are nested more than 64 deep',
  13: 'the name of a property does not lie among the strings, or is not a name',
  14: 'the value of a property is longer than what is left',
  15: 'a property follows a subnode',
  16: 'nodes begin and end wrongly',
  17: 'the structure does not end where it should',
  20: 'it ends within a row',
  21: 'a number is not in its minimal form, or too large',
  22: 'a row is not in its minimal form',
  23: 'it refers to an arena that is not in the list',
  24: 'a row has permissions that do not exist',
  30: 'an address, a length or an offset is not a multiple of 4096',
  31: 'a length is 0',
  32: 'a row overlaps the row before it, or should come before it',
  33: 'a range ends beyond 2^64',
  34: 'a range ends beyond its arena',
  40: 'there is a node that the layout does not have',
  41: 'a property has another size than the layout gives it',
  42: 'there is a second one of what there is only one',
  43: 'an area lacks iova-start, iova-len or iommu-prot',
  44: 'its compatible is not "iommufd-v0"',
};

/** Structure that holds more nodes and properties than the reader takes. */
export const TOO_MANY = 18;

export function reasonOf(status: number): string {
  return reasons[status] ?? `status ${status}`;
}

const STAGING_SIZE = 0x20000;
/** Of assembly/codec/memory.ts; larger numbers would wrap on their way there. */
const MAX_ADDRESS = 0x7fff_0000;
/** An instance that has grown beyond this many bytes is not kept. */
const KEPT_SIZE = 4 * 2 ** 20;

/** One instance: it serves one job at a time, see {@link withCodec}. */
export class Codec {
  readonly core: CodecExports;
  /** Rows on their way in or out, {@link stagingSize} bytes. */
  readonly staging: number;
  readonly stagingSize = STAGING_SIZE;
  /** The first address that a job may use, a multiple of 16. */
  readonly free: number;
  readonly #memory: WebAssembly.Memory;
  #bytes: Uint8Array;

  constructor() {
    const { exports, memory } = instantiate<CodecExports>(4);
    this.core = exports;
    this.#memory = memory;
    this.#bytes = new Uint8Array(memory.buffer);
    exports.codecStart();
    this.staging = exports.codecStaging() >>> 0;
    this.free = exports.codecFree() >>> 0;
  }

  /** All of its memory. Not to be kept over a call that may grow it. */
  get bytes(): Uint8Array {
    if (this.#bytes.buffer !== this.#memory.buffer) this.#bytes = new Uint8Array(this.#memory.buffer);
    return this.#bytes;
  }

  /** A copy of memory. */
  copy(at: number, length: number): Uint8Array {
    return this.bytes.slice(at, at + length);
  }

  /** @throws RangeError when there is not that much memory. */
  reserve(end: number): void {
    if (end > MAX_ADDRESS || !this.core.codecReserve(end)) this.exhausted();
  }

  exhausted(): never {
    throw new RangeError('the state is larger than the 2 GiB that its codec can work in');
  }

  crc32c(at: number, length: number): number {
    return this.core.codecCrc32c(0, at, length) >>> 0;
  }
}

let idle: Codec | undefined;

/** For jobs that end in one call, {@link withCodec} is safer. */
export function takeCodec(): Codec {
  const codec = idle ?? new Codec();
  idle = undefined;
  return codec;
}

export function giveBackCodec(codec: Codec): void {
  if (codec.bytes.length <= KEPT_SIZE) idle = codec;
}

/** Runs a job on an instance that nobody else uses meanwhile, not even what the job calls. */
export function withCodec<T>(job: (codec: Codec) => T): T {
  const codec = takeCodec();
  try {
    return job(codec);
  } finally {
    giveBackCodec(codec);
  }
}

/** CRC32C (Castagnoli, RFC 3720) of `bytes`. */
export function crc32c(bytes: Uint8Array): number {
  return withCodec(codec => {
    let crc = 0;
    for (let offset = 0; offset < bytes.length; offset += STAGING_SIZE) {
      const piece = bytes.subarray(offset, offset + STAGING_SIZE);
      codec.bytes.set(piece, codec.staging);
      crc = codec.core.codecCrc32c(crc, codec.staging, piece.length);
    }
    return crc >>> 0;
  });
}
