/**
 * Delayed recycling: blocks that were freed, but that the IOTLB may still know. They wait in the order in which they
 * were freed, in a list of chunks:
 *
 *      +0        u32 next     the chunk after
 *      +8        u64[63]      first units
 *
 * A ticket is the number of blocks freed before it was taken, so those that it covers are at the front.
 */
import { RECYCLING } from './layout';
import { blockEnd } from './find';
import { CHUNK, CHUNK_SIZE, drop, make } from './pool';
import { vacateUnits } from './tree';

const ENTRIES: usize = 8;
const CAPACITY: u32 = <u32>((CHUNK_SIZE - ENTRIES) / 8);

let head: usize = 0;
let tail: usize = 0;
/** Where in the first and last chunk the next one is taken and put. */
let taken: u32 = 0;
let put: u32 = 0;
/** Blocks that were ever freed, and those of them that were recycled. */
let freed: u64 = 0;
let recycled: u64 = 0;

@inline function entry(chunk: usize, index: u32): usize {
  return chunk + ENTRIES + ((<usize>index) << 3);
}

export function resetQueue(ticket: u64): void {
  head = tail = 0;
  taken = put = 0;
  freed = recycled = ticket;
}

/** The number of the next block to be freed. */
export function ticketNow(): u64 {
  return freed;
}
export function ticketFirst(): u64 {
  return recycled;
}

/** There must be memory for one change. */
export function enqueue(unit: u64): void {
  if (tail == 0 || put == CAPACITY) {
    const chunk = make(CHUNK);
    store<u32>(chunk, 0);
    if (tail == 0) {
      head = chunk;
      taken = 0;
    } else {
      store<u32>(tail, <u32>chunk);
    }
    tail = chunk;
    put = 0;
  }
  store<u64>(entry(tail, put++), unit);
  freed++;
}

/** Frees for good what was freed before `ticket` was taken. */
export function recycleBefore(ticket: u64): void {
  while (recycled < ticket) {
    const unit = load<u64>(entry(head, taken++));
    recycled++;
    if (taken == CAPACITY || recycled == freed) {
      const next = <usize>load<u32>(head);
      drop(CHUNK, head);
      head = next;
      taken = 0;
      if (head == 0) tail = 0;
    }
    vacateUnits(unit, blockEnd(unit) - 1, RECYCLING);
  }
}

/** The first unit of the waiting block number `index`, by a walk over the chunks. */
export function queued(index: u64): u64 {
  index += taken;
  let chunk = head;
  for (; index >= <u64>CAPACITY; index -= CAPACITY) chunk = <usize>load<u32>(chunk);
  return load<u64>(entry(chunk, <u32>index));
}

/** Chunks in use. */
export function chunkCount(): u32 {
  let count: u32 = 0;
  for (let chunk = head; chunk != 0; chunk = <usize>load<u32>(chunk)) count++;
  return count;
}
