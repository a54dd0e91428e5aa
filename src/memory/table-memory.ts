/** Memory for page tables: pages at physical addresses, inside one instance of the core. @module */

import type { PhysicalAddress } from '../address.js';
import { checkAligned, checkInteger, checkU64 } from '../check.js';
import { hex } from '../hex.js';
import { instantiate } from '../wasm.js';
import { PageTableError, PageTableErrorCode } from './page-table-error.js';

/** The core's functions, see assembly/pagetable/index.ts. */
export interface PageTableCore extends Record<string, unknown> {
  pageTableReset(base: bigint, pages: number): number;
  pageTableResult(): number;
  pageTableCursor(): number;
  pageTableCounts(): number;
  pageTableScratch(): number;
  pageTableScratchBytes(): number;
  pageTableFreePages(): number;
  pageTableBackedPages(): number;
  pageTablePage(physical: bigint): number;
  pageTableProvide(physical: bigint): number;
  pageTableUse(format: number, root: bigint, top: number, options: number, sizes: bigint): number;
  pageTableCreate(format: number, top: number, options: number, sizes: bigint): number;
  pageTableRelease(): void;
  pageTableRoot(): bigint;
  pageTableTop(): number;
  pageTableMap(iova: bigint, length: bigint, physical: bigint, flags: number): number;
  pageTableMapMany(from: number, count: number, stride: number, flags: number): number;
  pageTableUnmap(iova: bigint, length: bigint): number;
  pageTableTranslate(iova: bigint): number;
  pageTableTranslateMany(from: number, to: number, count: number): void;
  pageTableStartWalk(first: bigint, last: bigint, mode: number): number;
  pageTableWalk(to: number, capacity: number): number;
  pageTableStartEntries(): void;
  pageTableEntries(to: number, capacity: number): number;
  pageTableVerify(to: number, capacity: number): number;
}

export interface TableMemoryOptions {
  /** The physical address of the first page that tables are made of; 4 GiB unless told. */
  readonly base?: PhysicalAddress;
  /** How many 4 KiB pages there are for tables; 4096 unless told. 0 suits a dump that is only read. */
  readonly pages?: number;
}

export const TABLE_PAGE = 4096;
const MAX_PAGES = 2 ** 20 - 2048;
const INITIAL_WASM_PAGES = 96;

/**
 * Table pages by physical address. New tables come from one contiguous range, the heap; pages from elsewhere, such as
 * a dump, are loaded at addresses of their own and are never given out for new tables. Several page tables of any
 * format may share one memory.
 *
 * The addresses are only names: what hardware is to use is read out with {@link read} and put there.
 */
export class TableMemory {
  /** @internal */
  readonly core: PageTableCore;
  /** @internal */
  readonly memory: WebAssembly.Memory;
  /** @internal Which table the core works on. */
  current: object | undefined;
  readonly #base: bigint;
  readonly #pages: number;

  /** @throws TypeError, RangeError when the base is not a multiple of 4096 or the range leaves 2^52 */
  constructor(options: TableMemoryOptions | number = {}) {
    const { base = 0x1_0000_0000n, pages = 4096 } =
      typeof options === 'object' ? options : { pages: options };
    this.#base = checkU64('base', base);
    checkAligned('base', this.#base, TABLE_PAGE);
    this.#pages = checkInteger('pages', pages, 0, MAX_PAGES);
    if (this.#base + BigInt(pages) * 4096n > 1n << 52n) {
      throw new RangeError(`base: table pages must lie below 2^52, got ${hex(this.#base)}`);
    }
    const { exports, memory } = instantiate<PageTableCore>(INITIAL_WASM_PAGES);
    // Taken out of the loader's object once: going through it at each call costs more than most calls.
    this.core = { ...exports };
    this.memory = memory;
    this.clear();
  }

  /** Pages that new tables can still be made of. */
  get freePages(): number {
    return this.core.pageTableFreePages() >>> 0;
  }

  /** All pages, of the heap and loaded. */
  get pages(): number {
    return this.core.pageTableBackedPages() >>> 0;
  }

  /**
   * Puts pages at `address` on, in place of any that are there. Those that fall within the heap count as in use.
   *
   * @param bytes a multiple of 4096 bytes
   * @throws TypeError, RangeError; {@link PageTableError} NO_MEMORY
   */
  load(address: PhysicalAddress, bytes: Uint8Array): void {
    checkAddress(address);
    if (!(bytes instanceof Uint8Array))
      throw new TypeError(`bytes must be a Uint8Array, got ${typeof bytes}`);
    checkAligned('length of bytes', bytes.length, TABLE_PAGE);
    if (address + BigInt(bytes.length) > 1n << 52n) {
      throw new RangeError(`address: table pages must lie below 2^52, got ${hex(address)}`);
    }
    for (let offset = 0; offset < bytes.length; offset += TABLE_PAGE) {
      const place = this.core.pageTableProvide(address + BigInt(offset)) >>> 0;
      if (place === 0) {
        throw new PageTableError(PageTableErrorCode.NoMemory, 'no memory is left to load pages into');
      }
      new Uint8Array(this.memory.buffer, place, TABLE_PAGE).set(bytes.subarray(offset, offset + TABLE_PAGE));
    }
  }

  /**
   * A copy of pages that are loaded or in use.
   *
   * @param length a multiple of 4096
   * @throws TypeError, RangeError, also where there is no such page
   */
  read(address: PhysicalAddress, length: number = TABLE_PAGE): Uint8Array {
    checkAddress(address);
    checkInteger('length', length);
    checkAligned('length', length, TABLE_PAGE);
    const bytes = new Uint8Array(length);
    for (let offset = 0; offset < length; offset += TABLE_PAGE) {
      const place = this.core.pageTablePage(address + BigInt(offset)) >>> 0;
      if (place === 0) {
        throw new RangeError(`no table page at ${hex(address + BigInt(offset))}`);
      }
      bytes.set(new Uint8Array(this.memory.buffer, place, TABLE_PAGE), offset);
    }
    return bytes;
  }

  /** Forgets all pages and tables, as if new. Page tables made or opened here are of no more use. */
  clear(): void {
    this.current = undefined;
    if (this.core.pageTableReset(this.#base, this.#pages) !== 0) {
      throw new PageTableError(PageTableErrorCode.NoMemory, `no memory for ${this.#pages} table pages`);
    }
  }
}

function checkAddress(address: PhysicalAddress): void {
  checkU64('address', address);
  if (typeof address !== 'bigint') throw new TypeError(`address must be a bigint, got ${typeof address}`);
  checkAligned('address', address, TABLE_PAGE);
}
