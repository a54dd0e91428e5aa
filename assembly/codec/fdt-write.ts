/**
 * Writes a flattened device tree of version 17, front to back: header, memory reservations, structure, strings. The
 * caller keeps the strings, since it gives the names their places, and appends them at the end.
 *
 *      codecFdtBegin, codecFdtReservation..., then for each node
 *        codecFdtBeginNode, codecFdtProperty..., nodes within..., codecFdtEndNode,
 *      then codecFdtFinish
 *
 * Names are copied from the staging area. Where a function returns an address, 0 says that memory is exhausted.
 */
import { codecReserve, STAGING } from './memory';
import { BEGIN_NODE, BOOT_CPU, END_NODE, FDT_COMPATIBLE_VERSION, FDT_END, FDT_MAGIC, FDT_VERSION, HEADER_SIZE, HEADER_VERSION, LAST_COMPATIBLE, PROPERTY, RESERVE_OFFSET, storeBig, storeBig64, STRINGS_OFFSET, STRINGS_SIZE, STRUCT_OFFSET, STRUCT_SIZE, TOTAL_SIZE } from './fdt';

let blob: usize = 0;
let structAt: usize = 0;
let cursor: usize = 0;
/** Where the length of the open property goes, and its value begins 8 further. */
let propertyAt: usize = 0;

/** Where the next byte goes. */
export function codecFdtCursor(): usize {
  return cursor;
}

/** For what writes the value of an open property by itself: it now ends at `end`. */
export function moveCursor(end: usize): void {
  cursor = end;
}

/** Starts a tree at `at`, a multiple of 8. */
export function codecFdtBegin(at: usize): bool {
  blob = at;
  if (!codecReserve(at + HEADER_SIZE)) return false;
  memory.fill(at, 0, HEADER_SIZE);
  cursor = at + HEADER_SIZE;
  structAt = 0;
  return true;
}

/** {0, 0} ends the list, and must. */
export function codecFdtReservation(address: u64, size: u64): bool {
  if (!codecReserve(cursor + 16)) return false;
  storeBig64(cursor, address);
  storeBig64(cursor + 8, size);
  cursor += 16;
  structAt = cursor;
  return true;
}

/** Fills up to a multiple of 4. The room is there: everything reserves 4 more than it needs. */
@inline function pad(): void {
  while ((cursor & 3) != 0) store<u8>(cursor++, 0);
}

/** Begins a node; its name is the first `length` bytes of the staging area. */
export function codecFdtBeginNode(length: usize): bool {
  if (!codecReserve(cursor + length + 12)) return false;
  storeBig(cursor, BEGIN_NODE);
  memory.copy(cursor + 4, STAGING, length);
  cursor += 4 + length;
  store<u8>(cursor++, 0);
  pad();
  return true;
}

export function codecFdtEndNode(): bool {
  if (!codecReserve(cursor + 4)) return false;
  storeBig(cursor, END_NODE);
  cursor += 4;
  return true;
}

/** Begins a property whose value is written piecemeal; `name` is the place of its name among the strings. */
export function codecFdtBeginProperty(name: u32): bool {
  if (!codecReserve(cursor + 16)) return false;
  storeBig(cursor, PROPERTY);
  storeBig(cursor + 8, name);
  propertyAt = cursor + 4;
  cursor += 12;
  return true;
}

/** Ends the open property. @returns the address of its value; the length is codecFdtPropertyLength() */
export function codecFdtEndProperty(): usize {
  const length = cursor - (propertyAt + 8);
  storeBig(propertyAt, <u32>length);
  pad();
  return propertyAt + 8;
}

/** Writes a property of `length` bytes. @returns where the caller now copies them to */
export function codecFdtProperty(name: u32, length: usize): usize {
  if (!codecReserve(cursor + length + 16)) return 0;
  codecFdtBeginProperty(name);
  cursor += length;
  return codecFdtEndProperty();
}

/** Ends the tree. @returns where the caller now copies the strings to, `strings` bytes */
export function codecFdtFinish(strings: u32, bootCpu: u32): usize {
  if (!codecReserve(cursor + 4 + strings)) return 0;
  storeBig(cursor, FDT_END);
  cursor += 4;
  storeBig(blob, FDT_MAGIC);
  storeBig(blob + TOTAL_SIZE, <u32>(cursor - blob) + strings);
  storeBig(blob + STRUCT_OFFSET, <u32>(structAt - blob));
  storeBig(blob + STRINGS_OFFSET, <u32>(cursor - blob));
  storeBig(blob + RESERVE_OFFSET, <u32>HEADER_SIZE);
  storeBig(blob + HEADER_VERSION, FDT_VERSION);
  storeBig(blob + LAST_COMPATIBLE, FDT_COMPATIBLE_VERSION);
  storeBig(blob + BOOT_CPU, bootCpu);
  storeBig(blob + STRINGS_SIZE, strings);
  storeBig(blob + STRUCT_SIZE, <u32>(cursor - structAt));
  return cursor;
}
