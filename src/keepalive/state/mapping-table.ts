/** The mappings of an IOAS, as a table. @module */
import type { Iova } from '../../address.js';
import { checkAligned, checkInteger, checkU64 } from '../../check.js';
import { hex } from '../../hex.js';
import type { MappingRows } from '../../iommufd/mapping-rows.js';
import { RowTable } from './row-table.js';

/** What {@link MappingTable} holds: what a device may reach at an IOVA. */
export interface SavedMapping {
  /** A multiple of 4096. */
  readonly iova: Iova;
  /** In bytes, a multiple of 4096, not 0. */
  readonly length: number;
  /** Token of the arena that is mapped. */
  readonly arena: bigint;
  /** In bytes from the start of the arena, a multiple of 4096. */
  readonly offset: number;
  /** The device may read it; true by default. */
  readonly readable?: boolean;
  /** The device may write it; true by default. */
  readonly writeable?: boolean;
}

const PAGE = 4096;
const ALL_PAGES = 2 ** 52;
/** What the rows have bits for. */
const MAX_ARENAS = 2 ** 24;
const READABLE = 1;
const WRITEABLE = 2;
const ROW = 24;
/** Of a row's numbers: the part that is a multiple of 4096, and the rest. */
const LOW = 0xfffn;
const LOW_BITS = 0xfff;
/** Words of a row, and of the same in {@link MappingRows.numbers}. */
const WORDS = ROW / 4;

/**
 * Mappings in ascending order of IOVA, disjoint, 24 bytes each: `{u64 iova, u64 length, u64 offset}`. These are multiples
 * of 4096; the lowest twelve bits of each hold the rest: `access`, which is 1 for readable, 2 for writeable, 3 for both,
 * and the low and the high half of `arena`, an index into {@link arenas}.
 */
export class MappingTable extends RowTable<SavedMapping> {
  /** Tokens of the arenas, in the order in which they came up. */
  readonly #arenas: bigint[];
  readonly #indexOf: Map<bigint, number>;
  /** Where the last mapping ends, in pages: exact up to 2^64 bytes. */
  #endPage = 0;

  /** @param capacity rows that there is room for before the table must grow */
  constructor(capacity = 0) {
    super(ROW, checkInteger('capacity', capacity));
    this.#arenas = [];
    this.#indexOf = new Map();
  }

  /** @internal Rows that the codec found good. */
  static decoded(arenas: readonly bigint[], capacity: number): MappingTable {
    const table = new MappingTable(capacity);
    for (const token of arenas) table.#indexFor(token);
    return table;
  }

  /** @internal */
  decodedRows(rows: Uint8Array): void {
    this.appendRows(rows);
    const { iova, length } = this.get(this.length - 1);
    this.#endPage = Number(iova >> 12n) + length / PAGE;
  }

  /** Tokens of the arenas that the rows refer to by index. */
  get arenas(): readonly bigint[] {
    return this.#arenas;
  }

  /**
   * @internal Adds what is mapped in an address space, piece by piece: it is in order, and disjoint.
   *
   * @param tokenOf the token of the arena with that index in the rows
   * @throws RangeError as {@link push}
   */
  pushRows(rows: MappingRows, tokenOf: (file: number) => bigint): void {
    // As they are in memory, with the lower half of a number first.
    const words = new Uint32Array(rows.numbers.buffer, 0, rows.length * WORDS).slice();
    let low = 0;
    for (let at = 0; at < words.length; at += 2) low |= words[at] as number;
    if ((low & LOW_BITS) !== 0) {
      for (let row = 0; row < rows.length; row++) {
        const { iova, length, offset, readable, writeable } = rows.read(row, undefined);
        const arena = tokenOf(rows.file(row));
        this.push({ iova, length: Number(length), arena, offset: Number(offset), readable, writeable });
      }
      return;
    }
    const indexes: number[] = [];
    for (let row = 0, at = 0; row < rows.length; row++, at += WORDS) {
      const file = rows.file(row);
      let arena = indexes[file];
      if (arena === undefined) {
        arena = this.#indexFor(tokenOf(file));
        indexes[file] = arena;
      }
      words[at] = (words[at] as number) | ((rows.rest[row] as number) & (READABLE | WRITEABLE));
      words[at + 2] = (words[at + 2] as number) | (arena & LOW_BITS);
      words[at + 4] = (words[at + 4] as number) | (arena >>> 12);
    }
    if (rows.length > 0) this.decodedRows(new Uint8Array(words.buffer));
  }

