/** A range of IOVAs with pages behind it, and all of those of an address space. @module */
import type { PagingDomain } from '../iommu/domain.js';
import { PAGE } from '../machine/physical-memory.js';
import { IntervalList } from './interval-list.js';
import { type Interval, min, overlap, Runs, U64_MAX } from './intervals.js';
import type { Pages } from './pages.js';

const PAGE_BYTES = BigInt(PAGE);

/** The counterpart of `struct iopt_area`. */
export class Area implements Interval {
  readonly first: bigint;
  readonly last: bigint;
  readonly pages: Pages;
  /** Where it begins in {@link pages}, in bytes. */
  readonly start: bigint;
  /** Or-ed from {@link Protection}. */
  readonly protection: number;
  /** One of the domains that hold it, for which its pages are pinned; undefined when none does. */
  storageDomain: PagingDomain | undefined;
  /** It is about to be unmapped, and nobody gets at its pages any more. */
  preventAccess = false;
  /** Who reads or writes its pages. */
  accesses = 0;
  /** How many of those keep it from being unmapped. */
  locks = 0;

  constructor(first: bigint, length: bigint, pages: Pages, start: bigint, protection: number) {
    this.first = first;
    this.last = first + length - 1n;
    this.pages = pages;
    this.start = start;
    this.protection = protection;
  }

  get length(): bigint {
    return this.last - this.first + 1n;
  }

  /** How many bytes into its first page it begins. */
  get pageOffset(): bigint {
    return this.start % PAGE_BYTES;
  }

  /** The page in which it begins. */
  get firstPage(): number {
    return this.pageAt(this.first);
  }

  /** The page in which it ends. */
  get lastPage(): number {
    return this.pageAt(this.last);
  }

  /** How many bytes into the pages an IOVA is. */
  byteAt(iova: bigint): bigint {
    return iova - this.first + this.start;
  }

  pageAt(iova: bigint): number {
    return Number(this.byteAt(iova) / PAGE_BYTES);
  }

  /** The first IOVA of a page. */
  iovaOf(page: number): bigint {
    const ahead = page - this.firstPage;
    return ahead === 0 ? this.first : this.first - this.pageOffset + BigInt(ahead) * PAGE_BYTES;
  }

  /** The IOVA where consecutive pages end, and what comes after them begins. */
  endOf(page: number): bigint {
    return page === this.lastPage ? this.last + 1n : this.iovaOf(page + 1);
  }
}

/** A piece of an area. */
export interface Piece extends Interval {
  readonly area: Area;
}

/** Areas that do not overlap, in order. */
export class AreaSet {
  readonly #areas = new IntervalList<Area>();
  readonly #runs = new Runs();

  get size(): number {
    return this.#areas.size;
  }

  /** What all areas cover, in as few pieces as possible. */
  get covered(): readonly Interval[] {
    return this.#runs.list;
  }

  [Symbol.iterator](): IterableIterator<Area> {
    return this.#areas[Symbol.iterator]();
  }

  /** The first area that has something of the range. */
  find(first: bigint, last: bigint): Area | undefined {
    const area = this.#areas.find(first);
    return area !== undefined && overlap(area, { first, last }) ? area : undefined;
  }

  insert(area: Area): void {
    this.#areas.insert(area);
    this.#runs.add(area);
  }

  remove(area: Area): void {
    this.#areas.remove(area);
    this.#runs.remove(area);
  }

  /** The pieces from `first` on up to `last` or the first hole, and whether there was none. */
  contiguous(first: bigint, last: bigint): { pieces: Piece[]; complete: boolean } {
    const pieces: Piece[] = [];
    let next = first;
    for (const area of this.#areas.from(first)) {
      if (area.first > next) break;
      const end = min(area.last, last);
      pieces.push({ area, first: next, last: end });
      if (end === last) return { pieces, complete: true };
      if (end === U64_MAX) break;
      next = end + 1n;
    }
    return { pieces, complete: false };
  }
}
