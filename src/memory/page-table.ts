/**
 * IO page tables in the hardware's own formats: made, read, changed, checked and compared without any hardware.
 *
 * @module
 */

import type { Iova, PhysicalAddress } from '../address.js';
import { checkAligned, checkInteger, checkU64 } from '../check.js';
import { undo } from '../errors.js';
import { hex } from '../hex.js';
import { PageTableError, PageTableErrorCode, type PageTablePlace } from './page-table-error.js';
import {
  decodeFlags,
  encodeFlags,
  type PageFlags,
  type PagePermissions,
  type PageTableFormat,
  type PageTableOptions,
  type TableRules,
  tableRules,
} from './page-table-format.js';
import { TABLE_PAGE, TableMemory } from './table-memory.js';

export {
  type PageFlags,
  type PagePermissions,
  PageTableFormat,
  type PageTableOptions,
} from './page-table-format.js';

/** What an IOVA is mapped to. */
export interface PageTranslation extends PageFlags {
  readonly address: PhysicalAddress;
  /** The size in bytes of the entry that maps it. */
  readonly entrySize: bigint;
}

/** A range of IOVAs that is mapped to consecutive physical addresses with the same flags. */
export interface PageTableExtent extends PageFlags {
  readonly iova: Iova;
  readonly address: PhysicalAddress;
  /** In bytes. */
  readonly length: bigint;
}

/** An entry that is not zero. */
export interface PageTableEntry extends PageTablePlace {
  readonly table: PhysicalAddress;
  /** `'empty'`: not zero, but not present either; `'illegal'`: means nothing at its level. */
  readonly kind: 'empty' | 'table' | 'leaf' | 'illegal';
  /** Bytes that the leaf maps, or that the entry stands for. */
  readonly size: bigint;
}

/** Something wrong with a table. */
export interface PageTableFinding extends PageTablePlace {
  readonly code: PageTableErrorCode;
  /** The reserved bits that are set, where it is about those. */
  readonly bits: bigint;
}

/** How a table is made up. */
export interface PageTableSizes {
  /** Pages that tables take, the root among them. */
  readonly tables: number;
  /** How many leaves there are of each size in bytes. A leaf repeated in several entries counts once. */
  readonly leaves: ReadonlyMap<bigint, number>;
}

export interface CompareOptions {
  /**
   * Also compare the sizes of the entries: only tables that are equal in this way may replace one another under a
   * device that is using them.
   */
  readonly entrySizes?: boolean;
}

/** The first range in which two tables differ; undefined: not mapped there. */
export interface PageTableDifference {
  readonly a: PageTableExtent | undefined;
  readonly b: PageTableExtent | undefined;
}

/** A range of IOVAs that was written to. */
export interface DirtyExtent {
  readonly iova: Iova;
  /** In bytes. */
  readonly length: bigint;
}

const U64_MAX = 0xffff_ffff_ffff_ffffn;
const RECORD = 32;
const FINDING = 40;
/** Records taken from the core at a time. */
const CHUNK = 4096;
/** Bytes of records given to the core at a time: few calls, and still in the cache when it reads them. */
const MAP_BYTES = 131_072;
const CURSOR = 64;
/** assembly/pagetable/cursor.ts */
const Mode = { extents: 0, leaves: 1, dirty: 2, clearDirty: 3 } as const;
const kinds = ['empty', 'table', 'leaf', 'illegal'] as const;

const INVALID = 1;
/** By status, see assembly/pagetable/status.ts. */
const errors: Readonly<Record<number, readonly [PageTableErrorCode, string]>> = {
  2: [PageTableErrorCode.Exists, 'something in the range is mapped already'],
  3: [PageTableErrorCode.NoMemory, 'the table memory has too few free pages for the tables that are needed'],
  4: [PageTableErrorCode.Unsupported, 'nothing in this table tells what is dirty'],
  5: [PageTableErrorCode.OutsideMemory, 'a pointer leads to a page that is neither loaded nor in use'],
  6: [PageTableErrorCode.SharedTable, 'a table is reached twice'],
  7: [PageTableErrorCode.IllegalEntry, 'an entry means nothing at its level'],
  8: [PageTableErrorCode.ReservedBits, 'reserved bits are set'],
  9: [PageTableErrorCode.ReplicasDiffer, 'the entries that repeat one leaf are not the same'],
};

