/**
 * The linear memory of an instance:
 *
 *      RESULT    64 B           what the last operation has to say (status.ts)
 *      CURSOR    64 B           state of a walk that goes on (cursor.ts)
 *      COUNTS    65 u64         leaves by size, then tables (count.ts)
 *      NODES     8 * 32 B       the path from the root to where a walk is (path.ts)
 *      SEEN      8 u64          the tables counted as missing (map.ts)
 *      STAMPS    2^20 u32       the walk that last entered each page of linear memory (path.ts)
 *      USED      2^20 bits      pages of the heap in use (memory.ts)
 *      SCRATCH   1 MiB          records in and out
 *      PAGES     to the end     the heap of table pages, then loaded pages and the window list (memory.ts)
 *
 * The big regions are sized for all of a 32-bit memory; what is never touched costs nothing.
 */
export const PAGE_SHIFT: i32 = 12;
export const PAGE: usize = 4096;
/** Entries in a table. */
export const SLOTS: i32 = 512;

export const RESULT: usize = (__heap_base + 63) & ~63;
export const CURSOR: usize = RESULT + 64;
export const COUNTS: usize = CURSOR + 64;
export const NODES: usize = COUNTS + 65 * 8 + 56;
export const SEEN: usize = NODES + 8 * 32;
export const STAMPS: usize = (SEEN + 64 + 63) & ~63;
export const USED: usize = STAMPS + (4 << 20);
export const SCRATCH: usize = USED + (1 << 17);
export const SCRATCH_BYTES: usize = 1 << 20;
export const PAGES: usize = (SCRATCH + SCRATCH_BYTES + PAGE - 1) & ~(PAGE - 1);
