/** The tree: its root, children made and dropped, and one change for every kind of block. */
import {
  ALL,
  CHILDREN,
  DIRTY,
  FREE,
  KIND0,
  KIND1,
  LONGEST,
  MAX_LEVEL,
  MIXED,
  ORDERS,
  START,
  UNUSED,
  bitOf,
  bitsOf,
  childAt,
  fullOrder,
  has,
  setKind,
  setOrder,
  slotBits,
  slotOf,
  withinSlot,
} from './layout';
import { nodeOrder, wordOrder } from './order';
import { dropLeaf, dropNode, makeLeaf, makeNode } from './pool';

/** Level of the root. */
export let rootLevel: i32 = 0;
/** The nodes that begin at unit 0, by level, 0 where there is none: the way down to low addresses is short. */
const LOWEST_NODES: usize = memory.data(4 * (MAX_LEVEL + 1), 16);
/** Units and blocks of each kind, 16 bytes each. */
const COUNTS: usize = memory.data(16 * (UNUSED + 1), 16);

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
/** Counts `units` that turn from one kind into another. Free runs are not counted, their units are. */
@inline export function turn(from: i32, to: i32, units: u64): void {
  const a = COUNTS + ((<usize>from) << 4);
  const b = COUNTS + ((<usize>to) << 4);
  store<u64>(a, load<u64>(a) - units);
  store<u64>(b, load<u64>(b) + units);
  store<u64>(a, load<u64>(a, 8) - 1, 8);
  store<u64>(b, load<u64>(b, 8) + 1, 8);
}

/** A node or leaf that is free throughout. */
function makeFree(level: i32): usize {
  const at = level == 0 ? makeLeaf() : makeNode();
  store<u64>(at, ALL, FREE);
  store<u64>(at, 0, START);
  store<u64>(at, 0, KIND0);
  store<u64>(at, 0, KIND1);
  if (level > 0) {
    store<u64>(at, 0, MIXED);
    store<u64>(at, DIRTY, LONGEST);
    const order = i8x16.splat(<i8>fullOrder(level));
    v128.store(at, order, ORDERS);
    v128.store(at, order, ORDERS + 16);
    v128.store(at, order, ORDERS + 32);
    v128.store(at, order, ORDERS + 48);
  }
  return at;
}

/** All free, before any block. False without memory. */
export function resetTree(level: i32): void {
  rootLevel = level;
  for (let each = 0; each <= MAX_LEVEL; each++) setLowestNode(each, 0);
  for (let kind = 0; kind <= UNUSED; kind++) {
    store<u64>(COUNTS + ((<usize>kind) << 4), 0);
    store<u64>(COUNTS + ((<usize>kind) << 4), 0, 8);
  }
  setLowestNode(level, makeFree(level));
  store<u64>(COUNTS + ((<usize>UNUSED) << 4), span());
}

/** Gives a slot that is free throughout a child that is. */
export function split(node: usize, level: i32, slot: i32): usize {
  const child = makeFree(level - 1);
  const bit = bitOf(slot);
  store<u64>(node, load<u64>(node, FREE) & ~bit, FREE);
  store<u64>(node, load<u64>(node, MIXED) | bit, MIXED);
  store<u32>(node + ((<usize>slot) << 2), <u32>child, CHILDREN);
  if (slot == 0 && node == lowestNode(level)) setLowestNode(level - 1, child);
  return child;
}

/** Drops the child of a slot that has become free throughout. The order is the caller's to set. */
export function join(node: usize, level: i32, slot: i32, child: usize): void {
  const bit = bitOf(slot);
  store<u64>(node, load<u64>(node, FREE) | bit, FREE);
  store<u64>(node, load<u64>(node, MIXED) & ~bit, MIXED);
  if (slot == 0 && node == lowestNode(level)) setLowestNode(level - 1, 0);
  if (level == 1) dropLeaf(child);
  else dropNode(child);
}

@inline function occupy(at: usize, bits: u64, kind: i32, start: u64): void {
  store<u64>(at, load<u64>(at, FREE) & ~bits, FREE);
  if (start != 0) {
    store<u64>(at, load<u64>(at, START) | start, START);
    setKind(at, start, kind);
  }
}
@inline function vacate(at: usize, bits: u64): void {
  store<u64>(at, load<u64>(at, FREE) | bits, FREE);
  store<u64>(at, load<u64>(at, START) & ~bits, START);
  store<u64>(at, load<u64>(at, KIND0) & ~bits, KIND0);
  store<u64>(at, load<u64>(at, KIND1) & ~bits, KIND1);
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
    const bits = bitsOf(from, to);
    if (kind == UNUSED) vacate(at, bits);
    else occupy(at, bits, kind, starts ? bitOf(from) : 0);
    return wordOrder(load<u64>(at, FREE));
  }
  store<u64>(at, DIRTY, LONGEST);
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
  if (from < to) {
    const bits = bitsOf(from, to);
    if (kind == UNUSED) vacate(at, bits);
    else occupy(at, bits, kind, starts ? bitOf(from) : 0);
    const order = kind == UNUSED ? fullOrder(level) : 0;
    for (let slot = from; slot < to; slot++) setOrder(at, slot, order);
  }
  return nodeOrder(at, level);
}

function changePart(node: usize, level: i32, slot: i32, first: u64, last: u64, kind: i32, starts: bool): void {
  const child = has(node, MIXED, bitOf(slot)) ? childAt(node, slot) : split(node, level, slot);
  const order = change(child, level - 1, first, last, kind, starts);
  if (order == fullOrder(level)) join(node, level, slot, child);
  setOrder(node, slot, order);
}

/** Turns `first..last`, all of which is free, into a block. There must be memory for one change. */
export function occupyUnits(first: u64, last: u64, kind: i32): void {
  change(root(), rootLevel, first, last, kind, true);
  turn(UNUSED, kind, last - first + 1);
}

/** Frees a block of `kind`. */
export function vacateUnits(first: u64, last: u64, kind: i32): void {
  change(root(), rootLevel, first, last, UNUSED, false);
  turn(kind, UNUSED, last - first + 1);
}
