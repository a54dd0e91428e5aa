/**
 * Every entry that is not zero, as it is, tables before what is below them, in parts like a walk (cursor.ts). What
 * leads nowhere is told but not followed; a table reached twice is an error, as following it could take for ever.
 *
 * CURSOR: +0 u64 next, +48 u32 level of the next entry, +52 u32 entered, +56 u32 state, +60 i32 status.
 *
 * Records, 32 bytes:
 *
 *      +0        u64 iova       of the first byte the entry is for
 *      +8        u64 value
 *      +16       u64 table      physical address of the page that holds it
 *      +24       u16 index
 *      +26       u8  level
 *      +27       u8  kind
 *      +28       u8  log2 of the leaf's size, or of what the entry spans
 */
import { LEAF, TABLE } from './flags';
import { indexOf, maskOf, shiftOf } from './geometry';
import { CURSOR } from './layout';
import { inUse, lookup } from './memory';
import { begin, descend, entered, entry, kind, physicalAt } from './path';
import { OK } from './status';
import { highest, outward, top } from './table';

const AT_END: u32 = 2;

export function startEntries(): void {
  memory.fill(CURSOR, 0, 64);
  store<u32>(CURSOR, <u32>top, 48);
}

/** As `walk`. */
export function entries<F>(to: usize, capacity: i32): i32 {
  const format = changetype<F>(0);
  let state = load<u32>(CURSOR, 56);
  if (state == AT_END) return -load<i32>(CURSOR, 60);
  let va = load<u64>(CURSOR);
  let at = load<i32>(CURSOR, 48);
  let count = 0;
  // The part before ended in a table of the level above, wherever in it.
  let status = begin<F>(load<u32>(CURSOR, 52), state != 0, min(at, top - 1));
  state = 1;
  while (status == OK && count < capacity) {
    status = descend<F>(va, at);
    if (status != OK) break;
    const index = indexOf(at, va);
    if (entry != 0) {
      store<u64>(to, outward(va));
      store<u64>(to, entry, 8);
      store<u64>(to, physicalAt(at), 16);
      store<u16>(to, <u16>index, 24);
      store<u8>(to, <u8>at, 26);
      store<u8>(to, <u8>kind, 27);
      store<u32>(to, <u32>(kind == LEAF ? format.sizeLog2(at, entry) : shiftOf(at)), 28);
      to += 32;
      count++;
    }
    if (kind == TABLE) {
      const child = format.child(entry);
      if (lookup(child) != 0 && inUse(child)) {
        at--;
        continue;
      }
    }
    const end = va | maskOf(shiftOf(at));
    if (end >= highest()) {
      state = AT_END;
      break;
    }
    va = end + 1;
    // Past the last slot of a table its parent's next slot is due.
    while (at < top && (va & maskOf(shiftOf(at + 1))) == 0) at++;
  }
  if (status != OK) state = AT_END;
  store<u64>(CURSOR, va);
  store<i32>(CURSOR, at, 48);
  store<u32>(CURSOR, entered, 52);
  store<u32>(CURSOR, state, 56);
  store<i32>(CURSOR, status, 60);
  return count == 0 && status != OK ? -status : count;
}
