/**
 * Unmapping exactly a range. First everything is checked and the tables that split leaves need are counted, then
 * nothing can fail any more.
 *
 * A leaf that is only partly in the range is taken out and what remains of it is mapped again, in the largest leaves
 * possible, with the same attributes. A table that is empty afterwards is given back, the root never.
 */
import { BAD, LEAF, TABLE } from './flags';
import { indexOf, maskOf, shiftOf } from './geometry';
import { SLOTS } from './layout';
import { freePage, freePages, lookup } from './memory';
import { countBelow, install } from './map';
import { begin, descend, failAt, kind, level, place, replicasAgree } from './path';
import { ILLEGAL_ENTRY, INVALID, NO_MEMORY, OK, REPLICAS_DIFFER, setCount } from './status';
import { covers, highest, inward, root, top } from './table';

let removed: u64 = 0;
let needed: u32 = 0;

/**
 * Checks every entry in the range; what is mapped and partly in it is counted in `needed`. Also for other operations
 * that must not find out half-way that a table is corrupt.
 */
export function checkRange<F>(first: u64, last: u64): i32 {
  const format = changetype<F>(0);
  needed = 0;
  let status = begin<F>(0, false);
  if (status != OK) return status;
  let va = first;
  while (true) {
    status = descend<F>(va, 0);
    if (status != OK) return status;
    const own = shiftOf(level);
    let index = indexOf(level, va);
    while (true) {
      const value = load<u64>(place + ((<usize>index) << 3));
      const is = format.kind(level, value);
      if (is == TABLE) break;
      if (is == BAD) return failAt(ILLEGAL_ENTRY, level, va);
      let end = va | maskOf(own);
      if (is == LEAF) {
        const size = format.sizeLog2(level, value);
        if (format.replicated() && size != own && !replicasAgree<F>(level, place, index, size)) {
          return failAt(REPLICAS_DIFFER, level, va);
        }
        const start = va & ~maskOf(size);
        end = va | maskOf(size);
        if (start < first || end > last) countSplit<F>(value, start, end, first, last);
        index += <i32>((end - va) >> (<u64>own)) + 1;
      } else {
        index++;
      }
      if (end >= last) return OK;
      va = end + 1;
      if (index >= SLOTS) break;
    }
  }
}

function countSplit<F>(value: u64, start: u64, end: u64, first: u64, last: u64): void {
  const physical = changetype<F>(0).physical(value, changetype<F>(0).sizeLog2(level, value));
  let tables: u32 = 0;
  if (start < first) tables = countBelow(start, first - 1, physical, level, true);
  if (end > last) tables = countBelow(last + 1, end, physical + (last + 1 - start), level, !(start < first));
  needed += tables;
}

/** Clears the leaf in slot `index` and maps again what is not in `first..last`. */
function removeLeaf<F>(at: i32, table: usize, va: u64, value: u64, first: u64, last: u64): void {
  const format = changetype<F>(0);
  const size = format.sizeLog2(at, value);
  const start = va & ~maskOf(size);
  const end = va | maskOf(size);
  const slots = format.replicated() ? 1 << (size - shiftOf(at)) : 1;
  let marks: u64 = 0;
  let slot = table + ((<usize>indexOf(at, start)) << 3);
  for (let left = slots; left > 0; left--, slot += 8) {
    if (format.replicated()) marks |= load<u64>(slot) & format.marks();
    store<u64>(slot, 0);
  }
  const from = start < first ? first : start;
  const to = end > last ? last : end;
  removed += to - from + 1;
  if (start == from && end == to) return;
  const attributes = format.attributes(at, value) | marks;
  const physical = format.physical(value, size);
  if (start < from) install<F>(start, from - 1, physical, attributes);
  if (end > to) install<F>(to + 1, end, physical + (to + 1 - start), attributes);
}

function isEmpty<F>(table: usize): bool {
  for (let index = 0; index < SLOTS; index++) {
    if (!changetype<F>(0).isEmpty(load<u64>(table + ((<usize>index) << 3)))) return false;
  }
  return true;
}

function remove<F>(at: i32, table: usize, va: u64, first: u64, last: u64): void {
  const format = changetype<F>(0);
  const own = shiftOf(at);
  // Where this table ends, or the range.
  const until = min(last, va | maskOf(shiftOf(at + 1)));
  while (true) {
    const slot = table + ((<usize>indexOf(at, va)) << 3);
    const value = load<u64>(slot);
    const is = format.kind(at, value);
    let end = va | maskOf(own);
    if (is == LEAF) {
      end = va | maskOf(format.sizeLog2(at, value));
      removeLeaf<F>(at, table, va, value, first, last);
    } else if (is == TABLE) {
      const physical = format.child(value);
      const child = lookup(physical);
      remove<F>(at - 1, child, va, first, last);
      if (isEmpty<F>(child)) {
        store<u64>(slot, 0);
        freePage(physical);
      }
    }
    if (end >= until) return;
    va = end + 1;
  }
}

/** Unmaps `length` bytes from `iova` on; RESULT's count says how many of them were mapped. */
export function unmap<F>(iova: u64, length: u64): i32 {
  const bound = iova + (length - 1);
  setCount(0);
  if (length == 0 || bound < iova || ((iova | length) & 0xfff) != 0) return INVALID;
  let first = iova;
  let last = bound;
  if (changetype<F>(0).grows()) {
    // Beyond the root nothing is mapped yet.
    if (first > highest()) return OK;
    last = min(last, highest());
  } else {
    if (!covers(iova, bound)) return INVALID;
    first = inward(iova);
    last = inward(bound);
  }
  const status = checkRange<F>(first, last);
  if (status != OK) return status;
  if (needed > freePages()) return NO_MEMORY;
  removed = 0;
  remove<F>(top, lookup(root), first, first, last);
  setCount(removed);
  return OK;
}