/**
 * A page table over pages in a {@link TableMemory}.
 *
 * Changes are all or nothing: after an error the table is as it was. This holds for sound tables; one that comes from
 * elsewhere should pass {@link verify} before it is changed. Every operation ends soon and touches nothing but the
 * table memory, however corrupt the table.
 */
export class PageTable implements Disposable {
  readonly #memory: TableMemory;
  readonly #rules: TableRules;
  #root: PhysicalAddress;
  #levels: number;

  private constructor(memory: TableMemory, rules: TableRules, root: PhysicalAddress) {
    this.#memory = memory;
    this.#rules = rules;
    this.#root = root;
    this.#levels = rules.levels;
  }

  /**
   * An empty table.
   *
   * @throws TypeError, RangeError; {@link PageTableError} NO_MEMORY
   */
  static create(format: PageTableFormat, memory: TableMemory, options: PageTableOptions = {}): PageTable {
    checkMemory(memory);
    const rules = tableRules(format, options);
    const { core } = memory;
    memory.current = undefined;
    const status = core.pageTableCreate(rules.number, rules.levels - 1, rules.options, rules.sizes);
    if (status !== 0) throw statusError(memory, status);
    const table = new PageTable(memory, rules, BigInt.asUintN(64, core.pageTableRoot()) as PhysicalAddress);
    memory.current = table;
    return table;
  }

  /**
   * A table that is there already, such as one loaded from a dump. Nothing is checked beyond the root's page.
   *
   * @param options `levels` must be those the table has
   * @throws TypeError, RangeError; {@link PageTableError} OUTSIDE_MEMORY when there is no page at `root`
   */
  static open(
    format: PageTableFormat,
    memory: TableMemory,
    root: PhysicalAddress,
    options: PageTableOptions = {},
  ): PageTable {
    checkMemory(memory);
    const rules = tableRules(format, options);
    checkBigint('root', root);
    checkAligned('root', root, TABLE_PAGE);
    if (memory.core.pageTablePage(root) === 0) {
      throw new PageTableError(
        PageTableErrorCode.OutsideMemory,
        `there is no table page at the root, ${hex(root)}`,
      );
    }
    return new PageTable(memory, rules, root);
  }

  get format(): PageTableFormat {
    return this.#rules.format;
  }
  get memory(): TableMemory {
    return this.#memory;
  }
  /** The physical address of the root; changes when an AMDv1 table grows. */
  get root(): PhysicalAddress {
    return this.#root;
  }
  /** Levels of tables; changes when an AMDv1 table grows. */
  get levels(): number {
    return this.#levels;
  }

