/** Rows of fixed size, packed in one growing buffer that the WASM core reads as it is. @module */
import { checkInteger } from '../../check.js';

const FIRST_ROWS = 16;

/** What the tables of a saved state share. Rows are little-endian. */
export abstract class RowTable<Row> implements Iterable<Row> {
  /** Bytes of a row. */
  readonly rowSize: number;
  #bytes: Uint8Array;
  #view: DataView;
  #length = 0;

  /** @param rows how many there is room for at first */
  protected constructor(rowSize: number, rows: number) {
    this.rowSize = rowSize;
    this.#bytes = new Uint8Array(rows * rowSize);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Number of rows. */
  get length(): number {
    return this.#length;
  }

  /** The rows as they lie in memory. To be read only, and not to be kept over a change of the table. */
  get rows(): Uint8Array {
    return this.#bytes.subarray(0, this.#length * this.rowSize);
  }

  /** @throws RangeError when there is no such row. */
  abstract get(index: number): Row;

  *[Symbol.iterator](): IterableIterator<Row> {
    for (let index = 0; index < this.#length; index++) yield this.get(index);
  }

  protected get view(): DataView {
    return this.#view;
  }

  /** Offset of a row in {@link view}. */
  protected at(index: number): number {
    checkInteger('index', index, 0, this.#length - 1);
    return index * this.rowSize;
  }

  /** Adds a row, to be written at the offset that is returned. */
  protected append(): number {
    const offset = this.#length * this.rowSize;
    if (offset === this.#bytes.length) this.#grow(Math.max(FIRST_ROWS, this.#length * 2));
    this.#length++;
    return offset;
  }

  /** Adds rows that are known to be good, as they lie in memory. */
  protected appendRows(rows: Uint8Array): void {
    const offset = this.#length * this.rowSize;
    const end = offset + rows.length;
    if (end > this.#bytes.length) this.#grow(Math.max(end / this.rowSize, this.#length * 2));
    this.#bytes.set(rows, offset);
    this.#length += rows.length / this.rowSize;
  }

  #grow(rows: number): void {
    const bytes = new Uint8Array(rows * this.rowSize);
    bytes.set(this.rows);
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }
}

/** An address, in messages. */
