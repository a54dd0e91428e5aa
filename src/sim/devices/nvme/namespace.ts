/** A namespace of a simulated NVMe controller. It exists apart from the controller, and outlives it. @module */
import { FileStorage, MemoryStorage, type Storage } from './storage.js';

/** An LBA format: block size as a power of two, and bytes of metadata per block. */
export interface BlockFormat {
  readonly shift: number;
  readonly metadata: number;
}

/** Those that QEMU's namespaces have. Those with metadata are listed, and cannot be chosen here. */
export const BLOCK_FORMATS: readonly BlockFormat[] = [9, 12].flatMap(shift =>
  [0, 8, 16, 64].map(metadata => ({ shift, metadata })),
);

/** In bytes. */
const DEFAULT_SIZE = 128 * 2 ** 20;

export interface NvmeNamespaceOptions {
  /** 1 to 256. */
  readonly id: number;
  /** 512 or 4096 bytes. */
  readonly blockSize: number;
  /** In bytes; 128 MiB unless told. */
  readonly size?: number;
  /** A raw disk image that its blocks are in, made if it is not there; they are in memory unless told. */
  readonly file?: string;
}

/** What SMART counts. */
export interface NamespaceCounters {
  bytesRead: number;
  bytesWritten: number;
  reads: number;
  writes: number;
}

export class NvmeNamespaceModel implements Disposable {
  readonly id: number;
  readonly storage: Storage;
  /** Index into {@link BLOCK_FORMATS}. */
  format: number;
  /** The volatile write cache is on. */
  writeCache = true;
  /** The feature Error Recovery: bit 16 makes reads of deallocated blocks fail. */
  errorRecovery = 0;
  readonly counters: NamespaceCounters = { bytesRead: 0, bytesWritten: 0, reads: 0, writes: 0 };
  /** Milliseconds between two operations; 0 when there is no limit. */
  #interval = 0;
  /** When the next operation may begin, as `performance.now()` counts. */
  #next = 0;

  constructor(options: NvmeNamespaceOptions) {
    this.id = options.id;
    const size = options.size ?? DEFAULT_SIZE;
    this.format = BLOCK_FORMATS.findIndex(
      ({ shift, metadata }) => metadata === 0 && 2 ** shift === options.blockSize,
    );
    if (this.format < 0) throw new RangeError(`the block size must be 512 or 4096, got ${options.blockSize}`);
    this.storage = options.file === undefined ? new MemoryStorage(size) : new FileStorage(options.file, size);
  }

  /** In bytes. */
  get blockSize(): number {
    return 2 ** (BLOCK_FORMATS[this.format] as BlockFormat).shift;
  }

  /** Size in logical blocks. */
  get blocks(): number {
    return Math.floor(this.storage.size / this.blockSize);
  }

  /** At most `iops` operations a second from now on; 0 lifts the limit. */
  throttle(iops: number): void {
    this.#interval = iops === 0 ? 0 : 1000 / iops;
    this.#next = performance.now();
  }

  /** How long an operation that is due now has to wait, in milliseconds; 0: it may begin, and counts. */
  admit(): number {
    if (this.#interval === 0) return 0;
    const now = performance.now();
    if (this.#next > now) return this.#next - now;
    this.#next = now + this.#interval;
    return 0;
  }

  /** Closes its disk image, if it has one. */
  [Symbol.dispose](): void {
    this.storage[Symbol.dispose]();
  }
}
