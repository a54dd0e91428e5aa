/** The tree: its root, children made and dropped, and one change for every kind of block. */
import {
  ALL,
  ALLOCATED,
  CHILDREN,
  DIRTY,
  FREE,
  GROUPS,
  HOLE,
  MAX_LEVEL,
  MIXED,
  ORDER,
  PARENT,
  RECYCLING,
  RESERVED,
  START,
  UNUSED,
  bitOf,
  bitsOf,
  childAt,
  fullOrder,
  groupBits,
  has,
  leafAt,
  roomsOf,
  setKinds,
  setLongestRun,
  slotBits,
  slotOf,
  withinSlot,
} from './layout';
import { computedOrder, setRooms, wordOrder } from './order';
import { BOTTOM, LEAVES, UPPER, drop, make } from './pool';

/** Level of the root. */
export let rootLevel: i32 = 0;
/** The nodes that begin at unit 0, by level, 0 where there is none: the way down to low addresses is short. */
const LOWEST_NODES: usize = memory.data(4 * (MAX_LEVEL + 1), 16);
/** Units and blocks of each kind of block, 16 bytes each. */
const COUNTS: usize = memory.data(16 * (HOLE + 1), 16);

@inline export function lowestNode(level: i32): usize {
  return <usize>load<u32>(LOWEST_NODES + ((<usize>level) << 2));
}
@inline function setLowestNode(level: i32, node: usize): void {
  store<u32>(LOWEST_NODES + ((<usize>level) << 2), <u32>node);
}
@inline export function root(): usize {
  return lowestNode(rootLevel);
}
/** Units that the root spans: the space, and a hole after it where its size is no power of 64. */
@inline export function span(): u64 {
  return (<u64>1) << (<u64>slotBits(rootLevel + 1));
}

@inline export function unitsOf(kind: i32): u64 {
  return load<u64>(COUNTS + ((<usize>kind) << 4));
}
@inline export function blocksOf(kind: i32): u64 {
  return load<u64>(COUNTS + ((<usize>kind) << 4), 8);
}
/** What no block has. */
export function freeUnits(): u64 {
  return span() - unitsOf(ALLOCATED) - unitsOf(RESERVED) - unitsOf(RECYCLING) - unitsOf(HOLE);
}
/** Counts what is added to a kind; what is taken away wraps around. */
@inline export function tally(kind: i32, units: u64, blocks: u64): void {
  const at = COUNTS + ((<usize>kind) << 4);
  store<u64>(at, load<u64>(at) + units);
  store<u64>(at, load<u64>(at, 8) + blocks, 8);
}

/** Makes a leaf, or a node, free throughout. */
function clear(at: usize, level: i32): void {
  store<u64>(at, ALL, FREE);
  store<u64>(at, 0, START);
  setKinds(at, level, ALL, ALLOCATED);
  if (level == 0) return;
  store<u64>(at, 0, MIXED);
  store<u32>(at, fullOrder(level + 1), ORDER);
  setLongestRun(at, level, DIRTY);
  memory.fill(roomsOf(at, level), 0, (<usize>slotBits(level)) << 3);
}

@inline function makeNode(level: i32): usize {
  const node = make(level == 1 ? BOTTOM : UPPER);
  clear(node, level);
  return node;
}

/** All free, before any block. */
export function resetTree(level: i32): void {
  rootLevel = level;
  for (let each = 0; each <= MAX_LEVEL; each++) setLowestNode(each, 0);
  memory.fill(COUNTS, 0, 16 * (HOLE + 1));
  const top = makeNode(level);
  store<u32>(top, 0, PARENT);
  setLowestNode(level, top);
}

