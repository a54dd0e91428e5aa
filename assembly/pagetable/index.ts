/**
 * IO page tables in the hardware's own formats, over table pages in linear memory.
 *
 * An instance holds one table memory (layout.ts, memory.ts) and works on one table at a time, which `pageTableUse`
 * picks. Functions return a status (status.ts); RESULT says where. Input from outside is refused in every build, and
 * no table, however corrupt, makes an operation leave linear memory or enter more tables than there are pages.
 */
import { startEntries } from './entries';
import { bindFormat } from './formats/index';
import { COUNTS, CURSOR, RESULT, SCRATCH, SCRATCH_BYTES } from './layout';
import {
  allocatePage,
  backedPages,
  freePage,
  freePages,
  inUse,
  lookup,
  providePage,
  resetMemory,
} from './memory';
import {
  allowedOptions,
  entriesIndex,
  mapIndex,
  mapManyIndex,
  maxTop,
  minTop,
  startWalkIndex,
  translateIndex,
  translateManyIndex,
  unmapIndex,
  verifyIndex,
  walkIndex,
} from './operations';
import { INVALID, NO_MEMORY, OK, UNSUPPORTED } from './status';
import { addressBits, root, setRules, setTable, sizes, top } from './table';

let format: i32 = -1;
let formatSizes: u64 = 0;

/** Forgets everything; the heap is then `pages` at `base`. */
export function pageTableReset(base: u64, pages: u32): i32 {
  setTable(0, 0);
  return resetMemory(base, pages) ? OK : NO_MEMORY;
}

/** Where the caller reads and writes. */
export function pageTableResult(): usize {
  return RESULT;
}
export function pageTableCursor(): usize {
  return CURSOR;
}
export function pageTableCounts(): usize {
  return COUNTS;
}
export function pageTableScratch(): usize {
  return SCRATCH;
}
export function pageTableScratchBytes(): usize {
  return SCRATCH_BYTES;
}

/** Pages of the heap that no table uses. */
export function pageTableFreePages(): u32 {
  return freePages();
}
/** Pages of the heap and loaded pages. */
export function pageTableBackedPages(): u32 {
  return backedPages;
}
/** Where the page at `physical` is in linear memory; 0 when it is neither loaded nor in use. */
export function pageTablePage(physical: u64): usize {
  if ((physical & 0xfff) != 0) return 0;
  const place = lookup(physical);
  return place != 0 && inUse(physical) ? place : 0;
}
/** The same, made when it is not there; 0 when there is no memory. */
export function pageTableProvide(physical: u64): usize {
  return (physical & 0xfff) != 0 ? 0 : providePage(physical);
}

/**
 * Picks the table to work on: its format, the physical address of its root, the level of its root, options (flags.ts),
 * and the leaf sizes that may be written, of which those the format does not have count for nothing.
 */
export function pageTableUse(newFormat: i32, newRoot: u64, newTop: i32, newOptions: u32, newSizes: u64): i32 {
  if (newFormat != format) {
    format = -1;
    if (!bindFormat(newFormat)) return UNSUPPORTED;
    format = newFormat;
    formatSizes = sizes;
  }
  if (newTop < minTop || newTop > maxTop || (newRoot & 0xfff) != 0) return INVALID;
  if ((newOptions & ~allowedOptions) != 0) return UNSUPPORTED;
  setRules(newOptions, formatSizes & newSizes, addressBits);
  setTable(newRoot, newTop);
  return OK;
}

/** Makes an empty table; `pageTableRoot` then says where. */
export function pageTableCreate(newFormat: i32, newTop: i32, newOptions: u32, newSizes: u64): i32 {
  const status = pageTableUse(newFormat, 0, newTop, newOptions, newSizes);
  if (status != OK) return status;
  const page = allocatePage();
  if (page == ~(<u64>0)) return NO_MEMORY;
  setTable(page, newTop);
  return OK;
}

/** Gives the root back, when nothing is mapped any more. The table is gone then. */
export function pageTableRelease(): void {
  freePage(root);
  setTable(0, 0);
}

/** The root and its level change when a table grows. */
export function pageTableRoot(): u64 {
  return root;
}
export function pageTableTop(): i32 {
  return top;
}

export function pageTableMap(iova: u64, length: u64, physical: u64, flags: u32): i32 {
  return call_indirect<i32>(mapIndex, iova, length, physical, flags);
}
export function pageTableMapMany(from: usize, count: i32, stride: u32, flags: u32): i32 {
  return call_indirect<i32>(mapManyIndex, from, count, stride, flags);
}
export function pageTableUnmap(iova: u64, length: u64): i32 {
  return call_indirect<i32>(unmapIndex, iova, length);
}
export function pageTableTranslate(iova: u64): i32 {
  return call_indirect<i32>(translateIndex, iova);
}
export function pageTableTranslateMany(from: usize, to: usize, count: i32): void {
  call_indirect<void>(translateManyIndex, from, to, count);
}
export function pageTableStartWalk(first: u64, last: u64, mode: u32): i32 {
  return call_indirect<i32>(startWalkIndex, first, last, mode);
}
export function pageTableWalk(to: usize, capacity: i32): i32 {
  return call_indirect<i32>(walkIndex, to, capacity);
}
export function pageTableStartEntries(): void {
  startEntries();
}
export function pageTableEntries(to: usize, capacity: i32): i32 {
  return call_indirect<i32>(entriesIndex, to, capacity);
}
export function pageTableVerify(to: usize, capacity: i32): i32 {
  return call_indirect<i32>(verifyIndex, to, capacity);
}
