/** The allocator's own invariants, recomputed from the bits; for tests. */
import {
  ALL,
  DIRTY,
  FREE,
  HOLE,
  MIXED,
  ORDER,
  PARENT,
  RECYCLING,
  START,
  UNUSED,
  bitOf,
  childAt,
  has,
  kindAt,
  longestRun,
  otherThanAllocated,
  roomAt,
  slotBits,
  withinSlot,
} from './layout';
import { kindOfStart } from './find';
import { computedOrder, wordOrder } from './order';
import { BOTTOM, CHUNK, LEAVES, UPPER, inUse, poolIsSound } from './pool';
import { chunkCount, queued, ticketFirst, ticketNow } from './recycling';
import { prefixOf, suffixOf } from './search';
import { blocksOf, freeUnits, lowestNode, root, rootLevel, unitsOf } from './tree';

/** Two of free, mixed and start in one place, or a kind where nothing starts. */
export const BAD_MASKS: i32 = 1;
/** A child that its slot could do without. */
export const NOT_JOINED: i32 = 2;
export const BAD_ORDER: i32 = 3;
/** Longest runs that are not, or a node that believes to know those of a dirty child. */
export const BAD_RUNS: i32 = 4;
/** A block that goes on without having started, or two holes side by side. */
export const BAD_BLOCK: i32 = 5;
export const BAD_COUNTS: i32 = 6;
export const BAD_POOL: i32 = 7;
/** A parent, or the list of lowest nodes, that is not what the children say. */
export const BAD_LINKS: i32 = 8;
export const BAD_QUEUE: i32 = 9;

const UNITS: usize = memory.data(8 * 5, 16);
const BLOCKS: usize = memory.data(8 * 5, 16);
let upper: u32 = 0;
let bottom: u32 = 0;
let groups: u32 = 0;
/** Kind of the unit before; -1 before the first. */
let previous: i32 = -1;
let where: u64 = 0;
// Runs of the node just checked, from its bits.
let prefix: u64 = 0;
let longest: u64 = 0;
let suffix: u64 = 0;

/** The unit where the check failed. */
export function checkedUnit(): u64 {
  return where;
}

@inline function add(list: usize, kind: i32, count: u64): void {
  const at = list + ((<usize>kind) << 3);
  store<u64>(at, load<u64>(at) + count);
}

/** A slot or unit without child. */
function checkUniform(at: usize, level: i32, bit: u64, size: u64): i32 {
  if (has(at, FREE, bit)) {
    previous = UNUSED;
  } else if (has(at, START, bit)) {
    const kind = kindAt(at, level, bit);
    if (kind == HOLE && previous == HOLE) return BAD_BLOCK;
    previous = kind;
    add(BLOCKS, kind, 1);
  } else if (previous == -1 || previous == UNUSED) {
    return BAD_BLOCK;
  }
  add(UNITS, previous, size);
  return 0;
}

/** That a slot is in the rooms below its order, and in no other. */
function roomsAre(node: usize, level: i32, bit: u64, order: i32): bool {
  for (let k = 0; k < slotBits(level); k++) if (((roomAt(node, level, k) & bit) != 0) != (k < order)) return false;
  return true;
}

function checkNode(at: usize, level: i32, base: u64): i32 {
  where = base;
  const free = load<u64>(at, FREE);
  const start = load<u64>(at, START);
  const mixed = level == 0 ? 0 : load<u64>(at, MIXED);
  if ((free & mixed) != 0 || ((free | mixed) & start) != 0) return BAD_MASKS;
  if ((otherThanAllocated(at, level) & ~start) != 0) return BAD_MASKS;
  // The root alone may be free throughout, or within one block.
  if (level < rootLevel && (free == ALL || (free | mixed | (start & ~1)) == 0)) return NOT_JOINED;
  if (level == 1) bottom++;
  else if (level > 1) upper++;
  if (level > 0 && load<u32>(at, ORDER) != computedOrder(at, level)) return BAD_ORDER;
  const size = withinSlot(level) + 1;
  let isFirst = true;
  let run: u64 = 0;
  let before: u64 = 0;
  let most: u64 = 0;
  let dirtyBelow = false;
  for (let slot = 0; slot < 64; slot++) {
    const bit = bitOf(slot);
    where = base + (<u64>slot) * size;
    if (level == 1 && (slot & 7) == 0 && ((mixed >> (<u64>slot)) & 0xff) != 0) groups++;
    if ((mixed & bit) != 0) {
      const child = childAt(at, level, slot);
      const status = checkNode(child, level - 1, where);
      if (status != 0) return status;
      where = base + (<u64>slot) * size;
      if (level > 2 && <usize>load<u32>(child, PARENT) != at) return BAD_LINKS;
      if (level > 1 && longestRun(child, level - 1) == DIRTY) dirtyBelow = true;
      if (!roomsAre(at, level, bit, level == 1 ? wordOrder(load<u64>(child, FREE)) : <i32>load<u32>(child, ORDER))) return BAD_ORDER;
      run += prefix;
      if (isFirst) before = run;
      most = max(most, max(run, longest));
      run = suffix;
      isFirst = false;
      continue;
    }
    const status = checkUniform(at, level, bit, size);
    if (status != 0) return status;
    const isFree = (free & bit) != 0;
    if (level > 0 && !roomsAre(at, level, bit, 0)) return BAD_ORDER;
    if (isFree) {
      run += size;
    } else {
      if (isFirst) before = run;
      isFirst = false;
      most = max(most, run);
      run = 0;
    }
  }
  where = base;
  if (isFirst) before = run;
  prefix = before;
  longest = max(most, run);
  suffix = run;
  if (level > 0 && longestRun(at, level) != DIRTY) {
    if (dirtyBelow || longestRun(at, level) != longest) return BAD_RUNS;
    if (level < rootLevel && (prefixOf(at, level) != prefix || suffixOf(at, level) != suffix)) return BAD_RUNS;
  }
  return 0;
}

/** 0 when all is well. */
export function checkAll(): i32 {
  for (let kind = 0; kind <= UNUSED; kind++) {
    store<u64>(UNITS + ((<usize>kind) << 3), 0);
    store<u64>(BLOCKS + ((<usize>kind) << 3), 0);
  }
  upper = bottom = groups = 0;
  previous = -1;
  const status = checkNode(root(), rootLevel, 0);
  if (status != 0) return status;
  where = 0;
  for (let kind = 0; kind <= UNUSED; kind++) {
    const units = load<u64>(UNITS + ((<usize>kind) << 3));
    if (units != (kind == UNUSED ? freeUnits() : unitsOf(kind))) return BAD_COUNTS;
    if (kind != UNUSED && load<u64>(BLOCKS + ((<usize>kind) << 3)) != blocksOf(kind)) return BAD_COUNTS;
  }
  if (!poolIsSound() || upper != inUse(UPPER) || bottom != inUse(BOTTOM)) return BAD_POOL;
  if (groups != inUse(LEAVES) || chunkCount() != inUse(CHUNK)) return BAD_POOL;
  let node = root();
  for (let level = rootLevel - 1; level > 0; level--) {
    node = node != 0 && has(node, MIXED, 1) ? childAt(node, level + 1, 0) : 0;
    if (lowestNode(level) != node) return BAD_LINKS;
  }
  const waiting = ticketNow() - ticketFirst();
  if (waiting != blocksOf(RECYCLING)) return BAD_QUEUE;
  for (let index: u64 = 0; index < waiting; index++) {
    where = queued(index);
    if (kindOfStart(where) != RECYCLING) return BAD_QUEUE;
  }
  return 0;
}
