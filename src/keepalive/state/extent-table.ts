/** Where the memory of an arena lies physically, as a table. @module */
import type { PhysicalAddress } from '../../address.js';
import { checkAligned, checkInteger, checkU64 } from '../../check.js';
import { hex } from '../../hex.js';
import { RowTable } from './row-table.js';

/** What {@link ExtentTable} holds: a run of an arena that is contiguous in physical memory. */
export interface SavedExtent {
  /** In bytes from the start of the arena, a multiple of 4096. */
  readonly offset: number;
  /** A multiple of 4096. */
  readonly address: PhysicalAddress;
  /** In bytes, a multiple of 4096, not 0. */
  readonly length: number;
}

const PAGE = 4096;
const ALL_PAGES = 2 ** 52;
const ROW = 24;

/**
 * Extents in ascending order of offset, disjoint in the arena, 24 bytes each: `{u64 offset, u64 address, u64 length}`.
 * Whether they are disjoint in physical memory is for the kernel to say: compare with what it reports at restore.
 */
export class ExtentTable extends RowTable<SavedExtent> {
  #end = 0;

  /** @param capacity rows that there is room for before the table must grow */
  constructor(capacity = 0) {
    super(ROW, checkInteger('capacity', capacity));
  }

  /** @internal Rows that the codec found good. */
  decodedRows(rows: Uint8Array): void {
    this.appendRows(rows);
    const { offset, length } = this.get(this.length - 1);
    this.#end = offset + length;
  }

  /**
   * Adds an extent behind all others. That it lies within its arena is checked when the state is encoded.
   *
   * @throws TypeError, RangeError when a field is not as {@link SavedExtent} says, or when the extent begins before the
   * end of the last one.
   */
  push(extent: SavedExtent): void {
    const offset = checkInteger('offset', extent.offset);
    checkAligned('offset', offset, PAGE);
    const length = checkInteger('length', extent.length, PAGE);
    checkAligned('length', length, PAGE);
    const address = checkU64('address', extent.address);
    checkAligned('address', address, PAGE);
    if (offset < this.#end) {
      throw new RangeError(
        `the extent at ${offset} begins before the last one ends, at ${this.#end}; add in order`,
      );
    }
    checkInteger('end of the extent', offset + length);
    if (Number(address >> 12n) + length / PAGE > ALL_PAGES) {
      throw new RangeError(`the extent at ${hex(address)} ends beyond 2^64`);
    }
    const at = this.append();
    const { view } = this;
    view.setBigUint64(at, BigInt(offset), true);
    view.setBigUint64(at + 8, address, true);
    view.setBigUint64(at + 16, BigInt(length), true);
    this.#end = offset + length;
  }

  override get(index: number): SavedExtent {
    const at = this.at(index);
    const { view } = this;
    return {
      offset: Number(view.getBigUint64(at, true)),
      address: view.getBigUint64(at + 8, true) as PhysicalAddress,
      length: Number(view.getBigUint64(at + 16, true)),
    };
  }
}
