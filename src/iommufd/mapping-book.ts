/** What is mapped in an address space, in order, in a sixth of the memory that an object for each would take. @module */
import type { Iova } from '../address.js';
import type { IoasMapping } from './ioas.js';
import { MappedFiles } from './mapped-files.js';
import { MappingRows } from './mapping-rows.js';

/** What is moved when a mapping comes or goes is no more rows than this. */
const CHUNK = 256;

export class MappingBook implements Iterable<IoasMapping> {
  /** None is empty. */
  readonly #chunks: MappingRows[] = [];
  readonly #files = new MappedFiles();
  #size = 0;
  /** How often rows were moved, for whoever is in the middle of them. */
  #moves = 0;

  get size(): number {
    return this.#size;
  }

  /** What the mappings are of, each once. */
  get files(): MappedFiles {
    return this.#files;
  }

  /** All mappings, piece by piece, with indexes into {@link files}. Only to be read, and not over a change. */
  get pieces(): Iterable<MappingRows> {
    return this.#chunks;
  }

  /** The chunk that has the first mapping at or above an IOVA; their number when there is none. */
  #chunkAt(iova: bigint): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#chunks[middle] as MappingRows).last < iova) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Notes a mapping, in place of one at the same IOVA. */
  add(mapping: IoasMapping): void {
    const { iova, file } = mapping;
    const index = this.#chunkAt(iova);
    const chunk = this.#chunks[index];
    const row = chunk?.find(iova) ?? 0;
    if (chunk !== undefined && chunk.iova(row) === iova) {
      this.#files.drop(chunk.file(row));
      chunk.write(row, mapping, this.#files.use(file));
    } else {
      const place = this.#makeRoom(index, row);
      place.chunk.write(place.row, mapping, this.#files.use(file));
      this.#size++;
    }
  }

  /** An empty row before the row `row` of the chunk `index`, or behind all others. */
  #makeRoom(index: number, row: number): { readonly chunk: MappingRows; readonly row: number } {
    let chunk = this.#chunks[index];
    if (chunk === undefined) {
      chunk = this.#chunks.at(-1);
      if (chunk === undefined || chunk.length === CHUNK) {
        chunk = new MappingRows(CHUNK);
        this.#chunks.push(chunk);
      }
      return { chunk, row: chunk.length++ };
    }
    this.#moves++;
    let at = row;
    if (chunk.length === CHUNK) {
      this.#split(index, CHUNK / 2);
      if (at > chunk.length) {
        at -= chunk.length;
        chunk = this.#chunks[index + 1] as MappingRows;
      }
    }
    chunk.move(at, at + 1);
    return { chunk, row: at };
  }

  /** Cuts a chunk in two before a row. */
  #split(index: number, row: number): void {
    const chunk = this.#chunks[index] as MappingRows;
    const upper = new MappingRows(CHUNK);
    upper.append(chunk, row, chunk.length);
    chunk.length = row;
    this.#chunks.splice(index + 1, 0, upper);
  }

  /**
   * Notes mappings, none of them where there is one.
   *
   * @param files by the indexes that the rows have
   */
  addAll(rows: MappingRows, files: readonly IoasMapping['file'][]): void {
    if (rows.length === 0) return;
    let index = this.#chunkAt(rows.iova(0));
    let chunk = this.#chunks[index];
    const row = chunk?.find(rows.iova(0)) ?? 0;
    if (chunk !== undefined && chunk.iova(row) <= rows.last) {
      // Some of those here are between them.
      for (let each = 0; each < rows.length; each++) this.add(rows.read(each, files[rows.file(each)]));
      return;
    }
    const uses: number[] = [];
    for (let each = 0; each < rows.length; each++) {
      const file = rows.file(each);
      uses[file] = (uses[file] ?? 0) + 1;
    }
    const indexes = uses.map((count, file) => this.#files.use(files[file], count));
    this.#moves++;
    if (row > 0) this.#split(index++, row);
    for (let done = 0; done < rows.length; ) {
      chunk = this.#chunks[index - 1];
      if (chunk === undefined || chunk.length === CHUNK) {
        chunk = new MappingRows(CHUNK);
        this.#chunks.splice(index++, 0, chunk);
      }
      const start = chunk.length;
      const count = Math.min(CHUNK - start, rows.length - done);
      chunk.append(rows, done, done + count);
      for (let each = start; each < chunk.length; each++) {
        chunk.setFile(each, indexes[chunk.file(each)] as number);
      }
      done += count;
    }
    this.#size += rows.length;
  }

  /** The mapping that begins at `iova`. */
  get(iova: bigint): IoasMapping | undefined {
    const chunk = this.#chunks[this.#chunkAt(iova)];
    if (chunk === undefined) return undefined;
    const row = chunk.find(iova);
    if (row >= chunk.length || chunk.iova(row) !== iova) return undefined;
    return chunk.read(row, this.#files.at(chunk.file(row)));
  }

  /** Forgets every mapping that begins in a range. */
  delete(iova: bigint, length: bigint): void {
    const end = iova + length;
    for (;;) {
      const index = this.#chunkAt(iova);
      const chunk = this.#chunks[index];
      if (chunk === undefined) return;
      const first = chunk.find(iova);
      const behind = chunk.find(end);
      if (first === behind) return;
      for (let row = first; row < behind; row++) this.#files.drop(chunk.file(row));
      chunk.move(behind, first);
      if (chunk.length === 0) this.#chunks.splice(index, 1);
      this.#size -= behind - first;
      this.#moves++;
    }
  }

  clear(): void {
    this.#chunks.length = 0;
    this.#files.clear();
    this.#size = 0;
    this.#moves++;
  }

  /** In order. What comes or goes meanwhile may be among them or not; nothing comes twice. */
  [Symbol.iterator](): IterableIterator<IoasMapping> {
    return this.#from(0, 0);
  }

  *#from(startChunk: number, startRow: number): IterableIterator<IoasMapping> {
    let index = startChunk;
    let row = startRow;
    for (let chunk = this.#chunks[index]; chunk !== undefined; chunk = this.#chunks[index]) {
      if (row >= chunk.length) {
        index++;
        row = 0;
        continue;
      }
      const iova = chunk.iova(row);
      const moves = this.#moves;
      yield chunk.read(row, this.#files.at(chunk.file(row)));
      row++;
      if (this.#moves !== moves) {
        index = this.#chunkAt(iova + 1n);
        row = this.#chunks[index]?.find(iova + 1n) ?? 0;
      }
    }
  }

  /** The parts of mappings that lie in a range, as mappings of their own. */
  *within(iova: bigint, length: bigint): IterableIterator<IoasMapping> {
    const end = iova + length;
    let index = this.#chunkAt(iova);
    let row = this.#chunks[index]?.find(iova) ?? 0;
    // The one before may reach into the range.
    if (row > 0) row--;
    else if (index > 0) row = (this.#chunks[--index] as MappingRows).length - 1;
    for (const mapping of this.#from(index, row)) {
      if (mapping.iova >= end) return;
      const before = mapping.iova < iova ? iova - mapping.iova : 0n;
      const behind = mapping.iova + mapping.length - end;
      const inside = mapping.length - before - (behind > 0n ? behind : 0n);
      if (inside <= 0n) continue;
      const first = (mapping.iova + before) as Iova;
      yield { ...mapping, iova: first, length: inside, offset: mapping.offset + before };
    }
  }
}
