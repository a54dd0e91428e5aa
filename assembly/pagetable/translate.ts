/** From an IOVA to what it is mapped to: the loop that must be fast. */
import { LEAF, BAD, SIGN_EXTEND, TABLE } from './flags';
import { indexOf, maskOf, shiftOf } from './geometry';
import { RESULT } from './layout';
import { lookup } from './memory';
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

/** Translates `count` IOVAs, u64 each, at `from` to physical addresses at `to`; UNMAPPED where there is none. */
export function translateMany<F>(from: usize, to: usize, count: i32): i32 {
  const format = changetype<F>(0);
  const start = root;
  const first = top;
  const end = from + ((<usize>count) << 3);
  let found = 0;
  for (; from < end; from += 8, to += 8) {
    const iova = load<u64>(from);
    let result = UNMAPPED;
    if (translatable(iova)) {
      const va = inward(iova);
      let physical = start;
      for (let at = first; at >= 0; at--) {
        const table = lookup(physical);
        if (table == 0) break;
        const value = load<u64>(table + ((<usize>indexOf(at, va)) << 3));
        const kind = format.kind(at, value);
        if (kind == TABLE) {
          physical = format.child(value);
          continue;
        }
        if (kind == LEAF) {
          const size = format.sizeLog2(at, value);
          result = format.physical(value, size) | (va & maskOf(size));
          found++;
        }
        break;
      }
    }
    store<u64>(to, result);
  }
  return found;
}
