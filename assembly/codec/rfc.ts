/**
 * The layout in which the 2024 kernel RFC "iommufd: persisted iommufds" keeps mappings: a node for each, under
 * iommufds/<id>/ioases/<id>/<n>, with three properties whose values are the kernel's own variables as they lie in
 * memory: little-endian here, while the tree around them is big-endian.
 *
 * A row in memory is 24 bytes:
 *
 *      +0   u64 iova-start      +8   u64 iova-len      +16  u32 iommu-prot      +20  u32 n
 */
import { ACCESS, BEYOND, codecReserve, COMPATIBLE, EMPTY, fail, FOREIGN_NODE, FOREIGN_SIZE, MISSING, NAME, OK, TWICE } from './memory';
import { codecFdtCursor, moveCursor } from './fdt-write';
import { BEGIN_NODE, END_NODE, FDT_END, PROPERTY, storeBig } from './fdt';
import { PAGE_MASK } from './lengths';
import { nameAt, nameLength, next, tokenAt, valueAt, valueLength } from './fdt-read';

const ROW: usize = 24;
/** A node with the longest name: its tokens and name, two properties of 8 bytes and one of 4. */
const LONGEST_NODE: usize = 8 + 12 + 20 + 20 + 16;

let digitsAt: usize = memory.data(16, 8);

/** Writes `value` in decimal, a 0 after it, and what fills up to a multiple of 4. @returns where it ends */
function writeDecimal(at: usize, value: u32): usize {
  let first = digitsAt + 16;
  do {
    store<u8>(--first, <u8>(48 + (value % 10)));
    value /= 10;
  } while (value != 0);
  const end = digitsAt + 16;
  while (first < end) store<u8>(at++, load<u8>(first++));
  do {
    store<u8>(at++, 0);
  } while ((at & 3) != 0);
  return at;
}

/**
 * Appends a node for each of `count` rows, named `first` and on, to the node that is being written. Rows are as above, or
 * as in mappings.ts, both of 24 bytes. `start`, `length` and `prot` are the places of the three names among the strings.
 */
export function codecRfcWrite(rows: usize, count: u32, mappings: bool, first: u32, start: u32, length: u32, prot: u32): bool {
  let at = codecFdtCursor();
  if (!codecReserve(at + <usize>count * LONGEST_NODE + 4)) return false;
  for (let index: u32 = 0; index < count; index++) {
    let iova = load<u64>(rows);
    let bytes = load<u64>(rows, 8);
    let iommuProt = load<u32>(rows, 16);
    if (mappings) {
      iommuProt = <u32>(iova & PAGE_MASK) | IOMMU_CACHE;
      iova &= ~PAGE_MASK;
      bytes &= ~PAGE_MASK;
    }
    storeBig(at, BEGIN_NODE);
    at = writeDecimal(at + 4, first + index);
    storeBig(at, PROPERTY);
    storeBig(at + 4, 8);
    storeBig(at + 8, start);
    store<u64>(at, iova, 12);
    storeBig(at + 20, PROPERTY);
    storeBig(at + 24, 8);
    storeBig(at + 28, length);
    store<u64>(at, bytes, 32);
    storeBig(at + 40, PROPERTY);
    storeBig(at + 44, 4);
    storeBig(at + 48, prot);
    store<u32>(at, iommuProt, 52);
    storeBig(at + 56, END_NODE);
    at += 60;
    rows += ROW;
  }
  moveCursor(at);
  return true;
}

/** IOMMU_READ, WRITE, CACHE, NOEXEC, MMIO, PRIV: include/linux/iommu.h. */
const ALL_PROT: u32 = 0x3f;
/** What the kernel adds to the permissions of every mapping; those have the numbers of IOMMU_READ and IOMMU_WRITE. */
const IOMMU_CACHE: u32 = 4;

// What codecRfcNext() comes upon; failures are negative statuses.
const DONE: i32 = 0;
const IOMMUFD: i32 = 1; // one begins; codecRfcId() is its id
const IOAS: i32 = 2; // one begins, in the iommufd that began last
const ROWS: i32 = 3; // codecRfcRows() areas of the IOAS that began last; there may be more

