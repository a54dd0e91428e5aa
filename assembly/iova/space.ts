/**
 * The allocator: addresses in bytes at its exports, units within. An address space has 2^64 bytes; the tree may span
 * more units than those, which are part of the hole at its end.
 *
 * Unit 0 and the last are in holes from the beginning, so no address that is found is 0, which says that none was:
 * `iovaStatus()` then says why.
 */
import {
  ALLOCATED,
  HOLE,
  INVALID,
  NONE,
  NOT_A_START,
  NO_MEMORY,
  NO_SPACE,
  OK,
  RECYCLING,
  RESERVED,
  UNUSED,
} from './layout';
import { checkAll, checkedUnit } from './check';
import { blockEnd, changeKind, findBlock, firstFound, isFree, kindOfStart, lastFound } from './find';
import { allocateAligned, freeWithinNode, resetHot } from './hot';
import { resetPool, roomFor, roomForOne } from './pool';
import { enqueue, queued, recycleBefore, resetQueue, ticketFirst, ticketNow } from './recycling';
import { lowestAligned, lowestRun } from './search';
import { blocksOf, freeUnits, occupyUnits, resetTree, span, tally, unitsOf, vacateUnits } from './tree';

const PAGE_BITS: u32 = 12;
const LEAST_GRANULE: u32 = 6;
const MOST_GRANULE: u32 = 30;

/** 2^64. */
const TOP: f64 = 18446744073709551616.0;
/** Blocks that a batch holds. */
const BATCH_SIZE: i32 = 512;

let shift: u64 = 0;
let granuleBytes: f64 = 0;
let delayed: bool = false;
let firstFit: bool = false;
let status: i32 = OK;

/** Blocks on their way in or out, 16 bytes each: u64 first | kind, u64 last. */
const BATCH: usize = memory.data(16 * 512, 16);

/** Where the batch is. */
export function iovaBatch(): usize {
  return BATCH;
}

@inline function toAddress(unit: u64): u64 {
  return unit << shift;
}
/** Last address of a unit; what the tree spans beyond the space counts as its end. */
@inline function toLast(unit: u64): u64 {
  return unit >= u64.MAX_VALUE >> shift ? u64.MAX_VALUE : ((unit + 1) << shift) - 1;
}
/** The unit that ends at `last`. */
@inline function fromLast(last: u64): u64 {
  return last == u64.MAX_VALUE ? span() - 1 : last >> shift;
}
@inline function isAligned(first: u64, last: u64): bool {
  const within = ((<u64>1) << shift) - 1;
  return first <= last && (first & within) == 0 && (last & within) == within;
}

/**
 * An empty space: all of it is free, for `iovaHole` to narrow or `iovaLoad` to fill.
 *
 * @param granule log2 of the unit in bytes
 * @param isFirstFit allocations go to the lowest address that fits, rather than to an aligned block if there is one
 * @param ticket of the first block to be freed
 */
export function iovaInit(granule: u32, isDelayed: bool, isFirstFit: bool, ticket: f64): i32 {
  if (granule < LEAST_GRANULE || granule > MOST_GRANULE || !(ticket >= 0)) return INVALID;
  shift = granule;
  granuleBytes = <f64>(1 << granule);
  delayed = isDelayed;
  firstFit = isFirstFit;
  resetPool();
  // The root is one more node than a change makes.
  if (!roomFor(2)) return NO_MEMORY;
  resetTree((63 - <i32>granule) / 6);
  resetHot();
  resetQueue(<u64>ticket);
  return OK;
}

/** Why the last allocation found nothing. */
export function iovaStatus(): i32 {
  return status;
}

/** Makes sure that so many changes will find memory. */
export function iovaPrepare(changes: u32): i32 {
  return roomFor(changes) ? OK : NO_MEMORY;
}

/**
 * Makes a hole of `first..last`, one with the holes beside and in it. Nothing but those and free units may be there.
 */
export function iovaHole(first: u64, last: u64): i32 {
  if (!isAligned(first, last)) return INVALID;
  if (!roomForOne()) return NO_MEMORY;
  let from = first >> shift;
  let to = fromLast(last);
  for (let unit = from; unit <= to; unit = lastFound() + 1) {
    const kind = findBlock(unit);
    if (kind != HOLE && kind != UNUSED) return NO_SPACE;
  }
  for (let unit = from == 0 ? 0 : from - 1; unit < span() && unit <= to + 1; unit = lastFound() + 1) {
    if (findBlock(unit) != HOLE) continue;
    from = min(from, firstFound());
    to = max(to, lastFound());
    vacateUnits(firstFound(), lastFound(), HOLE);
  }
  occupyUnits(from, to, HOLE);
  return OK;
}

