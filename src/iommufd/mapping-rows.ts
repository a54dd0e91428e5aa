/** Mappings side by side, without an object for each. @module */
import type { Iova } from '../address.js';
import type { IoasMapping } from './ioas.js';

/** Numbers of a row: iova, length, offset. */
const NUMBERS = 3;
const READABLE = 1;
const WRITEABLE = 2;
/** Above the two bits of access there is the index of the file. */
const FILE_SHIFT = 2;

/** Mappings in ascending order of IOVA, disjoint. The files that they are of are elsewhere, in a list. */
export class MappingRows {
  /** Three for each row: `iova`, `length`, `offset`. */
  readonly numbers: BigUint64Array;
  /** One for each row: 1 for readable, 2 for writeable, and from bit 2 on the index of the file. */
  readonly rest: Uint32Array;
  length = 0;

  /** @param capacity the most rows that there is room for */
  constructor(capacity: number) {
    // In one piece of memory: a piece costs more than what is done with it.
    const buffer = new ArrayBuffer(capacity * (NUMBERS * 8 + 4));
    this.numbers = new BigUint64Array(buffer, 0, capacity * NUMBERS);
    this.rest = new Uint32Array(buffer, capacity * NUMBERS * 8);
  }

  get capacity(): number {
    return this.rest.length;
  }

  iova(row: number): bigint {
    return this.numbers[row * NUMBERS] as bigint;
  }

  /** The IOVA of the last row. */
  get last(): bigint {
    return this.iova(this.length - 1);
  }

  /** The index of the file. */
  file(row: number): number {
    return (this.rest[row] as number) >>> FILE_SHIFT;
  }

  readable(row: number): boolean {
    return ((this.rest[row] as number) & READABLE) !== 0;
  }

  writeable(row: number): boolean {
    return ((this.rest[row] as number) & WRITEABLE) !== 0;
  }

  read(row: number, file: IoasMapping['file']): IoasMapping {
    return {
      iova: this.iova(row) as Iova,
      length: this.numbers[row * NUMBERS + 1] as bigint,
      file,
      offset: this.numbers[row * NUMBERS + 2] as bigint,
      readable: this.readable(row),
      writeable: this.writeable(row),
    };
  }

  /** @param file its index */
  write(row: number, { iova, length, offset, readable, writeable }: IoasMapping, file: number): void {
    this.numbers[row * NUMBERS] = iova;
    this.numbers[row * NUMBERS + 1] = length;
    this.numbers[row * NUMBERS + 2] = offset;
    this.rest[row] = (file << FILE_SHIFT) | (readable ? READABLE : 0) | (writeable ? WRITEABLE : 0);
  }

  setFile(row: number, file: number): void {
    this.rest[row] = (file << FILE_SHIFT) | ((this.rest[row] as number) & (READABLE | WRITEABLE));
  }

  /** The first row at or above an IOVA; {@link length} when there is none. */
  find(iova: bigint): number {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.iova(middle) < iova) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Moves the rows from `from` on to `to`: makes room for some before them, or takes some out. */
  move(from: number, to: number): void {
    this.numbers.copyWithin(to * NUMBERS, from * NUMBERS, this.length * NUMBERS);
    this.rest.copyWithin(to, from, this.length);
    this.length += to - from;
  }

  /** Adds rows `from` to `to` of others at the end. */
  append(others: MappingRows, from: number, to: number): void {
    this.numbers.set(others.numbers.subarray(from * NUMBERS, to * NUMBERS), this.length * NUMBERS);
    this.rest.set(others.rest.subarray(from, to), this.length);
    this.length += to - from;
  }
}
