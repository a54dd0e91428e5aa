/**
 * Two ways to find room.
 *
 * `lowestAligned`: the lowest free block of 2^k units at a multiple of 2^k, by the orders of the slots, in one descent.
 *
 * `lowestRun`: the lowest place that fits at all. It needs the longest free runs, which change with every allocation
 * and are therefore computed here, for the nodes that changed since the last time: 64 steps for each. The search
 * enters a subtree only for a run that is long enough; the one that does not suit is at the lowest address allowed, or
 * is too short once its start is aligned.
 */
import {
  ALL,
  DIRTY,
  FREE,
  MIXED,
  NONE,
  PREFIX,
  SUFFIX,
  bitOf,
  bitsOf,
  childAt,
  has,
  leafAt,
  longestRun,
  setLongestRun,
  slotBits,
  withinSlot,
} from './layout';
import { fitting } from './order';
import { root, rootLevel, span } from './tree';

/** The lowest aligned free block of 2^k units that begins at `from`, a multiple of 2^k, or above it. */
export function lowestAligned(k: i32, from: u64): u64 {
  return from >= span() || k >= slotBits(rootLevel + 1) ? NONE : alignedIn(root(), rootLevel, k, from);
}

function alignedIn(at: usize, level: i32, k: i32, from: u64): u64 {
  const bits = <u64>slotBits(level);
  const firstSlot = <i32>(from >> bits);
  let slots = fitting(at, level, k) & (ALL << (<u64>firstSlot));
  // At most the first slot disappoints: the block that it has may be below `from`.
  for (; slots != 0; slots &= slots - 1) {
    const slot = <i32>ctz(slots);
    const start = (<u64>slot) << bits;
    const rest = slot == firstSlot ? from & withinSlot(level) : 0;
    if (has(at, FREE, bitOf(slot))) return start + rest;
    const found = alignedIn(childAt(at, level, slot), level - 1, k, rest);
    if (found != NONE) return start + found;
  }
  return NONE;
}

// What lowestRun looks for.
let wanted: u64 = 0;
let alignmentMask: u64 = 0;
let lowest: u64 = 0;
let highest: u64 = 0;
/** 0: none. */
let boundary: u64 = 0;
// The free run that reaches up to where the search is; its end is excluded.
let runStart: u64 = 0;
let runEnd: u64 = 0;

/** The lowest `units` free units within `first..last`, at a multiple of `alignment`, not across one of `limit`. */
export function lowestRun(units: u64, alignment: u64, first: u64, last: u64, limit: u64): u64 {
  wanted = units;
  alignmentMask = alignment - 1;
  lowest = first;
  highest = last;
  boundary = limit;
  runStart = runEnd = 0;
  const node = root();
  refresh(node, rootLevel);
  return longestRun(node, rootLevel) < units ? NONE : runIn(node, rootLevel, 0);
}

/** The lowest place in the run so far. */
function place(): u64 {
  let start = runStart > lowest ? runStart : lowest;
  start = (start + alignmentMask) & ~alignmentMask;
  // The next boundary is aligned, too: with an alignment beyond the boundary `start` is on one.
  if (boundary != 0 && (start & (boundary - 1)) + wanted > boundary) start = (start + (boundary - 1)) & ~(boundary - 1);
  const end = start + wanted;
  return end <= runEnd && end - 1 <= highest ? start : NONE;
}

/** Lengthens the run by what is free from `start` to `end`, or begins another. */
@inline function extendRun(start: u64, end: u64): void {
  if (start != runEnd) runStart = start;
  runEnd = end;
}

function runIn(node: usize, level: i32, base: u64): u64 {
  const size = withinSlot(level) + 1;
  const free = load<u64>(node, FREE);
  for (let slots = free | load<u64>(node, MIXED); slots != 0; slots &= slots - 1) {
    const slot = <i32>ctz(slots);
    const start = base + (<u64>slot) * size;
    const end = start + size;
    if (start > highest) return NONE;
    if (end <= lowest) continue;
    let found = NONE;
    if ((free & bitOf(slot)) != 0) {
      extendRun(start, end);
      found = place();
    } else {
      const child = childAt(node, level, slot);
      const joined = (start == runEnd ? runEnd - runStart : 0) + prefixOf(child, level - 1);
      if (joined >= wanted || longestOf(child, level - 1) >= wanted) {
        found = level == 1 ? runInLeaf(child, start) : runIn(child, level - 1, start);
      } else {
        const suffix = suffixOf(child, level - 1);
        runStart = end - suffix;
        runEnd = end;
      }
    }
    if (found != NONE) return found;
  }
  return NONE;
}

function runInLeaf(leaf: usize, base: u64): u64 {
  for (let free = load<u64>(leaf, FREE); free != 0; ) {
    const from = <i32>ctz(free);
    const length = <i32>ctz(~(free >> (<u64>from)));
    extendRun(base + from, base + from + length);
    const found = place();
    if (found != NONE) return found;
    free &= ~bitsOf(from, from + length);
  }
  return NONE;
}

/** Free units at the beginning of a leaf or node that is not free throughout. */
export function prefixOf(at: usize, level: i32): u64 {
  if (level > 1) return load<u64>(at, PREFIX);
  const slots = ctz(~load<u64>(at, FREE));
  if (level == 0) return slots;
  const bit = (<u64>1) << slots;
  return (slots << 6) + (has(at, MIXED, bit) ? prefixOf(leafAt(at, <i32>slots), 0) : 0);
}
/** And at its end. */
export function suffixOf(at: usize, level: i32): u64 {
  if (level > 1) return load<u64>(at, SUFFIX);
  const slots = clz(~load<u64>(at, FREE));
  if (level == 0) return slots;
  const slot = <i32>(63 - slots);
  return (slots << 6) + (has(at, MIXED, bitOf(slot)) ? suffixOf(leafAt(at, slot), 0) : 0);
}
@inline function longestOf(at: usize, level: i32): u64 {
  return level == 0 ? longestInWord(load<u64>(at, FREE)) : longestRun(at, level);
}

/** The most set bits in a row. */
function longestInWord(word: u64): u64 {
  let length: u64 = 0;
  for (; word != 0; length++) word &= word << 1;
  return length;
}

/** Computes the longest runs of a node and of what is below it, where they are not known. */
function refresh(node: usize, level: i32): void {
  if (longestRun(node, level) != DIRTY) return;
  const free = load<u64>(node, FREE);
  const mixed = load<u64>(node, MIXED);
  const size = withinSlot(level) + 1;
  let prefix = NONE;
  let longest: u64 = 0;
  let run: u64 = 0;
  for (let slot = 0; slot < 64; slot++) {
    if ((free & bitOf(slot)) != 0) {
      run += size;
      continue;
    }
    let suffix: u64 = 0;
    if ((mixed & bitOf(slot)) != 0) {
      const child = childAt(node, level, slot);
      if (level > 1) refresh(child, level - 1);
      run += prefixOf(child, level - 1);
      longest = max(longest, longestOf(child, level - 1));
      suffix = suffixOf(child, level - 1);
    }
    if (prefix == NONE) prefix = run;
    longest = max(longest, run);
    run = suffix;
  }
  setLongestRun(node, level, max(longest, run));
  // At level 1 there is no room for these two, but they are soon found.
  if (level == 1) return;
  store<u64>(node, prefix == NONE ? run : prefix, PREFIX);
  store<u64>(node, run, SUFFIX);
}