/** @returns the address; 0 for none */
function refuse(why: i32): u64 {
  status = why;
  return 0;
}

@inline function orderFor(units: u64): i32 {
  return units <= 1 ? 0 : 64 - <i32>clz(units - 1);
}

/** Allocates `size` bytes anywhere, at any granule. */
export function iovaAllocate(size: f64): u64 {
  if (!(size >= 1 && size < TOP)) return refuse(INVALID);
  const units = ((<u64>size - 1) >> shift) + 1;
  if (!roomForOne()) return refuse(NO_MEMORY);
  const k = orderFor(units);
  const first = firstFit && k > 0 ? NONE : allocateAligned(units, k);
  return first != NONE ? toAddress(first) : allocateBlock(units, k, 1, 0, span() - 1, 0);
}

/** The general way. The limits are units; `from` and `to` are included. */
function allocateBlock(units: u64, k: i32, alignment: u64, from: u64, to: u64, boundary: u64): u64 {
  // A block of 2^k units at a multiple of that crosses no boundary it fits in.
  const order: u64 = (<u64>1) << (<u64>k);
  // One of its own size, at a multiple of its size, is where first fit would put it.
  const isAligned = !firstFit || (units == order && alignment == order);
  let first = isAligned ? lowestAligned(k, (from + (order - 1)) & ~(order - 1)) : NONE;
  if (first == NONE || first + (units - 1) > to) {
    first = lowestRun(units, alignment, from, to, boundary);
    if (first == NONE) return refuse(NO_SPACE);
  }
  occupyUnits(first, first + (units - 1), ALLOCATED);
  return toAddress(first);
}

/**
 * Allocates `size` bytes within `lowest..highest`, at a multiple of `alignment`, not across a multiple of `boundary`
 * (0: any); both are powers of two.
 */
export function iovaAllocateWithin(size: u64, alignment: u64, lowest: u64, highest: u64, boundary: u64): u64 {
  if (size == 0 || popcnt(alignment) != 1 || popcnt(boundary) > 1) return refuse(INVALID);
  const units = ((size - 1) >> shift) + 1;
  const multiple = max(alignment >> shift, 1);
  const limit = boundary >> shift;
  if (boundary != 0 && units > limit) return refuse(NO_SPACE);
  const within = ((<u64>1) << shift) - 1;
  const from = (lowest >> shift) + <u64>((lowest & within) != 0);
  // The last unit that ends at or below `highest`.
  const to = highest == u64.MAX_VALUE ? span() : (highest + 1) >> shift;
  if (from >= to) return refuse(NO_SPACE);
  if (!roomForOne()) return refuse(NO_MEMORY);
  const k = max(orderFor(units), <i32>ctz(multiple));
  return allocateBlock(units, k, multiple, from, to - 1, limit);
}

/** Makes `first..last` an allocation, or reserves it; all of it must be free. */
export function iovaOccupy(first: u64, last: u64, isReserved: bool): i32 {
  if (!isAligned(first, last)) return INVALID;
  const from = first >> shift;
  const to = fromLast(last);
  if (!isFree(from, to)) return NO_SPACE;
  if (!roomForOne()) return NO_MEMORY;
  occupyUnits(from, to, isReserved ? RESERVED : ALLOCATED);
  return OK;
}

/** What `iovaFree` gave back. */
let freedBytes: u64 = 0;

export function iovaFreed(): u64 {
  return freedBytes;
}

/**
 * Frees the allocation that starts at `first`.
 *
 * @returns its size in bytes, rounded beyond 2^53, where `iovaFreed()` has it exactly; a status less than 0
 */
export function iovaFree(first: u64): f64 {
  const unit = first >> shift;
  if (unit << shift != first) return -NOT_A_START;
  if (!delayed) {
    const units = freeWithinNode(unit);
    if (units != 0) return given(units);
  }
  if (kindOfStart(unit) != ALLOCATED) return -NOT_A_START;
  const end = blockEnd(unit);
  if (delayed) {
    if (!roomForOne()) return -NO_MEMORY;
    changeKind(unit, RECYCLING);
    tally(ALLOCATED, unit - end, -1);
    tally(RECYCLING, end - unit, 1);
    enqueue(unit);
  } else {
    vacateUnits(unit, end - 1, ALLOCATED);
  }
  return given(end - unit);
}

