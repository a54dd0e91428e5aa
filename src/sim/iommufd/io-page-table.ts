/** The mappings of an I/O address space: the counterpart of `struct io_pagetable`. @module */
import {
  EADDRINUSE,
  EBADF,
  EBUSY,
  EDEADLK,
  EEXIST,
  EINVAL,
  ENOENT,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
} from '../../../bindings/uapi/errno.js';
import { type PagingDomain, Protection } from '../iommu/domain.js';
import { PAGE } from '../machine/physical-memory.js';
import type { SimulatedProcess } from '../process/process.js';
import { AccountMode } from './accounting.js';
import { Area } from './area.js';
import { DmaBufFile } from './dma-buf.js';
import { fillDomain, fillDomains, unfillDomain, unfillDomains } from './fill.js';
import { max, min, U64_MAX } from './intervals.js';
import { type DirtyRange, IovaBitmap } from './iova-bitmap.js';
import { IovaSpace } from './iova-space.js';
import { Pages } from './pages.js';

const PAGE_BYTES = BigInt(PAGE);
/** Whoever does not let go of an area after so many requests never will. */
const MAX_NOTIFICATIONS = 100;
/** No more pages of device memory fit into one mapping. */
const MAX_DEVICE_PAGES = 2n ** 32n - 1n;

/** Somebody in the kernel who reads and writes the memory in the table. */
export interface TableAccess {
  readonly iovaAlignment: bigint;
  /** The range is about to be unmapped: whoever has pages of it pinned lets go. */
  notifyUnmap(iova: bigint, length: bigint): void;
}

/** A piece of some pages. */
export interface PagesSlice {
  readonly pages: Pages;
  /** Where it begins in the pages, in bytes. */
  readonly start: bigint;
  readonly length: bigint;
}

/** What an unmap did, also when it failed half-way. */
export interface Unmapped {
  /** 0, or minus the errno. */
  readonly result: number;
  /** In bytes. */
  readonly bytes: bigint;
}

/** All IOVAs are unsigned 64-bit integers; all lengths are in bytes. */
export class IoPageTable extends IovaSpace {
  /** What all areas are mapped in; the first keeps the pages of new areas pinned. */
  readonly domains: PagingDomain[] = [];
  largePages = true;
  readonly #accesses: (TableAccess | undefined)[] = [];

  // Mapping

  /**
   * Maps memory of the process.
   *
   * @param mode how the context charges for pages
   * @param iova undefined leaves the choice to the kernel
   * @param protection or-ed from {@link Protection}
   * @returns the IOVA, or minus the errno
   */
  mapUserPages(
    process: SimulatedProcess,
    mode: AccountMode,
    iova: bigint | undefined,
    address: bigint,
    length: bigint,
    protection: number,
  ): bigint | number {
    if (address + length > U64_MAX) return -EOVERFLOW;
    const offset = address % PAGE_BYTES;
    const source = { kind: 'user', start: address - offset } as const;
    const pages = Pages.of(process, source, offset, length, (protection & Protection.Write) !== 0);
    return this.#mapNew(pages, mode, iova, offset, length, protection);
  }

  /** Maps a file from the byte `start` on; otherwise as {@link mapUserPages}. */
  mapFilePages(
    process: SimulatedProcess,
    mode: AccountMode,
    iova: bigint | undefined,
    fd: number,
    start: bigint,
    length: bigint,
    protection: number,
  ): bigint | number {
    if (length === 0n) return -EINVAL;
    if (start + length - 1n > U64_MAX) return -EOVERFLOW;
    const file = process.file(fd);
    if (file === undefined) return -EBADF;
    if (file instanceof DmaBufFile) {
      if (BigInt(file.size) <= start + length - 1n || length / PAGE_BYTES >= MAX_DEVICE_PAGES) return -EINVAL;
    }
    const offset = start % PAGE_BYTES;
    const source =
      file instanceof DmaBufFile
        ? ({ kind: 'dma-buf', file, start: start - offset } as const)
        : ({ kind: 'file', file, start: start - offset } as const);
    const pages = Pages.of(process, source, offset, length, (protection & Protection.Write) !== 0);
    return this.#mapNew(pages, mode, iova, offset, length, protection);
  }

