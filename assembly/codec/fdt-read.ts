/**
 * Reads a flattened device tree that anyone may have written or damaged. codecFdtOpen() checks the header and where the
 * blocks lie; next() goes from token to token and checks each before anyone sees it.
 *
 * Nothing is trusted: every length is compared with the bytes that are left, every string with the end of its block,
 * nesting with MAX_DEPTH. A read never leaves the blob.
 */
import { BALANCE, BLOCK, codecReserve, DEPTH, END, ENTRIES, fail, MAGIC, NAME, NO_MEMORY, OK, ORDER, OVERLAP, RESERVATIONS, SHORT, STRING, TOKEN, VALUE, VERSION } from './memory';
import { align4, BEGIN_NODE, BOOT_CPU, END_NODE, FDT_COMPATIBLE_VERSION, FDT_END, FDT_MAGIC, FDT_VERSION, HEADER_SIZE, HEADER_VERSION, LAST_COMPATIBLE, loadBig, loadBig64, NOP, PROPERTY, RESERVE_OFFSET, STRINGS_OFFSET, STRINGS_SIZE, STRUCT_OFFSET, STRUCT_SIZE, TOTAL_SIZE } from './fdt';

const MAX_DEPTH: u32 = 64;
const MAX_NAME: usize = 255;

let blob: usize = 0;
let total: usize = 0;
let reserveAt: usize = 0;
let reserveCount: u32 = 0;
let structAt: usize = 0;
/** Version 16 does not tell: then this is as far as the block may reach, until FDT_END is found. */
let structEnd: usize = 0;
let structSized: bool = false;
let stringsAt: usize = 0;
let stringsEnd: usize = 0;

/** Where next() continues, and how deep it is. */
let cursor: usize = 0;
let depth: u32 = 0;
let hasRoot: bool = false;
/** A node's properties come before its subnodes: none may follow an END_NODE. */
let propertiesAllowed: bool = false;

// What next() found.
export let tokenAt: usize = 0;
/** Of a node or of a property, without the 0 at its end. */
export let nameAt: usize = 0;
export let nameLength: usize = 0;
export let valueAt: usize = 0;
export let valueLength: usize = 0;

/**
 * Property names that were found good, by the low bits of their place: a tree names few properties many times. Each
 * entry is {u32 place + 1, u32 length}; a place of 0 is an empty entry.
 */
const KNOWN_NAMES: usize = memory.data(64 * 8, 8);

/** Which characters names have: [0-9A-Za-z,._+*#?@-], as dtc has it. One bit each. */
@inline function isNameCharacter(character: u32): bool {
  const word = character < 64 ? LOW_CHARACTERS : HIGH_CHARACTERS;
  return character < 128 && ((word >>> <u64>(character & 63)) & 1) != 0;
}
const LOW_CHARACTERS: u64 = 0x83ff_7c08_0000_0000;
const HIGH_CHARACTERS: u64 = 0x07ff_fffe_87ff_ffff;

/** Length of the name at `at`, or -1 where it is not one or does not end before `end`. */
function nameLengthAt(at: usize, end: usize): i32 {
  const limit = end - at > MAX_NAME + 1 ? at + MAX_NAME + 1 : end;
  for (let next = at; next < limit; next++) {
    const character = <u32>load<u8>(next);
    if (character == 0) return <i32>(next - at);
    if (!isNameCharacter(character)) return -1;
  }
  return -1;
}

@inline function overlaps(first: usize, firstEnd: usize, second: usize, secondEnd: usize): bool {
  return first < secondEnd && second < firstEnd;
}

/** That no block lies on another, or on the header. An empty block is nowhere. */
function checkOverlaps(): i32 {
  const headerEnd = blob + (structSized ? HEADER_SIZE : STRUCT_SIZE);
  const reserveEnd = reserveAt + ((<usize>reserveCount + 1) << 4);
  const hasStrings = stringsEnd > stringsAt;
  if (overlaps(blob, headerEnd, reserveAt, reserveEnd)) return fail(OVERLAP, blob + RESERVE_OFFSET);
  if (overlaps(blob, headerEnd, structAt, structEnd)) return fail(OVERLAP, blob + STRUCT_OFFSET);
  if (overlaps(reserveAt, reserveEnd, structAt, structEnd)) return fail(OVERLAP, blob + STRUCT_OFFSET);
  if (!hasStrings) return OK;
  if (
    overlaps(blob, headerEnd, stringsAt, stringsEnd) ||
    overlaps(reserveAt, reserveEnd, stringsAt, stringsEnd) ||
    overlaps(structAt, structEnd, stringsAt, stringsEnd)
  ) {
    return fail(OVERLAP, blob + STRINGS_OFFSET);
  }
  return OK;
}

