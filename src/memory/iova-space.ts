/**
 * Which IOVAs are in use: the typed wrapper of the allocator in `assembly/iova`, and its address space as a value.
 *
 * @module
 */
import type { Iova, IovaRange } from '../address.js';
import { checkAligned, checkInteger, checkPowerOfTwo, checkU64 } from '../check.js';
import { hex } from '../hex.js';
import { instantiate } from '../wasm.js';

const TOP = 0xffff_ffff_ffff_ffffn;
const PAGE = 4096;
const MIN_GRANULE = 64;
const MAX_GRANULE = 2 ** 30;

/** The status codes of assembly/iova/layout.ts. */
const Status = { Ok: 0, NoSpace: 1, NoMemory: 2, NotAStart: 3, Invalid: 4 } as const;

/** The kinds of assembly/iova/layout.ts, by their number. */
const kinds = ['allocated', 'reserved', 'recycling', 'hole', 'free'] as const;
const Kind = { Allocated: 0, Reserved: 1, Recycling: 2, Hole: 3, Free: 4 } as const;

/** Blocks that the core hands over at a time. */
const BATCH = 512;

interface IovaExports extends Record<string, unknown> {
  iovaInit(granule: number, isDelayed: boolean, isFirstFit: boolean, ticket: number): number;
  iovaStatus(): number;
  iovaPrepare(changes: number): number;
  iovaHole(first: bigint, last: bigint): number;
  iovaAllocate(size: number): bigint;
  iovaAllocateWithin(
    size: bigint,
    alignment: bigint,
    lowest: bigint,
    highest: bigint,
    boundary: bigint,
  ): bigint;
  iovaOccupy(first: bigint, last: bigint, isReserved: boolean): number;
  iovaFree(first: bigint): number;
  iovaFreed(): bigint;
  iovaUnreserve(first: bigint): number;
  iovaFind(address: bigint): number;
  iovaFirst(): bigint;
  iovaLast(): bigint;
  iovaTicket(): number;
  iovaRecycle(ticket: number): number;
  iovaBytes(kind: number): bigint;
  iovaBlocks(kind: number): number;
  iovaBatch(): number;
  iovaSave(address: bigint): number;
  iovaLoad(count: number): number;
  iovaSaveQueue(index: number): number;
  iovaLoadQueue(count: number): number;
  iovaCheck(): number;
  iovaCheckedAt(): bigint;
}

export interface IovaSpaceOptions {
  /**
   * What sizes are rounded up to and addresses are multiples of: a power of two from 64 to 2^30 bytes; 4096, the
   * smallest page of an IOMMU, by default.
   */
  granule?: number;
  /** Ranges that are freed are not handed out again before {@link IovaSpace.recycle}; off by default. */
  delayedRecycling?: boolean;
  /**
   * Every allocation goes to the lowest address that fits, so that allocations made in turn lie side by side and sizes
   * that add up to the whole fit in it. Costs more (see {@link IovaSpace}); off by default.
   */
  firstFit?: boolean;
}

/** Where an allocation may be. */
export interface Placement {
  /** A power of two in bytes; the granule by default. */
  alignment?: number;
  /** Lowest address; 0 by default. */
  lowest?: bigint;
  /** Highest address, included; 2^64-1 by default. `0xffff_ffffn` for a device with 32 address lines. */
  highest?: bigint;
  /** A power of two in bytes, the granule or more: no multiple of it may lie within the allocation. None by default. */
  boundary?: number | bigint;
}

/** What a part of an address space is. */
export const IovaBlockKind = {
  Free: 'free',
  Allocated: 'allocated',
  /** Kept from allocation by {@link IovaSpace.reserve}. */
  Reserved: 'reserved',
  /** Freed, but maybe still in the IOTLB. */
  Recycling: 'recycling',
  /** Outside the ranges that may be used. */
  Hole: 'hole',
} as const;
export type IovaBlockKind = (typeof IovaBlockKind)[keyof typeof IovaBlockKind];

/** An allocation or the like; of free memory and holes, as much as there is in one piece. */
export interface IovaBlock {
  readonly iova: Iova;
  /** In bytes. */
  readonly size: bigint;
  readonly kind: IovaBlockKind;
}

