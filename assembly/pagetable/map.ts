/**
 * Mapping: first everything is checked and the tables that are missing are counted, then nothing can fail any more.
 *
 * Both passes go through the same runs: as many leaves of one size as fit before the size changes or the table ends.
 */
import { BAD, EMPTY, LEAF, TABLE } from './flags';
import { indexOf, maskOf, shiftOf, tableId } from './geometry';
import { SEEN, SLOTS } from './layout';
import { allocatePage, freePage, freePages, lookup } from './memory';
import { begin, descend, failAt, kind, level, place, stamp } from './path';
import { EXISTS, ILLEGAL_ENTRY, INVALID, NO_MEMORY, OK, OUTSIDE_MEMORY, SHARED_TABLE, setCount } from './status';
import { addressBits, covers, highest, inward, options, root, setTable, sizes, top } from './table';

let runSize: i32 = 0;
let runLevel: i32 = 0;
/** Slots of `runLevel` that one leaf takes, and that the run takes. */
let runStep: i32 = 0;
let runSlots: i32 = 0;
/** Tables that the range needs and that are not there. */
let missing: u32 = 0;

/**
 * The next run of leaves for `va..last`: the largest size that the alignment of both addresses and the length allow,
 * up to where a larger one becomes possible, the end of the table, or the end.
 *
 * @returns false when not even the smallest size fits
 */
function nextRun(va: u64, last: u64, physical: u64): bool {
  const length = last - va + 1;
  const align = <i32>ctz(va | physical);
  const fits = 63 - <i32>clz(length);
  const fitting = sizes & maskOf((align < fits ? align : fits) + 1);
  if (fitting == 0) return false;
  runSize = 63 - <i32>clz(fitting);
  let run = length;
  const larger = sizes & ~maskOf(runSize + 1);
  if (larger != 0) {
    const next = maskOf(<i32>ctz(larger));
    if (((va ^ physical) & next) == 0) run = min(run, (va | next) - va + 1);
  }
  runLevel = (runSize - 12) / 9;
  const own = shiftOf(runLevel);
  runStep = 1 << (runSize - own);
  const room = (<u64>(SLOTS - indexOf(runLevel, va))) << (<u64>own);
  runSlots = <i32>((min(run, room) >> (<u64>runSize)) << (<u64>(runSize - own)));
  return true;
}

@inline function runLast(va: u64): u64 {
  return va + (((<u64>runSlots) << (<u64>shiftOf(runLevel))) - 1);
}

function forgetSeen(): void {
  missing = 0;
  for (let at = 0; at < 8; at++) store<u64>(SEEN + (<usize>at << 3), ~(<u64>0));
}

/** Counts the tables from level `below` - 1 to `to` that `va` needs. Addresses must rise from call to call. */
function countMissing(va: u64, below: i32, to: i32): void {
  for (let at = below - 1; at >= to; at--) {
    const id = tableId(at, va);
    const seen = SEEN + (<usize>at << 3);
    if (load<u64>(seen) == id) continue;
    store<u64>(seen, id);
    missing++;
  }
}

/**
 * Tables that `va..last` needs below an entry of level `below` that will be empty, with those counted before unless
 * told to start afresh. Once there are more than there is memory for, it does not matter how many.
 */
export function countBelow(va: u64, last: u64, physical: u64, below: i32, fresh: bool): u32 {
  if (fresh) forgetSeen();
  while (true) {
    nextRun(va, last, physical);
    countMissing(va, below, runLevel);
    const end = runLast(va);
    if (end >= last || missing > freePages()) return missing;
    physical += end - va + 1;
    va = end + 1;
  }
}

/** Whether there is no leaf below an entry; every table there is stamped. */
function emptyBelow<F>(at: i32, value: u64): i32 {
  const format = changetype<F>(0);
  const page = lookup(format.child(value));
  if (page == 0) return OUTSIDE_MEMORY;
  if (!stamp(page)) return SHARED_TABLE;
  for (let index = 0; index < SLOTS; index++) {
    const below = load<u64>(page + ((<usize>index) << 3));
    const is = format.kind(at - 1, below);
    if (is == LEAF) return EXISTS;
    if (is == BAD) return ILLEGAL_ENTRY;
    if (is == TABLE) {
      const status = emptyBelow<F>(at - 1, below);
      if (status != OK) return status;
    }
  }
  return OK;
}

