/**
 * Walks over a range that the caller takes in parts. CURSOR holds the state between the parts; the caller keeps it
 * elsewhere when another operation comes between.
 *
 *      +0        u64 next       without the repeated sign
 *      +8        u64 last
 *      +16       record         the one being put together, as below; length 0: none
 *      +48       u32 mode
 *      +52       u32 entered    tables so far
 *      +56       u32 state      0 not begun, 1 under way, 2 at the end, 3 at the end but for the record
 *      +60       i32 status     of the error to report next
 *
 * Records, 32 bytes, are the same in and out:
 *
 *      +0        u64 iova
 *      +8        u64 length
 *      +16       u64 physical
 *      +24       u32 flags
 *      +28       u32 0
 */
import { BAD, LEAF, SIGN_EXTEND, TABLE } from './flags';
import { indexOf, maskOf, shiftOf } from './geometry';
import { CURSOR, SLOTS } from './layout';
import { begin, descend, entered, failAt, inheritedAt, level, place, replicasAgree } from './path';
import { ILLEGAL_ENTRY, OK, REPLICAS_DIFFER, UNSUPPORTED } from './status';
import { highest, inward, options, outward } from './table';
import { checkRange } from './unmap';

/** Mappings, joined over leaves where IOVA, physical address and flags go on. */
export const EXTENTS: u32 = 0;
/** One record for every leaf, whole. */
export const LEAVES: u32 = 1;
/** Leaves that are dirty, whole, joined where the IOVA goes on; the physical address says nothing. */
export const DIRTY: u32 = 2;
/** The same, and they are clean afterwards. */
export const CLEAR_DIRTY: u32 = 3;

const RECORD: usize = 32;
const NOT_BEGUN: u32 = 0;
const UNDER_WAY: u32 = 1;
const AT_END: u32 = 2;
const LAST_RECORD: u32 = 3;

/** Starts a walk over `first..last`, cut down to what the table can translate. */
export function startWalk<F>(first: u64, last: u64, mode: u32): i32 {
  const format = changetype<F>(0);
  memory.fill(CURSOR, 0, 64);
  store<u32>(CURSOR, AT_END, 56);
  if (mode >= DIRTY && !format.tracksDirty(options)) return UNSUPPORTED;
  if ((options & SIGN_EXTEND) == 0) {
    if (last < first || first > highest()) return OK;
    last = min(last, highest());
  } else {
    // The halves adjoin on the inside. An address between them stands for the start, or the end, of the hole.
    const half = (highest() >> 1) + 1;
    if (last < first) return OK;
    first = outward(inward(first)) == first ? inward(first) : half;
    last = outward(inward(last)) == last ? inward(last) : half - 1;
    if (last < first) return OK;
  }
  if (mode == CLEAR_DIRTY) {
    const status = checkRange<F>(first, last);
    if (status != OK) return status;
  }
  store<u64>(CURSOR, first);
  store<u64>(CURSOR, last, 8);
  store<u32>(CURSOR, mode, 48);
  store<u32>(CURSOR, NOT_BEGUN, 56);
  return OK;
}

/**
 * Fills `to` with up to `capacity` records.
 *
 * @returns how many; fewer than `capacity` at the end; an error as its negative status, after the records before it
 */