/**
 * Takes up the blob of at most `available` bytes at `at`, and checks its header, its reservations and where its blocks
 * lie. The structure is checked as it is read.
 */
export function codecFdtOpen(at: usize, available: usize): i32 {
  blob = at;
  memory.fill(KNOWN_NAMES, 0, 64 * 8);
  if (available < STRUCT_SIZE) return fail(SHORT, at + available);
  if (loadBig(at) != FDT_MAGIC) return fail(MAGIC, at);
  const version = loadBig(at + HEADER_VERSION);
  if (version < FDT_COMPATIBLE_VERSION) return fail(VERSION, at + HEADER_VERSION);
  const compatible = loadBig(at + LAST_COMPATIBLE);
  if (compatible > FDT_VERSION || compatible > version) return fail(VERSION, at + LAST_COMPATIBLE);
  structSized = version >= FDT_VERSION;
  total = <usize>loadBig(at + TOTAL_SIZE);
  const headerSize = structSized ? HEADER_SIZE : STRUCT_SIZE;
  if (total > available || total < headerSize) return fail(SHORT, at + TOTAL_SIZE);
  const end = at + total;

  // Offsets and sizes are compared with what is left, never added first: they reach 2^32.
  const reserve = <usize>loadBig(at + RESERVE_OFFSET);
  if ((reserve & 7) != 0 || reserve > total) return fail(BLOCK, at + RESERVE_OFFSET);
  const structure = <usize>loadBig(at + STRUCT_OFFSET);
  if ((structure & 3) != 0 || structure > total) return fail(BLOCK, at + STRUCT_OFFSET);
  const strings = <usize>loadBig(at + STRINGS_OFFSET);
  if (strings > total) return fail(BLOCK, at + STRINGS_OFFSET);
  const stringsSize = <usize>loadBig(at + STRINGS_SIZE);
  if (stringsSize > total - strings) return fail(BLOCK, at + STRINGS_SIZE);
  structAt = at + structure;
  stringsAt = at + strings;
  stringsEnd = stringsAt + stringsSize;
  if (structSized) {
    const structSize = <usize>loadBig(at + STRUCT_SIZE);
    if ((structSize & 3) != 0 || structSize > total - structure) return fail(BLOCK, at + STRUCT_SIZE);
    structEnd = structAt + structSize;
  } else {
    structEnd = structAt + ((total - structure) & ~3);
  }

  reserveAt = at + reserve;
  reserveCount = 0;
  for (let entry = reserveAt; ; entry += 16) {
    if (end - entry < 16) return fail(RESERVATIONS, at + RESERVE_OFFSET);
    if ((load<u64>(entry) | load<u64>(entry, 8)) == 0) break;
    // The end for libfdt, and none by the specification.
    if (load<u64>(entry, 8) == 0) return fail(RESERVATIONS, entry);
    reserveCount++;
  }
  if (structSized) {
    const status = checkOverlaps();
    if (status != OK) return status;
  }
  cursor = structAt;
  depth = 0;
  hasRoot = false;
  propertiesAllowed = false;
  return OK;
}

/** Bytes of the blob, by its header. */
export function codecFdtTotal(): usize {
  return total;
}
/** Address of the memory reservations, and how many there are before the one that ends them. */
export function codecFdtReservations(): usize {
  return reserveAt;
}
export function codecFdtReservationCount(): u32 {
  return reserveCount;
}
export function codecFdtBootCpu(): u32 {
  return loadBig(blob + BOOT_CPU);
}