/** Gives a slot that is free throughout a child that is. Its rooms are the caller's to set. */
export function split(node: usize, level: i32, slot: i32): usize {
  const bit = bitOf(slot);
  const mixed = load<u64>(node, MIXED);
  store<u64>(node, load<u64>(node, FREE) & ~bit, FREE);
  store<u64>(node, mixed | bit, MIXED);
  if (level == 1) {
    if ((mixed & groupBits(slot)) == 0) store<u32>(node + (((<usize>slot) >> 3) << 2), <u32>make(LEAVES), GROUPS);
    const leaf = leafAt(node, slot);
    clear(leaf, 0);
    return leaf;
  }
  const child = makeNode(level - 1);
  if (level > 2) store<u32>(child, <u32>node, PARENT);
  store<u32>(node + ((<usize>slot) << 2), <u32>child, CHILDREN);
  if (slot == 0 && node == lowestNode(level)) setLowestNode(level - 1, child);
  return child;
}

/** Drops the child of a slot that has become free throughout. Its rooms are the caller's to set. */
export function join(node: usize, level: i32, slot: i32, child: usize): void {
  const bit = bitOf(slot);
  const mixed = load<u64>(node, MIXED) & ~bit;
  store<u64>(node, load<u64>(node, FREE) | bit, FREE);
  store<u64>(node, mixed, MIXED);
  if (level == 1) {
    if ((mixed & groupBits(slot)) == 0) drop(LEAVES, leafAt(node, slot & ~7));
    return;
  }
  if (slot == 0 && node == lowestNode(level)) setLowestNode(level - 1, 0);
  drop(level == 2 ? BOTTOM : UPPER, child);
}

/** Whole slots or units, for one block or its part, or free. */
@inline function mark(at: usize, level: i32, bits: u64, kind: i32, start: u64): void {
  if (kind == UNUSED) {
    store<u64>(at, load<u64>(at, FREE) | bits, FREE);
    store<u64>(at, load<u64>(at, START) & ~bits, START);
    setKinds(at, level, bits, ALLOCATED);
  } else {
    store<u64>(at, load<u64>(at, FREE) & ~bits, FREE);
    store<u64>(at, load<u64>(at, START) | start, START);
    setKinds(at, level, start, kind);
  }
}

/**
 * Makes `first..last` one block of `kind`, all of which must be free; or frees them, which must be one block. The
 * units are counted from the beginning of the node. `starts` says whether the block starts here.
 *
 * @returns the order of the node afterwards
 */
function change(at: usize, level: i32, first: u64, last: u64, kind: i32, starts: bool): i32 {
  let from = slotOf(first, level);
  let to = slotOf(last, level) + 1;
  if (level == 0) {
    mark(at, level, bitsOf(from, to), kind, starts ? bitOf(from) : 0);
    return wordOrder(load<u64>(at, FREE));
  }
  setLongestRun(at, level, DIRTY);
  const within = withinSlot(level);
  if ((first & within) != 0 || (to - from == 1 && (last & within) != within)) {
    changePart(at, level, from, first & within, to - from == 1 ? last & within : within, kind, starts);
    from++;
    starts = false;
  }
  if (from < to && (last & within) != within) {
    to--;
    changePart(at, level, to, 0, last & within, kind, starts && from == to);
  }
  if (from < to) mark(at, level, bitsOf(from, to), kind, starts ? bitOf(from) : 0);
  const order = computedOrder(at, level);
  store<u32>(at, order, ORDER);
  return order;
}

function changePart(node: usize, level: i32, slot: i32, first: u64, last: u64, kind: i32, starts: bool): void {
  const child = has(node, MIXED, bitOf(slot)) ? childAt(node, level, slot) : split(node, level, slot);
  const order = change(child, level - 1, first, last, kind, starts);
  const isFree = order == fullOrder(level);
  if (isFree) join(node, level, slot, child);
  setRooms(node, level, slot, isFree ? 0 : order);
}

/** Turns `first..last`, all of which is free, into a block. There must be memory for one change. */
export function occupyUnits(first: u64, last: u64, kind: i32): void {
  change(root(), rootLevel, first, last, kind, true);
  tally(kind, last - first + 1, 1);
}

/** Frees a block of `kind`. */
export function vacateUnits(first: u64, last: u64, kind: i32): void {
  change(root(), rootLevel, first, last, UNUSED, false);
  tally(kind, first - last - 1, -1);
}
