/** An open file description: what descriptors, and parts of the simulated kernel, refer to. @module */
import { EINVAL, ENODEV, ENOTTY, ESPIPE } from '../../../bindings/uapi/errno.js';
import type { MemoryObject } from '../machine/memory-object.js';
import type { SimulatedProcess } from './process.js';

const ANONYMOUS_INODE = 1;
/** Below are those of device nodes. */
const FIRST_INODE = 0x1_0000;
let inodes = FIRST_INODE;

/** The number of a file that was made just now. */
export function newInode(): number {
  return ++inodes;
}

/** What {@link OpenFile.mmap} answers: memory, from the byte `offset` on. */
export interface Mappable {
  readonly memory: MemoryObject;
  /** In bytes; a multiple of the page size. */
  readonly offset: number;
  /** Called when the mapping goes. */
  readonly unmapped?: () => void;
}

/**
 * One open file. Born with one reference, which whoever opened it holds (a descriptor table, usually); released when
 * the last is put back. Every method answers as the system call of its name does: a result, or minus the errno.
 */
export abstract class OpenFile {
  /** As `/proc/self/fd` shows it: `/dev/iommu`, `anon_inode:[eventfd]`, `/memfd:queues (deleted)`. */
  abstract readonly name: string;
  /** The number of the file that was opened; anonymous ones have one in common. */
  readonly inode: number = ANONYMOUS_INODE;
  /** What `/proc/self/fdinfo` has of it beside the usual, a line each. */
  readonly details: readonly string[] = [];
  #references = 1;
  readonly #listeners = new Set<() => void>();

  get references(): number {
    return this.#references;
  }

  /** Takes one more reference. */
  get(): this {
    if (this.#references === 0) throw new Error(`${this.name}: used after its release`);
    this.#references++;
    return this;
  }

  /** Gives a reference back. */
  put(): void {
    if (this.#references === 0) throw new Error(`${this.name}: released twice`);
    if (--this.#references === 0) this.release();
  }

  /** The last reference is gone. */
  protected abstract release(): void;

  /** @param argument memory that is read and written in place, or an integer */
  ioctl(_process: SimulatedProcess, _request: number, _argument: Uint8Array | number): number {
    return -ENOTTY;
  }

  read(_process: SimulatedProcess, _buffer: Uint8Array): number {
    return -EINVAL;
  }

  write(_process: SimulatedProcess, _buffer: Uint8Array): number {
    return -EINVAL;
  }

  pread(_process: SimulatedProcess, _buffer: Uint8Array, _offset: number): number {
    return -ESPIPE;
  }

  pwrite(_process: SimulatedProcess, _buffer: Uint8Array, _offset: number): number {
    return -ESPIPE;
  }

  fcntl(_process: SimulatedProcess, _command: number, _argument: number): number {
    return -EINVAL;
  }

  ftruncate(_process: SimulatedProcess, _length: number): number {
    return -EINVAL;
  }

  mmap(
    _process: SimulatedProcess,
    _length: number,
    _protection: number,
    _flags: number,
    _offset: number,
  ): Mappable | number {
    return -ENODEV;
  }

  /** `'never'`: `epoll` refuses it. */
  get readable(): boolean | 'never' {
    return 'never';
  }

  /** Calls `listener` whenever {@link readable} may have become true. @returns how to stop */
  onReadable(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** For implementations: something can be read now. */
  protected wake(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}
