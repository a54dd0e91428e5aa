/** From an IOVA to what it is mapped to: the loop that must be fast. */
import { LEAF, BAD, SIGN_EXTEND, TABLE } from './flags';
import { indexOf, maskOf, shiftOf } from './geometry';
import { RESULT, SLOTS } from './layout';
import { lookup, primaryBase, primaryBytes, primaryStart } from './memory';
import { ILLEGAL_ENTRY, OK, OUTSIDE_MEMORY, fail } from './status';
import { highest, inward, options, outward, root, top } from './table';

/** What translateMany writes for an IOVA that is not mapped, or whose tables are corrupt. */
export const UNMAPPED: u64 = ~(<u64>0);

@inline function translatable(iova: u64): bool {
  return (options & SIGN_EXTEND) == 0 ? iova <= highest() : outward(inward(iova)) == iova;
}

/**
 * RESULT says what `iova` is mapped to:
 *
 *      +0        u64 physical
 *      +8        u64 iova       where the leaf starts
 *      +16       u64 size       of the leaf; 0: not mapped
 *      +24       u32 flags
 */
export function translate<F>(iova: u64): i32 {
  const format = changetype<F>(0);
  store<u64>(RESULT, 0, 16);
  if (!translatable(iova)) return OK;
  const va = inward(iova);
  let inherited = format.inheritAll();
  let physical = root;
  let above: u64 = 0;
  let value: u64 = root;
  for (let at = top; at >= 0; at--) {
    const table = lookup(physical);
    if (table == 0) return fail(OUTSIDE_MEMORY, at + 1, iova, above, at == top ? 0 : indexOf(at + 1, va), value);
    const index = indexOf(at, va);
    value = load<u64>(table + ((<usize>index) << 3));
    const kind = format.kind(at, value);
    if (kind == LEAF) {
      const size = format.sizeLog2(at, value);
      const mask = maskOf(size);
      store<u64>(RESULT, format.physical(value, size) | (va & mask));
      store<u64>(RESULT, outward(va & ~mask), 8);
      store<u64>(RESULT, mask + 1, 16);
      store<u32>(RESULT, format.flags(value, inherited), 24);
      return OK;
    }
    if (kind == BAD) return fail(ILLEGAL_ENTRY, at, iova, physical, index, value);
    if (kind != TABLE) return OK;
    inherited = format.inherit(inherited, value);
    above = physical;
    physical = format.child(value);
  }
  return OK;
}

/** Levels of the root as types, so that the loop below is compiled for each. */
@unmanaged class Top1 { @inline top(): i32 { return 1; } }
@unmanaged class Top2 { @inline top(): i32 { return 2; } }
@unmanaged class Top3 { @inline top(): i32 { return 3; } }
@unmanaged class Top4 { @inline top(): i32 { return 4; } }
@unmanaged class Top5 { @inline top(): i32 { return 5; } }

/** The offset in its table of the entry for `va`. */
@inline function slotOf(at: i32, va: u64): usize {
  return <usize>(va >> (<u64>(shiftOf(at) - 3))) & ((SLOTS - 1) << 3);
}

/** One translation, wherever its tables are. */
function translateOne<F>(iova: u64): u64 {
  const format = changetype<F>(0);
  if (!translatable(iova)) return UNMAPPED;
  const va = inward(iova);
  let physical = root;
  for (let at = top; at >= 0; at--) {
    const table = lookup(physical);
    if (table == 0) return UNMAPPED;
    const value = load<u64>(table + slotOf(at, va));
    const kind = format.kind(at, value);
    if (kind == LEAF) {
      const size = format.sizeLog2(at, value);
      return format.physical(value, size) | (va & maskOf(size));
    }
    if (kind != TABLE) return UNMAPPED;
    physical = format.child(value);
  }
  return UNMAPPED;
}