// Levels of the layout, as depths below the node that holds it.
const HOLDER: u32 = 1;
const IOMMUFDS: u32 = 2;
const ONE_IOMMUFD: u32 = 3;
const IOASES: u32 = 4;
const ONE_IOAS: u32 = 5;
const AREA: u32 = 6;

/**
 * 0 where the root itself holds the layout, by its compatible; 1 where the node "iommufd" of the root does, as in the
 * tree of all subsystems that the kernel hands over.
 */
let base: u32 = 0;
let level: u32 = 0;
/** Level from which on everything is somebody else's; 0 when nothing is. */
let skipFrom: u32 = 0;
let seenCompatible: bool = false;
let seenIommufd: bool = false;
let seenIommufds: bool = false;
let seenIoases: bool = false;
let inOrder: bool = true;
let endOfLast: u64 = 0;
let endsAtTop: bool = false;
let indexOfLast: i64 = -1;
let id: u32 = 0;
let rowsDone: u32 = 0;

// The area that is being read.
let areaAt: usize = 0;
let areaSeen: u32 = 0;
let areaIndex: u32 = 0;
let areaStart: u64 = 0;
let areaLength: u64 = 0;
let areaProt: u32 = 0;

export function codecRfcId(): u32 {
  return id;
}
export function codecRfcRows(): u32 {
  return rowsDone;
}
/** Whether the areas of the present IOAS came in order of both their names and their addresses, and are disjoint. */
export function codecRfcInOrder(): bool {
  return inOrder;
}

/** To be called after codecFdtOpen(). */
export function codecRfcBegin(): void {
  base = 0;
  level = 0;
  skipFrom = 0;
  seenCompatible = false;
  seenIommufd = false;
  seenIommufds = false;
}

const NAME_IOMMUFD: usize = memory.data<u8>([0x69, 0x6f, 0x6d, 0x6d, 0x75, 0x66, 0x64, 0x73]); // "iommufds"
const NAME_IOASES: usize = memory.data<u8>([0x69, 0x6f, 0x61, 0x73, 0x65, 0x73]);
const NAME_START: usize = memory.data<u8>([0x69, 0x6f, 0x76, 0x61, 0x2d, 0x73, 0x74, 0x61, 0x72, 0x74]); // "iova-start"
const NAME_LENGTH: usize = memory.data<u8>([0x69, 0x6f, 0x76, 0x61, 0x2d, 0x6c, 0x65, 0x6e]); // "iova-len"
const NAME_PROT: usize = memory.data<u8>([0x69, 0x6f, 0x6d, 0x6d, 0x75, 0x2d, 0x70, 0x72, 0x6f, 0x74]); // "iommu-prot"
const NAME_COMPATIBLE: usize = memory.data<u8>([0x63, 0x6f, 0x6d, 0x70, 0x61, 0x74, 0x69, 0x62, 0x6c, 0x65]);
const VERSION_0: usize = memory.data<u8>([0x69, 0x6f, 0x6d, 0x6d, 0x75, 0x66, 0x64, 0x2d, 0x76, 0x30, 0]); // "iommufd-v0"

@inline function named(text: usize, length: usize): bool {
  return nameLength == length && memory.compare(nameAt, text, length) == 0;
}

/** The number that the present node is named by, in its one decimal form and below 2^32; -1 for any other name. */
function nodeNumber(): i64 {
  if (nameLength > 10 || (nameLength > 1 && load<u8>(nameAt) == 48)) return -1;
  let value: i64 = 0;
  for (let at: usize = 0; at < nameLength; at++) {
    const digit = <u32>load<u8>(nameAt + at) - 48;
    if (digit > 9) return -1;
    value = value * 10 + <i64>digit;
  }
  return value > 0xffff_ffff ? -1 : value;
}

