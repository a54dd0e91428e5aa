/**
 * Intel VT-d second stage, of 3, 4 or 5 levels (VT-d specification, sections 3.7 and 9.8).
 *
 *      0 R   1 W   7 PS (leaf, levels 1 and 2)   8 A   9 D   11 SNP   51:12 address
 *
 * There is no present bit: an entry without R and W is not present, and unless it is zero it is none of ours.
 */
import { BAD, EMPTY, LEAF, READABLE, SNOOP, TABLE, WRITEABLE } from '../flags';
import { maskOf, shiftOf } from '../geometry';

const R: u64 = 1;
const W: u64 = 1 << 1;
const PS: u64 = 1 << 7;
const A: u64 = 1 << 8;
const D: u64 = 1 << 9;
const SNP: u64 = 1 << 11;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

@unmanaged export class VtdSecondStage {
  @inline minTop(): i32 { return 2; }
  @inline maxTop(): i32 { return 4; }
  @inline grows(): bool { return false; }
  @inline addressBits(): i32 { return 52; }
  @inline sizes(): u64 { return (1 << 12) | (1 << 21) | (1 << 30); }
  @inline replicated(): bool { return false; }
  @inline allowedFlags(): u32 { return READABLE | WRITEABLE | SNOOP; }
  @inline options(): u32 { return 0; }

  @inline kind(level: i32, entry: u64): i32 {
    if ((entry & (R | W)) == 0) return entry == 0 ? EMPTY : BAD;
    if (level == 0) return LEAF;
    if ((entry & PS) == 0) return TABLE;
    return level <= 2 ? LEAF : BAD;
  }

  /** R or W, and no PS: 1, 2 or 3. */
  @inline isTable(level: i32, entry: u64): bool { return (entry & (R | W | PS)) - 1 < 3; }
  @inline isPage(entry: u64): bool { return (entry & (R | W)) != 0; }
  @inline isEmpty(entry: u64): bool { return entry == 0; }
  @inline child(entry: u64): u64 { return entry & ADDRESS; }
  @inline inheritAll(): u64 { return ~(<u64>0); }
  @inline inherit(inherited: u64, entry: u64): u64 { return inherited & entry; }

  @inline sizeLog2(level: i32, entry: u64): i32 { return shiftOf(level); }
  @inline physical(entry: u64, sizeLog2: i32): u64 { return entry & ADDRESS & ~maskOf(sizeLog2); }
  @inline flags(entry: u64, inherited: u64): u32 {
    return <u32>(entry & inherited & (R | W)) | <u32>((entry & SNP) >> 7);
  }
  @inline attributes(level: i32, entry: u64): u64 { return level == 0 ? entry & ~ADDRESS : entry & ~(ADDRESS | PS); }

  @inline encode(flags: u32, options: u32): u64 {
    return (<u64>(flags & 3)) | (flags & SNOOP ? SNP : 0);
  }
  @inline leaf(level: i32, sizeLog2: i32, physical: u64, attributes: u64): u64 {
    return attributes | physical | (level == 0 ? 0 : PS);
  }
  @inline table(level: i32, physical: u64): u64 { return R | W | physical; }

  @inline reserved(level: i32, kind: i32, entry: u64): u64 {
    return kind == LEAF ? entry & ADDRESS & maskOf(shiftOf(level)) : 0;
  }
  @inline marks(): u64 { return A | D; }
  @inline tracksDirty(options: u32): bool { return true; }
  @inline isDirty(entry: u64): bool { return (entry & D) != 0; }
  @inline clean(entry: u64): u64 { return entry & ~D; }
}