@inline function leafResult<F>(at: i32, va: u64, value: u64): u64 {
  const format = changetype<F>(0);
  if (format.kind(at, value) != LEAF) return UNMAPPED;
  const size = format.sizeLog2(at, value);
  return format.physical(value, size) | (va & maskOf(size));
}

/**
 * Translates as long as every table is in the largest window, and returns where it stopped.
 *
 * What does not change is in locals, the levels are written out, each with its shift and rules as constants, and
 * nothing is called, since calls would cost registers: there are few instructions between one cache miss and the next,
 * so that many are under way at once.
 */
function translateNear<F, T>(from: usize, end: usize, gap: usize, rootPage: usize): usize {
  const format = changetype<F>(0);
  const top = changetype<T>(0).top();
  const extending = (format.options() & SIGN_EXTEND) != 0 && (options & SIGN_EXTEND) != 0;
  const limit = maskOf(shiftOf(top + 1));
  const base = primaryBase;
  const bytes = primaryBytes;
  const start = primaryStart;
  for (; from < end; from += 8) {
    let va = load<u64>(from);
    let result = UNMAPPED;
    if ((format.options() & SIGN_EXTEND) != 0) {
      if (extending) va = outward(va & limit) == va ? va & limit : limit + 1;
    }
    if (va <= limit) {
      let value = load<u64>(rootPage + slotOf(top, va));
      do {
        if (top >= 5) {
          if (!format.isTable(5, value)) { result = leafResult<F>(5, va, value); break; }
          const offset = format.child(value) - base;
          if (offset >= bytes) return from;
          value = load<u64>(start + <usize>offset + slotOf(4, va));
        }
        if (top >= 4) {
          if (!format.isTable(4, value)) { result = leafResult<F>(4, va, value); break; }
          const offset = format.child(value) - base;
          if (offset >= bytes) return from;
          value = load<u64>(start + <usize>offset + slotOf(3, va));
        }
        if (top >= 3) {
          if (!format.isTable(3, value)) { result = leafResult<F>(3, va, value); break; }
          const offset = format.child(value) - base;
          if (offset >= bytes) return from;
          value = load<u64>(start + <usize>offset + slotOf(2, va));
        }
        if (top >= 2) {
          if (!format.isTable(2, value)) { result = leafResult<F>(2, va, value); break; }
          const offset = format.child(value) - base;
          if (offset >= bytes) return from;
          value = load<u64>(start + <usize>offset + slotOf(1, va));
        }
        if (!format.isTable(1, value)) { result = leafResult<F>(1, va, value); break; }
        const offset = format.child(value) - base;
        if (offset >= bytes) return from;
        value = load<u64>(start + <usize>offset + slotOf(0, va));
        if (format.isPage(value)) {
          const size = format.sizeLog2(0, value);
          result = format.physical(value, size) | (va & maskOf(size));
        }
      } while (false);
    }
    store<u64>(from + gap, result);
  }
  return end;
}

function translateFrom<F, T>(from: usize, end: usize, gap: usize, rootPage: usize): void {
  while ((from = translateNear<F, T>(from, end, gap, rootPage)) < end) {
    store<u64>(from + gap, translateOne<F>(load<u64>(from)));
    from += 8;
  }
}

/** Translates `count` IOVAs, u64 each, at `from` to physical addresses at `to`; UNMAPPED where there is none. */
export function translateMany<F>(from: usize, to: usize, count: i32): void {
  const end = from + ((<usize>count) << 3);
  const gap = to - from;
  const rootPage = lookup(root);
  if (rootPage == 0) {
    memory.fill(to, 0xff, (<usize>count) << 3);
    return;
  }
  switch (top) {
    case 1: translateFrom<F, Top1>(from, end, gap, rootPage); break;
    case 2: translateFrom<F, Top2>(from, end, gap, rootPage); break;
    case 3: translateFrom<F, Top3>(from, end, gap, rootPage); break;
    case 4: translateFrom<F, Top4>(from, end, gap, rootPage); break;
    case 5: translateFrom<F, Top5>(from, end, gap, rootPage); break;
  }
}
