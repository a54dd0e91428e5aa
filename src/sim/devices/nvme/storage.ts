/** What the blocks of a simulated namespace are kept in: memory, or a raw disk image. @module */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';

/** Bytes from 0 to {@link size}. Offsets and lengths are the caller's to check. */
export interface Storage extends Disposable {
  /** In bytes. */
  readonly size: number;
  read(offset: number, into: Uint8Array): void;
  write(offset: number, from: Uint8Array): void;
  /** Makes bytes zero; they may be forgotten. */
  clear(offset: number, length: number): void;
  /** False when nothing was ever written there, or all of it was cleared. */
  allocated(offset: number, length: number): boolean;
  /** What was written is safe when it returns. */
  flush(): void;
}

/** In bytes. */
const CHUNK = 64 * 1024;

/** Storage in memory, which takes only as much as was written to, in pieces of 64 KiB. */
export class MemoryStorage implements Storage {
  readonly size: number;
  readonly #chunks = new Map<number, Uint8Array>();

  constructor(size: number) {
    this.size = size;
  }

  read(offset: number, into: Uint8Array): void {
    this.#pieces(offset, into.byteLength, (index, start, at, length) => {
      const chunk = this.#chunks.get(index);
      if (chunk === undefined) into.fill(0, at, at + length);
      else into.set(chunk.subarray(start, start + length), at);
    });
  }

  write(offset: number, from: Uint8Array): void {
    this.#pieces(offset, from.byteLength, (index, start, at, length) => {
      let chunk = this.#chunks.get(index);
      if (chunk === undefined) {
        chunk = new Uint8Array(CHUNK);
        this.#chunks.set(index, chunk);
      }
      chunk.set(from.subarray(at, at + length), start);
    });
  }

  clear(offset: number, length: number): void {
    this.#pieces(offset, length, (index, start, _at, piece) => {
      if (piece === CHUNK) this.#chunks.delete(index);
      else this.#chunks.get(index)?.fill(0, start, start + piece);
    });
  }

  allocated(offset: number, length: number): boolean {
    let all = true;
    this.#pieces(offset, length, index => {
      all &&= this.#chunks.has(index);
    });
    return all;
  }

  flush(): void {}

  [Symbol.dispose](): void {
    this.#chunks.clear();
  }

  #pieces(
    offset: number,
    length: number,
    visit: (index: number, start: number, at: number, length: number) => void,
  ): void {
    let index = Math.floor(offset / CHUNK);
    let start = offset % CHUNK;
    for (let at = 0; at < length; index++) {
      const piece = Math.min(CHUNK - start, length - at);
      visit(index, start, at, piece);
      at += piece;
      start = 0;
    }
  }
}

/** A raw disk image. */
export class FileStorage implements Storage {
  readonly size: number;
  readonly #fd: number;

  /** @param path made when it is not there, and made larger when it is too small @param size in bytes */
  constructor(path: string, size: number) {
    this.#fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o644);
    this.size = size;
    if (fstatSync(this.#fd).size < size) ftruncateSync(this.#fd, size);
  }

  read(offset: number, into: Uint8Array): void {
    let done = 0;
    while (done < into.byteLength) {
      const count = readSync(this.#fd, into, done, into.byteLength - done, offset + done);
      if (count === 0) break;
      done += count;
    }
    // Somebody else may have made it shorter.
    into.fill(0, done);
  }

  write(offset: number, from: Uint8Array): void {
    for (let done = 0; done < from.byteLength; ) {
      done += writeSync(this.#fd, from, done, from.byteLength - done, offset + done);
    }
  }

  clear(offset: number, length: number): void {
    const zeroes = new Uint8Array(Math.min(length, 2 ** 20));
    for (let done = 0; done < length; done += zeroes.byteLength) {
      this.write(offset + done, zeroes.subarray(0, Math.min(zeroes.byteLength, length - done)));
    }
  }

  allocated(): boolean {
    return true;
  }

  flush(): void {
    fsyncSync(this.#fd);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}