  /**
   * Maps `length` bytes, in the largest entries that alignment and length allow, the same that the kernel picks. An
   * AMDv1 table grows by new roots until it covers the range. Tables that are left over and empty give way to larger
   * entries.
   *
   * @param iova, address, length multiples of 4096
   * @throws TypeError, RangeError; {@link PageTableError} EXISTS when any of it is mapped, NO_MEMORY, and as
   *   {@link verify} where the table is corrupt. Nothing is changed then.
   */
  map(
    iova: Iova,
    address: PhysicalAddress,
    length: bigint | number,
    permissions: PagePermissions = {},
  ): void {
    const bytes = checkSpan(iova, length);
    checkBigint('address', address);
    checkAligned('address', address, TABLE_PAGE);
    const flags = encodeFlags(this.#rules, permissions);
    const core = this.#use();
    const status = core.pageTableMap(iova, bytes, address, flags);
    if (status !== 0) {
      if (status === INVALID) throw this.#outOfRange(iova, bytes, address);
      throw statusError(this.#memory, status);
    }
    this.#followRoot();
  }

  /**
   * Maps many ranges, each as {@link map} does, without a call for each.
   *
   * @param records back to back, little-endian: u64 IOVA, u64 length, u64 physical address, and whatever else up to
   *   `stride` bytes
   * @throws TypeError, RangeError; {@link PageTableError} as {@link map}. What the records before the one at fault
   *   mapped is unmapped again then, though an AMDv1 table may have grown.
   */
  mapMany(records: Uint8Array, permissions: PagePermissions = {}, stride = 24): void {
    if (!(records instanceof Uint8Array)) throw new TypeError('records must be a Uint8Array');
    checkInteger('stride', stride, 24, 4096);
    if (records.length % stride !== 0) {
      throw new RangeError(`records must be a multiple of ${stride} bytes, got ${records.length}`);
    }
    const flags = encodeFlags(this.#rules, permissions);
    const core = this.#use();
    const from = core.pageTableScratch();
    const chunk = Math.floor(MAP_BYTES / stride) * stride;
    for (let start = 0; start < records.length; start += chunk) {
      const part = records.subarray(start, start + chunk);
      new Uint8Array(this.#memory.memory.buffer, from, part.length).set(part);
      const status = core.pageTableMapMany(from, part.length / stride, stride, flags);
      this.#followRoot();
      if (status === 0) continue;
      const view = new DataView(records.buffer, records.byteOffset, records.length);
      const failed = start + Number(result(this.#memory).getBigUint64(32, true)) * stride;
      const range = (at: number): [Iova, bigint] => [
        view.getBigUint64(at, true) as Iova,
        view.getBigUint64(at + 8, true),
      ];
      const error =
        status === INVALID
          ? this.#outOfRange(...range(failed), view.getBigUint64(failed + 16, true))
          : statusError(this.#memory, status);
      undo(error, [
        () => {
          for (let at = 0; at < failed; at += stride) this.unmap(...range(at));
        },
      ]);
    }
  }

  /**
   * Unmaps exactly `length` bytes; what is not mapped is passed over. An entry of which only a part goes is split: it
   * is removed and the rest is mapped again in the largest entries possible, with the same attributes, dirty if it was
   * (so no device may be using the rest meanwhile). The kernel, unlike this, removes such an entry as a whole. Tables
   * that are empty afterwards are given back; the kernel keeps those that are not wholly in the range.
   *
   * @returns how many bytes were mapped
   * @throws TypeError, RangeError; {@link PageTableError} NO_MEMORY where splitting needs tables, and as
   *   {@link verify} where the table is corrupt. Nothing is changed then.
   */
  unmap(iova: Iova, length: bigint | number): bigint {
    const bytes = checkSpan(iova, length);
    const core = this.#use();
    const status = core.pageTableUnmap(iova, bytes);
    if (status !== 0) {
      if (status === INVALID) throw this.#outOfRange(iova, bytes);
      throw statusError(this.#memory, status);
    }
    return result(this.#memory).getBigUint64(32, true);
  }

  /**
   * What `iova`, which need not be aligned, is mapped to.
   *
   * @throws TypeError, RangeError; {@link PageTableError} OUTSIDE_MEMORY or ILLEGAL_ENTRY where the table is corrupt
   */
  translate(iova: Iova): PageTranslation | undefined {
    checkBigint('iova', iova);
    const status = this.#use().pageTableTranslate(iova);
    if (status !== 0) throw statusError(this.#memory, status);
    const view = result(this.#memory);
    const entrySize = view.getBigUint64(16, true);
    if (entrySize === 0n) return undefined;
    const address = view.getBigUint64(0, true) as PhysicalAddress;
    return { address, entrySize, ...decodeFlags(view.getUint32(24, true)) };
  }

  /**
   * The physical address of each IOVA; 2^64-1 where there is none or the table is corrupt. Far cheaper than
   * {@link translate} for many.
   */
  translateMany(iovas: BigUint64Array): BigUint64Array {
    if (!(iovas instanceof BigUint64Array)) throw new TypeError('iovas must be a BigUint64Array');
    const core = this.#use();
    const from = core.pageTableScratch();
    const chunk = core.pageTableScratchBytes() / 16;
    const results = new BigUint64Array(iovas.length);
    for (let start = 0; start < iovas.length; start += chunk) {
      const part = iovas.subarray(start, start + chunk);
      const to = from + part.length * 8;
      new BigUint64Array(this.#memory.memory.buffer, from, part.length).set(part);
      core.pageTableTranslateMany(from, to, part.length);
      results.set(new BigUint64Array(this.#memory.memory.buffer, to, part.length), start);
    }
    return results;
  }

  /**
   * What is mapped between `first` and `last`, both included, in order and joined as far as IOVA, physical address and
   * flags go on. Reads in parts while it is iterated: a change to the table shows from the next part on.
   *
   * @throws TypeError, RangeError; {@link PageTableError} as {@link verify} where the table is corrupt, after the
   *   extents before that place
   */
  extents(
    first: Iova = 0n as Iova,
    last: Iova = U64_MAX as Iova,
  ): Generator<PageTableExtent, void, undefined> {
    checkBigint('first', first);
    checkBigint('last', last);
    return records(this.#walk(first, last, Mode.extents), extentAt);
  }

  /**
   * Every entry that is not zero, as it is in memory, tables before what is in them. Pointers that lead nowhere are
   * listed and not followed.
   *
   * @throws PageTableError SHARED_TABLE where tables loop or are shared, after the entries before that place
   */
  entries(): Generator<PageTableEntry, void, undefined> {
    this.#use().pageTableStartEntries();
    return records(this.#parts('pageTableEntries'), entryAt);
  }

  /**
   * The ranges that hardware marked dirty, which are then clean. An entry is dirty as a whole, so that a range may
   * begin before `iova` and end after what was asked for.
   *
   * @param clear false leaves the marks
   * @throws TypeError, RangeError; {@link PageTableError} UNSUPPORTED where the format, or this table, has no such
   *   marks, and as {@link verify} where the table is corrupt; nothing is cleared then
   */
  readAndClearDirty(iova: Iova, length: bigint | number, clear = true): DirtyExtent[] {
    const bytes = checkSpan(iova, length);
    const walk = this.#walk(iova, (iova + bytes - 1n) as Iova, clear ? Mode.clearDirty : Mode.dirty);
    return [
      ...records(walk, (view, at) => ({
        iova: view.getBigUint64(at, true) as Iova,
        length: view.getBigUint64(at + 8, true),
      })),
    ];
  }

  /**
   * Checks every table that can be reached: its page is loaded or in use and reached only once, entries are legal at
   * their level, reserved bits are zero, entries that repeat one leaf are the same.
   *
   * @throws PageTableError for the first thing that is wrong; see {@link findings} for all of them
   */
  verify(): void {
    const [finding] = this.findings(1);
    if (finding === undefined) return;
    const { code, bits: _bits, ...where } = finding;
    const [, message] = Object.values(errors).find(each => each[0] === code) as [PageTableErrorCode, string];
    throw new PageTableError(code, message, where);
  }

  /** What {@link verify} would refuse, up to `limit` things; empty for a sound table. */
  findings(limit = 100): PageTableFinding[] {
    checkInteger('limit', limit, 1, 10_000);
    const core = this.#use();
    const from = core.pageTableScratch();
    const count = core.pageTableVerify(from, limit);
    const view = new DataView(this.#memory.memory.buffer, from, count * FINDING);
    return Array.from({ length: count }, (_, index) => {
      const at = index * FINDING;
      return {
        code: (errors[view.getUint8(at + 35)] as readonly [PageTableErrorCode, string])[0],
        ...placeOf(
          view.getBigUint64(at, true),
          view.getUint8(at + 34),
          view.getBigUint64(at + 8, true),
          view.getBigUint64(at + 16, true),
          view.getUint16(at + 32, true),
          this.#levels,
        ),
        bits: view.getBigUint64(at + 24, true),
      };
    });
  }

  /**
   * How many tables and leaves of each size there are.
   *
   * @throws PageTableError as {@link verify}
   */
  sizes(): PageTableSizes {
    this.verify();
    const { core, memory } = this.#memory;
    const counts = new BigUint64Array(memory.buffer, core.pageTableCounts(), 65);
    const leaves = new Map<bigint, number>();
    for (let log2 = 0; log2 < 64; log2++) {
      if (counts[log2] !== 0n) leaves.set(1n << BigInt(log2), Number(counts[log2]));
    }
    return { tables: Number(counts[64]), leaves };
  }

  /**
   * Whether two tables, of whatever formats and memories, translate alike: the same IOVAs to the same physical
   * addresses with the same flags. Dirty and accessed marks do not count.
   *
   * @returns the first difference, undefined when there is none
   * @throws PageTableError as {@link verify} where a table is corrupt
   */
  static compare(a: PageTable, b: PageTable, options: CompareOptions = {}): PageTableDifference | undefined {
    for (const table of [a, b]) {
      if (!(table instanceof PageTable)) throw new TypeError('compare() takes two page tables');
    }
    const mode = options.entrySizes ? Mode.leaves : Mode.extents;
    const [left, right] = [a, b].map(table => table.#walk(0n as Iova, U64_MAX as Iova, mode)) as [
      Generator<DataView>,
      Generator<DataView>,
    ];
    while (true) {
      const [one, other] = [left.next().value, right.next().value];
      if (one === undefined && other === undefined) return undefined;
      const bytes = [one, other].map(view =>
        view === undefined
          ? Buffer.alloc(0)
          : Buffer.from(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength),
      ) as [Buffer, Buffer];
      if (bytes[0].equals(bytes[1])) continue;
      let at = 0;
      while (bytes[0].subarray(at, at + RECORD).equals(bytes[1].subarray(at, at + RECORD))) at += RECORD;
      const extent = (view: DataView | undefined): PageTableExtent | undefined =>
        view === undefined || at >= view.byteLength ? undefined : extentAt(view, at);
      return { a: extent(one), b: extent(other) };
    }
  }

  /**
   * Unmaps everything and gives all tables back, the root too. The page table must not be used again.
   *
   * @throws PageTableError as {@link verify}
   */
  [Symbol.dispose](): void {
    for (const { iova, length } of [...this.extents()]) this.unmap(iova, length);
    this.#use().pageTableRelease();
    this.#memory.current = undefined;
  }

  /** Makes this table the one that the core works on. */
  #use(): TableMemory['core'] {
    const memory = this.#memory;
    if (memory.current !== this) {
      const { number, options, sizes } = this.#rules;
      const status = memory.core.pageTableUse(number, this.#root, this.#levels - 1, options, sizes);
      if (status !== 0) throw statusError(memory, status);
      memory.current = this;
    }
    return memory.core;
  }

  /** A root that grew. */
  #followRoot(): void {
    const { core } = this.#memory;
    const levels = core.pageTableTop() + 1;
    if (levels === this.#levels) return;
    this.#levels = levels;
    this.#root = BigInt.asUintN(64, core.pageTableRoot()) as PhysicalAddress;
  }

  #walk(first: Iova, last: Iova, mode: number): Generator<DataView, void, undefined> {
    const status = this.#use().pageTableStartWalk(first, last, mode);
    if (status !== 0) throw statusError(this.#memory, status);
    return this.#parts('pageTableWalk');
  }

  /**
   * Copies of the parts of the walk that was just started. Its state is kept here in between, from now on, so that
   * any number of walks may be under way.
   */
  #parts(next: 'pageTableWalk' | 'pageTableEntries'): Generator<DataView, void, undefined> {
    const { memory, core } = this.#memory;
    const at = core.pageTableCursor();
    const to = core.pageTableScratch();
    const cursor = new Uint8Array(memory.buffer, at, CURSOR).slice();
    const status = new DataView(cursor.buffer, 60);
    const part = (): { view: DataView | undefined; error: PageTableError | undefined } => {
      this.#use();
      new Uint8Array(memory.buffer, at, CURSOR).set(cursor);
      const count = core[next](to, CHUNK);
      cursor.set(new Uint8Array(memory.buffer, at, CURSOR));
      const failed = status.getInt32(0, true);
      return {
        view: count > 0 ? new DataView(memory.buffer.slice(to, to + count * RECORD)) : undefined,
        // Thrown after what comes before it, but taken down now: by then RESULT may say something else.
        error: failed === 0 ? undefined : statusError(this.#memory, failed),
      };
    };
    return (function* () {
      while (true) {
        const { view, error } = part();
        if (view !== undefined) yield view;
        if (error !== undefined) throw error;
        if (view === undefined || view.byteLength < CHUNK * RECORD) return;
      }
    })();
  }

  #outOfRange(iova: bigint, length: bigint, address?: bigint): RangeError {
    const { format } = this.#rules;
    const to = address === undefined ? '' : ` to ${hex(address)}`;
    return new RangeError(
      `${hex(iova)} + ${hex(length)}${to} is empty, misaligned or beyond what ${format} with ${this.#levels} levels can translate`,
    );
  }
}

function checkMemory(memory: TableMemory): void {
  if (!(memory instanceof TableMemory)) throw new TypeError('memory must be a TableMemory');
}

function checkBigint(title: string, value: bigint): void {
  if (typeof value !== 'bigint') throw new TypeError(`${title} must be a bigint, got ${typeof value}`);
  checkU64(title, value);
}

/** @returns the length */
function checkSpan(iova: Iova, length: bigint | number): bigint {
  checkBigint('iova', iova);
  const bytes = checkU64('length', length);
  checkAligned('iova', iova, TABLE_PAGE);
  checkAligned('length', bytes, TABLE_PAGE);
  if (bytes === 0n) throw new RangeError('length must not be 0');
  if (iova + bytes - 1n > U64_MAX) {
    throw new RangeError(`iova + length must not exceed 2^64: ${hex(iova)} + ${hex(bytes)}`);
  }
  return bytes;
}

function result(memory: TableMemory): DataView {
  return new DataView(memory.memory.buffer, memory.core.pageTableResult(), 64);
}

function* records<T>(
  parts: Iterable<DataView>,
  recordAt: (view: DataView, at: number) => T,
): Generator<T, void, undefined> {
  for (const view of parts) {
    for (let at = 0; at < view.byteLength; at += RECORD) yield recordAt(view, at);
  }
}

function entryAt(view: DataView, at: number): PageTableEntry {
  return {
    iova: view.getBigUint64(at, true) as Iova,
    level: view.getUint8(at + 26),
    value: view.getBigUint64(at + 8, true),
    table: view.getBigUint64(at + 16, true) as PhysicalAddress,
    index: view.getUint16(at + 24, true),
    kind: kinds[view.getUint8(at + 27)] as PageTableEntry['kind'],
    size: 1n << BigInt(view.getUint8(at + 28)),
  };
}

function extentAt(view: DataView, at: number): PageTableExtent {
  return {
    iova: view.getBigUint64(at, true) as Iova,
    address: view.getBigUint64(at + 16, true) as PhysicalAddress,
    length: view.getBigUint64(at + 8, true),
    ...decodeFlags(view.getUint32(at + 24, true)),
  };
}

function placeOf(
  iova: bigint,
  level: number,
  value: bigint,
  table: bigint,
  index: number,
  levels: number,
): PageTablePlace {
  return {
    iova: iova as Iova,
    level,
    value,
    table: level === levels ? undefined : (table as PhysicalAddress),
    index,
  };
}

/** The error for a status, with RESULT as it is now. */
function statusError(memory: TableMemory, status: number): PageTableError {
  const [code, message] = errors[status] as readonly [PageTableErrorCode, string];
  // Of those that are no fault of the table only EXISTS has a place.
  if (code === PageTableErrorCode.NoMemory || code === PageTableErrorCode.Unsupported) {
    return new PageTableError(code, message);
  }
  const view = result(memory);
  const level = view.getInt32(24, true);
  return new PageTableError(
    code,
    message,
    placeOf(
      view.getBigUint64(0, true),
      level,
      view.getBigUint64(8, true),
      view.getBigUint64(16, true),
      view.getInt32(28, true),
      memory.core.pageTableTop() + 1,
    ),
  );
}
