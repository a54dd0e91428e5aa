/**
 * Allocating and freeing where the tree need not be walked from its root, which is nearly always: the lowest aligned
 * block, and blocks that lie in one leaf or in whole slots of one node. The results are those of the general way.
 */
import {
  ALL,
  ALLOCATED,
  DIRTY,
  FREE,
  KIND0,
  KIND1,
  LONGEST,
  MAX_LEVEL,
  MIXED,
  NONE,
  START,
  UNUSED,
  bitOf,
  bitsOf,
  childAt,
  fullOrder,
  has,
  orderOf,
  setOrder,
  slotBits,
  slotOf,
  withinSlot,
} from './layout';
import { fitting, nodeOrder, wordOrder } from './order';
import { join, lowestNode, rootLevel, split, turn } from './tree';

/** The nodes of the way down from `top`, by level; those above are the lowest of their level. */
const PATH: usize = memory.data(4 * (MAX_LEVEL + 1), 16);
let top: i32 = 0;
/**
 * For each k the level at which to begin the search, among the lowest nodes. It only saves steps: a block below a
 * lowest node is lower than all that are not, and without one the search goes on a level above.
 */
const BEGIN: usize = memory.data(64, 16);

@inline function setPath(level: i32, node: usize): void {
  store<u32>(PATH + ((<usize>level) << 2), <u32>node);
}
@inline function parentAt(level: i32): usize {
  return level <= top ? <usize>load<u32>(PATH + ((<usize>level) << 2)) : lowestNode(level);
}

/** The lowest level, but leaves, that has aligned blocks of 2^k units in its slots or of them. */
@inline function leastLevel(k: i32): i32 {
  return k < 12 ? 1 : <i32>(<u32>k / 6);
}

export function resetHot(): void {
  for (let k = 0; k < 64; k++) store<u8>(BEGIN + (<usize>k), <u8>min(leastLevel(k), rootLevel));
}

/** Marks the runs of a node and of those above as changed. */
@inline function soil(level: i32): void {
  if (level == 0) level = 1;
  for (; level <= rootLevel; level++) {
    const node = parentAt(level);
    if (load<u64>(node, LONGEST) == DIRTY) break;
    store<u64>(node, DIRTY, LONGEST);
  }
}

/** Carries a new order of the node at `level` upwards, as far as it makes a difference. */
function carry(level: i32, unit: u64, order: i32): void {
  while (level < rootLevel) {
    const child = parentAt(level);
    level++;
    const node = parentAt(level);
    const slot = slotOf(unit, level);
    if (orderOf(node, slot) == order) return;
    if (order == fullOrder(level)) join(node, level, slot, child);
    setOrder(node, slot, order);
    order = nodeOrder(node, level);
  }
}

/**
 * Allocates `units` at the beginning of the lowest free block of 2^k units at a multiple of 2^k, which is
 * ceil(log2 units) or more. There must be memory for one change.
 *
 * @returns the first unit, NONE without such a block
 */
