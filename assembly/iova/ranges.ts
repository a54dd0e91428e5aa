/**
 * A first-fit allocator of address ranges.
 *
 * The free ranges are kept sorted, disjoint and coalesced in one array at HEAP, 16 bytes each:
 *
 *      +0        u64 first      first free address
 *      +8        u64 last       last free address, included: 2^64-1 must be expressible
 *
 * Ranges in use are not recorded: the caller knows what it allocated. Freeing what is already free is detected.
 * No managed objects, no exceptions: every function returns a status, the address goes to `lastResult()`.
 */

export const OK: i32 = 0;
/** No free range fits. */
export const NO_SPACE: i32 = 1;
/** The range is empty, wraps around, or is misaligned. */
export const INVALID: i32 = 2;
/** Freed range overlaps a free one; range to take is not wholly free. */
export const NOT_ALLOCATED: i32 = 3;

const HEAP: usize = __heap_base;
const ENTRY: usize = 16;

let count: i32 = 0;
let result: u64 = 0;

@inline function at(index: i32): usize {
  return HEAP + (<usize>index) * ENTRY;
}
@inline function firstOf(index: i32): u64 {
  return load<u64>(at(index));
}
@inline function lastOf(index: i32): u64 {
  return load<u64>(at(index), 8);
}
@inline function put(index: i32, first: u64, last: u64): void {
  store<u64>(at(index), first);
  store<u64>(at(index), last, 8);
}

/** Makes room for one more entry at `index`. False when memory is exhausted. */
function insert(index: i32, first: u64, last: u64): bool {
  const needed = at(count + 1);
  const have = (<usize>memory.size()) << 16;
  if (needed > have && memory.grow(<i32>((needed - have + 0xffff) >>> 16)) < 0) return false;
  memory.copy(at(index + 1), at(index), (<usize>(count - index)) * ENTRY);
  put(index, first, last);
  count++;
  return true;
}

function remove(index: i32): void {
  count--;
  memory.copy(at(index), at(index + 1), (<usize>(count - index)) * ENTRY);
}

/** Index of the first free range that ends at or after `address`; `count` when there is none. */
function search(address: u64): i32 {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (lastOf(middle) < address) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Takes `first..last` out of free range `index`, which contains it. */
function take(index: i32, first: u64, last: u64): i32 {
  const rangeFirst = firstOf(index);
  const rangeLast = lastOf(index);
  if (rangeFirst == first && rangeLast == last) {
    remove(index);
  } else if (rangeFirst == first) {
    put(index, last + 1, rangeLast);
  } else if (rangeLast == last) {
    put(index, rangeFirst, first - 1);
  } else {
    if (!insert(index + 1, last + 1, rangeLast)) return NO_SPACE;
    put(index, rangeFirst, first - 1);
  }
  return OK;
}

/** Makes `first..last` free; joins it with its neighbours. Used both to set up the space and to free. */
function give(first: u64, last: u64): i32 {
  if (last < first) return INVALID;
  const index = search(first);
  if (index < count && firstOf(index) <= last) return NOT_ALLOCATED;
  const joinsPrevious = index > 0 && lastOf(index - 1) + 1 == first;
  const joinsNext = index < count && last + 1 == firstOf(index);
  if (joinsPrevious && joinsNext) {
    put(index - 1, firstOf(index - 1), lastOf(index));
    remove(index);
  } else if (joinsPrevious) {
    put(index - 1, firstOf(index - 1), last);
  } else if (joinsNext) {
    put(index, first, lastOf(index));
  } else if (!insert(index, first, last)) {
    return NO_SPACE;
  }
  return OK;
}

export function addRange(first: u64, last: u64): i32 {
  return give(first, last);
}

/** Allocates `length` bytes aligned to `alignment` (a power of two) wholly within `lowest..highest`. */
export function allocate(length: u64, alignment: u64, lowest: u64, highest: u64): i32 {
  if (length == 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) return INVALID;
  const span = length - 1;
  for (let index = search(lowest); index < count; index++) {
    const rangeFirst = firstOf(index);
    if (rangeFirst > highest) break;
    const rangeLast = lastOf(index);
    const from = rangeFirst > lowest ? rangeFirst : lowest;
    const first = (from + (alignment - 1)) & ~(alignment - 1);
    if (first < from) break; // aligning wrapped around: no later range can do better
    const limit = rangeLast < highest ? rangeLast : highest;
    if (first > limit || limit - first < span) continue;
    const status = take(index, first, first + span);
    result = first;
    return status;
  }
  return NO_SPACE;
}

/** Allocates exactly `first..first+length-1`. */
export function allocateAt(first: u64, length: u64): i32 {
  const last = first + (length - 1);
  if (length == 0 || last < first) return INVALID;
  const index = search(first);
  if (index == count || firstOf(index) > first || lastOf(index) < last) return NOT_ALLOCATED;
  result = first;
  return take(index, first, last);
}

export function free(first: u64, length: u64): i32 {
  const last = first + (length - 1);
  if (length == 0) return INVALID;
  return give(first, last);
}

/** The address found by the last successful allocation. */
export function lastResult(): u64 {
  return result;
}

export function freeRangeCount(): i32 {
  return count;
}

/** Sum of the free ranges in bytes; wraps to 0 when all of 2^64 is free. */
export function freeSpace(): u64 {
  let sum: u64 = 0;
  for (let index = 0; index < count; index++) sum += lastOf(index) - firstOf(index) + 1;
  return sum;
}
