/**
 * Where the codec keeps what it works on. One instance serves one encoding or decoding at a time.
 *
 *      HEAP         CRC tables          16 x 256 x u32, filled by codecStart()
 *      STAGING      rows                a chunk of rows on its way in or out: the wrapper copies it from or to a table
 *      FREE         the job's own       a blob that is read or written, an index, a table of arenas: the wrapper says
 *                                       where, codecReserve() makes the room
 *
 * A job that ends wrongly leaves its status as result and the offending address in codecFault().
 */

/** Everything is in order. */
export const OK: i32 = 0;
/** Memory is exhausted. */
export const NO_MEMORY: i32 = 1;

// Header and blocks of a flattened device tree.
export const SHORT: i32 = 2; // fewer bytes than a header, or than totalsize
export const MAGIC: i32 = 3;
export const VERSION: i32 = 4;
export const BLOCK: i32 = 5; // a block is misaligned or lies outside
export const OVERLAP: i32 = 6;
export const RESERVATIONS: i32 = 7; // the list has no end

// Its structure.
export const TOKEN: i32 = 10;
export const NAME: i32 = 11; // no end, empty, too long or with a character that names have not
export const DEPTH: i32 = 12;
export const STRING: i32 = 13; // a property's name: out of range, or as NAME
export const VALUE: i32 = 14; // a property's value is longer than what is left
export const ORDER: i32 = 15; // a property after a subnode
export const BALANCE: i32 = 16; // nodes begin and end wrongly
export const END: i32 = 17; // the block does not end with FDT_END
export const ENTRIES: i32 = 18; // more nodes and properties than the caller takes

// Packed properties.
export const CUT: i32 = 20; // ends within a row
export const NUMBER: i32 = 21; // a number not in minimal form, or too large
export const FORM: i32 = 22; // a row not in minimal form
export const ARENA: i32 = 23; // an index beyond the list of arenas
export const ACCESS: i32 = 24; // permissions that do not exist

// Rows.
export const MISALIGNED: i32 = 30;
export const EMPTY: i32 = 31;
export const UNSORTED: i32 = 32; // overlaps the row before it, or comes before it
export const BEYOND: i32 = 33; // past the end of the address space
export const OUTSIDE: i32 = 34; // past the end of its arena

// The kernel RFC's layout.
export const FOREIGN_NODE: i32 = 40;
export const FOREIGN_SIZE: i32 = 41; // a property of another size than the layout gives it
export const TWICE: i32 = 42;
export const MISSING: i32 = 43; // an area lacks a property
export const COMPATIBLE: i32 = 44;

const HEAP: usize = (__heap_base + 15) & ~15;
export const CRC_TABLES: usize = HEAP;
export const STAGING: usize = HEAP + 0x4000;
export const STAGING_SIZE: usize = 0x20000;
export const FREE: usize = STAGING + STAGING_SIZE;

let fault: usize = 0;

/** Notes where it went wrong, and returns `status`. */
export function fail(status: i32, at: usize): i32 {
  fault = at;
  return status;
}

/** Address at which the last job failed. */
export function codecFault(): usize {
  return fault;
}

/** Address of the staging area. */
export function codecStaging(): usize {
  return STAGING;
}

/** First address that jobs may use. */
export function codecFree(): usize {
  return FREE;
}

/** Addresses stay positive as the signed numbers that they are outside. */
const LIMIT: usize = 0x7fff_0000;

/** Makes memory reach up to `end`; grows by a quarter at least, so that an output of n bytes is moved O(log n) times. */
export function codecReserve(end: usize): bool {
  const have = (<usize>memory.size()) << 16;
  if (end <= have) return true;
  if (end > LIMIT) return false;
  const needed = <i32>((end - have + 0xffff) >>> 16);
  const ample = memory.size() >>> 2;
  if (ample > needed && memory.grow(ample) >= 0) return true;
  return memory.grow(needed) >= 0;
}
