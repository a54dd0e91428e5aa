/**
 * Where the tree gets its memory: cut from the heap in turn, and kept in a list of its kind once it is given back. The
 * lists link through the first word.
 */
import { BOTTOM_SIZE, GROUP, LEAF_SIZE, MAX_LEVEL, UPPER_SIZE } from './layout';

/** Nodes from level 2 on, nodes at level 1, groups of leaves; also chunks of a queue. */
export const UPPER: i32 = 0;
export const BOTTOM: i32 = 1;
export const LEAVES: i32 = 2;
export const CHUNK: i32 = 3;
const KINDS: i32 = 4;

export const CHUNK_SIZE: usize = 512;
const GROUP_SIZE: usize = (<usize>GROUP) * LEAF_SIZE;
const CACHE_LINE: usize = 64;
/** The last page is left alone, so that the end of the memory is a u32. */
const MAX_PAGES: usize = 0xffff;

// One change of the tree makes at most two paths of children; it puts at most one block into a queue.
@inline function wantedOf(kind: i32): u32 {
  return kind == UPPER ? 2 * (MAX_LEVEL - 1) : kind == CHUNK ? 1 : 2;
}
@inline function sizeOf(kind: i32): usize {
  return kind == UPPER ? UPPER_SIZE : kind == BOTTOM ? BOTTOM_SIZE : kind == LEAVES ? GROUP_SIZE : CHUNK_SIZE;
}
const WORST: usize = 2 * ((<usize>MAX_LEVEL - 1) * UPPER_SIZE + BOTTOM_SIZE + GROUP_SIZE) + CHUNK_SIZE;

/** For each kind 16 bytes: u32 first of the list, u32 length of the list, u32 in use. */
const LISTS: usize = memory.data(16 * 4, 16);
let next: usize = 0;
let end: usize = 0;

@inline function listOf(kind: i32): usize {
  return LISTS + ((<usize>kind) << 4);
}
@inline function listed(kind: i32): u32 {
  return load<u32>(listOf(kind), 4);
}
/** How many of a kind are in use. */
export function inUse(kind: i32): u32 {
  return load<u32>(listOf(kind), 8);
}

function memoryEnd(): usize {
  const pages = <usize>memory.size();
  return (pages < MAX_PAGES ? pages : MAX_PAGES) << 16;
}

export function resetPool(): void {
  next = (__heap_base + (CACHE_LINE - 1)) & ~(CACHE_LINE - 1);
  end = memoryEnd();
  memory.fill(LISTS, 0, 16 * KINDS);
}

/** Grows the memory, more than by what is missing where that can be had. */
function extend(needed: usize): bool {
  const pages = <usize>memory.size();
  const missing = (needed - (end - next) + 0xffff) >> 16;
  if (pages + missing > MAX_PAGES) return false;
  const generous = pages >> 3;
  if (generous <= missing || pages + generous > MAX_PAGES || memory.grow(<i32>generous) < 0) {
    if (memory.grow(<i32>missing) < 0) return false;
  }
  end = memoryEnd();
  return true;
}

/** That `changes` changes of the tree will find the memory they need, whatever they are. */
export function roomFor(changes: u32): bool {
  if (changes > 0xffff_ffff / (<u32>WORST)) return false;
  const needed = (<usize>changes) * WORST;
  if (end - next >= needed || extend(needed)) return true;
  // What the lists hold, and the rest of the heap for what they lack.
  let lacked: usize = 0;
  for (let kind = 0; kind < KINDS; kind++) {
    const wanted = changes * wantedOf(kind);
    if (wanted > listed(kind)) lacked += (<usize>(wanted - listed(kind))) * sizeOf(kind);
  }
  return end - next >= lacked || extend(lacked);
}

@inline export function roomForOne(): bool {
  return end - next >= WORST || roomFor(1);
}

export function make(kind: i32): usize {
  const list = listOf(kind);
  store<u32>(list, load<u32>(list, 8) + 1, 8);
  const first = <usize>load<u32>(list);
  if (first != 0) {
    store<u32>(list, load<u32>(first));
    store<u32>(list, load<u32>(list, 4) - 1, 4);
    return first;
  }
  const made = next;
  next += sizeOf(kind);
  assert(next <= end);
  return made;
}

export function drop(kind: i32, at: usize): void {
  const list = listOf(kind);
  store<u32>(at, load<u32>(list));
  store<u32>(list, <u32>at);
  store<u32>(list, load<u32>(list, 4) + 1, 4);
  store<u32>(list, load<u32>(list, 8) - 1, 8);
}

/** That the lists are as long as they are said to be. */
export function poolIsSound(): bool {
  for (let kind = 0; kind < KINDS; kind++) {
    let count: u32 = 0;
    for (let at = load<u32>(listOf(kind)); at != 0; at = load<u32>(<usize>at)) if (++count > listed(kind)) return false;
    if (count != listed(kind)) return false;
  }
  return true;
}
