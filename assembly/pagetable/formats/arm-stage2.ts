/**
 * ARMv8 stage 2, granule 4 KiB, of 3 (39-bit) or 4 (48-bit) levels. A root of several concatenated tables is not
 * supported.
 *
 *      5:2 MemAttr   6 S2AP[0] readable   7 S2AP[1] writeable   53, 54 XN
 *
 * MemAttr without FEAT_S2FWB: 1111 cached, 0101 not cached, 0001 device; 0110 is cached with it.
 */
import {
  MEMORY, MEMORY_CACHED, MEMORY_DEVICE, MEMORY_OTHER, MEMORY_UNCACHED, NO_EXECUTE, READABLE, TABLE, WRITEABLE,
} from '../flags';
import { maskOf, shiftOf } from '../geometry';
import { ADDRESS, AF, SH_INNER, SH_OUTER, TYPE, UXN, XN, armKind, armLeaf, armReserved } from './arm';

const CACHED: u64 = 0xf << 2;
const CACHED_FORCED: u64 = 0x6 << 2;
const UNCACHED: u64 = 0x5 << 2;
const DEVICE: u64 = 0x1 << 2;

@unmanaged export class ArmStage2 {
  @inline minTop(): i32 { return 2; }
  @inline maxTop(): i32 { return 3; }
  @inline grows(): bool { return false; }
  @inline addressBits(): i32 { return 48; }
  @inline sizes(): u64 { return (1 << 12) | (1 << 21) | (1 << 30); }
  @inline replicated(): bool { return false; }
  @inline allowedFlags(): u32 { return READABLE | WRITEABLE | NO_EXECUTE | MEMORY; }
  @inline options(): u32 { return 0; }

  @inline kind(level: i32, entry: u64): i32 { return armKind(level, entry); }
  @inline isTable(level: i32, entry: u64): bool { return (entry & TYPE) == 3; }
  @inline isPage(entry: u64): bool { return (entry & TYPE) == 3; }
  @inline isEmpty(entry: u64): bool { return (entry & 1) == 0; }
  @inline child(entry: u64): u64 { return entry & ADDRESS; }
  @inline inheritAll(): u64 { return 0; }
  @inline inherit(inherited: u64, entry: u64): u64 { return 0; }

  @inline sizeLog2(level: i32, entry: u64): i32 { return shiftOf(level); }
  @inline physical(entry: u64, sizeLog2: i32): u64 { return entry & ADDRESS & ~maskOf(sizeLog2); }
  @inline flags(entry: u64, inherited: u64): u32 {
    const attribute = entry & (0xf << 2);
    const memory = attribute == CACHED || attribute == CACHED_FORCED ? MEMORY_CACHED
      : attribute == UNCACHED ? MEMORY_UNCACHED
      : attribute == DEVICE ? MEMORY_DEVICE : MEMORY_OTHER;
    return <u32>((entry >> 6) & 3) | (entry & UXN ? NO_EXECUTE : 0) | memory;
  }
  @inline attributes(level: i32, entry: u64): u64 { return entry & ~(ADDRESS | TYPE); }

  @inline encode(flags: u32, options: u32): u64 {
    const memory = flags & MEMORY;
    return AF | ((<u64>(flags & 3)) << 6) | (flags & NO_EXECUTE ? XN : 0) |
      (memory == MEMORY_CACHED ? CACHED | SH_INNER : memory == MEMORY_DEVICE ? DEVICE | SH_OUTER : UNCACHED | SH_OUTER);
  }
  @inline leaf(level: i32, sizeLog2: i32, physical: u64, attributes: u64): u64 { return armLeaf(level, physical, attributes); }
  @inline table(level: i32, physical: u64): u64 { return physical | 3; }

  /** The hierarchical attributes of stage 1 tables, 63:59, are reserved here. */
  @inline reserved(level: i32, kind: i32, entry: u64): u64 {
    return armReserved(level, kind, entry) | (kind == TABLE ? entry & 0xf800_0000_0000_0000 : 0);
  }
  @inline marks(): u64 { return AF; }
  @inline tracksDirty(options: u32): bool { return false; }
  @inline isDirty(entry: u64): bool { return false; }
  @inline clean(entry: u64): u64 { return entry; }
}
