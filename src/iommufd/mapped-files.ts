/** The files that mappings are of, by a number, for as long as any mapping is of them. @module */
import type { IoasMapping } from './ioas.js';

/** `undefined` stands for memory of a process. */
type File = IoasMapping['file'];

export class MappedFiles implements Iterable<File> {
  readonly #indexOf = new Map<File, number>();
  readonly #files: File[] = [];
  readonly #uses: number[] = [];
  readonly #free: number[] = [];

  [Symbol.iterator](): IterableIterator<File> {
    return this.#indexOf.keys();
  }

  at(index: number): File {
    return this.#files[index];
  }

  /** @returns its index, for `uses` mappings more */
  use(file: File, uses = 1): number {
    let index = this.#indexOf.get(file);
    if (index === undefined) {
      index = this.#free.pop() ?? this.#files.length;
      this.#indexOf.set(file, index);
      this.#files[index] = file;
      this.#uses[index] = 0;
    }
    this.#uses[index] = (this.#uses[index] as number) + uses;
    return index;
  }

  /** A mapping less. */
  drop(index: number): void {
    const uses = (this.#uses[index] as number) - 1;
    this.#uses[index] = uses;
    if (uses > 0) return;
    this.#indexOf.delete(this.#files[index]);
    this.#files[index] = undefined;
    this.#free.push(index);
  }

  clear(): void {
    this.#indexOf.clear();
    for (const list of [this.#files, this.#uses, this.#free]) list.length = 0;
  }
}
