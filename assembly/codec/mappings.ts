/**
 * The mappings of an IOAS, packed. A row in memory is 24 bytes: three multiples of 4096, with what else there is in the
 * twelve bits that this leaves of each.
 *
 *      +0   u64 iova | access      +8   u64 length | low half of arena      +16  u64 offset in the arena | high half
 *
 * Packed, a row is one byte that says what is not as the row before it would have it, and then just that:
 *
 *       7        6       5       4      3..0
 *    ┌────────┬───────┬──────┬─────┬──────────┐
 *    │ access │ arena │ jump │ gap │  length  │  number gap, number arena, number jump, u8 access, number pages
 *    └────────┴───────┴──────┴─────┴──────────┘
 *
 *      gap     pages between the end of the mapping before it and this one; without it they touch
 *      arena   index into the list beside it; without it the one before
 *      jump    pages from where the last mapping of the same arena ended to where this one starts in it, folded to an
 *              unsigned number; without it they touch. The first of an arena is measured from 0
 *      access  1 readable, 2 writeable, 3 both; without it as before, 3 at first
 *      pages   see lengths.ts
 *
 * What need not be said must not be: rows have one form. Sorted and disjoint they are by construction.
 *
 * Arenas are described to both directions by a table, 24 bytes each:
 *
 *      +0   u64 pages of the arena      +8   u64 page where its last mapping ended      +16  u32 index when packed
 */
import { ACCESS, ARENA, BEYOND, codecReserve, CUT, EMPTY, fail, FORM, NO_MEMORY, NUMBER, OK, OUTSIDE, UNSORTED } from './memory';
import { codecFdtCursor, moveCursor } from './fdt-write';
import { ALL_PAGES, lengthCode, LENGTH_FOLLOWS, LENGTH_MASK, PAGE_MASK, PAGE_SHIFT } from './lengths';
import { fold, numberEnd, readNumber, unfold, writeNumber } from './varint';

const ROW: usize = 24;
const ENTRY: usize = 24;
/** No row is longer: the byte, 8 of gap, 5 of arena, 8 of jump, 1 of access, 8 of pages. */
const LONGEST: usize = 32;

const GAP: u32 = 1 << 4;
const JUMP: u32 = 1 << 5;
const OTHER_ARENA: u32 = 1 << 6;
const OTHER_ACCESS: u32 = 1 << 7;
const ACCESS_BOTH: u64 = 3;
/** Before the first row: no index, and none that a row can have. */
const NO_ARENA: u64 = 0xffff_ffff;

let arenas: usize = 0;
let arenaCount: u32 = 0;

// The row before.
let endPage: u64 = 0;
/** Its arena's entry in the table; 0 before the first row. */
let entry: usize = 0;
let access: u64 = ACCESS_BOTH;

/** How many rows the last call dealt with; of the packed form also where it stopped. */
let rowsDone: u32 = 0;
let packedEnd: usize = 0;

export function codecMappingsBegin(table: usize, count: u32): void {
  arenas = table;
  arenaCount = count;
  endPage = 0;
  entry = 0;
  access = ACCESS_BOTH;
}

export function codecMappingsRows(): u32 {
  return rowsDone;
}
export function codecMappingsPackedEnd(): usize {
  return packedEnd;
}

/** Appends `count` rows to the open property of the tree that is written. On failure rowsDone is the bad row's index. */
export function codecMappingsEncode(rows: usize, count: u32): i32 {
  let at = codecFdtCursor();
  rowsDone = 0;
  if (!codecReserve(at + <usize>count * LONGEST + 4)) return fail(NO_MEMORY, at);
  const rowsEnd = rows + <usize>count * ROW;
  let previousEnd = endPage;
  let previousAccess = access;
  let current = entry;
  let currentIndex = NO_ARENA; // as in the rows, not as packed
  let offsetEnd: u64 = 0;
  let limit: u64 = 0;
  if (current != 0) {
    currentIndex = <u64>((current - arenas) / ENTRY);
    offsetEnd = load<u64>(current, 8);
    limit = load<u64>(current);
  }
  let status = OK;
  let row = rows;
  for (; row < rowsEnd; row += ROW) {
    const first = load<u64>(row);
    const second = load<u64>(row, 8);
    const third = load<u64>(row, 16);
    const page = first >>> PAGE_SHIFT;
    const pages = second >>> PAGE_SHIFT;
    const offsetPage = third >>> PAGE_SHIFT;
    const rowAccess = first & PAGE_MASK;
    const arena = (second & PAGE_MASK) | ((third & PAGE_MASK) << PAGE_SHIFT);
    const shift = ctz<u64>(pages);
    const start = at++;
    // One branch for all that a row may have to say; also taken for a length of 0, whose shift is 64.
    const news =
      (page ^ previousEnd) |
      (offsetPage ^ offsetEnd) |
      (arena ^ currentIndex) |
      (rowAccess ^ previousAccess) |
      (pages & (pages - 1)) |
      <u64>(shift >= <u64>LENGTH_FOLLOWS);
    if (news == 0) {
      store<u8>(start, <u8>shift);
    } else {
      const code = lengthCode(pages);
      let head = code;
      if (pages == 0) {
        status = EMPTY;
        break;
      }
      if (page < previousEnd) {
        status = UNSORTED;
        break;
      }
      if (page != previousEnd) {
        head |= GAP;
        at = writeNumber(at, page - previousEnd);
      }
      if (arena != currentIndex) {
        if (arena >= <u64>arenaCount) {
          status = ARENA;
          break;
        }
        if (current != 0) store<u64>(current, offsetEnd, 8);
        current = arenas + <usize>arena * ENTRY;
        currentIndex = arena;
        limit = load<u64>(current);
        offsetEnd = load<u64>(current, 8);
        head |= OTHER_ARENA;
        at = writeNumber(at, load<u32>(current, 16));
      }
      if (offsetPage != offsetEnd) {
        head |= JUMP;
        at = writeNumber(at, fold(<i64>(offsetPage - offsetEnd)));
      }
      if (rowAccess != previousAccess) {
        if (rowAccess - 1 >= ACCESS_BOTH) {
          status = ACCESS;
          break;
        }
        head |= OTHER_ACCESS;
        store<u8>(at++, <u8>rowAccess);
        previousAccess = rowAccess;
      }
      if (code == LENGTH_FOLLOWS) at = writeNumber(at, pages);
      store<u8>(start, <u8>head);
    }
    previousEnd = page + pages;
    offsetEnd = offsetPage + pages;
    // Neither is near 2^63: what is too large makes its difference negative.
    if (<i64>((ALL_PAGES - previousEnd) | (limit - offsetEnd)) < 0) {
      status = previousEnd > ALL_PAGES ? BEYOND : OUTSIDE;
      break;
    }
  }
  if (current != 0) store<u64>(current, offsetEnd, 8);
  endPage = previousEnd;
  entry = current;
  access = previousAccess;
  rowsDone = <u32>((row - rows) / ROW);
  if (status != OK) return fail(status, row);
  moveCursor(at);
  return OK;
}

