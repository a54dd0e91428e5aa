/**
 * How packed rows say how long a range is, in the low four bits of their first byte: 4 KiB << code for code 0 to 14;
 * 15 says that the number of pages follows as the row's last number, since it is none of these.
 */
export const LENGTH_MASK: u32 = 15;
export const LENGTH_FOLLOWS: u32 = 15;

/** All addresses, lengths and offsets are multiples of 4 KiB, and packed in this unit. */
export const PAGE_SHIFT: u64 = 12;
export const PAGE_MASK: u64 = 0xfff;
/** Pages in 64 bits of address. */
export const ALL_PAGES: u64 = 1 << 52;

@inline export function lengthCode(pages: u64): u32 {
  const shift = <u32>ctz<u64>(pages);
  return (pages & (pages - 1)) == 0 && shift < LENGTH_FOLLOWS ? shift : LENGTH_FOLLOWS;
}