@inline function given(units: u64): f64 {
  freedBytes = units << shift;
  // Signed conversions are cheaper.
  return <f64>(<i64>units) * granuleBytes;
}

/** Ends the reservation that starts at `first`. */
export function iovaUnreserve(first: u64): i32 {
  const unit = first >> shift;
  if (unit << shift != first || kindOfStart(unit) != RESERVED) return NOT_A_START;
  vacateUnits(unit, blockEnd(unit) - 1, RESERVED);
  return OK;
}

/** The kind of the block, free run or hole with `address`; `iovaFirst()` and `iovaLast()` have the rest. */
export function iovaFind(address: u64): i32 {
  return findBlock(address >> shift);
}
export function iovaFirst(): u64 {
  return toAddress(firstFound());
}
export function iovaLast(): u64 {
  return toLast(lastFound());
}

/** Blocks freed so far: those before this moment. */
export function iovaTicket(): f64 {
  return <f64>ticketNow();
}

/** Makes what was freed before the ticket free to allocate. */
export function iovaRecycle(ticket: f64): i32 {
  if (!(ticket >= 0 && ticket <= <f64>ticketNow())) return INVALID;
  recycleBefore(<u64>ticket);
  return OK;
}

/** Bytes of one kind; only a space that is one hole wraps around to 0. */
export function iovaBytes(kind: i32): u64 {
  return (kind == UNUSED ? freeUnits() : unitsOf(kind)) << shift;
}
export function iovaBlocks(kind: i32): f64 {
  return <f64>blocksOf(kind);
}

/** Fills the batch with the blocks and holes from `address` on. @returns how many; less than fit: that was all */
export function iovaSave(address: u64): i32 {
  let count = 0;
  for (let unit = address >> shift; count < BATCH_SIZE && unit < span(); unit = lastFound() + 1) {
    const kind = findBlock(unit);
    if (kind == UNUSED) continue;
    const at = BATCH + ((<usize>count) << 4);
    count++;
    store<u64>(at, iovaFirst() | kind);
    store<u64>(at, iovaLast(), 8);
  }
  return count;
}

/** Puts `count` blocks of the batch into the space. @returns how many were taken: all, or the one after is refused */
export function iovaLoad(count: i32): i32 {
  for (let index = 0; index < count; index++) {
    const at = BATCH + ((<usize>index) << 4);
    const word = load<u64>(at);
    const kind = <i32>(word & 7);
    const first = word & ~7;
    const last = load<u64>(at, 8);
    if (kind > HOLE || !isAligned(first, last)) return index;
    const from = first >> shift;
    const to = fromLast(last);
    if (!isFree(from, to)) return index;
    // Holes side by side are one, and the pages at both ends are in holes.
    if (kind == HOLE) {
      if (from > 0 && findBlock(from - 1) == HOLE) return index;
      if (to + 1 < span() && findBlock(to + 1) == HOLE) return index;
    } else if (first >> PAGE_BITS == 0 || last >> PAGE_BITS == u64.MAX_VALUE >> PAGE_BITS) {
      return index;
    }
    if (!roomForOne()) {
      status = NO_MEMORY;
      return index;
    }
    occupyUnits(from, to, kind);
  }
  status = OK;
  return count;
}

/** Fills the batch with first addresses, 8 bytes each, of waiting blocks from number `index` on. @returns how many */
export function iovaSaveQueue(index: f64): i32 {
  const waiting = ticketNow() - ticketFirst();
  let count = 0;
  for (let each = <u64>index; each < waiting && count < BATCH_SIZE; each++) {
    store<u64>(BATCH + ((<usize>count) << 3), toAddress(queued(each)));
    count++;
  }
  return count;
}

/** Queues `count` blocks of the batch. @returns how many were taken */
export function iovaLoadQueue(count: i32): i32 {
  for (let index = 0; index < count; index++) {
    const first = load<u64>(BATCH + ((<usize>index) << 3));
    if ((first >> shift) << shift != first || kindOfStart(first >> shift) != RECYCLING) return index;
    if (!roomForOne()) {
      status = NO_MEMORY;
      return index;
    }
    enqueue(first >> shift);
  }
  status = OK;
  return count;
}

/** 0, or which invariant does not hold (assembly/iova/check.ts) at `iovaCheckedAt()`. */
export function iovaCheck(): i32 {
  return checkAll();
}
export function iovaCheckedAt(): u64 {
  return toAddress(checkedUnit());
}
