/**
 * AMD IOMMU, v1 page tables (AMD I/O Virtualization Technology Specification, section 2.2.3).
 *
 *      0 PR   5 A   6 D   11:9 next level   51:12 address   60 FC   61 IR   62 IW
 *
 * Next level 0 is a leaf of the level's own size, 7 a leaf whose size is in the address: the lowest clear bit of
 * 51:12 is half the size, and all bits below it are ones. Such a leaf is repeated in every slot that it covers.
 */
import { BAD, EMPTY, LEAF, READABLE, SNOOP, TABLE, WRITEABLE } from '../flags';
import { maskOf, shiftOf } from '../geometry';

const PR: u64 = 1;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const NEXT: u64 = 7 << 9;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const FC: u64 = 1 << 60;
const IR: u64 = 1 << 61;
const IW: u64 = 1 << 62;

/** log2 of the size that a leaf with next level 7 spells out. */
@inline function spelt(entry: u64): i32 {
  return <i32>ctz(~(entry | 0xfff)) + 1;
}

@unmanaged export class AmdV1 {
  @inline minTop(): i32 { return 1; }
  @inline maxTop(): i32 { return 5; }
  @inline grows(): bool { return true; }
  @inline addressBits(): i32 { return 52; }
  /** Every power of two from 4 KiB to 2 PiB but 512 GiB, which hardware gets wrong. */
  @inline sizes(): u64 { return 0x000f_ff7f_ffff_f000; }
  @inline replicated(): bool { return true; }
  @inline allowedFlags(): u32 { return READABLE | WRITEABLE | SNOOP; }
  @inline options(): u32 { return 0; }

  @inline kind(level: i32, entry: u64): i32 {
    if ((entry & PR) == 0) return EMPTY;
    const next = <i32>((entry & NEXT) >> 9);
    if (next == 0) return level == 5 || level == 3 ? BAD : LEAF;
    if (next == 7) {
      const size = spelt(entry);
      const own = shiftOf(level);
      return size < own || size > own + 8 || size > 51 || size == 39 ? BAD : LEAF;
    }
    // The level that the child's entries are of, counted from 1. Skipping levels is legal, but nobody does it.
    return next == level ? TABLE : BAD;
  }

  @inline isTable(level: i32, entry: u64): bool { return (entry & (NEXT | PR)) == (((<u64>level) << 9) | PR); }
  @inline isPage(entry: u64): bool { return this.kind(0, entry) == LEAF; }
  @inline isEmpty(entry: u64): bool { return (entry & PR) == 0; }
  @inline child(entry: u64): u64 { return entry & ADDRESS; }
  @inline inheritAll(): u64 { return ~(<u64>0); }
  @inline inherit(inherited: u64, entry: u64): u64 { return inherited & entry; }

  @inline sizeLog2(level: i32, entry: u64): i32 {
    return (entry & NEXT) == 0 ? shiftOf(level) : spelt(entry);
  }
  @inline physical(entry: u64, sizeLog2: i32): u64 { return entry & ADDRESS & ~maskOf(sizeLog2); }
  @inline flags(entry: u64, inherited: u64): u32 {
    return <u32>(((entry & inherited) >> 61) & 3) | (<u32>((entry & FC) >> 60) << 4);
  }
  @inline attributes(level: i32, entry: u64): u64 { return entry & ~(ADDRESS | NEXT); }

  @inline encode(flags: u32, options: u32): u64 {
    return PR | ((<u64>(flags & 3)) << 61) | (flags & SNOOP ? FC : 0);
  }
  @inline leaf(level: i32, sizeLog2: i32, physical: u64, attributes: u64): u64 {
    if (sizeLog2 == shiftOf(level)) return attributes | physical;
    return attributes | NEXT | physical | (maskOf(sizeLog2 - 1) & ADDRESS);
  }
  @inline table(level: i32, physical: u64): u64 {
    return PR | ((<u64>level) << 9) | physical | IR | IW;
  }

  @inline reserved(level: i32, kind: i32, entry: u64): u64 {
    if (kind == TABLE) return entry & 0x1ff0_0000_0000_0000;
    const low = (entry & NEXT) == 0 ? maskOf(shiftOf(level)) & ADDRESS : 0;
    return entry & (0x07f0_0000_0000_0000 | low);
  }
  @inline marks(): u64 { return A | D; }
  @inline tracksDirty(options: u32): bool { return true; }
  @inline isDirty(entry: u64): bool { return (entry & D) != 0; }
  @inline clean(entry: u64): u64 { return entry & ~D; }
}