/** An address space as plain data, which can be cloned, stored or sent. */
export interface IovaSnapshot {
  readonly version: 1;
  readonly granule: number;
  readonly delayedRecycling: boolean;
  readonly firstFit: boolean;
  /**
   * All that is not free, in address order, two words each: the first address, with the kind in its low bits (0
   * allocated, 1 reserved, 2 recycling, 3 hole), and the last.
   */
  readonly blocks: BigUint64Array;
  /** First addresses of the recycling ones, in the order in which they were freed. */
  readonly recycling: BigUint64Array;
  /** {@link IovaSpace.ticket} */
  readonly ticket: number;
}

/**
 * An address space of 64 bits and what of it is in use. It only keeps books: mapping is for whoever asks it.
 *
 * Page 0, whose address reads as "none", and the last page, whose end overflows, are never handed out.
 *
 * **Where an allocation goes.** With 2^k granules the least power of two that holds it, and not less than its
 * alignment: to the beginning of the lowest free block of 2^k granules at a multiple of its size. Only what is needed
 * is taken, the rest stays free. Where there is no such block, to the lowest address that fits. For one granule, and
 * for powers of two at their own alignment, this is first fit. Larger ones stay at multiples of their size, so that
 * an IOMMU can use large pages for them, table entries are shared by what belongs together, and finding room takes no
 * search; with the option `firstFit` they, too, go to the lowest address that fits. What fits somewhere is never refused, and the same calls give the same addresses.
 *
 * **What it costs.** Allocating and freeing takes O(log n) steps, n being the size of the space in granules, at any
 * population: a few nodes of a tree with 64 branches each. The exception is the "lowest address that fits", taken
 * when no aligned block is free within the limits, and with `firstFit` for all but those powers of two. It first brings the longest free run of every node up to date that
 * changed since the last time: at most 64 steps for each of the O(log n) nodes that each call in between has changed.
 * Then it takes O(64 log n) steps with the default alignment and no `boundary`; with either of those it also visits
 * every run that is long enough but not once its start is aligned.
 *
 * Memory follows the population: 256 bytes for each 512 granules of which some 64 are not all in one block, and 128
 * for each 4096 granules that are not; for each larger such part, 64 times as long on every level, 832. What is given
 * up is used again, though never given back to the system.
 */
export class IovaSpace implements Iterable<IovaBlock> {
  /** In bytes. */
  readonly granule: number;
  readonly delayedRecycling: boolean;
  readonly firstFit: boolean;
  readonly #core: IovaExports;
  readonly #memory: WebAssembly.Memory;
  // Calling these two through the exports object costs more than what they do.
  readonly #allocate: (size: number) => bigint;
  readonly #free: (iova: bigint) => number;

  /**
   * @param ranges that may be used, such as those of `Ioas.iovaRanges()`: in address order, apart from each other,
   * made of whole granules
   * @throws TypeError, RangeError
   */
  constructor(ranges: Iterable<IovaRange>, options: IovaSpaceOptions = {}) {
    const { granule = PAGE, delayedRecycling = false, firstFit = false } = options;
    this.granule = checkPowerOfTwo('granule', granule, MIN_GRANULE, MAX_GRANULE);
    this.delayedRecycling = checkBoolean('delayedRecycling', delayedRecycling);
    this.firstFit = checkBoolean('firstFit', firstFit);
    const holes = this.#holesBetween(ranges);
    const { exports, memory } = instantiate<IovaExports>(1);
    this.#core = exports;
    this.#memory = memory;
    this.#allocate = exports.iovaAllocate;
    this.#free = exports.iovaFree;
    this.#clear(0);
    this.#dig(holes);
  }

