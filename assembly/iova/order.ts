/** Free blocks of 2^k units at multiples of 2^k: the largest in a word or node, and where there are any. */
import { FREE, ORDERS, slotBits } from './layout';

/** The bits of `word` at multiples of 2^k that begin 2^k set bits; k is 0 to 6. */
@inline export function alignedRuns(word: u64, k: i32): u64 {
  if (k > 0) word &= (word >> 1) & 0x5555_5555_5555_5555;
  if (k > 1) word &= (word >> 2) & 0x1111_1111_1111_1111;
  if (k > 2) word &= (word >> 4) & 0x0101_0101_0101_0101;
  if (k > 3) word &= (word >> 8) & 0x0001_0001_0001_0001;
  if (k > 4) word &= (word >> 16) & 0x0000_0001_0000_0001;
  if (k > 5) word &= (word >> 32) & 1;
  return word;
}

/** 1 + the largest k with an aligned run of 2^k bits, 0 for an empty word. */
@inline export function wordOrder(word: u64): i32 {
  if (word == 0) return 0;
  word &= (word >> 1) & 0x5555_5555_5555_5555;
  if (word == 0) return 1;
  word &= (word >> 2) & 0x1111_1111_1111_1111;
  if (word == 0) return 2;
  word &= (word >> 4) & 0x0101_0101_0101_0101;
  if (word == 0) return 3;
  word &= (word >> 8) & 0x0001_0001_0001_0001;
  if (word == 0) return 4;
  word &= (word >> 16) & 0x0000_0001_0000_0001;
  if (word == 0) return 5;
  return (word & (word >> 32)) == 0 ? 6 : 7;
}

/** Order of a whole node; that of the level above's full slot when it is free throughout. */
@inline export function nodeOrder(node: usize, level: i32): i32 {
  const free = load<u64>(node, FREE);
  // A free slot is more than any mixed one can have.
  return free != 0 ? slotBits(level) + wordOrder(free) : largestOrder(node);
}

function largestOrder(node: usize): i32 {
  let most = i8x16.max_u(
    i8x16.max_u(v128.load(node, ORDERS), v128.load(node, ORDERS + 16)),
    i8x16.max_u(v128.load(node, ORDERS + 32), v128.load(node, ORDERS + 48)),
  );
  most = i8x16.max_u(most, i8x16.shuffle(most, most, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  most = i8x16.max_u(most, i8x16.shuffle(most, most, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3));
  most = i8x16.max_u(most, i8x16.shuffle(most, most, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1));
  most = i8x16.max_u(most, i8x16.shuffle(most, most, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0));
  return <i32>i8x16.extract_lane_u(most, 0);
}

/** The slots whose order is at least `order`. */
@inline export function slotsOfOrder(node: usize, order: i32): u64 {
  const least = i8x16.splat(<i8>order);
  const a = <u32>i8x16.bitmask(i8x16.ge_u(v128.load(node, ORDERS), least));
  const b = <u32>i8x16.bitmask(i8x16.ge_u(v128.load(node, ORDERS + 16), least));
  const c = <u32>i8x16.bitmask(i8x16.ge_u(v128.load(node, ORDERS + 32), least));
  const d = <u32>i8x16.bitmask(i8x16.ge_u(v128.load(node, ORDERS + 48), least));
  return (<u64>(a | (b << 16))) | ((<u64>(c | (d << 16))) << 32);
}

/** The slots of a node, or units of a leaf, in or at which an aligned free block of 2^k units begins; k as high as `level` has it. */
@inline export function fitting(at: usize, level: i32, k: i32): u64 {
  const bits = slotBits(level);
  return k >= bits ? alignedRuns(load<u64>(at, FREE), k - bits) : slotsOfOrder(at, k + 1);
}
