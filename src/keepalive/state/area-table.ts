/** Mappings as the 2024 kernel RFC keeps them, as a table. @module */
import type { Iova } from '../../address.js';
import { checkInteger, checkU64 } from '../../check.js';
import { hex } from '../../hex.js';
import { RowTable } from './row-table.js';

/** What {@link AreaTable} holds: a range of IOVAs, and nothing of what is mapped there. */
export interface SavedArea {
  readonly iova: Iova;
  /** In bytes, not 0. */
  readonly length: bigint;
  /** `IOMMU_READ` (1), `IOMMU_WRITE` (2), `IOMMU_CACHE` (4) … of the kernel's include/linux/iommu.h, at most 0x3f. */
  readonly prot: number;
}

const ROW = 24;
const ALL_PROT = 0x3f;
const TOP = 2n ** 64n;

/** Areas in ascending order of IOVA, disjoint, 24 bytes each: `{u64 iova, u64 length, u32 prot, u32}`. */
export class AreaTable extends RowTable<SavedArea> {
  #end = 0n;
  /** @internal False where decoded rows are yet to be sorted, and compared with one another. */
  inOrder = true;

  /** @param capacity rows that there is room for before the table must grow */
  constructor(capacity = 0) {
    super(ROW, checkInteger('capacity', capacity));
  }

  /** @internal Rows that the codec found good. */
  decodedRows(rows: Uint8Array): void {
    this.appendRows(rows);
    const { iova, length } = this.get(this.length - 1);
    this.#end = iova + length;
  }

  /** @internal The names that the areas had, which the codec leaves in the last field. */
  decodedNames(): Uint32Array {
    return Uint32Array.from({ length: this.length }, (_, index) =>
      this.view.getUint32(this.at(index) + 20, true),
    );
  }

  /**
   * Adds an area behind all others.
   *
   * @throws TypeError, RangeError when a field is not as {@link SavedArea} says, when the area begins before the end of
   * the last one or ends beyond 2^64.
   */
  push(area: SavedArea): void {
    const iova = checkU64('iova', area.iova);
    const length = checkU64('length', area.length);
    const prot = checkInteger('prot', area.prot, 0, ALL_PROT);
    if (length === 0n) throw new RangeError('length must not be 0');
    if (iova < this.#end) {
      throw new RangeError(
        `the area at ${hex(iova)} begins before the last one ends, at ${hex(this.#end)}; add in order`,
      );
    }
    if (iova + length > TOP) throw new RangeError(`the area at ${hex(iova)} ends beyond 2^64`);
    const at = this.append();
    const { view } = this;
    view.setBigUint64(at, iova, true);
    view.setBigUint64(at + 8, length, true);
    view.setUint32(at + 16, prot, true);
    this.#end = iova + length;
  }

  override get(index: number): SavedArea {
    const at = this.at(index);
    const { view } = this;
    return {
      iova: view.getBigUint64(at, true) as Iova,
      length: view.getBigUint64(at + 8, true),
      prot: view.getUint32(at + 16, true),
    };
  }
}