export function walk<F>(to: usize, capacity: i32): i32 {
  const format = changetype<F>(0);
  const state = load<u32>(CURSOR, 56);
  if (state == AT_END) {
    const status = load<i32>(CURSOR, 60);
    return -status;
  }
  const mode = load<u32>(CURSOR, 48);
  const last = load<u64>(CURSOR, 8);
  let va = load<u64>(CURSOR);
  let iova = load<u64>(CURSOR, 16);
  let length = load<u64>(CURSOR, 24);
  let physical = load<u64>(CURSOR, 32);
  let flags = load<u32>(CURSOR, 40);
  let count = 0;
  let status = OK;
  let done = state == LAST_RECORD;
  if (!done) status = begin<F>(load<u32>(CURSOR, 52), state != NOT_BEGUN);

  while (!done && status == OK) {
    status = descend<F>(va, 0);
    if (status != OK) break;
    const own = shiftOf(level);
    const inherited = inheritedAt(level);
    let index = indexOf(level, va);
    while (true) {
      const slot = place + ((<usize>index) << 3);
      const value = load<u64>(slot);
      const kind = format.kind(level, value);
      if (kind == TABLE) break;
      let size = own;
      let end = va | maskOf(own);
      if (kind == LEAF) {
        size = format.sizeLog2(level, value);
        if (format.replicated() && size != own && !replicasAgree<F>(level, place, index, size)) {
          status = failAt(REPLICAS_DIFFER, level, va);
          break;
        }
        end = va | maskOf(size);
        if (mode < DIRTY || takeDirty<F>(level, place, index, size, mode == CLEAR_DIRTY)) {
          let start = va & ~maskOf(size);
          let leafPhysical = format.physical(value, size);
          let bytes = maskOf(size) + 1;
          let leafFlags = format.flags(value, inherited);
          if (mode == EXTENTS) {
            // Of the first and the last leaf only what is in the range.
            leafPhysical += va - start;
            start = va;
            bytes = min(end, last) - va + 1;
          } else if (mode >= DIRTY) {
            leafPhysical = 0;
            leafFlags = 0;
          }
          const leafIova = outward(start);
          if (
            length != 0 &&
            mode != LEAVES &&
            iova + length == leafIova &&
            (mode >= DIRTY || (physical + length == leafPhysical && flags == leafFlags))
          ) {
            length += bytes;
          } else {
            if (length != 0) {
              put(to, iova, length, physical, flags);
              to += RECORD;
              count++;
            }
            iova = leafIova;
            length = bytes;
            physical = leafPhysical;
            flags = leafFlags;
          }
        }
        index += <i32>((end - va) >> (<u64>own)) + 1;
      } else if (kind == BAD) {
        status = failAt(ILLEGAL_ENTRY, level, va);
        break;
      } else {
        index++;
      }
      if (end >= last) {
        done = true;
        break;
      }
      va = end + 1;
      if (index >= SLOTS || count == capacity) break;
    }
    if (count == capacity) break;
  }

  let next = UNDER_WAY;
  if (status != OK || done) {
    next = LAST_RECORD;
    if (length == 0) next = AT_END;
    else if (count < capacity) {
      put(to, iova, length, physical, flags);
      count++;
      length = 0;
      next = AT_END;
    }
  }
  store<u64>(CURSOR, va);
  store<u64>(CURSOR, iova, 16);
  store<u64>(CURSOR, length, 24);
  store<u64>(CURSOR, physical, 32);
  store<u32>(CURSOR, flags, 40);
  store<u32>(CURSOR, entered, 52);
  store<u32>(CURSOR, next, 56);
  if (status != OK) store<i32>(CURSOR, status, 60);
  return count == 0 && status != OK ? -status : count;
}

@inline function put(to: usize, iova: u64, length: u64, physical: u64, flags: u32): void {
  store<u64>(to, iova);
  store<u64>(to, length, 8);
  store<u64>(to, physical, 16);
  store<u64>(to, <u64>flags, 24);
}

/** Whether hardware marked the leaf dirty, in whichever of its slots; makes it clean if told to. */
@inline function takeDirty<F>(at: i32, table: usize, index: i32, size: i32, clear: bool): bool {
  const format = changetype<F>(0);
  const slots = format.replicated() ? 1 << (size - shiftOf(at)) : 1;
  let slot = table + ((<usize>(index & ~(slots - 1))) << 3);
  let dirty = false;
  for (let left = slots; left > 0; left--, slot += 8) {
    const value = load<u64>(slot);
    if (!format.isDirty(value)) continue;
    dirty = true;
    if (clear) store<u64>(slot, format.clean(value));
  }
  return dirty;
}
