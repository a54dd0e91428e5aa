/**
 * The mappings of an IOAS, packed. A row in memory is 32 bytes:
 *
 *      +0   u64 iova      +8   u64 length      +16  u64 offset in the arena      +24  u32 arena      +28  u32 access
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
import { ACCESS, ARENA, BEYOND, codecReserve, CUT, EMPTY, fail, FORM, MISALIGNED, NO_MEMORY, NUMBER, OK, OUTSIDE, UNSORTED } from './memory';
import { codecFdtCursor, moveCursor } from './fdt-write';
import { ALL_PAGES, lengthCode, LENGTH_FOLLOWS, LENGTH_MASK, PAGE_MASK, PAGE_SHIFT } from './lengths';
import { fold, numberEnd, readNumber, unfold, writeNumber } from './varint';

const ROW: usize = 32;
const ENTRY: usize = 24;
/** No row is longer: the byte, 8 of gap, 5 of arena, 8 of jump, 1 of access, 8 of pages. */
const LONGEST: usize = 32;

const GAP: u32 = 1 << 4;
const JUMP: u32 = 1 << 5;
const OTHER_ARENA: u32 = 1 << 6;
const OTHER_ACCESS: u32 = 1 << 7;
const ACCESS_BOTH: u32 = 3;

let arenas: usize = 0;
let arenaCount: u32 = 0;

// The row before.
let endPage: u64 = 0;
/** Its arena's entry in the table; 0 before the first row. */
let entry: usize = 0;
let access: u32 = ACCESS_BOTH;

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
  let currentIndex: u32 = 0; // as in the rows, not as packed
  let offsetEnd: u64 = 0;
  let limit: u64 = 0;
  if (current != 0) {
    currentIndex = <u32>((current - arenas) / ENTRY);
    offsetEnd = load<u64>(current, 8);
    limit = load<u64>(current);
  }
  let status = OK;
  let row = rows;
  for (; row < rowsEnd; row += ROW) {
    const iova = load<u64>(row);
    const length = load<u64>(row, 8);
    const offset = load<u64>(row, 16);
    const arena = load<u32>(row, 24);
    const rowAccess = load<u32>(row, 28);
    if (((iova | length | offset) & PAGE_MASK) != 0) {
      status = MISALIGNED;
      break;
    }
    const pages = length >>> PAGE_SHIFT;
    const page = iova >>> PAGE_SHIFT;
    const offsetPage = offset >>> PAGE_SHIFT;
    const code = lengthCode(pages);
    const start = at++;
    let head = code;
    // Also taken for a length of 0, which no code stands for.
    if (page != previousEnd || arena != currentIndex || offsetPage != offsetEnd || rowAccess != previousAccess || code == LENGTH_FOLLOWS || current == 0) {
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
      if (arena != currentIndex || current == 0) {
        if (arena >= arenaCount) {
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
    }
    store<u8>(start, <u8>head);
    previousEnd = page + pages;
    offsetEnd = offsetPage + pages;
    if (previousEnd > ALL_PAGES) {
      status = BEYOND;
      break;
    }
    if (offsetEnd > limit) {
      status = OUTSIDE;
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
  let currentIndex: u32 = 0;
  let offsetEnd: u64 = 0;
  let arenaPages: u64 = 0;
  if (current != 0) {
    currentIndex = <u32>((current - arenas) / ENTRY);
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
        if (at == 0 || index >= <u64>arenaCount || (current != 0 && <u32>index == currentIndex)) {
          status = at == 0 ? NUMBER : index >= <u64>arenaCount ? ARENA : FORM;
          break;
        }
        if (current != 0) store<u64>(current, offsetEnd, 8);
        currentIndex = <u32>index;
        current = arenas + <usize>currentIndex * ENTRY;
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
        const value = <u32>load<u8>(at++);
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
    store<u64>(row, previousEnd << PAGE_SHIFT);
    store<u64>(row, pages << PAGE_SHIFT, 8);
    store<u64>(row, offsetEnd << PAGE_SHIFT, 16);
    store<u32>(row, currentIndex, 24);
    store<u32>(row, previousAccess, 28);
    previousEnd += pages;
    offsetEnd += pages;
    if (previousEnd > ALL_PAGES) {
      status = BEYOND;
      break;
    }
    if (offsetEnd > arenaPages) {
      status = current == 0 ? ARENA : OUTSIDE;
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
