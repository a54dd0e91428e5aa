/** Free blocks of 2^k units at multiples of 2^k: the largest in a word or node, and where there are any. */
import { FREE, bitOf, roomAt, roomsOf, slotBits } from './layout';

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

/** Order of a whole node, from its slots. */
export function computedOrder(node: usize, level: i32): i32 {
  const free = load<u64>(node, FREE);
  // A free slot is more than any mixed one can have.
  if (free != 0) return slotBits(level) + wordOrder(free);
  let order = slotBits(level);
  while (order > 0 && roomAt(node, level, order - 1) == 0) order--;
  return order;
}

/** Notes the order of a mixed slot; 0 for one that is no longer mixed. */
export function setRooms(node: usize, level: i32, slot: i32, order: i32): void {
  const bit = bitOf(slot);
  const rooms = roomsOf(node, level);
  for (let k = 0; k < slotBits(level); k++) {
    const at = rooms + ((<usize>k) << 3);
    store<u64>(at, (load<u64>(at) & ~bit) | (k < order ? bit : 0));
  }
}

/**
 * The slots of a node, or units of a leaf, in or at which an aligned free block of 2^k units begins; k is less than
 * that of the whole.
 */
@inline export function fitting(at: usize, level: i32, k: i32): u64 {
  const free = load<u64>(at, FREE);
  const bits = slotBits(level);
  return k >= bits ? alignedRuns(free, k - bits) : free | roomAt(at, level, k);
}
