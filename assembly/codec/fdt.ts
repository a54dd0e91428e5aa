/**
 * The flattened device tree (Devicetree Specification v0.4, chapter 5): what its reader and its writer share. All
 * numbers are big-endian.
 *
 *      header                     40 bytes; 36 in version 16, which lacks size_dt_struct
 *      memory reservation block   {u64 address, u64 size}..., ends with {0, 0}; aligned to 8
 *      structure block            tokens, aligned to 4
 *      strings block              the names of properties, each ends with 0
 *
 * The blocks may come in any order, with gaps.
 */
export const FDT_MAGIC: u32 = 0xd00dfeed;
export const FDT_VERSION: u32 = 17;
export const FDT_COMPATIBLE_VERSION: u32 = 16;

// Offsets in the header.
export const TOTAL_SIZE: usize = 4;
export const STRUCT_OFFSET: usize = 8;
export const STRINGS_OFFSET: usize = 12;
export const RESERVE_OFFSET: usize = 16;
export const HEADER_VERSION: usize = 20;
export const LAST_COMPATIBLE: usize = 24;
export const BOOT_CPU: usize = 28;
export const STRINGS_SIZE: usize = 32;
export const STRUCT_SIZE: usize = 36;
export const HEADER_SIZE: usize = 40;

// Tokens.
export const BEGIN_NODE: u32 = 1;
export const END_NODE: u32 = 2;
export const PROPERTY: u32 = 3;
export const NOP: u32 = 4;
export const FDT_END: u32 = 9;

@inline export function loadBig(at: usize): u32 {
  return bswap<u32>(load<u32>(at));
}
@inline export function loadBig64(at: usize): u64 {
  return bswap<u64>(load<u64>(at));
}
@inline export function storeBig(at: usize, value: u32): void {
  store<u32>(at, bswap<u32>(value));
}
@inline export function storeBig64(at: usize, value: u64): void {
  store<u64>(at, bswap<u64>(value));
}
@inline export function align4(size: usize): usize {
  return (size + 3) & ~3;
}
