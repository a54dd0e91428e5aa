/** The table that the operations work on. */
import { SIGN_EXTEND } from './flags';
import { maskOf, shiftOf } from './geometry';

export let root: u64 = 0;
/** Level of the root. */
export let top: i32 = 0;
export let options: u32 = 0;
/** Sizes of leaves that may be written. */
export let sizes: u64 = 0;
export let addressBits: i32 = 0;

export function setTable(newRoot: u64, newTop: i32): void {
  root = newRoot;
  top = newTop;
}

export function setRules(newOptions: u32, newSizes: u64, newAddressBits: i32): void {
  options = newOptions;
  sizes = newSizes;
  addressBits = newAddressBits;
}

/** The highest IOVA, before any sign extension. */
@inline export function highest(): u64 {
  return maskOf(shiftOf(top + 1));
}

/** The lowest bit that sign extension repeats. */
@inline function signShift(): u64 {
  return <u64>(64 - shiftOf(top + 1));
}

/** As the table counts: without the repeated sign. */
@inline export function inward(iova: u64): u64 {
  return iova & highest();
}

/** As the device says it. */
@inline export function outward(va: u64): u64 {
  if ((options & SIGN_EXTEND) == 0) return va;
  return <u64>(((<i64>va) << (<i64>signShift())) >> (<i64>signShift()));
}

/** Whether the table can translate all of `first..last`, which is one range on the inside too. */
@inline export function covers(first: u64, last: u64): bool {
  if (last < first) return false;
  if ((options & SIGN_EXTEND) == 0) return last <= highest();
  // Both in one half: what lies between the halves cannot be translated.
  return outward(inward(first)) == first && outward(inward(last)) == last && (first ^ last) >> 63 == 0;
}