/** Gives back the tables that `emptyBelow` went through. */
function freeBelow<F>(at: i32, value: u64): void {
  const format = changetype<F>(0);
  const physical = format.child(value);
  const page = lookup(physical);
  if (at > 1) {
    for (let index = 0; index < SLOTS; index++) {
      const below = load<u64>(page + ((<usize>index) << 3));
      if (format.kind(at - 1, below) == TABLE) freeBelow<F>(at - 1, below);
    }
  }
  freePage(physical);
}

function check<F>(va: u64, last: u64, physical: u64): i32 {
  const format = changetype<F>(0);
  let status = begin<F>(0, false);
  if (status != OK) return status;
  forgetSeen();
  while (true) {
    if (!nextRun(va, last, physical)) return INVALID;
    status = descend<F>(va, runLevel);
    if (status != OK) return status;
    if (level > runLevel) {
      if (kind != EMPTY) return failAt(kind == LEAF ? EXISTS : ILLEGAL_ENTRY, level, va);
      countMissing(va, level, runLevel);
    } else {
      const first = indexOf(level, va);
      if (!allZero(place + ((<usize>first) << 3), runSlots)) {
        for (let index = first; index < first + runSlots; index++) {
          const value = load<u64>(place + ((<usize>index) << 3));
          const is = format.kind(level, value);
          if (is == EMPTY) continue;
          if (is == LEAF) status = EXISTS;
          else if (is == BAD) status = ILLEGAL_ENTRY;
          else status = emptyBelow<F>(level, value);
          if (status != OK) return failAt(status, level, va + ((<u64>(index - first)) << (<u64>shiftOf(level))));
        }
      }
    }
    // Not only at the end: a range of which only 4 KiB pages fit may need tables without number.
    if (missing > freePages()) return NO_MEMORY;
    const end = runLast(va);
    if (end >= last) return OK;
    physical += end - va + 1;
    va = end + 1;
  }
}

/** Whether all of `slots` entries are zero, which is what most of them are. */
function allZero(from: usize, slots: i32): bool {
  const end = from + ((<usize>slots) << 3);
  let all = i64x2.splat(0);
  for (; from + 8 < end; from += 16) all = v128.or(all, v128.load(from));
  if (from < end && load<u64>(from) != 0) return false;
  return !v128.any_true(all);
}

/**
 * Writes `slots` entries: `value`, the same `step` times, then the one for the next `size` bytes, and so on. In every
 * format that is `size` more, whatever else a leaf says.
 */
function fill(to: usize, slots: i32, step: i32, value: u64, size: u64): void {
  const end = to + ((<usize>slots) << 3);
  if (step == 1) {
    let pair = v128.replace_lane<u64>(i64x2.splat(value), 1, value + size);
    const next = i64x2.splat(size << 1);
    for (; to + 8 < end; to += 16) {
      v128.store(to, pair);
      pair = v128.add<u64>(pair, next);
    }
    if (to < end) store<u64>(to, v128.extract_lane<u64>(pair, 0));
    return;
  }
  while (to < end) {
    const pair = i64x2.splat(value);
    const until = to + ((<usize>step) << 3);
    for (; to < until; to += 16) v128.store(to, pair);
    value += size;
  }
}

/**
 * Writes the leaves of a range in which there are none and for which there are enough pages. Leaves that were repeated
 * in several slots are the format's business; tables left over where a leaf goes are given back.
 */
export function install<F>(va: u64, last: u64, physical: u64, attributes: u64): void {
  const format = changetype<F>(0);
  if (begin<F>(0, false) != OK) return;
  while (true) {
    nextRun(va, last, physical);
    if (descend<F>(va, runLevel) != OK) return;
    while (level > runLevel) {
      const child = allocatePage();
      assert(child != ~(<u64>0) && kind == EMPTY);
      if (child == ~(<u64>0)) return;
      const made = format.table(level, child);
      store<u64>(place + ((<usize>indexOf(level, va)) << 3), made);
      if (descend<F>(va, runLevel) != OK) return;
    }
    const from = place + ((<usize>indexOf(level, va)) << 3);
    if (runLevel > 0 && !allZero(from, runSlots)) {
      for (let index = 0; index < runSlots; index++) {
        const old = load<u64>(from + ((<usize>index) << 3));
        if (format.kind(runLevel, old) == TABLE) freeBelow<F>(runLevel, old);
      }
    }
    fill(from, runSlots, runStep, format.leaf(runLevel, runSize, physical, attributes), (<u64>1) << (<u64>runSize));
    physical += (<u64>runSlots) << (<u64>shiftOf(runLevel));
    const lastOfRun = runLast(va);
    if (lastOfRun >= last) return;
    va = lastOfRun + 1;
  }
}

