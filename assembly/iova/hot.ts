/**
 * The usual calls, again, for speed: allocations that begin in a leaf or at a slot of a node at level 1, where there is
 * such a node already, and the freeing of what lies in one of them. They need not walk from the root, nor back to it,
 * and are written out for their levels. What they leave to the general way gives the same results there.
 */
import {
  ALLOCATED,
  BOTTOM_ROOMS,
  CHILDREN,
  DIRTY,
  DIRTY_RUN,
  FREE,
  LONGEST,
  MIXED,
  NONE,
  ORDER,
  PARENT,
  ROOMS,
  RUN,
  START,
  bitOf,
  bitsOf,
  fullOrder,
  leafAt,
  otherThanAllocated,
  slotBits,
  slotOf,
} from './layout';
import { alignedRuns, computedOrder, wordOrder } from './order';
import { join, lowestNode, rootLevel, split, tally } from './tree';

/** Level of the lowest nodes with children in a table. */
const UPPER_LEVEL: i32 = 2;
/** Of the blocks that fit in a node at level 1, log2 of the largest. */
const MOST: i32 = 11;
/**
 * For each k the level at which to begin the search, among the lowest nodes. It only saves steps: a block below a
 * lowest node is lower than all that are not, and without one the search goes on a level above.
 */
const BEGIN: usize = memory.data(16, 16);

export function resetHot(): void {
  memory.fill(BEGIN, <u8>UPPER_LEVEL, MOST + 1);
}

/** Marks the runs of a node at level 1 and of those above as changed. */
@inline function soil(node: usize, parent: usize): void {
  if (load<u32>(node, RUN) != DIRTY_RUN) soilAll(node, parent);
}
function soilAll(node: usize, parent: usize): void {
  store<u32>(node, DIRTY_RUN, RUN);
  for (let above = parent; above != 0 && load<u64>(above, LONGEST) != DIRTY; above = <usize>load<u32>(above, PARENT)) {
    store<u64>(above, DIRTY, LONGEST);
  }
}

/** From level 2 on: turns a slot's bit in the rooms for k from `from` to `to`, the latter excluded. */
@inline function turnRooms(node: usize, slot: i32, from: i32, to: i32): void {
  const bit = bitOf(slot);
  const end = node + ((<usize>to) << 3);
  for (let at = node + ((<usize>from) << 3); at < end; at += 8) store<u64>(at, load<u64>(at, ROOMS) ^ bit, ROOMS);
}

/** Carries upwards that `child`, at level 1 on the way to `unit`, now has the order `order`. */
function carry(child: usize, parent: usize, unit: u64, order: i32): void {
  for (let level = UPPER_LEVEL; ; level++) {
    const before = <i32>load<u32>(child, ORDER);
    if (before == order) return;
    store<u32>(child, order, ORDER);
    if (parent == 0) return;
    const slot = slotOf(unit, level);
    const own = <i32>load<u32>(parent, ORDER);
    if (order == fullOrder(level)) {
      join(parent, level, slot, child);
      turnRooms(parent, slot, 0, before);
      order = slotBits(level) + wordOrder(load<u64>(parent, FREE));
    } else if (order > before) {
      turnRooms(parent, slot, before, order);
      if (order <= own) return;
    } else {
      turnRooms(parent, slot, order, before);
      // Unless this slot was the best, which also means that none is free throughout.
      if (before < own) return;
      order = own;
      while (order > 0 && load<u64>(parent + ((<usize>(order - 1)) << 3), ROOMS) == 0) order--;
    }
    child = parent;
    parent = <usize>load<u32>(child, PARENT);
  }
}

/** The words of two rooms with a slot's bit: set below `order`, cleared from there on. */
@inline function settledRooms(rooms: v128, bit: v128, order: v128, ks: v128): v128 {
  return v128.bitselect(i64x2.gt_s(order, ks), rooms, bit);
}