/**
 * Unpacks up to `limit` rows from `source..sourceEnd`. Unless these are the `last` bytes of the property, it stops
 * where a row might not be complete. On failure rowsDone is the bad row's index.
 */
export function codecMappingsDecode(source: usize, sourceEnd: usize, last: bool, rows: usize, limit: u32): i32 {
  let previousEnd = endPage;
  let previousAccess = access;
  let current = entry;
  let currentIndex = NO_ARENA;
  let offsetEnd: u64 = 0;
  let arenaPages: u64 = 0;
  if (current != 0) {
    currentIndex = <u64>((current - arenas) / ENTRY);
    offsetEnd = load<u64>(current, 8);
    arenaPages = load<u64>(current);
  }
  const complete = last ? sourceEnd : sourceEnd - source > LONGEST ? sourceEnd - LONGEST : source;
  const rowsEnd = rows + <usize>limit * ROW;
  let status = OK;
  let at = source;
  let row = rows;
  let start = at;
  for (; row < rowsEnd && at < complete; row += ROW) {
    start = at;
    const head = <u32>load<u8>(at++);
    let pages = <u64>1 << <u64>(head & LENGTH_MASK);
    if (head >= LENGTH_FOLLOWS) {
      if ((head & GAP) != 0) {
        const gap = readNumber(at, sourceEnd);
        at = numberEnd;
        if (at == 0 || gap == 0 || gap > ALL_PAGES) {
          status = at == 0 ? NUMBER : gap == 0 ? FORM : BEYOND;
          break;
        }
        previousEnd += gap;
      }
      if ((head & OTHER_ARENA) != 0) {
        const index = readNumber(at, sourceEnd);
        at = numberEnd;
        if (at == 0 || index >= <u64>arenaCount || index == currentIndex) {
          status = at == 0 ? NUMBER : index == currentIndex ? FORM : ARENA;
          break;
        }
        if (current != 0) store<u64>(current, offsetEnd, 8);
        currentIndex = index;
        current = arenas + <usize>index * ENTRY;
        arenaPages = load<u64>(current);
        offsetEnd = load<u64>(current, 8);
      } else if (current == 0) {
        status = ARENA;
        break;
      }
      if ((head & JUMP) != 0) {
        const jump = readNumber(at, sourceEnd);
        at = numberEnd;
        if (at == 0 || jump == 0) {
          status = at == 0 ? NUMBER : FORM;
          break;
        }
        // Both are below 2^56: a wrong sum is large, or wraps and is larger.
        offsetEnd += <u64>unfold(jump);
        if (offsetEnd > arenaPages) {
          status = OUTSIDE;
          break;
        }
      }
      if ((head & OTHER_ACCESS) != 0) {
        if (at == sourceEnd) {
          status = CUT;
          break;
        }
        const value = <u64>load<u8>(at++);
        if (value - 1 >= ACCESS_BOTH || value == previousAccess) {
          status = value == previousAccess ? FORM : ACCESS;
          break;
        }
        previousAccess = value;
      }
      if ((head & LENGTH_MASK) == LENGTH_FOLLOWS) {
        pages = readNumber(at, sourceEnd);
        at = numberEnd;
        if (at == 0 || pages == 0 || pages > ALL_PAGES || lengthCode(pages) != LENGTH_FOLLOWS) {
          status = at == 0 ? NUMBER : pages > ALL_PAGES ? BEYOND : FORM;
          break;
        }
      }
    }
    store<u64>(row, (previousEnd << PAGE_SHIFT) | previousAccess);
    store<u64>(row, (pages << PAGE_SHIFT) | (currentIndex & PAGE_MASK), 8);
    store<u64>(row, (offsetEnd << PAGE_SHIFT) | (currentIndex >>> PAGE_SHIFT), 16);
    previousEnd += pages;
    offsetEnd += pages;
    // As in codecMappingsEncode(); without an arena there are no pages in it.
    if (<i64>((ALL_PAGES - previousEnd) | (arenaPages - offsetEnd)) < 0) {
      status = current == 0 ? ARENA : previousEnd > ALL_PAGES ? BEYOND : OUTSIDE;
      break;
    }
  }
  if (current != 0) store<u64>(current, offsetEnd, 8);
  endPage = previousEnd;
  entry = current;
  access = previousAccess;
  rowsDone = <u32>((row - rows) / ROW);
  packedEnd = at;
  return status == OK ? OK : fail(status, start);
}