  /** @internal Rows from `start` to `end`, as many as there is room for, with the index of the arena for that of the file. */
  readRows(start: number, into: MappingRows, end = this.length): void {
    const count = Math.min(into.capacity, end - start);
    const from = new Uint32Array(this.rows.buffer, start * ROW, count * WORDS);
    const to = new Uint32Array(into.numbers.buffer, 0, count * WORDS);
    for (let row = 0, at = 0; row < count; row++, at += WORDS) {
      const [first, second, third] = [from[at], from[at + 2], from[at + 4]] as [number, number, number];
      into.rest[row] = ((((third & LOW_BITS) << 12) | (second & LOW_BITS)) << 2) | (first & LOW_BITS);
      for (let word = 0; word < WORDS; word += 2) {
        to[at + word] = (from[at + word] as number) & ~LOW_BITS;
        to[at + word + 1] = from[at + word + 1] as number;
      }
    }
    into.length = count;
  }

  #indexFor(token: bigint): number {
    let index = this.#indexOf.get(token);
    if (index === undefined) {
      if (this.#arenas.length === MAX_ARENAS)
        throw new RangeError(`a table refers to ${MAX_ARENAS} arenas at most`);
      index = this.#arenas.push(token) - 1;
      this.#indexOf.set(token, index);
    }
    return index;
  }

  /**
   * Adds a mapping behind all others. That it lies within its arena is checked when the state is encoded.
   *
   * @throws TypeError, RangeError when a field is not as {@link SavedMapping} says, when the mapping begins before the
   * end of the last one or ends beyond 2^64, or when it is neither readable nor writeable.
   */
  push(mapping: SavedMapping): void {
    const { readable = true, writeable = true } = mapping;
    const iova = checkU64('iova', mapping.iova);
    checkAligned('iova', iova, PAGE);
    const length = checkInteger('length', mapping.length, PAGE);
    checkAligned('length', length, PAGE);
    const offset = checkInteger('offset', mapping.offset);
    checkAligned('offset', offset, PAGE);
    const token = checkU64('arena', mapping.arena);
    const access = (readable ? READABLE : 0) | (writeable ? WRITEABLE : 0);
    if (access === 0) throw new RangeError('a mapping must be readable or writeable');
    const page = Number(iova >> 12n);
    if (page < this.#endPage) {
      const end = hex(BigInt(this.#endPage) << 12n);
      throw new RangeError(
        `the mapping at ${hex(iova)} begins before the last one ends, at ${end}; add in order`,
      );
    }
    const endPage = page + length / PAGE;
    if (endPage > ALL_PAGES) throw new RangeError(`the mapping at ${hex(iova)} ends beyond 2^64`);
    const arena = this.#indexFor(token);
    const at = this.append();
    const { view } = this;
    view.setBigUint64(at, iova | BigInt(access), true);
    view.setBigUint64(at + 8, BigInt(length + (arena & 0xfff)), true);
    view.setBigUint64(at + 16, BigInt(offset + (arena >>> 12)), true);
    this.#endPage = endPage;
  }

  override get(index: number): Required<SavedMapping> {
    const at = this.at(index);
    const { view } = this;
    const first = view.getBigUint64(at, true);
    const second = view.getBigUint64(at + 8, true);
    const third = view.getBigUint64(at + 16, true);
    const access = Number(first & LOW);
    const arena = Number((second & LOW) | ((third & LOW) << 12n));
    return {
      iova: (first & ~LOW) as Iova,
      length: Number(second & ~LOW),
      arena: this.#arenas[arena] as bigint,
      offset: Number(third & ~LOW),
      readable: (access & READABLE) !== 0,
      writeable: (access & WRITEABLE) !== 0,
    };
  }
}
