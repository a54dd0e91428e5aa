/**
 * CRC32C (Castagnoli; RFC 3720 section 12.1), sixteen bytes a step: table k holds the CRC of a byte that is followed
 * by k zero bytes, so that sixteen independent look-ups replace sixteen dependent ones.
 */
import { CRC_TABLES } from './memory';

/** 0x1edc6f41 with its bits reversed. */
const POLYNOMIAL: u32 = 0x82f63b78;

@inline function table(index: u32, byte: u32): u32 {
  return load<u32>(CRC_TABLES + <usize>(index << 10) + <usize>(byte << 2));
}

/** The CRC of four bytes that are followed by `index` others. */
@inline function fold(index: u32, word: u32): u32 {
  return (
    table(index + 3, word & 0xff) ^
    table(index + 2, (word >>> 8) & 0xff) ^
    table(index + 1, (word >>> 16) & 0xff) ^
    table(index, word >>> 24)
  );
}

/** Fills the tables; once per instance, before anything else. */
export function codecStart(): void {
  for (let byte: u32 = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    store<u32>(CRC_TABLES + <usize>(byte << 2), crc);
  }
  for (let index: u32 = 1; index < 16; index++) {
    for (let byte: u32 = 0; byte < 256; byte++) {
      const before = table(index - 1, byte);
      store<u32>(CRC_TABLES + <usize>((index << 10) + (byte << 2)), (before >>> 8) ^ table(0, before & 0xff));
    }
  }
}

/** The CRC of what `crc` covers, followed by `length` bytes at `at`; starts from 0. */
export function codecCrc32c(crc: u32, at: usize, length: usize): u32 {
  let value = ~crc;
  const end = at + length;
  const steps = at + (length & ~15);
  for (; at < steps; at += 16) {
    const first = load<u64>(at) ^ <u64>value;
    const second = load<u64>(at, 8);
    value = fold(8, <u32>(first >>> 32)) ^ fold(12, <u32>first) ^ fold(0, <u32>(second >>> 32)) ^ fold(4, <u32>second);
  }
  for (; at < end; at++) value = (value >>> 8) ^ table(0, (value ^ load<u8>(at)) & 0xff);
  return ~value;
}
