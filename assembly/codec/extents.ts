/**
 * Where the memory of an arena lies physically, packed: for devices without IOMMU. A row in memory is 24 bytes:
 *
 *      +0   u64 offset in the arena      +8   u64 physical address      +16  u64 length
 *
 * Packed as mappings are (mappings.ts), with fewer fields; bits 6 and 7 of the first byte are 0:
 *
 *      gap     bit 4: pages of the arena between the extent before it and this one; without it they touch
 *      jump    bit 5: pages from where the extent before it ends in physical memory to where this one starts, folded
 *      pages   see lengths.ts
 */
import { BEYOND, codecReserve, EMPTY, fail, FORM, MISALIGNED, NO_MEMORY, NUMBER, OK, OUTSIDE, UNSORTED } from './memory';
import { codecFdtCursor, moveCursor } from './fdt-write';
import { ALL_PAGES, lengthCode, LENGTH_FOLLOWS, LENGTH_MASK, PAGE_MASK, PAGE_SHIFT } from './lengths';
import { fold, numberEnd, readNumber, unfold, writeNumber } from './varint';

const ROW: usize = 24;
/** The byte and three numbers. */
const LONGEST: usize = 32;

const GAP: u32 = 1 << 4;
const JUMP: u32 = 1 << 5;
const RESERVED: u32 = 3 << 6;

/** Pages of the arena. */
let arenaPages: u64 = 0;
// The row before.
let offsetEnd: u64 = 0;
let addressEnd: u64 = 0;
let rowsDone: u32 = 0;
let packedEnd: usize = 0;

export function codecExtentsBegin(pages: u64): void {
  arenaPages = pages;
  offsetEnd = 0;
  addressEnd = 0;
}

/** As codecMappingsRows() and codecMappingsPackedEnd(). */
export function codecExtentsRows(): u32 {
  return rowsDone;
}
export function codecExtentsPackedEnd(): usize {
  return packedEnd;
}

/** As codecMappingsEncode(). */
export function codecExtentsEncode(rows: usize, count: u32): i32 {
  let at = codecFdtCursor();
  if (!codecReserve(at + <usize>count * LONGEST + 4)) return fail(NO_MEMORY, at);
  for (rowsDone = 0; rowsDone < count; rowsDone++) {
    const row = rows + <usize>rowsDone * ROW;
    const offset = load<u64>(row);
    const address = load<u64>(row, 8);
    const length = load<u64>(row, 16);
    if (((offset | address | length) & PAGE_MASK) != 0) return fail(MISALIGNED, row);
    const offsetPage = offset >>> PAGE_SHIFT;
    const addressPage = address >>> PAGE_SHIFT;
    const pages = length >>> PAGE_SHIFT;
    if (pages == 0) return fail(EMPTY, row);
    if (offsetPage < offsetEnd) return fail(UNSORTED, row);
    if (offsetPage + pages > arenaPages) return fail(OUTSIDE, row);
    if (addressPage + pages > ALL_PAGES) return fail(BEYOND, row);
    const start = at++;
    let head = lengthCode(pages);
    if (offsetPage != offsetEnd) {
      head |= GAP;
      at = writeNumber(at, offsetPage - offsetEnd);
    }
    if (addressPage != addressEnd) {
      head |= JUMP;
      at = writeNumber(at, fold(<i64>(addressPage - addressEnd)));
    }
    if ((head & LENGTH_MASK) == LENGTH_FOLLOWS) at = writeNumber(at, pages);
    store<u8>(start, <u8>head);
    offsetEnd = offsetPage + pages;
    addressEnd = addressPage + pages;
  }
  moveCursor(at);
  return OK;
}

/** As codecMappingsDecode(). */
export function codecExtentsDecode(source: usize, sourceEnd: usize, rows: usize, limit: u32): i32 {
  let at = source;
  packedEnd = source;
  for (rowsDone = 0; rowsDone < limit && at < sourceEnd; rowsDone++) {
    const start = at;
    const head = <u32>load<u8>(at++);
    if ((head & RESERVED) != 0) return fail(FORM, start);
    let pages = <u64>1 << <u64>(head & LENGTH_MASK);
    if ((head & GAP) != 0) {
      const gap = readNumber(at, sourceEnd);
      at = numberEnd;
      if (at == 0) return fail(NUMBER, start);
      if (gap == 0) return fail(FORM, start);
      offsetEnd += gap;
    }
    if ((head & JUMP) != 0) {
      const jump = readNumber(at, sourceEnd);
      at = numberEnd;
      if (at == 0) return fail(NUMBER, start);
      if (jump == 0) return fail(FORM, start);
      // As in mappings.ts: a wrong sum is too large either way.
      addressEnd += <u64>unfold(jump);
      if (addressEnd > ALL_PAGES) return fail(BEYOND, start);
    }
    if ((head & LENGTH_MASK) == LENGTH_FOLLOWS) {
      pages = readNumber(at, sourceEnd);
      at = numberEnd;
      if (at == 0) return fail(NUMBER, start);
      if (pages == 0 || lengthCode(pages) != LENGTH_FOLLOWS) return fail(FORM, start);
    }
    const row = rows + <usize>rowsDone * ROW;
    store<u64>(row, offsetEnd << PAGE_SHIFT);
    store<u64>(row, addressEnd << PAGE_SHIFT, 8);
    store<u64>(row, pages << PAGE_SHIFT, 16);
    offsetEnd += pages;
    addressEnd += pages;
    if (offsetEnd > arenaPages) return fail(OUTSIDE, start);
    if (addressEnd > ALL_PAGES) return fail(BEYOND, start);
    packedEnd = at;
  }
  return OK;
}