  #mapNew(
    pages: Pages | number,
    mode: AccountMode,
    iova: bigint | undefined,
    start: bigint,
    length: bigint,
    protection: number,
  ): bigint | number {
    if (typeof pages === 'number') return pages;
    if (mode === AccountMode.Process && pages.accountMode === AccountMode.User) {
      pages.accountMode = AccountMode.Process;
    }
    const result = this.mapPages([{ pages, start, length }], length, iova, protection);
    // Each area has a reference of its own.
    pages.put();
    return result;
  }

  /**
   * Maps pieces one after the other, each as an area of its own; takes references to their pages.
   *
   * @param length of all of them
   * @param iova undefined leaves the choice to the kernel
   * @returns the IOVA, or minus the errno
   */
  mapPages(
    slices: readonly PagesSlice[],
    length: bigint,
    iova: bigint | undefined,
    protection: number,
  ): bigint | number {
    if (length % this.iovaAlignment !== 0n || length === 0n) return -EINVAL;
    const [{ pages, start }] = slices as [PagesSlice];
    const at = iova === undefined ? this.choose(pages.source.start + start, length) : iova;
    if (typeof at === 'number') return at;
    if (iova !== undefined) {
      const free = this.check(iova, length);
      if (free < 0) return free;
    }
    const areas: Area[] = [];
    let next = at;
    for (const slice of slices) {
      if (protection & Protection.Write && !slice.pages.writeable) return -EPERM;
      const area = new Area(next, slice.length, slice.pages, slice.start, protection);
      if (area.pageOffset % this.iovaAlignment !== 0n) return -EINVAL;
      areas.push(area);
      next += slice.length;
    }
    for (const [index, area] of areas.entries()) {
      const result = fillDomains(area, this.domains, this.largePages);
      if (result < 0) {
        for (const filled of areas.slice(0, index)) unfillDomains(filled, this.domains);
        return result;
      }
    }
    for (const area of areas) {
      area.pages.get();
      this.areas.insert(area);
    }
    return at;
  }

  /** What is mapped in a range without holes, with a reference to each of the pages. @returns minus the errno */
  getPages(iova: bigint, length: bigint): PagesSlice[] | number {
    if (length === 0n) return -EINVAL;
    const last = iova + length - 1n;
    if (last > U64_MAX) return -EOVERFLOW;
    const { pieces, complete } = this.areas.contiguous(iova, last);
    if (!complete) return -ENOENT;
    return pieces.map(({ area, first, last }) => ({
      pages: area.pages.get(),
      start: area.byteAt(first),
      length: last - first + 1n,
    }));
  }

  /** Unmaps every area in the range; none may be cut in two. What is unmapped before a failure stays so. */
  unmapIova(iova: bigint, length: bigint): Unmapped {
    if (length === 0n) return { result: -EINVAL, bytes: 0n };
    const last = iova + length - 1n;
    return last > U64_MAX ? { result: -EOVERFLOW, bytes: 0n } : this.#unmapRange(iova, last);
  }

  unmapAll(): Unmapped {
    return this.#unmapRange(0n, U64_MAX);
  }

  #unmapRange(first: bigint, last: bigint): Unmapped {
    let start = first;
    let bytes = 0n;
    let tries = 0;
    for (let area = this.areas.find(start, last); area !== undefined; area = this.areas.find(start, last)) {
      if (area.locks > 0) return { result: -EBUSY, bytes };
      if (area.first < start || area.last > last) return { result: -ENOENT, bytes };
      if (area.first !== start) tries = 0;
      if (area.accesses > 0) {
        start = area.first;
        area.preventAccess = true;
        for (const access of this.accesses()) access.notifyUnmap(area.first, area.length);
        if (++tries > MAX_NOTIFICATIONS) return { result: -EDEADLK, bytes };
        continue;
      }
      unfillDomains(area, this.domains);
      this.areas.remove(area);
      area.pages.put();
      bytes += area.length;
      if (area.last >= last) break;
      start = area.last + 1n;
    }
    return { result: 0, bytes };
  }

  // Domains

  /** Maps all areas in one more domain. @returns 0, or minus the errno, with nothing changed */
  addDomain(domain: PagingDomain): number {
    if (this.domains.includes(domain)) return -EEXIST;
    const alignment = max(smallestPage(domain), this.iovaAlignment);
    if (alignment > PAGE_BYTES) return -EINVAL;
    if (alignment !== this.iovaAlignment && !this.#suits(alignment)) return -EADDRINUSE;
    const result = this.#reserveOutside(domain) || this.#fillDomain(domain);
    if (result < 0) {
      this.removeReservedIova(domain);
      return result;
    }
    this.iovaAlignment = alignment;
    this.domains.push(domain);
    return 0;
  }

  #reserveOutside(domain: PagingDomain): number {
    const { first, last } = domain.aperture;
    const below = first > 0n ? this.reserveIova(0n, first - 1n, domain) : 0;
    if (below < 0) return below;
    return last < U64_MAX ? this.reserveIova(last + 1n, U64_MAX, domain) : 0;
  }

  #fillDomain(domain: PagingDomain): number {
    const filled: Area[] = [];
    for (const area of this.areas) {
      const result = fillDomain(area, domain, this.largePages);
      if (result < 0) {
        for (const each of filled) unfillDomain(each, domain, this.domains[0]);
        return result;
      }
      filled.push(area);
    }
    return 0;
  }

  /** Unmaps all areas from a domain. */
  removeDomain(domain: PagingDomain): void {
    const index = this.domains.indexOf(domain);
    if (index < 0) throw new Error('the domain is not in the table');
    // The last takes the place of the one that goes, which decides on who keeps the pages from now on.
    const tail = this.domains.pop() as PagingDomain;
    if (tail !== domain) this.domains[index] = tail;
    for (const area of this.areas) unfillDomain(area, domain, this.domains[0]);
    this.removeReservedIova(domain);
    this.#calculateAlignment();
  }

  /** Whether all areas are aligned. */
  #suits(alignment: bigint): boolean {
    for (const area of this.areas) {
      if (area.first % alignment || area.length % alignment || area.pageOffset % alignment) return false;
    }
    return true;
  }

  #calculateAlignment(): number {
    let alignment = this.largePages ? 1n : PAGE_BYTES;
    for (const domain of this.domains) alignment = max(alignment, smallestPage(domain));
    for (const access of this.accesses()) alignment = max(alignment, access.iovaAlignment);
    if (alignment > this.iovaAlignment && !this.#suits(alignment)) return -EADDRINUSE;
    this.iovaAlignment = alignment;
    return 0;
  }

  enableLargePages(): void {
    this.largePages = true;
    this.#calculateAlignment();
  }

  /** Maps page by page from now on, so that areas can be cut. @returns 0, minus EINVAL or minus EADDRINUSE */
  disableLargePages(): number {
    if (!this.largePages) return 0;
    if (this.domains.length > 0 && this.areas.size > 0) return -EINVAL;
    this.largePages = false;
    const result = this.#calculateAlignment();
    if (result < 0) this.largePages = true;
    return result;
  }

  /** Cuts the areas, if any, at the IOVAs, each of which becomes the last of an area. @returns minus the errno */
  cutIova(iovas: readonly bigint[]): number {
    for (const iova of iovas) {
      const area = this.areas.find(iova, iova);
      const result = area === undefined ? 0 : this.#split(area, iova);
      if (result < 0) return result;
    }
    return 0;
  }

  #split(area: Area, iova: bigint): number {
    if (iova === area.first || iova === area.last) return 0;
    if (area.preventAccess) return -EBUSY;
    if (area.pages.isDmaBuf) return -EOPNOTSUPP;
    const cut = iova + 1n;
    if (cut % this.iovaAlignment !== 0n || area.byteAt(cut) % this.iovaAlignment !== 0n) return -EINVAL;
    if (area.accesses > 0 || (area.storageDomain !== undefined && this.largePages)) return -EINVAL;
    const { first, last, pages, protection } = area;
    const left = new Area(first, cut - first, pages, area.start, protection);
    const right = new Area(cut, last - cut + 1n, pages.get(), area.byteAt(cut), protection);
    this.areas.remove(area);
    for (const half of [left, right]) {
      half.storageDomain = area.storageDomain;
      this.areas.insert(half);
    }
    return 0;
  }

  // Accesses

  /** @returns 0, or minus EADDRINUSE when mappings do not have the alignment that it needs */
  addAccess(access: TableAccess): number {
    const free = this.#accesses.indexOf(undefined);
    const index = free < 0 ? this.#accesses.length : free;
    this.#accesses[index] = access;
    const result = this.#calculateAlignment();
    if (result < 0) this.#accesses[index] = undefined;
    return result;
  }

  removeAccess(access: TableAccess): void {
    const index = this.#accesses.indexOf(access);
    if (index < 0) throw new Error('the access is not in the table');
    this.#accesses[index] = undefined;
    this.#calculateAlignment();
  }

  *accesses(): IterableIterator<TableAccess> {
    for (const access of this.#accesses) if (access !== undefined) yield access;
  }

  /** Starts with a clean record, or stops. @returns 0, or minus the errno */
  setDirtyTracking({ dirty }: PagingDomain, enable: boolean): number {
    if (dirty === undefined) return -EOPNOTSUPP;
    if (enable) {
      for (const { first, length } of this.areas) {
        const result = dirty.read(first, length, false, () => {});
        if (result < 0) return result;
      }
    }
    return dirty.enable(enable);
  }

  /**
   * Sets a bit for everything that was written, and forgets unless `keep`. Holes are passed over, and so is a failure of
   * the driver: the bits up to there are all there is.
   *
   * @returns 0, or minus EINVAL, EOVERFLOW or EOPNOTSUPP
   */
  readAndClearDirty(
    process: SimulatedProcess,
    { dirty }: PagingDomain,
    keep: boolean,
    range: DirtyRange,
  ): number {
    const { iova, length, pageSize } = range;
    if (length === 0n) return -EINVAL;
    const last = iova + length - 1n;
    if (last > U64_MAX) return -EOVERFLOW;
    const isAligned = (to: bigint): boolean => ((iova | (last + 1n)) & (to - 1n)) === 0n;
    if (!isAligned(this.iovaAlignment) || pageSize === 0n || !isAligned(pageSize)) return -EINVAL;
    if (dirty === undefined) return -EOPNOTSUPP;
    const bitmap = new IovaBitmap(process, range);
    const mark = (at: bigint, bytes: bigint): void => bitmap.set(at, bytes);
    for (const piece of this.areas.contiguous(iova, last).pieces) {
      if (dirty.read(piece.first, piece.last - piece.first + 1n, keep, mark) < 0) break;
    }
    return 0;
  }

  /**
   * Where an IOVA lies in physical memory, without an IOMMU, and how many bytes are consecutive there.
   *
   * @returns minus EINVAL, ENOENT or EOPNOTSUPP
   */
  getPhys(iova: bigint, maxLength: bigint): { address: bigint; length: bigint } | number {
    if (maxLength === 0n) return -EINVAL;
    const area = this.areas.find(iova, iova);
    if (area === undefined) return -ENOENT;
    if (area.pages.revoked) return -EINVAL;
    const domain = area.storageDomain;
    if (domain?.driver !== 'noiommu') return -EOPNOTSUPP;
    const address = domain.translate(iova) ?? 0n;
    const toEndOfPage = PAGE_BYTES - (iova % PAGE_BYTES);
    let length = min(toEndOfPage, area.last - iova + 1n);
    let next = iova + PAGE_BYTES;
    for (
      let expected = address + PAGE_BYTES;
      length < maxLength && next <= area.last;
      expected += PAGE_BYTES
    ) {
      const found = domain.translate(next) ?? 0n;
      if (found === 0n || found !== expected) break;
      length += PAGE_BYTES;
      next += PAGE_BYTES;
    }
    return { address, length: min(length, maxLength) };
  }

  /** The table goes, and all that is in it. */
  destroy(): void {
    this.unmapAll();
    this.allowed = [];
  }
}

function smallestPage(domain: PagingDomain): bigint {
  return domain.pageSizes & -domain.pageSizes;
}