/** Puts new roots on top until `last` is covered and a leaf as large as the first one has a level to be in. */
function grow<F>(va: u64, last: u64, physical: u64): i32 {
  const format = changetype<F>(0);
  if (!nextRun(va, last, physical)) return INVALID;
  const leafLevel = runLevel;
  while (last > highest() || leafLevel > top) {
    if (top == format.maxTop()) return INVALID;
    const page = allocatePage();
    if (page == ~(<u64>0)) return NO_MEMORY;
    store<u64>(lookup(page), format.table(top + 1, root));
    setTable(page, top + 1);
  }
  return OK;
}

/** Takes the roots off again that `grow` put on. */
function shrink<F>(toRoot: u64, toTop: i32): void {
  const format = changetype<F>(0);
  while (top > toTop) {
    const page = root;
    setTable(format.child(load<u64>(lookup(page))), top - 1);
    freePage(page);
  }
  assert(root == toRoot);
}

/** Maps `length` bytes from `iova` on to `physical` on. */
export function map<F>(iova: u64, length: u64, physical: u64, flags: u32): i32 {
  const format = changetype<F>(0);
  const last = iova + (length - 1);
  const lastPhysical = physical + (length - 1);
  if (length == 0 || last < iova || lastPhysical < physical || lastPhysical > maskOf(addressBits)) return INVALID;
  if (((iova | length | physical) & 0xfff) != 0) return INVALID;
  if ((flags & ~format.allowedFlags()) != 0 || (flags & 3) == 0) return INVALID;
  const attributes = format.encode(flags, options);
  if (format.grows()) {
    const oldRoot = root;
    const oldTop = top;
    let status = grow<F>(iova, last, physical);
    if (status == OK) status = check<F>(iova, last, physical);
    if (status != OK) {
      shrink<F>(oldRoot, oldTop);
      return status;
    }
    install<F>(iova, last, physical, attributes);
    return OK;
  }
  if (!covers(iova, last)) return INVALID;
  const status = check<F>(inward(iova), inward(last), physical);
  if (status == OK) install<F>(inward(iova), inward(last), physical, attributes);
  return status;
}

/** The leaf table for `va`; 0 when something has to be made, or looked at closely, first. */
@inline function leafTable<F>(va: u64): usize {
  const format = changetype<F>(0);
  let physical = root;
  for (let at = top; at > 0; at--) {
    const table = lookup(physical);
    if (table == 0) return 0;
    const value = load<u64>(table + ((<usize>indexOf(at, va)) << 3));
    if (format.kind(at, value) != TABLE) return 0;
    physical = format.child(value);
  }
  return lookup(physical);
}

/**
 * Maps what `count` records at `from` say, each `stride` bytes: u64 iova, u64 length, u64 physical. RESULT's count says
 * how many were mapped; an error is about the one after those.
 *
 * A page of 4 KiB in the same leaf table as the one before is the common case and goes straight there.
 */
export function mapMany<F>(from: usize, count: i32, stride: u32, flags: u32): i32 {
  const format = changetype<F>(0);
  setCount(0);
  if ((flags & ~format.allowedFlags()) != 0 || (flags & 3) == 0 || stride < 24) return INVALID;
  const attributes = format.encode(flags, options);
  const unusable = ~(maskOf(addressBits) & ~(<u64>0xfff));
  const start = from;
  const end = from + (<usize>count) * stride;
  let leaves: usize = 0;
  /** The first IOVA of that table. */
  let base: u64 = 0;
  let status = OK;
  while (true) {
    if (leaves != 0) {
      for (; from < end; from += stride) {
        const offset = load<u64>(from) - base;
        const physical = load<u64>(from, 16);
        if (offset > 0x1f_f000) break;
        if (((offset & 0xfff) | (load<u64>(from, 8) ^ 4096) | (physical & unusable)) != 0) break;
        const slot = leaves + (<usize>offset >>> 9);
        if (!format.isEmpty(load<u64>(slot))) break;
        store<u64>(slot, format.leaf(0, 12, physical, attributes));
      }
    }
    if (from == end) break;
    const iova = load<u64>(from);
    const length = load<u64>(from, 8);
    status = map<F>(iova, length, load<u64>(from, 16), flags);
    if (status != OK) break;
    from += stride;
    // A larger mapping may have taken the place of tables that were left over.
    leaves = length == 4096 ? leafTable<F>(inward(iova)) : 0;
    base = iova & ~(<u64>0x1f_ffff);
  }
  setCount((from - start) / stride);
  return status;
}
