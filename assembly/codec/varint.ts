/**
 * Numbers of variable length: seven bits a byte, the lowest first, bit 7 set on all but the last (LEB128). One number
 * has one form: no last byte of 0, and at most 8 bytes, which are the 56 bits that page numbers and their differences
 * need.
 */

/** Where readNumber() stopped; 0 when what it found was no number. */
export let numberEnd: usize = 0;

export function readNumber(at: usize, end: usize): u64 {
  let value: u64 = 0;
  const limit = end - at > 8 ? at + 8 : end;
  for (let shift: u64 = 0; at < limit; shift += 7) {
    const byte = load<u8>(at++);
    value |= <u64>(byte & 0x7f) << shift;
    if (byte < 0x80) {
      numberEnd = byte == 0 && shift != 0 ? 0 : at;
      return value;
    }
  }
  numberEnd = 0;
  return 0;
}

/** @returns where it ends */
@inline export function writeNumber(at: usize, value: u64): usize {
  while (value >= 0x80) {
    store<u8>(at++, <u8>value | 0x80);
    value >>>= 7;
  }
  store<u8>(at, <u8>value);
  return at + 1;
}

/** Small differences, either way, to small numbers. */
@inline export function fold(difference: i64): u64 {
  return <u64>((difference << 1) ^ (difference >> 63));
}
@inline export function unfold(value: u64): i64 {
  return <i64>(value >>> 1) ^ -<i64>(value & 1);
}