export function allocateAligned(units: u64, k: i32): u64 {
  if (k >= slotBits(rootLevel + 1)) return NONE;
  let level = <i32>load<u8>(BEGIN + (<usize>k));
  let node = lowestNode(level);
  let slots: u64 = 0;
  for (;;) {
    if (node != 0) {
      slots = fitting(node, level, k);
      if (slots != 0) break;
    }
    if (level == rootLevel) return NONE;
    node = lowestNode(++level);
  }
  top = level;
  setPath(level, node);
  let slot = <i32>ctz(slots);
  store<u8>(BEGIN + (<usize>k), <u8>(slot == 0 && level > leastLevel(k) ? level - 1 : level));
  let first = (<u64>slot) << (<u64>slotBits(level));
  // New nodes are dirty, those that they hang on are not yet.
  let old = level;
  while (k < slotBits(level)) {
    if (has(node, FREE, bitOf(slot))) {
      node = split(node, level, slot);
    } else {
      node = childAt(node, slot);
      old = level - 1;
    }
    setPath(--level, node);
    slot = <i32>ctz(fitting(node, level, k));
    first |= (<u64>slot) << (<u64>slotBits(level));
  }
  // The block begins at this slot: whole slots, and what is less than one of them in the next, and so on downwards.
  let rest = units;
  let start = bitOf(slot);
  for (;;) {
    const whole = <i32>(rest >> (<u64>slotBits(level)));
    if (whole != 0) {
      store<u64>(node, load<u64>(node, FREE) & ~bitsOf(slot, slot + whole), FREE);
      store<u64>(node, load<u64>(node, START) | start, START);
      start = 0;
      if (level != 0) for (let each = slot; each < slot + whole; each++) setOrder(node, each, 0);
    }
    rest &= withinSlot(level);
    if (rest == 0) break;
    node = split(node, level, slot + whole);
    setPath(--level, node);
    slot = 0;
    if (start != 0) start = 1;
  }
  soil(old);
  carry(level, first + units - 1, level == 0 ? wordOrder(load<u64>(node, FREE)) : nodeOrder(node, level));
  turn(UNUSED, ALLOCATED, units);
  return first;
}

/** That the block before ends at the first unit of `at`, whose slot is mixed: another starts there, or nothing. */
function endsAtFirst(at: usize, level: i32): bool {
  for (; level > 0 && (load<u64>(at, MIXED) & 1) != 0; level--) at = childAt(at, 0);
  return ((load<u64>(at, FREE) | load<u64>(at, START)) & 1) != 0;
}

/**
 * Frees the allocation that starts at `unit`, if it lies in one node.
 *
 * @returns its units; 0 when it must be freed the general way, if it is an allocation at all
 */
export function freeWithinNode(unit: u64): u64 {
  // The lowest level whose lowest node spans the unit.
  let level = max(<i32>((<u32>(63 - <i32>clz(unit | 1))) / 6), 1);
  let node = lowestNode(level);
  while (node == 0) node = lowestNode(++level);
  top = level;
  setPath(level, node);
  let slot = slotOf(unit, level);
  while (has(node, MIXED, bitOf(slot))) {
    node = childAt(node, slot);
    setPath(--level, node);
    slot = slotOf(unit, level);
    if (level == 0) break;
  }
  const bit = bitOf(slot);
  if ((load<u64>(node, START) & ~(load<u64>(node, KIND0) | load<u64>(node, KIND1)) & bit) == 0) return 0;
  if ((unit & withinSlot(level)) != 0) return 0;
  const above = (ALL << (<u64>slot)) << 1;
  let end = 64;
  const mixed = level == 0 ? 0 : load<u64>(node, MIXED);
  const ends = (load<u64>(node, FREE) | load<u64>(node, START) | mixed) & above;
  if (ends != 0) {
    end = <i32>ctz(ends);
    if ((mixed & bitOf(end)) != 0 && !endsAtFirst(childAt(node, end), level - 1)) return 0;
  } else {
    // To the end of the node: whether it goes on, the next slot of the one above tells.
    if (level == rootLevel) return 0;
    const parent = parentAt(level + 1);
    const next = slotOf(unit, level + 1) + 1;
    if (next == 64) return 0;
    if (has(parent, MIXED, bitOf(next))) {
      if (!endsAtFirst(childAt(parent, next), level)) return 0;
    } else if (((load<u64>(parent, FREE) | load<u64>(parent, START)) & bitOf(next)) == 0) {
      return 0;
    }
  }
  const free = load<u64>(node, FREE) | bitsOf(slot, end);
  store<u64>(node, free, FREE);
  store<u64>(node, load<u64>(node, START) & ~bit, START);
  if (level != 0) for (let each = slot; each < end; each++) setOrder(node, each, fullOrder(level));
  soil(level);
  carry(level, unit, slotBits(level) + wordOrder(free));
  const units = (<u64>(end - slot)) << (<u64>slotBits(level));
  turn(ALLOCATED, UNUSED, units);
  return units;
}
