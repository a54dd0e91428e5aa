/** The third argument of `ioctl(2)` as the kernel sees it: a pointer into user memory, or an integer. @module */
import { EFAULT } from '../../../bindings/uapi/errno.js';
import type { SimulatedProcess } from './process.js';

/** User memory behind a pointer. Offsets are in bytes from where it points. */
export class UserArgument {
  readonly #process: SimulatedProcess;
  readonly #argument: Uint8Array | number;

  constructor(process: SimulatedProcess, argument: Uint8Array | number) {
    this.#process = process;
    this.#argument = argument;
  }

  /** The integer, where the request takes one. A pointer has a value that no request knows. */
  get value(): number {
    return typeof this.#argument === 'number' ? this.#argument : Number.MAX_SAFE_INTEGER;
  }

  /** A copy of `length` bytes. @returns minus EFAULT where they are not all there */
  read(offset: number, length: number): Uint8Array | number {
    if (length === 0) return new Uint8Array(0);
    if (this.#process.shouldFail()) return -EFAULT;
    if (typeof this.#argument === 'number') {
      const found = this.#process.memory.read(BigInt(this.#argument) + BigInt(offset), length);
      return typeof found === 'number' ? found : found.slice();
    }
    if (offset + length > this.#argument.byteLength) return -EFAULT;
    return this.#argument.slice(offset, offset + length);
  }

  /** Writes as many of `bytes` as there is room for. @returns 0, or minus EFAULT where there is too little */
  write(offset: number, bytes: Uint8Array): number {
    if (bytes.byteLength === 0) return 0;
    if (this.#process.shouldFail()) return -EFAULT;
    if (typeof this.#argument === 'number') {
      return this.#process.memory.write(BigInt(this.#argument) + BigInt(offset), bytes);
    }
    const room = Math.max(0, Math.min(bytes.byteLength, this.#argument.byteLength - offset));
    this.#argument.set(bytes.subarray(0, room), Math.min(offset, this.#argument.byteLength));
    return room < bytes.byteLength ? -EFAULT : 0;
  }
}

/** `bytes` as a view that structs are read from and written to. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