/** A node begins, at `level` by now. @returns an event, a negative failure, or 0 to go on */
function beginNode(): i32 {
  if (level == 1) return 0;
  if (level == 2 && !seenCompatible) base = 1; // The root's own properties have all been seen.
  const own = level - base;
  if (own == HOLDER) {
    if (!named(NAME_IOMMUFD, 7)) {
      skipFrom = level;
      return 0;
    }
    if (seenIommufd) return -fail(TWICE, tokenAt);
    seenIommufd = true;
    return 0;
  }
  if (own == IOMMUFDS) {
    if (!named(NAME_IOMMUFD, 8)) return -fail(FOREIGN_NODE, tokenAt);
    if (seenIommufds) return -fail(TWICE, tokenAt);
    seenIommufds = true;
    return 0;
  }
  if (own == IOASES) {
    if (!named(NAME_IOASES, 6)) return -fail(FOREIGN_NODE, tokenAt);
    if (seenIoases) return -fail(TWICE, tokenAt);
    seenIoases = true;
    return 0;
  }
  if (own > AREA) return -fail(FOREIGN_NODE, tokenAt);
  const number = nodeNumber();
  if (number < 0) return -fail(NAME, nameAt);
  if (own == AREA) {
    areaAt = tokenAt;
    areaSeen = 0;
    areaIndex = <u32>number;
    return 0;
  }
  id = <u32>number;
  if (own == ONE_IOMMUFD) {
    seenIoases = false;
    return IOMMUFD;
  }
  inOrder = true;
  endOfLast = 0;
  endsAtTop = false;
  indexOfLast = -1;
  return IOAS;
}

/** Notes a property of an area; those that the layout does not have are nobody's concern. */
function areaProperty(): i32 {
  let bit: u32 = 0;
  if (named(NAME_START, 10)) bit = 1;
  else if (named(NAME_LENGTH, 8)) bit = 2;
  else if (named(NAME_PROT, 10)) bit = 4;
  else return OK;
  if ((areaSeen & bit) != 0) return fail(TWICE, tokenAt);
  if (valueLength != (bit == 4 ? 4 : 8)) return fail(FOREIGN_SIZE, tokenAt);
  areaSeen |= bit;
  if (bit == 1) areaStart = load<u64>(valueAt);
  else if (bit == 2) areaLength = load<u64>(valueAt);
  else areaProt = load<u32>(valueAt);
  return OK;
}

/** The area is complete: checks it, and makes a row of it. */
function endArea(row: usize): i32 {
  if (areaSeen != 7) return fail(MISSING, areaAt);
  if ((areaProt & ~ALL_PROT) != 0) return fail(ACCESS, areaAt);
  if (areaLength == 0) return fail(EMPTY, areaAt);
  const end = areaStart + areaLength; // 0 at the very top
  if (end < areaStart && end != 0) return fail(BEYOND, areaAt);
  if (<i64>areaIndex <= indexOfLast || endsAtTop || areaStart < endOfLast) inOrder = false;
  indexOfLast = <i64>areaIndex;
  endOfLast = end;
  endsAtTop = end == 0;
  store<u64>(row, areaStart);
  store<u64>(row, areaLength, 8);
  store<u32>(row, areaProt, 16);
  store<u32>(row, areaIndex, 20);
  return OK;
}

/** Goes on to what comes next in the layout; at most `limit` rows go to `rows`. */
export function codecRfcNext(rows: usize, limit: u32): i32 {
  rowsDone = 0;
  for (let token = next(); token != FDT_END; token = next()) {
    if (token < 0) return token;
    if (token == PROPERTY) {
      if (skipFrom != 0) continue;
      if (level == base + AREA) {
        const status = areaProperty();
        if (status != OK) return -status;
      } else if (level == base + HOLDER && named(NAME_COMPATIBLE, 10)) {
        if (valueLength == 11 && memory.compare(valueAt, VERSION_0, 11) == 0) seenCompatible = true;
        else if (base == 1) return -fail(COMPATIBLE, tokenAt);
      }
    } else if (token == BEGIN_NODE) {
      level++;
      if (skipFrom != 0) continue;
      const event = beginNode();
      if (event != 0) return event;
    } else {
      const ended = level--;
      if (skipFrom != 0) {
        if (ended == skipFrom) skipFrom = 0;
      } else if (ended == base + AREA) {
        const status = endArea(rows + <usize>rowsDone * ROW);
        if (status != OK) return -status;
        if (++rowsDone == limit) return ROWS;
      } else if (ended == base + ONE_IOAS && rowsDone != 0) {
        return ROWS;
      }
    }
  }
  return seenCompatible ? DONE : -fail(COMPATIBLE, tokenAt);
}
