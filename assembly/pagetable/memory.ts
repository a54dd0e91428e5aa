/**
 * Where table pages are: physical addresses to places in linear memory.
 *
 * A window is a run of pages that is contiguous in both. The list is sorted by physical address and adjacent windows
 * are joined, so that a lookup is one comparison in the largest window and a binary search otherwise:
 *
 *      +0        u64 base       physical address of the first page
 *      +8        u32 pages
 *      +12       u32 start      in linear memory
 *
 * The heap is one window whose pages are given out and taken back; USED has a bit for each of its pages, away from the
 * pages themselves, which a corrupt table may have us write to. Pages loaded outside the heap are never given out.
 */
import { PAGE, PAGES, USED } from './layout';

const ENTRY: usize = 16;

/** The largest window. */
export let primaryBase: u64 = 0;
export let primaryBytes: u64 = 0;
export let primaryStart: usize = 0;

let list: usize = 0;
let count: i32 = 0;
let capacity: i32 = 0;

let heapBase: u64 = 0;
let heapPages: u32 = 0;
let heapFree: u32 = 0;
/** No page below it is free. */
let hint: u32 = 0;
/** Pages in the windows. */
export let backedPages: u32 = 0;
let end: usize = 0;

@inline function at(index: i32): usize {
  return list + (<usize>index) * ENTRY;
}

/** Where the page at `physical`, which is aligned, is. 0: nowhere. */
@inline export function lookup(physical: u64): usize {
  const offset = physical - primaryBase;
  return offset < primaryBytes ? primaryStart + <usize>offset : search(physical);
}

/** The same, in whichever window. */
export function search(physical: u64): usize {
  const index = following(physical, 0, count) - 1;
  if (index < 0) return 0;
  const offset = physical - load<u64>(at(index));
  if (offset >= (<u64>load<u32>(at(index), 8)) << 12) return 0;
  return <usize>load<u32>(at(index), 12) + <usize>offset;
}

/**
 * The first window between `low` and `high` that begins above `physical`. Recursive, since the compiler would put a loop
 * into each place that looks up, and it is the loops there that must stay small.
 */
function following(physical: u64, low: i32, high: i32): i32 {
  if (low == high) return low;
  const middle = (low + high) >>> 1;
  return load<u64>(at(middle)) <= physical ? following(physical, middle + 1, high) : following(physical, low, middle);
}

/** Takes linear memory. 0: there is no more. */
function extend(pages: u32): usize {
  const from = end;
  const to = (<u64>from) + ((<u64>pages) << 12);
  if (to > 0xffff_0000) return 0;
  const have = (<usize>memory.size()) << 16;
  if (<usize>to > have && memory.grow(<i32>((<usize>to - have + 0xffff) >>> 16)) < 0) return 0;
  end = <usize>to;
  return from;
}

/** @returns whether there was room in the list */
function insertWindow(base: u64, pages: u32, start: usize): bool {
  let index = following(base, 0, count);
  const before = at(index - 1);
  if (
    index > 0 &&
    load<u64>(before) + ((<u64>load<u32>(before, 8)) << 12) == base &&
    <usize>load<u32>(before, 12) + ((<usize>load<u32>(before, 8)) << 12) == start
  ) {
    store<u32>(before, load<u32>(before, 8) + pages, 8);
    index--;
  } else {
    if (count == capacity) {
      const larger = extend(capacity < 256 ? 1 : <u32>(capacity >> 7));
      if (larger == 0) return false;
      memory.copy(larger, list, (<usize>count) * ENTRY);
      list = larger;
      capacity = capacity < 256 ? 256 : capacity << 1;
    }
    memory.copy(at(index + 1), at(index), (<usize>(count - index)) * ENTRY);
    store<u64>(at(index), base);
    store<u32>(at(index), pages, 8);
    store<u32>(at(index), <u32>start, 12);
    count++;
  }
  backedPages += pages;
  const bytes = (<u64>load<u32>(at(index), 8)) << 12;
  if (bytes > primaryBytes) {
    primaryBase = load<u64>(at(index));
    primaryBytes = bytes;
    primaryStart = <usize>load<u32>(at(index), 12);
  }
  return true;
}

/** Forgets all pages and makes a heap of `pages` at `base`. False when linear memory does not suffice. */
export function resetMemory(base: u64, pages: u32): bool {
  end = PAGES;
  list = 0;
  count = 0;
  capacity = 0;
  primaryBase = 0;
  primaryBytes = 0;
  backedPages = 0;
  heapBase = base;
  memory.fill(USED, 0, (<usize>heapPages + 7) >>> 3);
  heapPages = 0;
  heapFree = 0;
  hint = 0;
  // What lies before the pages must be there in any case.
  const start = extend(pages);
  if (pages == 0) return start != 0;
  if (start == 0 || !insertWindow(base, pages, start)) return false;
  heapPages = pages;
  heapFree = pages;
  return true;
}

/** The page at `physical`, made if it is not there; one of the heap counts as in use from then on. 0: no memory. */
export function providePage(physical: u64): usize {
  const found = lookup(physical);
  if (found != 0) {
    markUsed(physical);
    return found;
  }
  const start = extend(1);
  if (start == 0) return 0;
  // Growing the list may take linear memory too, and comes after, so that pages loaded in order stay in one run.
  if (!insertWindow(physical, 1, start)) return 0;
  memory.fill(start, 0, PAGE);
  return start;
}

@inline function inHeap(physical: u64): bool {
  return physical - heapBase < (<u64>heapPages) << 12;
}

@inline function heapIndex(physical: u64): u32 {
  return <u32>((physical - heapBase) >> 12);
}

function markUsed(physical: u64): void {
  if (!inHeap(physical)) return;
  const index = heapIndex(physical);
  const byte = USED + (index >>> 3);
  const bit = (<u32>1) << (index & 7);
  if (load<u8>(byte) & bit) return;
  // A page never given out may hold what an earlier life of this memory left.
  memory.fill(lookup(physical), 0, PAGE);
  store<u8>(byte, load<u8>(byte) | bit);
  heapFree--;
}

/** Whether the page at `physical` is loaded or given out, as opposed to free. For pages that lookup() finds. */
@inline export function inUse(physical: u64): bool {
  if (!inHeap(physical)) return true;
  const index = heapIndex(physical);
  return (load<u8>(USED + (index >>> 3)) & ((<u32>1) << (index & 7))) != 0;
}

export function freePages(): u32 {
  return heapFree;
}

/** A zeroed page of the heap, the lowest that is free; ~0 when there is none. */
export function allocatePage(): u64 {
  if (heapFree == 0) return ~(<u64>0);
  let word = (<usize>hint) >>> 6;
  while (true) {
    const free = ~load<u64>(USED + (word << 3));
    if (free != 0) {
      const index = <u32>(word << 6) + <u32>ctz(free);
      const place = USED + (word << 3);
      store<u64>(place, load<u64>(place) | (free & (0 - free)));
      heapFree--;
      hint = index + 1;
      const physical = heapBase + ((<u64>index) << 12);
      memory.fill(lookup(physical), 0, PAGE);
      return physical;
    }
    word++;
  }
}

/** Gives a page back. One that is not of the heap stays where it is. */
export function freePage(physical: u64): void {
  if (!inHeap(physical)) return;
  const index = heapIndex(physical);
  const byte = USED + (index >>> 3);
  const bit = (<u32>1) << (index & 7);
  if ((load<u8>(byte) & bit) == 0) return;
  store<u8>(byte, load<u8>(byte) & ~bit);
  heapFree++;
  if (index < hint) hint = index;
}