/** Finds the name of a property; false where there is none. */
function findPropertyName(offset: usize): bool {
  if (offset >= stringsEnd - stringsAt) return false;
  nameAt = stringsAt + offset;
  const entry = KNOWN_NAMES + ((offset & 63) << 3);
  if (load<u32>(entry) == <u32>(offset + 1)) {
    nameLength = <usize>load<u32>(entry, 4);
    return true;
  }
  const length = nameLengthAt(nameAt, stringsEnd);
  if (length <= 0) return false;
  nameLength = <usize>length;
  store<u32>(entry, <u32>(offset + 1));
  store<u32>(entry, <u32>length, 4);
  return true;
}

/**
 * The next token: BEGIN_NODE, END_NODE, PROPERTY or, at the end of a complete tree, FDT_END. Failures are negative
 * statuses. Not to be called again after FDT_END or a failure.
 */
export function next(): i32 {
  let at = cursor;
  let token: u32;
  for (;;) {
    if (structEnd - at < 4) return -fail(END, at);
    token = loadBig(at);
    if (token != NOP) break;
    at += 4;
  }
  tokenAt = at;
  at += 4;
  if (token == PROPERTY) {
    if (structEnd - at < 8) return -fail(END, at);
    const length = <usize>loadBig(at);
    const name = <usize>loadBig(at + 4);
    if (depth == 0) return -fail(BALANCE, tokenAt);
    if (!propertiesAllowed) return -fail(ORDER, tokenAt);
    at += 8;
    // Padding belongs to the value: the next token must have room as well, and the block is a multiple of 4.
    if (length > structEnd - at) return -fail(VALUE, tokenAt + 4);
    if (!findPropertyName(name)) return -fail(STRING, tokenAt + 8);
    valueAt = at;
    valueLength = length;
    cursor = at + align4(length);
    return PROPERTY;
  }
  if (token == BEGIN_NODE) {
    const length = nameLengthAt(at, structEnd);
    // Only the root has an empty name, and the root has no other.
    if (length < 0 || (length == 0) != (depth == 0)) return -fail(NAME, at);
    if (depth == 0) {
      if (hasRoot) return -fail(BALANCE, tokenAt);
      hasRoot = true;
    }
    if (depth == MAX_DEPTH) return -fail(DEPTH, tokenAt);
    depth++;
    propertiesAllowed = true;
    nameAt = at;
    nameLength = <usize>length;
    cursor = at + align4(<usize>length + 1);
    return BEGIN_NODE;
  }
  if (token == END_NODE) {
    if (depth == 0) return -fail(BALANCE, tokenAt);
    depth--;
    propertiesAllowed = false;
    cursor = at;
    return END_NODE;
  }
  if (token != FDT_END) return -fail(TOKEN, tokenAt);
  if (depth != 0 || !hasRoot) return -fail(BALANCE, tokenAt);
  if (structSized) {
    if (at != structEnd) return -fail(END, at);
  } else {
    structEnd = at;
    const status = checkOverlaps();
    if (status != OK) return -status;
  }
  cursor = at;
  return FDT_END;
}

let indexEnd: usize = 0;

/**
 * Writes what the tree consists of to `index`, 16 bytes a token, and checks all of it on the way:
 *
 *      +0   u32 token | length of the name << 8
 *      +4   u32 address of the name
 *      +8   u32 address of the value; of the token itself for nodes
 *      +12  u32 length of the value
 *
 * Stops with ENTRIES after `limit` nodes and properties. After a failure the index holds what came before it.
 */
export function codecFdtIndex(index: usize, limit: u32): i32 {
  indexEnd = index;
  let entries: u32 = 0;
  let token = next();
  for (; token > 0 && token != FDT_END; token = next()) {
    if (token != END_NODE && entries++ == limit) return fail(ENTRIES, tokenAt);
    if (!codecReserve(indexEnd + 16)) return fail(NO_MEMORY, tokenAt);
    store<u32>(indexEnd, <u32>token | (token == END_NODE ? 0 : <u32>nameLength << 8));
    store<u32>(indexEnd, <u32>nameAt, 4);
    store<u32>(indexEnd, <u32>(token == PROPERTY ? valueAt : tokenAt), 8);
    store<u32>(indexEnd, token == PROPERTY ? <u32>valueLength : 0, 12);
    indexEnd += 16;
  }
  return token < 0 ? -token : OK;
}

/** Where the index ends. */
export function codecFdtIndexEnd(): usize {
  return indexEnd;
}
