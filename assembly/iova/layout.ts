/**
 * What the IOVA allocator keeps in memory.
 *
 * The address space is counted in units (the granule). Their states are bits in the leaves of a tree with 64 branches
 * per node, shaped like a page table: level 0 is a leaf of 64 units, a slot of a node at level l is 64^l units, and the
 * root, which is always there, spans the space.
 *
 *      leaf, 32 bytes                                   node, 384 bytes
 *      +0   u64 free    the unit is free                +0   u64 free    the slot is free throughout
 *      +8   u64 start   a block starts here             +8   u64 start   a block starts here and covers the slot
 *      +16  u64 kind0   kind of the block that          +16  u64 kind0   as in a leaf
 *      +24  u64 kind1   starts here, 0 elsewhere        +24  u64 kind1
 *                                                       +32  u64 mixed   the slot has a child
 *                                                       +40  u64 prefix  free units at its beginning,
 *                                                       +48  u64 longest its longest free run (DIRTY: not known),
 *                                                       +56  u64 suffix  and free units at its end
 *                                                       +64  u8[64] order of each slot
 *                                                       +128 u32[64] child of each mixed slot
 *
 * A unit that is neither free nor a start continues the block of the unit before. So a block needs bits where it
 * starts, its length follows from the next bit, and free neighbours are one run without being joined. A slot that is
 * free throughout, or lies within one block, has no child: the tree has one shape for each state of the space.
 *
 * The order of a slot is 1 + log2 of its largest free block of 2^k units at a multiple of 2^k, 0 without free units.
 */

export const FREE: usize = 0;
export const START: usize = 8;
export const KIND0: usize = 16;
export const KIND1: usize = 24;
export const LEAF_SIZE: usize = 32;
export const MIXED: usize = 32;
export const PREFIX: usize = 40;
export const LONGEST: usize = 48;
export const SUFFIX: usize = 56;
export const ORDERS: usize = 64;
export const CHILDREN: usize = 128;
export const NODE_SIZE: usize = 384;

/** In `longest`: a run below has changed since it was computed. Whoever has a dirty child is dirty. */
export const DIRTY: u64 = u64.MAX_VALUE;
/** No such unit. */
export const NONE: u64 = u64.MAX_VALUE;
export const ALL: u64 = u64.MAX_VALUE;
/** Level of the root for 2^58 units. */
export const MAX_LEVEL: i32 = 9;

/** Kinds of blocks. The first four are what the two kind bits say. */
export const ALLOCATED: i32 = 0;
export const RESERVED: i32 = 1;
export const RECYCLING: i32 = 2;
export const HOLE: i32 = 3;
export const UNUSED: i32 = 4;

export const OK: i32 = 0;
/** Nothing fits, or what was asked for is not wholly free. */
export const NO_SPACE: i32 = 1;
/** The WASM memory cannot grow any more; nothing was changed. */
export const NO_MEMORY: i32 = 2;
/** Not the start of a block of the kind in question. */
export const NOT_A_START: i32 = 3;
/** An argument out of its range. */
export const INVALID: i32 = 4;

/** log2 of the units in a slot at `level`. */
@inline export function slotBits(level: i32): i32 {
  return 6 * level;
}
@inline export function slotOf(unit: u64, level: i32): i32 {
  return <i32>(unit >> (<u64>slotBits(level))) & 63;
}
/** Mask of the units within a slot. */
@inline export function withinSlot(level: i32): u64 {
  return ((<u64>1) << (<u64>slotBits(level))) - 1;
}
@inline export function bitOf(slot: i32): u64 {
  return (<u64>1) << (<u64>slot);
}
/** Bits `from` to `to`, the latter excluded and up to 64; at least one. */
@inline export function bitsOf(from: i32, to: i32): u64 {
  return (ALL >> (<u64>(64 - (to - from)))) << (<u64>from);
}
/** Order of a slot at `level` that is free throughout, which is that of a child of it that is. */
@inline export function fullOrder(level: i32): i32 {
  return slotBits(level) + 1;
}
@inline export function has(at: usize, field: usize, bit: u64): bool {
  return (load<u64>(at + field) & bit) != 0;
}
@inline export function childAt(node: usize, slot: i32): usize {
  return <usize>load<u32>(node + ((<usize>slot) << 2), CHILDREN);
}
@inline export function setOrder(node: usize, slot: i32, order: i32): void {
  store<u8>(node + (<usize>slot), <u8>order, ORDERS);
}
@inline export function orderOf(node: usize, slot: i32): i32 {
  return <i32>load<u8>(node + (<usize>slot), ORDERS);
}
@inline export function kindAt(at: usize, bit: u64): i32 {
  return <i32>has(at, KIND0, bit) | (<i32>has(at, KIND1, bit) << 1);
}
@inline export function setKind(at: usize, bit: u64, kind: i32): void {
  store<u64>(at, (load<u64>(at, KIND0) & ~bit) | (kind & 1 ? bit : 0), KIND0);
  store<u64>(at, (load<u64>(at, KIND1) & ~bit) | (kind & 2 ? bit : 0), KIND1);
}