/** Notes in a node at level 1 the order of a leaf, 0 for one that is no more, and carries its own upwards. */
@inline function settle(node: usize, parent: usize, unit: u64, bit: u64, order: i32): void {
  const bits = i64x2.splat(bit);
  const orders = i64x2.splat(order);
  const a = settledRooms(v128.load(node, BOTTOM_ROOMS), bits, orders, i64x2(0, 1));
  const b = settledRooms(v128.load(node, BOTTOM_ROOMS + 16), bits, orders, i64x2(2, 3));
  const c = settledRooms(v128.load(node, BOTTOM_ROOMS + 32), bits, orders, i64x2(4, 5));
  v128.store(node, a, BOTTOM_ROOMS);
  v128.store(node, b, BOTTOM_ROOMS + 16);
  v128.store(node, c, BOTTOM_ROOMS + 32);
  soil(node, parent);
  const free = load<u64>(node, FREE);
  let own = 0;
  if (free != 0) {
    own = slotBits(1) + wordOrder(free);
  } else {
    // Each room is part of the one before, so those that are not empty come first.
    const none = i64x2.splat(0);
    const ab = i64x2.bitmask(i64x2.eq(a, none)) | (i64x2.bitmask(i64x2.eq(b, none)) << 2);
    own = ctz(ab | (i64x2.bitmask(i64x2.eq(c, none)) << 4) | 64);
  }
  if (<i32>load<u32>(node, ORDER) != own) carry(node, parent, unit, own);
}

/**
 * Allocates `units` at the beginning of the lowest free block of 2^k units at a multiple of 2^k, k being
 * ceil(log2 units), if that is the business of this module. There must be memory for one change.
 *
 * @returns the first unit; NONE when it must be done the general way
 */
export function allocateAligned(units: u64, k: i32): u64 {
  if (k > MOST) return NONE;
  const room = ROOMS + ((<usize>k) << 3);
  let level = <i32>load<u8>(BEGIN + (<usize>k));
  let parent = lowestNode(level);
  let slots: u64 = 0;
  for (;;) {
    if (parent != 0) {
      slots = load<u64>(parent, FREE) | load<u64>(parent + room);
      if (slots != 0) break;
    }
    if (level == rootLevel) return NONE;
    parent = lowestNode(++level);
  }
  let unit = ctz(slots);
  store<u8>(BEGIN + (<usize>k), <u8>(level - <i32>(unit == 0 && level > UPPER_LEVEL)));
  let slot = unit;
  for (; level > UPPER_LEVEL; level--) {
    if (((load<u64>(parent, FREE) >> slot) & 1) != 0) return NONE;
    parent = <usize>load<u32>(parent + ((<usize>slot) << 2), CHILDREN);
    slot = ctz(load<u64>(parent, FREE) | load<u64>(parent + room));
    unit = (unit << 6) | slot;
  }
  if (((load<u64>(parent, FREE) >> slot) & 1) != 0) return NONE;
  const node = <usize>load<u32>(parent + ((<usize>slot) << 2), CHILDREN);
  const free = load<u64>(node, FREE);
  if (k > 5) {
    slot = ctz(alignedRuns(free, k - 6));
    unit = (unit << 12) | (slot << 6);
    const whole = units >> 6;
    const rest = units & 63;
    if (rest != 0 || whole == 0) return occupyInBottom(node, parent, unit, whole, rest);
    store<u64>(node, free & ~bitsOf(<i32>slot, <i32>(slot + whole)), FREE);
    store<u64>(node, load<u64>(node, START) | ((<u64>1) << slot), START);
    soil(node, parent);
    carry(node, parent, unit, computedOrder(node, 1));
  } else {
    slot = ctz(free | load<u64>(node + ((<usize>k) << 3), BOTTOM_ROOMS));
    const bit = (<u64>1) << slot;
    const leaf = (free & bit) != 0 ? split(node, 1, <i32>slot) : leafAt(node, <i32>slot);
    unit = (unit << 6) | slot;
    const before = load<u64>(leaf, FREE);
    slot = ctz(alignedRuns(before, k));
    unit = (unit << 6) | slot;
    const after = before & ~bitsOf(<i32>slot, <i32>(slot + units));
    store<u64>(leaf, after, FREE);
    store<u64>(leaf, load<u64>(leaf, START) | ((<u64>1) << slot), START);
    settle(node, parent, unit, bit, wordOrder(after));
  }
  tally(ALLOCATED, units, 1);
  return unit;
}

/** Whole slots and a part of the next, or just that. */
function occupyInBottom(node: usize, parent: usize, unit: u64, whole: u64, rest: u64): u64 {
  const slot = slotOf(unit, 1);
  const next = slot + <i32>whole;
  let start = bitOf(slot);
  if (whole != 0) {
    store<u64>(node, load<u64>(node, FREE) & ~bitsOf(slot, next), FREE);
    store<u64>(node, load<u64>(node, START) | start, START);
    start = 0;
  }
  const leaf = split(node, 1, next);
  store<u64>(leaf, ~bitsOf(0, <i32>rest), FREE);
  store<u64>(leaf, <u64>(start != 0), START);
  settle(node, parent, unit, bitOf(next), wordOrder(load<u64>(leaf, FREE)));
  tally(ALLOCATED, (whole << 6) + rest, 1);
  return unit;
}

