/**
 * ARMv8 stage 1, granule 4 KiB, of 3 (39-bit) or 4 (48-bit) levels.
 *
 *      4:2 AttrIndx   6 AP[1] unprivileged too   7 AP[2] read-only   11 nG   51 DBM   53 PXN   54 UXN
 *      in tables: 60 XNTable   61 APTable[0] privileged only   62 APTable[1] read-only
 *
 * AttrIndx as the kernel sets MAIR up: 0 not cached, 1 cached, 2 device. With hardware dirty state a writeable leaf
 * has DBM, and is clean while it is read-only.
 */
import {
  HARDWARE_DIRTY, MEMORY, MEMORY_CACHED, MEMORY_DEVICE, MEMORY_OTHER, MEMORY_UNCACHED, NO_EXECUTE, PRIVILEGED, READABLE,
  WRITEABLE,
} from '../flags';
import { maskOf, shiftOf } from '../geometry';
import { ADDRESS, AF, DBM, SH_INNER, SH_OUTER, TYPE, UXN, XN, armKind, armLeaf, armReserved } from './arm';

const INDEX_CACHED: u64 = 1 << 2;
const INDEX_DEVICE: u64 = 2 << 2;
const UNPRIVILEGED: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const NOT_GLOBAL: u64 = 1 << 11;
const TABLE_XN: u64 = 1 << 60;
const TABLE_PRIVILEGED: u64 = 1 << 61;
const TABLE_READ_ONLY: u64 = 1 << 62;

@unmanaged export class ArmStage1 {
  @inline minTop(): i32 { return 2; }
  @inline maxTop(): i32 { return 3; }
  @inline grows(): bool { return false; }
  @inline addressBits(): i32 { return 48; }
  @inline sizes(): u64 { return (1 << 12) | (1 << 21) | (1 << 30); }
  @inline replicated(): bool { return false; }
  @inline allowedFlags(): u32 { return READABLE | WRITEABLE | NO_EXECUTE | PRIVILEGED | MEMORY; }
  @inline options(): u32 { return HARDWARE_DIRTY; }

  @inline kind(level: i32, entry: u64): i32 { return armKind(level, entry); }
  @inline isTable(level: i32, entry: u64): bool { return (entry & TYPE) == 3; }
  @inline isPage(entry: u64): bool { return (entry & TYPE) == 3; }
  @inline isEmpty(entry: u64): bool { return (entry & 1) == 0; }
  @inline child(entry: u64): u64 { return entry & ADDRESS; }
  @inline inheritAll(): u64 { return 0; }
  @inline inherit(inherited: u64, entry: u64): u64 {
    return inherited | (entry & (TABLE_XN | TABLE_PRIVILEGED | TABLE_READ_ONLY));
  }

  @inline sizeLog2(level: i32, entry: u64): i32 { return shiftOf(level); }
  @inline physical(entry: u64, sizeLog2: i32): u64 { return entry & ADDRESS & ~maskOf(sizeLog2); }
  @inline flags(entry: u64, inherited: u64): u32 {
    const index = entry & (7 << 2);
    const memory = index == INDEX_CACHED ? MEMORY_CACHED
      : index == 0 ? MEMORY_UNCACHED
      : index == INDEX_DEVICE ? MEMORY_DEVICE : MEMORY_OTHER;
    const writeable = ((entry & READ_ONLY) == 0 || (entry & DBM) != 0) && (inherited & TABLE_READ_ONLY) == 0;
    const privileged = (entry & UNPRIVILEGED) == 0 || (inherited & TABLE_PRIVILEGED) != 0;
    const noExecute = (entry & UXN) != 0 || (inherited & TABLE_XN) != 0;
    return READABLE | (writeable ? WRITEABLE : 0) | (privileged ? PRIVILEGED : 0) | (noExecute ? NO_EXECUTE : 0) | memory;
  }
  @inline attributes(level: i32, entry: u64): u64 { return entry & ~(ADDRESS | TYPE); }

  @inline encode(flags: u32, options: u32): u64 {
    const memory = flags & MEMORY;
    return AF | NOT_GLOBAL |
      (memory == MEMORY_CACHED ? INDEX_CACHED | SH_INNER : memory == MEMORY_DEVICE ? INDEX_DEVICE | SH_OUTER : SH_OUTER) |
      (flags & WRITEABLE ? (options & HARDWARE_DIRTY ? DBM : 0) : READ_ONLY) |
      (flags & PRIVILEGED ? 0 : UNPRIVILEGED) |
      (flags & NO_EXECUTE ? XN : 0);
  }
  @inline leaf(level: i32, sizeLog2: i32, physical: u64, attributes: u64): u64 { return armLeaf(level, physical, attributes); }
  @inline table(level: i32, physical: u64): u64 { return physical | 3; }

  @inline reserved(level: i32, kind: i32, entry: u64): u64 { return armReserved(level, kind, entry); }
  @inline marks(): u64 { return AF | READ_ONLY; }
  @inline tracksDirty(options: u32): bool { return (options & HARDWARE_DIRTY) != 0; }
  @inline isDirty(entry: u64): bool { return (entry & (READ_ONLY | DBM)) == DBM; }
  @inline clean(entry: u64): u64 { return entry | READ_ONLY; }
}
