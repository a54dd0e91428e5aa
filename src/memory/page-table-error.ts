/** What is wrong with a page table. @module */
import type { Iova, PhysicalAddress } from '../address.js';
import { hex } from '../hex.js';

/** The conditions a {@link PageTableError} reports. */
export const PageTableErrorCode = {
  /** Something in the range is mapped already. */
  Exists: 'EXISTS',
  /** The table memory has too few free pages for the tables that are needed. */
  NoMemory: 'NO_MEMORY',
  /** The format cannot do that. */
  Unsupported: 'UNSUPPORTED',
  /** A table pointer leads to a page that is neither loaded nor in use. */
  OutsideMemory: 'OUTSIDE_MEMORY',
  /** A table is reached twice: a loop, or two entries that point to one table. */
  SharedTable: 'SHARED_TABLE',
  /** An entry that means nothing at its level. */
  IllegalEntry: 'ILLEGAL_ENTRY',
  /** Bits that must be zero are set, such as those of a large page's address below its size. */
  ReservedBits: 'RESERVED_BITS',
  /** The entries that repeat one leaf are not the same. */
  ReplicasDiffer: 'REPLICAS_DIFFER',
} as const;
export type PageTableErrorCode = (typeof PageTableErrorCode)[keyof typeof PageTableErrorCode];

/** One entry of a page table. */
export interface PageTablePlace {
  /** The first IOVA that the entry is for. */
  readonly iova: Iova;
  /** The level of the entry; 0 maps 4 KiB. The root's own address counts as one above the top. */
  readonly level: number;
  /** The entry as it is. */
  readonly value: bigint;
  /** The table that holds the entry; undefined for the root's own address. */
  readonly table: PhysicalAddress | undefined;
  /** The entry's index in that table. */
  readonly index: number;
}

/** A page table that is corrupt, or that cannot do what was asked. */
export class PageTableError extends Error {
  override readonly name = 'PageTableError';
  readonly code: PageTableErrorCode;
  /** The first IOVA concerned; undefined where no IOVA is. */
  readonly iova: Iova | undefined;
  /** The level of the entry at fault; 0 maps 4 KiB. */
  readonly level: number | undefined;
  /** The entry at fault, where one is. */
  readonly where: PageTablePlace | undefined;

  constructor(code: PageTableErrorCode, message: string, where?: PageTablePlace) {
    super(where === undefined ? message : `${message}: ${describePlace(where)}`);
    this.code = code;
    this.iova = where?.iova;
    this.level = where?.level;
    this.where = where;
  }
}

function describePlace({ iova, level, value, table, index }: PageTablePlace): string {
  if (table === undefined) return `the root, ${hex(value)}`;
  return `IOVA ${hex(iova)}, level ${level}, entry ${index} of the table at ${hex(table)} is ${hex(value)}`;
}
