/**
 * What the IOVA allocator keeps in memory.
 *
 * The address space is counted in units (the granule). Their states are bits in the leaves of a tree with 64 branches
 * per node, shaped like a page table: level 0 is a leaf of 64 units, a slot of a node at level l is 64^l units, and the
 * root, which is always there, spans the space.
 *
 *      leaf, 32 bytes                                   node, 832 bytes, 128 at level 1
 *      +0   u64 free    the unit is free                +0   u64 free    the slot is free throughout
 *      +8   u64 start   a block starts here             +8   u64 start   a block starts here and covers the slot
 *      +16  u64 kind0   kind of the block that          +16  u64 mixed   the slot has a child
 *      +24  u64 kind1   starts here, 0 elsewhere        +24  u32 order   of the node
 *                                                       +28  u32 run     as longest below, level 1 only
 *                                                       +32  u32[8] groups of leaves, level 1 only
 *                                                       +32  u32 parent, from level 2 on, 0 for the root
 *                                                       +64  u64 kind0   as in a leaf
 *                                                       +72  u64 kind1
 *                                                       +80  u64[6] rooms, level 1; from level 2 on:
 *                                                       +80  u64 longest its longest free run (DIRTY: not known),
 *                                                       +88  u64 prefix  free units at its beginning
 *                                                       +96  u64 suffix  and at its end, where longest is known
 *                                                       +128 u32[64] children
 *                                                       +384 u64[6 l] rooms
 *
 * A unit that is neither free nor a start continues the block of the unit before. So a block needs bits where it
 * starts, its length follows from the next bit, and free neighbours are one run without being joined. A slot that is
 * free throughout, or lies within one block, has no child: the tree has one shape for each state of the space.
 *
 * The order of a part is 1 + log2 of its largest free block of 2^k units at a multiple of 2^k, 0 without free units.
 * Word k of a node's rooms has the mixed slots with such a block, those of an order above k. (Words, since a
 * processor has them at once after it wrote them, which it has not for a vector over the bytes that it wrote.)
 *
 * Most of what random calls touch is nodes at level 1 and leaves, so these are small. Leaves live in groups of eight
 * neighbours, made for the first and dropped with the last of them: a node needs few words to find them.
 */

export const FREE: usize = 0;
export const START: usize = 8;
export const LEAF_KINDS: usize = 16;
export const MIXED: usize = 16;
export const ORDER: usize = 24;
export const RUN: usize = 28;
export const GROUPS: usize = 32;
export const PARENT: usize = 32;
export const NODE_KINDS: usize = 64;
/** The second word of kinds after the first. */
export const KIND1: usize = 8;
export const BOTTOM_ROOMS: usize = 80;
export const LONGEST: usize = 80;
export const PREFIX: usize = 88;
export const SUFFIX: usize = 96;
export const CHILDREN: usize = 128;
export const ROOMS: usize = 384;

export const LEAF_SIZE: usize = 32;
export const BOTTOM_SIZE: usize = 128;
export const UPPER_SIZE: usize = 832;
/** Leaves in a group. */
export const GROUP: i32 = 8;

/** In `longest` and `run`: what is below has changed since it was computed. Whoever has a dirty child is dirty. */
export const DIRTY: u64 = u64.MAX_VALUE;
export const DIRTY_RUN: u32 = u32.MAX_VALUE;
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
/** Where the leaf of a slot at level 1 is, or was. */
@inline export function leafAt(node: usize, slot: i32): usize {
  const group = <usize>load<u32>(node + (((<usize>slot) >> 3) << 2), GROUPS);
  return group + ((<usize>slot) & 7) * LEAF_SIZE;
}
/** The slots that share a group with `slot`. */
@inline export function groupBits(slot: i32): u64 {
  return (<u64>0xff) << (<u64>(slot & ~7));
}
@inline export function childAt(node: usize, level: i32, slot: i32): usize {
  return level == 1 ? leafAt(node, slot) : <usize>load<u32>(node + ((<usize>slot) << 2), CHILDREN);
}
/** Where the rooms of a node are: 6 words for each level. */
@inline export function roomsOf(node: usize, level: i32): usize {
  return node + (level == 1 ? BOTTOM_ROOMS : ROOMS);
}
@inline export function roomAt(node: usize, level: i32, k: i32): u64 {
  return load<u64>(roomsOf(node, level) + ((<usize>k) << 3));
}
@inline function kindsOf(at: usize, level: i32): usize {
  return at + (level == 0 ? LEAF_KINDS : NODE_KINDS);
}
@inline export function kindAt(at: usize, level: i32, bit: u64): i32 {
  const kinds = kindsOf(at, level);
  return <i32>has(kinds, 0, bit) | (<i32>has(kinds, KIND1, bit) << 1);
}
/** Where blocks start that are not allocated. */
@inline export function otherThanAllocated(at: usize, level: i32): u64 {
  const kinds = kindsOf(at, level);
  return load<u64>(kinds) | load<u64>(kinds, KIND1);
}
/** Kinds of the blocks that start at `bits`. */
@inline export function setKinds(at: usize, level: i32, bits: u64, kind: i32): void {
  const kinds = kindsOf(at, level);
  store<u64>(kinds, (load<u64>(kinds) & ~bits) | (kind & 1 ? bits : 0));
  store<u64>(kinds, (load<u64>(kinds, KIND1) & ~bits) | (kind & 2 ? bits : 0), KIND1);
}
/** Free units at the longest, DIRTY when it is not known. Not for leaves. */
@inline export function longestRun(node: usize, level: i32): u64 {
  if (level != 1) return load<u64>(node, LONGEST);
  const run = load<u32>(node, RUN);
  return run == DIRTY_RUN ? DIRTY : <u64>run;
}
@inline export function setLongestRun(node: usize, level: i32, units: u64): void {
  if (level == 1) store<u32>(node, <u32>units, RUN);
  else store<u64>(node, units, LONGEST);
}
