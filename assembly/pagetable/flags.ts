/** What every format says in bits of its own: the flags of a mapping, and the options of a table. */

export const READABLE: u32 = 1;
export const WRITEABLE: u32 = 2;
export const NO_EXECUTE: u32 = 4;
export const PRIVILEGED: u32 = 8;
/** Accesses are coherent whatever the device asks for: VT-d SNP, AMD FC. */
export const SNOOP: u32 = 16;
/** A field of two bits. */
export const MEMORY: u32 = 96;
export const MEMORY_CACHED: u32 = 0;
export const MEMORY_UNCACHED: u32 = 32;
export const MEMORY_DEVICE: u32 = 64;
/** Only ever read: an attribute this library does not write. */
export const MEMORY_OTHER: u32 = 96;

/** IOVAs of the upper half are sign-extended to 64 bits. */
export const SIGN_EXTEND: u32 = 1;
/** Leaves are written so that hardware may mark them dirty where that is a matter of choice (ARM DBM). */
export const HARDWARE_DIRTY: u32 = 2;

/** What an entry is. */
export const EMPTY: i32 = 0;
export const TABLE: i32 = 1;
export const LEAF: i32 = 2;
export const BAD: i32 = 3;
