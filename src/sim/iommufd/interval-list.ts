/** Any number of intervals that do not overlap, in order. @module */
import { firstEndingAt, type Interval } from './intervals.js';

/** What is moved when one comes or goes is no more than this. */
const CHUNK = 512;

/** In chunks: one array of a million would take minutes to be emptied from its front. */
export class IntervalList<T extends Interval> implements Iterable<T> {
  /** None is empty. */
  readonly #chunks: T[][] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  *[Symbol.iterator](): IterableIterator<T> {
    for (const chunk of this.#chunks) yield* chunk;
  }

  /** The chunk that has the first interval that ends at `at` or later; their number when none does. */
  #chunkAt(at: bigint): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (((this.#chunks[middle] as T[]).at(-1) as T).last < at) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The first that ends at `at` or later. */
  find(at: bigint): T | undefined {
    const chunk = this.#chunks[this.#chunkAt(at)];
    return chunk?.[firstEndingAt(chunk, at)];
  }

  /** All from {@link find} on. */
  *from(at: bigint): IterableIterator<T> {
    let index = this.#chunkAt(at);
    let start = firstEndingAt(this.#chunks[index] ?? [], at);
    for (; index < this.#chunks.length; index++, start = 0) {
      const chunk = this.#chunks[index] as T[];
      for (let i = start; i < chunk.length; i++) yield chunk[i] as T;
    }
  }

  insert(interval: T): void {
    const index = Math.min(this.#chunkAt(interval.first), this.#chunks.length - 1);
    const chunk = this.#chunks[index];
    this.#size++;
    if (chunk === undefined) {
      this.#chunks.push([interval]);
      return;
    }
    chunk.splice(firstEndingAt(chunk, interval.first), 0, interval);
    if (chunk.length <= CHUNK) return;
    // What comes in order leaves full chunks behind.
    const isLast = index === this.#chunks.length - 1 && chunk.at(-1) === interval;
    this.#chunks.splice(index + 1, 0, chunk.splice(isLast ? CHUNK : CHUNK / 2));
  }

  /** @param interval one that is in the list */
  remove(interval: T): void {
    const index = this.#chunkAt(interval.first);
    const chunk = this.#chunks[index] as T[];
    chunk.splice(firstEndingAt(chunk, interval.first), 1);
    if (chunk.length === 0) this.#chunks.splice(index, 1);
    this.#size--;
  }
}