  /** All of it free, not even holes. */
  #clear(ticket: number): void {
    const { granule, delayedRecycling, firstFit } = this;
    this.#done(this.#core.iovaInit(Math.log2(granule), delayedRecycling, firstFit, ticket));
  }

  /**
   * Allocates `size` bytes, rounded up to granules.
   *
   * @returns the address, a multiple of the granule; `undefined` when nothing fits
   */
  allocate(size: number | bigint, placement?: Placement): Iova | undefined {
    // The usual call: no object, and no bigint but the result.
    if (placement === undefined && typeof size === 'number' && size >= 1 && Number.isSafeInteger(size)) {
      const found = this.#allocate(size);
      return found === 0n ? this.#nothing() : (BigInt.asUintN(64, found) as Iova);
    }
    return this.#allocateWithin(checkSize(size), placement ?? {});
  }

  #allocateWithin(size: bigint, placement: Placement): Iova | undefined {
    const { alignment = 1, lowest = 0n, highest = TOP, boundary } = placement;
    checkPowerOfTwo('alignment', alignment, 1, 2 ** 63);
    checkU64('lowest', lowest);
    checkU64('highest', highest);
    const limit = boundary === undefined ? 0n : this.#checkBoundary(boundary);
    const found = this.#core.iovaAllocateWithin(size, BigInt(alignment), lowest, highest, limit);
    return found === 0n ? this.#nothing() : (BigInt.asUintN(64, found) as Iova);
  }

  #checkBoundary(boundary: number | bigint): bigint {
    if (typeof boundary === 'number') {
      return BigInt(checkPowerOfTwo('boundary', boundary, this.granule, 2 ** 63));
    }
    checkU64('boundary', boundary);
    if (boundary < this.granule || (boundary & (boundary - 1n)) !== 0n) {
      throw new RangeError(`boundary must be a power of two, at least ${this.granule}, got ${boundary}`);
    }
    return boundary;
  }

  #nothing(): undefined {
    this.#done(this.#core.iovaStatus());
  }

  /** Throws for the status that is nobody's fault. */
  #done(status: number): void {
    if (status !== Status.NoMemory) return;
    throw new RangeError('the IOVA allocator has no more memory for its own records, nothing was changed');
  }

  /**
   * Allocates `size` bytes, rounded up to granules, at `iova`.
   *
   * @returns false when not all of it is free
   */
  allocateAt(iova: Iova, size: number | bigint): boolean {
    return this.#occupy(iova, size, false);
  }

  /**
   * Keeps a range from being allocated, for what others map there. It takes {@link unreserve} to end that, so that no
   * mistaken {@link free} does.
   *
   * @returns false when not all of it is free
   */
  reserve(iova: Iova, size: number | bigint): boolean {
    return this.#occupy(iova, size, true);
  }

  #occupy(iova: Iova, size: number | bigint, isReserved: boolean): boolean {
    checkAligned('iova', checkU64('iova', iova), this.granule);
    const last = (iova + checkSize(size) - 1n) | BigInt(this.granule - 1);
    if (last > TOP) throw new RangeError(`${size} bytes at ${hex(iova)} go beyond 2^64`);
    const status = this.#core.iovaOccupy(iova, last, isReserved);
    this.#done(status);
    return status === Status.Ok;
  }

  /**
   * Frees an allocation; with delayed recycling it is handed out again only after {@link recycle}.
   *
   * @param iova where it starts
   * @returns its size in bytes; a `bigint` when that is no safe integer
   * @throws RangeError when no allocation starts there
   */
  free(iova: Iova): number | bigint {
    // Beyond 64 bits the rest would be lost on the way into the core, and another address be meant.
    if (typeof iova !== 'bigint' || iova < 0n || iova > TOP) checkU64('iova', iova);
    const size = this.#free(iova);
    if (size > 0 && size <= Number.MAX_SAFE_INTEGER) return size;
    if (size > 0) return BigInt.asUintN(64, this.#core.iovaFreed());
    this.#done(-size);
    throw new RangeError(`no allocation starts at ${hex(iova)}${this.#hint(iova)}`);
  }

  /** Ends a reservation. @throws RangeError when none starts there */
  unreserve(iova: Iova): void {
    checkU64('iova', iova);
    if (this.#core.iovaUnreserve(iova) === Status.Ok) return;
    throw new RangeError(`no reservation starts at ${hex(iova)}${this.#hint(iova)}`);
  }

  #hint(iova: bigint): string {
    const block = this.find(iova as Iova);
    return `: it is in ${hex(block.iova)}, ${block.size} bytes, ${block.kind}`;
  }

  /** The block that contains an address, which need not be where it starts. */
  find(iova: Iova): IovaBlock {
    const kind = this.#core.iovaFind(checkU64('iova', iova));
    const first = BigInt.asUintN(64, this.#core.iovaFirst());
    const last = BigInt.asUintN(64, this.#core.iovaLast());
    return { iova: first as Iova, size: last - first + 1n, kind: kinds[kind] as IovaBlockKind };
  }

  /** Stands for all that was freed up to now. Take it before the IOTLB flush begins. */
  ticket(): number {
    return this.#core.iovaTicket();
  }

  /**
   * Makes what was freed before the ticket was taken free to allocate, the IOTLB having been flushed since.
   *
   * @param ticket everything freed so far by default
   */
  recycle(ticket: number = this.ticket()): void {
    this.#core.iovaRecycle(checkInteger('ticket', ticket, 0, this.ticket()));
  }

  /**
   * Narrows the address space to `ranges`, of which it keeps what it already has, as the attach of another device may
   * do. Changes nothing when something is in the way.
   *
   * @param ranges as for the constructor
   * @returns allocations, reservations and recycling blocks that are not wholly within; empty when it took effect
   */
  restrict(ranges: Iterable<IovaRange>): IovaBlock[] {
    const holes = this.#holesBetween(ranges);
    const conflicts = holes.flatMap(hole =>
      [...this.blocks(hole.first, hole.last)].filter(({ kind }) => isInUse(kind)),
    );
    // One that reaches across a whole range is in two holes.
    const each = new Map(conflicts.map(block => [block.iova, block]));
    if (each.size === 0) this.#dig(holes);
    return [...each.values()];
  }

  #holesBetween(ranges: Iterable<IovaRange>): IovaRange[] {
    const granule = BigInt(this.granule);
    const edge = BigInt(Math.max(this.granule, PAGE));
    const holes: IovaRange[] = [];
    let count = 0;
    let next = edge;
    let previous = -1n;
    holes.push({ first: 0n as Iova, last: (edge - 1n) as Iova });
    for (const { first, last } of ranges) {
      checkU64('first', first);
      checkU64('last', last);
      const shown = `range ${hex(first)}..${hex(last)}`;
      if (last < first) throw new RangeError(`${shown} ends before it begins`);
      if (first <= previous) throw new RangeError(`${shown} overlaps the one before, or is out of order`);
      if (first % granule !== 0n || (last + 1n) % granule !== 0n) {
        throw new RangeError(`${shown} must be made of whole granules of ${granule} bytes`);
      }
      if (first > next) holes.push({ first: next as Iova, last: (first - 1n) as Iova });
      if (last >= next) next = last + 1n;
      previous = last;
      count++;
    }
    if (count === 0) throw new RangeError('an address space needs at least one range');
    const end = TOP + 1n - edge;
    holes.push({ first: (next < end ? next : end) as Iova, last: TOP as Iova });
    return holes;
  }

  #dig(holes: readonly IovaRange[]): void {
    this.#done(this.#core.iovaPrepare(holes.length));
    for (const { first, last } of holes) this.#core.iovaHole(first, last);
  }

  /**
   * Everything in address order, free memory and holes included.
   *
   * The space may change meanwhile: each step finds the block after the end of the one before.
   *
   * @param first begins with the block that contains it; 0 by default
   * @param last ends with the block that contains it; 2^64-1 by default
   */
  *blocks(first: bigint = 0n, last: bigint = TOP): Generator<IovaBlock, void, undefined> {
    checkU64('last', last);
    for (let next = checkU64('first', first); next <= last; ) {
      const block = this.find(next as Iova);
      yield block;
      next = block.iova + block.size;
    }
  }

  /** Allocations, reservations and recycling blocks in address order, as {@link blocks}. */
  *[Symbol.iterator](): Generator<IovaBlock, void, undefined> {
    for (const block of this.blocks()) if (isInUse(block.kind)) yield block;
  }

  /** Bytes that are free, in all. */
  get freeBytes(): bigint {
    return this.#bytes(Kind.Free);
  }
  /** Bytes in allocations. */
  get allocatedBytes(): bigint {
    return this.#bytes(Kind.Allocated);
  }
  get reservedBytes(): bigint {
    return this.#bytes(Kind.Reserved);
  }
  /** Bytes that {@link recycle} would free. */
  get recyclingBytes(): bigint {
    return this.#bytes(Kind.Recycling);
  }
  /** Number of allocations. */
  get allocations(): number {
    return this.#core.iovaBlocks(Kind.Allocated);
  }
  get reservations(): number {
    return this.#core.iovaBlocks(Kind.Reserved);
  }

  #bytes(kind: number): bigint {
    return BigInt.asUintN(64, this.#core.iovaBytes(kind));
  }

  /** All of its state. A ticket taken before is good for the space made from it, too. */
  snapshot(): IovaSnapshot {
    const blocks: BigUint64Array[] = [];
    for (let next = 0n; next <= TOP; ) {
      const batch = this.#words(2 * this.#core.iovaSave(next)).slice();
      blocks.push(batch);
      next = batch.length < 2 * BATCH ? TOP + 1n : (batch[batch.length - 1] as bigint) + 1n;
    }
    const recycling: BigUint64Array[] = [];
    for (let index = 0; ; index += BATCH) {
      const batch = this.#words(this.#core.iovaSaveQueue(index)).slice();
      recycling.push(batch);
      if (batch.length < BATCH) break;
    }
    return {
      version: 1,
      granule: this.granule,
      delayedRecycling: this.delayedRecycling,
      firstFit: this.firstFit,
      blocks: concatenate(blocks),
      recycling: concatenate(recycling),
      ticket: this.ticket(),
    };
  }

  /** An address space in the state of a snapshot. @throws TypeError, RangeError when it is none, or is damaged */
  static from(snapshot: IovaSnapshot): IovaSpace {
    if (typeof snapshot !== 'object' || snapshot === null || snapshot.version !== 1) {
      throw new TypeError('not a snapshot of an IOVA space, or of a later version');
    }
    const { granule, delayedRecycling, firstFit, blocks, recycling, ticket } = snapshot;
    if (!(blocks instanceof BigUint64Array && recycling instanceof BigUint64Array)) {
      throw new TypeError('snapshot: blocks and recycling must be of type BigUint64Array');
    }
    checkInteger('snapshot: ticket', ticket, recycling.length);
    if (blocks.length % 2 !== 0) throw new RangeError('snapshot: blocks must have two words each');
    const all = { first: 0n as Iova, last: TOP as Iova };
    const space = new IovaSpace([all], { granule, delayedRecycling, firstFit });
    space.#load(snapshot);
    return space;
  }

  #load({ blocks, recycling, ticket }: IovaSnapshot): void {
    const core = this.#core;
    this.#clear(ticket - recycling.length);
    const load = (words: BigUint64Array, each: number, put: (count: number) => number, what: string) => {
      for (let start = 0; start < words.length; start += BATCH * each) {
        const batch = words.subarray(start, start + BATCH * each);
        this.#words(batch.length).set(batch);
        const count = put(batch.length / each);
        if (count * each === batch.length) continue;
        this.#done(core.iovaStatus());
        const at = start + count * each;
        throw new RangeError(
          `snapshot: ${what} ${at / each}, at ${hex(words[at] as bigint)}, does not fit the rest`,
        );
      }
    };
    load(blocks, 2, core.iovaLoad, 'block');
    for (const first of [0n, TOP - BigInt(PAGE - 1)]) {
      const { iova, size, kind } = this.find(first as Iova);
      if (kind !== IovaBlockKind.Hole || iova + size < first + BigInt(PAGE)) {
        throw new RangeError(`snapshot: the page at ${hex(first)} must be in a hole`);
      }
    }
    const waiting = recycling.slice().sort();
    const expected = [...this].filter(({ kind }) => kind === IovaBlockKind.Recycling);
    if (
      waiting.length !== expected.length ||
      expected.some(({ iova }, index) => (iova as bigint) !== waiting[index])
    ) {
      throw new RangeError('snapshot: the order of recycling must name each recycling block once');
    }
    load(recycling, 1, core.iovaLoadQueue, 'recycling block');
  }

  /** The batch, which the core fills or reads; good until memory grows. */
  #words(length: number): BigUint64Array {
    return new BigUint64Array(this.#memory.buffer, this.#core.iovaBatch(), length);
  }

  /**
   * Checks the allocator's own invariants, for tests: all of it is read, in O(nodes).
   *
   * @throws Error when one does not hold
   * @internal
   */
  check(): void {
    const failed = this.#core.iovaCheck();
    if (failed === 0) return;
    const at = BigInt.asUintN(64, this.#core.iovaCheckedAt());
    throw new Error(`invariant ${failed} of the IOVA allocator does not hold at ${hex(at)}`);
  }

  /** Bytes of WASM memory that it has. @internal */
  get footprint(): number {
    return this.#memory.buffer.byteLength;
  }
}

function isInUse(kind: IovaBlockKind): boolean {
  return kind !== IovaBlockKind.Free && kind !== IovaBlockKind.Hole;
}

function checkBoolean(title: string, value: boolean): boolean {
  if (typeof value !== 'boolean') throw new TypeError(`${title} must be a boolean, got ${typeof value}`);
  return value;
}

function checkSize(size: number | bigint): bigint {
  const bytes = checkU64('size', size);
  if (bytes === 0n) throw new RangeError('size must not be 0');
  return bytes;
}

function concatenate(parts: readonly BigUint64Array[]): BigUint64Array {
  const all = new BigUint64Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}
