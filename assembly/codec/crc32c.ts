/**
 * CRC32C (Castagnoli; RFC 3720 section 12.1), eight bytes a step: table k holds the CRC of a byte that is followed by
 * k zero bytes, so that eight independent look-ups replace eight dependent ones.
 */
import { CRC_TABLES } from './memory';

/** 0x1edc6f41 with its bits reversed. */
const POLYNOMIAL: u32 = 0x82f63b78;

@inline function table(index: u32, byte: u32): u32 {
  return load<u32>(CRC_TABLES + <usize>(index << 10) + <usize>(byte << 2));
}

/** Fills the tables; once per instance, before anything else. */
export function codecStart(): void {
  for (let byte: u32 = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    store<u32>(CRC_TABLES + <usize>(byte << 2), crc);
  }
  for (let index: u32 = 1; index < 8; index++) {
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
  const steps = at + (length & ~7);
  for (; at < steps; at += 8) {
    const word = load<u64>(at) ^ <u64>value;
    const low = <u32>word;
    const high = <u32>(word >>> 32);
    value =
      table(7, low & 0xff) ^
      table(6, (low >>> 8) & 0xff) ^
      table(5, (low >>> 16) & 0xff) ^
      table(4, low >>> 24) ^
      table(3, high & 0xff) ^
      table(2, (high >>> 8) & 0xff) ^
      table(1, (high >>> 16) & 0xff) ^
      table(0, high >>> 24);
  }
  for (; at < end; at++) value = (value >>> 8) ^ table(0, (value ^ load<u8>(at)) & 0xff);
  return ~value;
}
