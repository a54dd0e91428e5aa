/** Tables of 512 entries over pages of 4 KiB: which bits of an IOVA pick what. Level 0 maps 4 KiB. */
import { PAGE_SHIFT, SLOTS } from './layout';

/** log2 of what one entry of a level spans. */
@inline export function shiftOf(level: i32): i32 {
  return PAGE_SHIFT + 9 * level;
}

@inline export function indexOf(level: i32, va: u64): i32 {
  return <i32>(va >> (<u64>shiftOf(level))) & (SLOTS - 1);
}

/** The low bits of an address within `2^log2` bytes. */
@inline export function maskOf(log2: i32): u64 {
  return log2 >= 64 ? ~(<u64>0) : ((<u64>1) << (<u64>log2)) - 1;
}

/** Which of all the tables of that level covers `va`. */
@inline export function tableId(level: i32, va: u64): u64 {
  const shift = shiftOf(level + 1);
  return shift >= 64 ? 0 : va >> (<u64>shift);
}
