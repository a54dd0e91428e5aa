/**
 * What both stages of ARMv8 long-descriptor tables share, with a granule of 4 KiB (Arm Architecture Reference Manual,
 * VMSAv8-64 translation table format descriptors).
 *
 *      1:0 type: 1 block (levels 1 and 2), 3 table, or page at level 0   47:12 address   10 AF   9:8 SH
 *
 * The manual counts levels from the root down, 3 being the one that maps 4 KiB; here that is 0.
 */
import { BAD, EMPTY, LEAF, TABLE } from '../flags';
import { maskOf, shiftOf } from '../geometry';

export const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
export const TYPE: u64 = 3;
export const SH_OUTER: u64 = 2 << 8;
export const SH_INNER: u64 = 3 << 8;
export const AF: u64 = 1 << 10;
export const DBM: u64 = 1 << 51;
export const XN: u64 = 3 << 53;
export const UXN: u64 = 1 << 54;

@inline export function armKind(level: i32, entry: u64): i32 {
  if ((entry & 1) == 0) return EMPTY;
  if (level == 0) return (entry & 2) != 0 ? LEAF : BAD;
  if ((entry & 2) != 0) return TABLE;
  return level <= 2 ? LEAF : BAD;
}

@inline export function armLeaf(level: i32, physical: u64, attributes: u64): u64 {
  return attributes | physical | (level == 0 ? 3 : 1);
}

/** Bits 49:48 in a leaf, 50:48 in a table, and the address bits below a block's size. */
@inline export function armReserved(level: i32, kind: i32, entry: u64): u64 {
  if (kind == TABLE) return entry & 0x0007_0000_0000_0000;
  return entry & (0x0003_0000_0000_0000 | (ADDRESS & maskOf(shiftOf(level))));
}
