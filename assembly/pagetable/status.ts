/**
 * What an operation answers, and where it found what it refuses.
 *
 * RESULT, 64 bytes that the caller reads after a call:
 *
 *      +0        u64 iova       of the entry at fault, or what the operation documents
 *      +8        u64 value      of that entry
 *      +16       u64 table      physical address of the table page that holds it
 *      +24       i32 level      0 is the level that maps 4 KiB
 *      +28       i32 index      in the table
 *      +32       u64 count      what the operation documents
 */
import { RESULT } from './layout';

export const OK: i32 = 0;
/** Arguments that make no sense: empty, misaligned, beyond the format. Nothing was done. */
export const INVALID: i32 = 1;
/** Something in the range is mapped already. Nothing was done. */
export const EXISTS: i32 = 2;
/** Not enough memory for the tables that are needed. Nothing was done. */
export const NO_MEMORY: i32 = 3;
/** The format cannot do that. */
export const UNSUPPORTED: i32 = 4;
/** A pointer to a page that is neither loaded nor allocated. */
export const OUTSIDE_MEMORY: i32 = 5;
/** A pointer to a table that was reached before: a loop, or one table used twice. */
export const SHARED_TABLE: i32 = 6;
/** An entry that means nothing at its level. */
export const ILLEGAL_ENTRY: i32 = 7;
/** Bits that must be zero are not; a large page whose address is not aligned to it is one such case. */
export const RESERVED_BITS: i32 = 8;
/** The entries of one replicated leaf are not the same. */
export const REPLICAS_DIFFER: i32 = 9;

/** Records where; returns `status`, for tail calls. */
export function fail(status: i32, level: i32, iova: u64, table: u64, index: i32, value: u64): i32 {
  store<u64>(RESULT, iova);
  store<u64>(RESULT, value, 8);
  store<u64>(RESULT, table, 16);
  store<i32>(RESULT, level, 24);
  store<i32>(RESULT, index, 28);
  return status;
}

export function setCount(count: u64): void {
  store<u64>(RESULT, count, 32);
}
