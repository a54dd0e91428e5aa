/** Which block contains a unit, and where it starts and ends. */
import {
  ALL,
  FREE,
  HOLE,
  MAX_LEVEL,
  MIXED,
  START,
  UNUSED,
  bitOf,
  childAt,
  has,
  kindAt,
  setKinds,
  slotBits,
  slotOf,
  withinSlot,
} from './layout';
import { root, rootLevel, span } from './tree';

/** The nodes down to the unit last looked up, by level. */
const PATH: usize = memory.data(4 * (MAX_LEVEL + 1), 16);
/** The lowest of them. */
let depth: i32 = 0;

@inline function nodeAt(level: i32): usize {
  return <usize>load<u32>(PATH + ((<usize>level) << 2));
}

/** Finds the way down to `unit`: to its leaf, or to the node where its slot has no child. */
function descend(unit: u64): void {
  let level = rootLevel;
  let node = root();
  for (;;) {
    store<u32>(PATH + ((<usize>level) << 2), <u32>node);
    if (level == 0) break;
    const slot = slotOf(unit, level);
    if (!has(node, MIXED, bitOf(slot))) break;
    node = childAt(node, level, slot);
    level--;
  }
  depth = level;
}

@inline function mixedOf(node: usize, level: i32): u64 {
  return level == 0 ? 0 : load<u64>(node, MIXED);
}
/** Slots with the end of a block that reaches into them: in a mixed one it ends for certain. */
@inline function ends(node: usize, level: i32, inFree: bool): u64 {
  return inFree ? ~load<u64>(node, FREE) : load<u64>(node, FREE) | load<u64>(node, START) | mixedOf(node, level);
}

/** The unit after the block or the free run of `unit`, whose way down is known. */
function endAfter(unit: u64, inFree: bool): u64 {
  for (let level = depth; level <= rootLevel; level++) {
    const slot = slotOf(unit, level);
    if (slot == 63) continue;
    let node = nodeAt(level);
    let slots = ends(node, level, inFree) & (ALL << (<u64>(slot + 1)));
    if (slots == 0) continue;
    let below = level;
    let end = (unit >> (<u64>slotBits(level + 1))) << (<u64>slotBits(level + 1));
    for (;;) {
      const found = <i32>ctz(slots);
      end |= (<u64>found) << (<u64>slotBits(below));
      if ((mixedOf(node, below) & bitOf(found)) == 0) return end;
      node = childAt(node, below, found);
      below--;
      slots = ends(node, below, inFree);
    }
  }
  return span();
}

/** The first unit of the block or the free run of `unit`, whose way down is known. */
function startBefore(unit: u64, inFree: bool): u64 {
  for (let level = depth; level <= rootLevel; level++) {
    let node = nodeAt(level);
    const slot = slotOf(unit, level);
    // A start in the unit's own slot counts, but a mixed slot was seen from within.
    const own = level == depth && !inFree && has(node, START, bitOf(slot)) ? bitOf(slot) : 0;
    let slots = beginnings(node, level, inFree) & (bitOf(slot) - 1) | own;
    if (slots == 0) continue;
    let below = level;
    let start = (unit >> (<u64>slotBits(level + 1))) << (<u64>slotBits(level + 1));
    for (;;) {
      const found = 63 - <i32>clz(slots);
      start |= (<u64>found) << (<u64>slotBits(below));
      // A free run starts after the last unit that is not free.
      if ((mixedOf(node, below) & bitOf(found)) == 0) return inFree ? start + withinSlot(below) + 1 : start;
      node = childAt(node, below, found);
      below--;
      slots = beginnings(node, below, inFree);
    }
  }
  return 0;
}
@inline function beginnings(node: usize, level: i32, inFree: bool): u64 {
  return inFree ? ~load<u64>(node, FREE) : load<u64>(node, START) | mixedOf(node, level);
}

let foundFirst: u64 = 0;
let foundLast: u64 = 0;

@inline export function firstFound(): u64 {
  return foundFirst;
}
@inline export function lastFound(): u64 {
  return foundLast;
}

/** Finds the block, or free run, of `unit`. @returns its kind; the rest is in `firstFound()` and `lastFound()` */
export function findBlock(unit: u64): i32 {
  descend(unit);
  const inFree = has(nodeAt(depth), FREE, bitOf(slotOf(unit, depth)));
  foundFirst = startBefore(unit, inFree);
  foundLast = endAfter(unit, inFree) - 1;
  if (inFree) return UNUSED;
  descend(foundFirst);
  return kindAt(nodeAt(depth), depth, bitOf(slotOf(foundFirst, depth)));
}

/** The end of the block that starts at `unit`, itself excluded. */
export function blockEnd(unit: u64): u64 {
  descend(unit);
  return endAfter(unit, false);
}

/** Kind of the block that starts at `unit`; `UNUSED` where none starts. */
export function kindOfStart(unit: u64): i32 {
  descend(unit);
  const bit = bitOf(slotOf(unit, depth));
  const node = nodeAt(depth);
  if ((unit & withinSlot(depth)) != 0 || !has(node, START, bit)) return UNUSED;
  return kindAt(node, depth, bit);
}

/** Changes the kind of the block that starts at `unit`. */
export function changeKind(unit: u64, kind: i32): void {
  descend(unit);
  const bit = bitOf(slotOf(unit, depth));
  assert(kind <= HOLE && has(nodeAt(depth), START, bit));
  setKinds(nodeAt(depth), depth, bit, kind);
}

/** That `first..last` is free throughout. */
export function isFree(first: u64, last: u64): bool {
  descend(first);
  return has(nodeAt(depth), FREE, bitOf(slotOf(first, depth))) && endAfter(first, true) > last;
}
