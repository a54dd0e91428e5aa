/**
 * x86-64 page tables of 4 or 5 levels: VT-d first stage (VT-d specification, section 9.7), AMD guest tables.
 *
 *      0 P   1 RW   2 U   3 PWT   4 PCD   5 A   6 D   7 PS (leaf, levels 1 and 2; PAT at level 0)
 *      12 PAT (large leaves)   51:12 address   63 XD
 *
 * Leaves are written as the kernel does: accessed already, and dirty already where writeable.
 */
import {
  BAD, EMPTY, LEAF, MEMORY_OTHER, NO_EXECUTE, PRIVILEGED, READABLE, SIGN_EXTEND, TABLE, WRITEABLE,
} from '../flags';
import { maskOf, shiftOf } from '../geometry';

const P: u64 = 1;
const RW: u64 = 1 << 1;
const U: u64 = 1 << 2;
const PWT: u64 = 1 << 3;
const PCD: u64 = 1 << 4;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
/** Bit 7 in the attributes of a leaf of any size, as at level 0. */
const PAT: u64 = 1 << 7;
const LARGE_PAT: u64 = 1 << 12;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const XD: u64 = 1 << 63;

@unmanaged export class X86FirstStage {
  @inline minTop(): i32 { return 3; }
  @inline maxTop(): i32 { return 4; }
  @inline grows(): bool { return false; }
  @inline addressBits(): i32 { return 52; }
  @inline sizes(): u64 { return (1 << 12) | (1 << 21) | (1 << 30); }
  @inline replicated(): bool { return false; }
  @inline allowedFlags(): u32 { return READABLE | WRITEABLE | NO_EXECUTE | PRIVILEGED; }
  @inline options(): u32 { return SIGN_EXTEND; }

  @inline kind(level: i32, entry: u64): i32 {
    if ((entry & P) == 0) return EMPTY;
    if (level == 0) return LEAF;
    if ((entry & PS) == 0) return TABLE;
    return level <= 2 ? LEAF : BAD;
  }

  @inline isTable(level: i32, entry: u64): bool { return (entry & (P | PS)) == P; }
  @inline isPage(entry: u64): bool { return (entry & P) != 0; }
  @inline isEmpty(entry: u64): bool { return (entry & P) == 0; }
  @inline child(entry: u64): u64 { return entry & ADDRESS; }
  @inline inheritAll(): u64 { return RW | U; }
  /** RW and U are needed at every level, XD at one. */
  @inline inherit(inherited: u64, entry: u64): u64 { return (inherited & entry & (RW | U)) | ((inherited | entry) & XD); }

  @inline sizeLog2(level: i32, entry: u64): i32 { return shiftOf(level); }
  @inline physical(entry: u64, sizeLog2: i32): u64 { return entry & ADDRESS & ~maskOf(sizeLog2); }
  @inline flags(entry: u64, inherited: u64): u32 {
    const all = entry & inherited;
    // At level 0 bit 12 is of the address; PAT there goes unnoticed rather than a large leaf's PS taken for it.
    return READABLE | (all & RW ? WRITEABLE : 0) | (all & U ? 0 : PRIVILEGED) |
      ((entry | inherited) & XD ? NO_EXECUTE : 0) | (entry & (PWT | PCD) ? MEMORY_OTHER : 0);
  }
  @inline attributes(level: i32, entry: u64): u64 {
    if (level == 0) return entry & ~ADDRESS;
    return (entry & ~(ADDRESS | PS)) | (entry & LARGE_PAT ? PAT : 0);
  }

  @inline encode(flags: u32, options: u32): u64 {
    return P | A | (flags & WRITEABLE ? RW | D : 0) | (flags & PRIVILEGED ? 0 : U) | (flags & NO_EXECUTE ? XD : 0);
  }
  @inline leaf(level: i32, sizeLog2: i32, physical: u64, attributes: u64): u64 {
    if (level == 0) return attributes | physical;
    return (attributes & ~PAT) | (attributes & PAT ? LARGE_PAT : 0) | PS | physical;
  }
  @inline table(level: i32, physical: u64): u64 { return P | RW | U | A | physical; }

  @inline reserved(level: i32, kind: i32, entry: u64): u64 {
    return kind == LEAF ? entry & ADDRESS & maskOf(shiftOf(level)) & ~LARGE_PAT : 0;
  }
  @inline marks(): u64 { return A | D; }
  @inline tracksDirty(options: u32): bool { return true; }
  @inline isDirty(entry: u64): bool { return (entry & D) != 0; }
  @inline clean(entry: u64): u64 { return entry & ~D; }
}
