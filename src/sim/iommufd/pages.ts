/** Memory that is mapped for DMA: pinned once, however many areas, domains and accesses share it. @module */
import { EFAULT, EINVAL, ENOMEM, EOVERFLOW, EPERM } from '../../../bindings/uapi/errno.js';
import type { PagingDomain } from '../iommu/domain.js';
import { PAGE } from '../machine/physical-memory.js';
import { MemFd } from '../process/memfd.js';
import type { OpenFile } from '../process/open-file.js';
import { Capability, type SimulatedProcess } from '../process/process.js';
import { AccountMode, charge, uncharge } from './accounting.js';
import type { Area } from './area.js';
import type { DmaBufFile, PhysicalRange } from './dma-buf.js';
import { U64_MAX } from './intervals.js';

/** The kernel pins no more pages in one go. */
const PINNED_TOGETHER = 8192;

/** How the kernel accesses pages (IOMMUFD_ACCESS_RW_*). */
export const AccessFlag = {
  Read: 0,
  Write: 1 << 0,
  /** By a thread of the kernel, which takes on the memory of the process. */
  KernelThread: 1 << 1,
  /** For tests: as if by another process. */
  SlowPath: 1 << 2,
} as const;

/** Where the pages come from. `start` is a multiple of the page size. */
export type PageSource =
  | { readonly kind: 'user'; readonly start: bigint }
  | { readonly kind: 'file'; readonly file: OpenFile; readonly start: bigint }
  | { readonly kind: 'dma-buf'; readonly file: DmaBufFile; readonly start: bigint };

interface Pinned {
  readonly frame: number;
  /** Areas with a domain, and accesses, that need it. */
  holders: number;
}

interface PinnedRange {
  readonly first: number;
  readonly last: number;
  users: number;
}

/** Consecutive pages that are also consecutive in physical memory. */
export interface PhysicalRun {
  readonly firstPage: number;
  readonly lastPage: number;
  /** Of the first page. */
  readonly address: bigint;
}

/** The counterpart of `struct iopt_pages`. Pages are counted from its beginning. */
export class Pages {
  readonly source: PageSource;
  readonly count: number;
  readonly writeable: boolean;
  /** Who is charged, and whose memory it is. */
  process: SimulatedProcess;
  accountMode: AccountMode;
  #references = 1;
  readonly #pinned = new Map<number, Pinned>();
  /** As many pages are on the account. */
  #charged = 0;
  readonly #accesses = new Map<string, PinnedRange>();
  #range: PhysicalRange | undefined;
  /** Which areas in which domains show it, if it is memory of a device. */
  readonly shown = new Set<{ readonly area: Area; readonly domain: PagingDomain }>();
  #stop: (() => void) | undefined;

  private constructor(process: SimulatedProcess, source: PageSource, bytes: bigint, writeable: boolean) {
    this.process = process;
    this.source = source;
    this.count = Number((bytes + BigInt(PAGE - 1)) / BigInt(PAGE));
    this.writeable = writeable;
    this.accountMode = process.capabilities.has(Capability.IpcLock) ? AccountMode.None : AccountMode.User;
  }

  /**
   * Pages of memory or of a file; takes a reference to the file.
   *
   * @param offset where in the first page the memory begins, in bytes
   * @returns minus EINVAL for a length that nothing can have
   */
  static of(
    process: SimulatedProcess,
    source: PageSource,
    offset: bigint,
    length: bigint,
    writeable: boolean,
  ): Pages | number {
    if (length === 0n || length > 2n ** 64n - 1n - BigInt(PAGE)) return -EINVAL;
    const pages = new Pages(process, source, offset + length, writeable);
    if (source.kind === 'dma-buf') {
      const range = source.file.physicalRange();
      if (typeof range === 'number') return range;
      pages.accountMode = AccountMode.None;
      pages.#range = range;
      pages.#stop = source.file.onRevoke(() => pages.#revoke());
    }
    if (source.kind !== 'user') source.file.get();
    return pages;
  }

  get(): this {
    this.#references++;
    return this;
  }