/** That what is before it ends at a leaf: another block starts there, or nothing. */
@inline function endsAtLeaf(leaf: usize): bool {
  return ((load<u64>(leaf, FREE) | load<u64>(leaf, START)) & 1) != 0;
}

/** That what reaches to the end of slot `slot` of a node at level 1 does not go on in the next. */
@inline function endsAfter(node: usize, slot: i32): bool {
  // What the next node says is left to the general way.
  if (slot == 63) return false;
  const next = bitOf(slot + 1);
  if ((load<u64>(node, MIXED) & next) != 0) return endsAtLeaf(leafAt(node, slot + 1));
  return ((load<u64>(node, FREE) | load<u64>(node, START)) & next) != 0;
}

/** That what reaches to the end of a node at level 1 does not go on in the next. */
function endsAfterNode(parent: usize, unit: u64): bool {
  const slot = slotOf(unit, UPPER_LEVEL);
  if (slot == 63) return false;
  const next = bitOf(slot + 1);
  if ((load<u64>(parent, MIXED) & next) == 0) return ((load<u64>(parent, FREE) | load<u64>(parent, START)) & next) != 0;
  const node = <usize>load<u32>(parent + ((<usize>slot + 1) << 2), CHILDREN);
  if ((load<u64>(node, MIXED) & 1) != 0) return endsAtLeaf(leafAt(node, 0));
  return ((load<u64>(node, FREE) | load<u64>(node, START)) & 1) != 0;
}

/**
 * Frees the allocation that starts at `unit`, if that is the business of this module.
 *
 * @returns its units; 0 when it must be freed the general way, if it is an allocation at all
 */
export function freeWithinNode(unit: u64): u64 {
  // From the lowest level whose lowest node spans the unit.
  let level = max(<i32>((<u32>(63 - <i32>clz(unit | 1))) / 6), UPPER_LEVEL);
  let parent = lowestNode(level);
  while (parent == 0) parent = lowestNode(++level);
  let bits = <u64>slotBits(level);
  let slot = (unit >> bits) & 63;
  for (; bits != 12; ) {
    if (((load<u64>(parent, MIXED) >> slot) & 1) == 0) return 0;
    parent = <usize>load<u32>(parent + ((<usize>slot) << 2), CHILDREN);
    bits -= 6;
    slot = (unit >> bits) & 63;
  }
  if (((load<u64>(parent, MIXED) >> slot) & 1) == 0) return 0;
  const node = <usize>load<u32>(parent + ((<usize>slot) << 2), CHILDREN);
  const bottomSlot = slotOf(unit, 1);
  const bottomBit = bitOf(bottomSlot);
  const mixed = load<u64>(node, MIXED);
  let units: u64 = 0;
  if ((mixed & bottomBit) != 0) {
    const leaf = leafAt(node, bottomSlot);
    const start = load<u64>(leaf, START);
    const bit = (<u64>1) << (unit & 63);
    if ((start & ~otherThanAllocated(leaf, 0) & bit) == 0) return 0;
    const free = load<u64>(leaf, FREE);
    // All the bits from the start on, but for those from the next one that is set: none in the last block of a leaf.
    const ends = (free | start) & (-bit << 1);
    if (ends == 0 && !endsAfter(node, bottomSlot)) return 0;
    const own = -bit & ((ends & -ends) - 1);
    const after = free | own;
    units = popcnt(own);
    store<u64>(leaf, after, FREE);
    store<u64>(leaf, start & ~bit, START);
    let order = wordOrder(after);
    if (order == fullOrder(1)) {
      join(node, 1, bottomSlot, leaf);
      order = 0;
    }
    settle(node, parent, unit, bottomBit, order);
  } else {
    const start = load<u64>(node, START);
    if ((unit & 63) != 0 || (start & ~otherThanAllocated(node, 1) & bottomBit) == 0) return 0;
    const free = load<u64>(node, FREE);
    const ends = (free | start | mixed) & (-bottomBit << 1);
    const end = ends & -ends;
    if ((mixed & end) != 0 ? !endsAtLeaf(leafAt(node, <i32>ctz(end))) : end == 0 && !endsAfterNode(parent, unit)) return 0;
    const own = -bottomBit & (end - 1);
    units = popcnt(own) << 6;
    store<u64>(node, free | own, FREE);
    store<u64>(node, start & ~bottomBit, START);
    soil(node, parent);
    const order = slotBits(1) + wordOrder(free | own);
    if (<i32>load<u32>(node, ORDER) != order) carry(node, parent, unit, order);
  }
  tally(ALLOCATED, -units, -1);
  return units;
}
