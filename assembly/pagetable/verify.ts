/**
 * Is a table sound? Every table page reachable, in use and reached once; every entry legal at its level; reserved bits
 * zero; replicated leaves alike. And: how many leaves of which size.
 *
 * Findings, 40 bytes:
 *
 *      +0        u64 iova       of the first byte the entry is for
 *      +8        u64 value
 *      +16       u64 table      physical address of the page that holds the entry; for the root, 0
 *      +24       u64 bits       the reserved ones, where it is about those
 *      +32       u16 index
 *      +34       u8  level      of the entry; for the root, one more than the top
 *      +35       u8  status
 */
import { BAD, LEAF, TABLE } from './flags';
import { shiftOf } from './geometry';
import { COUNTS, SLOTS } from './layout';
import { inUse, lookup } from './memory';
import { nextGeneration, replicasAgree, stamp } from './path';
import { ILLEGAL_ENTRY, OK, OUTSIDE_MEMORY, REPLICAS_DIFFER, RESERVED_BITS, SHARED_TABLE } from './status';
import { outward, root, top } from './table';

const FINDING: usize = 40;

let to: usize = 0;
let left: i32 = 0;

function find(status: i32, at: i32, va: u64, table: u64, index: i32, value: u64, bits: u64): void {
  if (left == 0) return;
  store<u64>(to, outward(va));
  store<u64>(to, value, 8);
  store<u64>(to, table, 16);
  store<u64>(to, bits, 24);
  store<u16>(to, <u16>index, 32);
  store<u8>(to, <u8>at, 34);
  store<u8>(to, <u8>status, 35);
  store<u32>(to, 0, 36);
  to += FINDING;
  left--;
}

function tallyLeaf(size: i32): void {
  const place = COUNTS + ((<usize>size) << 3);
  store<u64>(place, load<u64>(place) + 1);
}

/** Whether a table may be gone into; the second time it may not. */
function reach(physical: u64): i32 {
  const page = lookup(physical);
  if (page == 0 || !inUse(physical)) return OUTSIDE_MEMORY;
  return stamp(page) ? OK : SHARED_TABLE;
}

function verifyTable<F>(at: i32, base: u64, physical: u64): void {
  const format = changetype<F>(0);
  const table = lookup(physical);
  const own = shiftOf(at);
  const slots = at == 5 ? 128 : SLOTS;
  tallyLeaf(64);
  let index = 0;
  while (index < slots && left > 0) {
    const value = load<u64>(table + ((<usize>index) << 3));
    const va = base + ((<u64>index) << (<u64>own));
    const kind = format.kind(at, value);
    let step = 1;
    if (kind == BAD) {
      find(ILLEGAL_ENTRY, at, va, physical, index, value, 0);
    } else if (kind == TABLE || kind == LEAF) {
      const bits = format.reserved(at, kind, value);
      if (bits != 0) find(RESERVED_BITS, at, va, physical, index, value, bits);
      if (kind == TABLE) {
        const child = format.child(value);
        const status = reach(child);
        if (status == OK) verifyTable<F>(at - 1, va, child);
        else find(status, at, va, physical, index, value, 0);
      } else {
        const size = format.sizeLog2(at, value);
        tallyLeaf(size);
        if (format.replicated() && size != own) {
          // Also where one is met away from its first slot: that one holds something else then.
          if (!replicasAgree<F>(at, table, index, size)) {
            find(REPLICAS_DIFFER, at, va, physical, index, value, 0);
          } else {
            step = 1 << (size - own);
          }
        }
      }
    }
    index += step;
  }
}

/** Writes up to `capacity` findings to `buffer` and returns how many there are; COUNTS has the sizes. */
export function verify<F>(buffer: usize, capacity: i32): i32 {
  to = buffer;
  left = capacity;
  nextGeneration();
  memory.fill(COUNTS, 0, 65 * 8);
  const status = reach(root);
  if (status != OK) find(status, top + 1, 0, 0, 0, root, 0);
  else verifyTable<F>(top, 0, root);
  return capacity - left;
}