  put(): void {
    if (--this.#references > 0) return;
    if (this.#pinned.size > 0) throw new Error('pages are still pinned although nobody uses them');
    this.#stop?.();
    if (this.source.kind !== 'user') this.source.file.put();
  }

  get isDmaBuf(): boolean {
    return this.source.kind === 'dma-buf';
  }

  /** It was memory of a device that is gone. */
  get revoked(): boolean {
    return this.isDmaBuf && this.#range === undefined;
  }

  #revoke(): void {
    for (const { area, domain } of this.shown) domain.unmap(area.first, area.length);
    this.#range = undefined;
  }

  /** How many pages are pinned. */
  get pinned(): number {
    return this.#pinned.size;
  }

  // Pinning

  /**
   * Pins what is not pinned yet, for one more holder. Nothing is charged before {@link settle}.
   *
   * @returns 0, or minus EFAULT, EINVAL, EOVERFLOW or ENOMEM, with nothing changed
   */
  hold(first: number, last: number): number {
    if (this.isDmaBuf) return 0;
    const { physical } = this.process.host;
    // What is not pinned yet is asked for up to the next page that is.
    let end = first;
    for (let page = first; page <= last; page++) {
      const found = this.#pinned.get(page);
      if (found !== undefined) {
        found.holders++;
        continue;
      }
      if (end <= page) end = this.#nextPinned(page, last + 1);
      const frame = this.process.shouldFail() ? -ENOMEM : this.#frameOf(page, end - 1);
      if (frame < 0) {
        if (page > first) this.unhold(first, page - 1);
        return frame;
      }
      physical.pin(frame);
      this.#pinned.set(page, { frame, holders: 1 });
    }
    return 0;
  }

  /** The first page after `page` that is pinned, `end` if there is none before. */
  #nextPinned(page: number, end: number): number {
    let next = end;
    for (const pinned of this.#pinned.keys()) if (pinned > page && pinned < next) next = pinned;
    return next;
  }

  /** Undoes {@link hold} while that is not {@link settle}d. */
  unhold(first: number, last: number): void {
    const { physical } = this.process.host;
    for (let page = first; page <= last; page++) {
      const found = this.#pinned.get(page) as Pinned;
      if (--found.holders > 0) continue;
      this.#pinned.delete(page);
      physical.unpin(found.frame);
    }
  }

  /** A holder less: unpins what nobody else holds, and takes it off the account. */
  drop(first: number, last: number): void {
    if (this.isDmaBuf) return;
    this.unhold(first, last);
    this.settle();
  }

  /** Brings the account in line with what is pinned. @returns 0, or minus ENOMEM, with nothing charged */
  settle(): number {
    const more = this.#pinned.size - this.#charged;
    if (more > 0) {
      const result = charge(this.process, this.accountMode, more);
      if (result < 0) return result;
    } else if (more < 0) uncharge(this.process, this.accountMode, -more);
    this.#charged = this.#pinned.size;
    return 0;
  }

  /** The account moves to another process, which has been charged for it. */
  moveAccount(process: SimulatedProcess, charged: boolean): void {
    if (charged) uncharge(this.process, this.accountMode, this.#pinned.size);
    this.process = process;
  }

  /** The frame of a page that is not pinned. `last` is the last page that is asked for along with it. */
  #frameOf(page: number, last: number): number {
    const { source } = this;
    if (source.kind === 'user') {
      const address = source.start + BigInt(page) * BigInt(PAGE);
      if (address + BigInt(Math.min(last - page + 1, PINNED_TOGETHER) * PAGE) > U64_MAX) return -EOVERFLOW;
      const mapping = this.process.memory.find(address);
      if (mapping === undefined || mapping.device) return -EFAULT;
      if (this.writeable && !mapping.writeable) return -EFAULT;
      const index = Math.floor((mapping.offset + Number(address - mapping.start)) / PAGE);
      if (index >= mapping.memory.pages) return -EFAULT;
      return mapping.memory.frame(index) ?? -ENOMEM;
    }
    if (!(source.file instanceof MemFd)) return -EINVAL;
    const { memory } = source.file;
    if (source.start + BigInt(last + 1) * BigInt(PAGE) > BigInt(memory.size)) return -EINVAL;
    return memory.frame(Number(source.start) / PAGE + page) ?? -ENOMEM;
  }

  /** Where pages are that are held, in pieces that are as long as possible. */
  *runs(first: number, last: number): IterableIterator<PhysicalRun> {
    if (this.#range !== undefined) {
      const address = this.#range.address + this.source.start + BigInt(first) * BigInt(PAGE);
      yield { firstPage: first, lastPage: last, address };
      return;
    }
    let firstPage = first;
    let frame = this.frame(first);
    for (let page = first + 1; page <= last; page++) {
      if (this.frame(page) === frame + page - firstPage) continue;
      yield { firstPage, lastPage: page - 1, address: BigInt(frame) * BigInt(PAGE) };
      firstPage = page;
      frame = this.frame(page);
    }
    yield { firstPage, lastPage: last, address: BigInt(frame) * BigInt(PAGE) };
  }

  /** The frame of a page that is held. */
  frame(page: number): number {
    return (this.#pinned.get(page) as Pinned).frame;
  }

  // Access by the kernel

  /** Keeps pages pinned for an access. @returns 0, or minus the errno */
  addAccess(first: number, last: number, write: boolean): number {
    if (write && !this.writeable) return -EPERM;
    if (this.isDmaBuf) return -EINVAL;
    const key = `${first}-${last}`;
    const same = this.#accesses.get(key);
    if (same !== undefined) {
      same.users++;
      return 0;
    }
    const held = this.hold(first, last);
    if (held < 0) return held;
    const settled = this.settle();
    if (settled < 0) {
      this.unhold(first, last);
      return settled;
    }
    this.#accesses.set(key, { first, last, users: 1 });
    return 0;
  }

  /** Undoes {@link addAccess} of the same pages. */
  removeAccess(first: number, last: number): void {
    const key = `${first}-${last}`;
    const access = this.#accesses.get(key);
    if (access === undefined) throw new Error(`pages ${key}: put back without having been taken`);
    if (--access.users > 0) return;
    this.#accesses.delete(key);
    this.drop(first, last);
  }

  /**
   * Copies from or to the memory, in the way that the kernel takes for `current` and the flags.
   *
   * @param byte where, from the beginning of the pages
   * @param flags or-ed from {@link AccessFlag}
   * @returns 0, or minus the errno
   */
  copy(current: SimulatedProcess, byte: bigint, data: Uint8Array, flags: number): number {
    const write = (flags & AccessFlag.Write) !== 0;
    if (write && !this.writeable) return -EPERM;
    if (this.isDmaBuf) return -EINVAL;
    const first = Number(byte / BigInt(PAGE));
    const last = Number((byte + BigInt(data.byteLength) - 1n) / BigInt(PAGE));
    const own = current === this.process && !(flags & AccessFlag.SlowPath);
    // By address rather than by what is pinned: the two differ once the process has mapped something else there.
    const byAddress = own || (flags & AccessFlag.KernelThread) !== 0 || first === last;
    if (this.source.kind === 'user' && byAddress && !this.process.ended) {
      const { memory } = this.process;
      const address = this.source.start + byte;
      if (write) return memory.write(address, data);
      const found = memory.read(address, data.byteLength);
      if (typeof found === 'number') return found;
      data.set(found);
      return 0;
    }
    const held = this.hold(first, last);
    if (held < 0) return held;
    const { physical } = this.process.host;
    let offset = Number(byte % BigInt(PAGE));
    for (let page = first, at = 0; page <= last; page++, offset = 0) {
      const part = data.subarray(at, at + PAGE - offset);
      const address = BigInt(this.frame(page)) * BigInt(PAGE) + BigInt(offset);
      if (write) physical.write(address, part);
      else physical.read(address, part);
      at += part.byteLength;
    }
    this.unhold(first, last);
    return 0;
  }
}
