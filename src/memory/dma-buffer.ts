/** A piece of DMA memory: bytes for the program, addresses for the device. @module */
import type { DeviceAddress } from '../address.js';
import { checkRange } from '../check.js';
import { DisposedError } from '../errors.js';
import type { DeviceSegment } from './device-pages.js';
import type { DmaMemory } from './dma-memory.js';

/**
 * A buffer carved out of {@link DmaMemory}. Disposing returns the room; do so only when no device may still use it.
 */
export class DmaBuffer implements Disposable {
  readonly memory: DmaMemory;
  /** Where it begins in {@link memory}, in bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly byteLength: number;
  readonly #bytes: Uint8Array;
  readonly #release: () => void;
  #freed = false;

  /** @internal Use `DmaMemory.allocate`. */
  constructor(memory: DmaMemory, offset: number, byteLength: number, release: () => void) {
    this.memory = memory;
    this.offset = offset;
    this.byteLength = byteLength;
    this.#bytes = new Uint8Array(memory.buffer, offset, byteLength);
    this.#release = release;
  }

  /** The memory itself. Must not be touched after the memory is disposed of: the process would end. */
  get bytes(): Uint8Array {
    this.#require();
    return this.#bytes;
  }

  #require(): void {
    if (this.#freed || this.memory.disposed) throw new DisposedError(`DmaBuffer of ${this.byteLength} bytes`);
  }

  /** The same memory, for reading and writing fields of descriptors. */
  get view(): DataView {
    const { buffer, byteOffset, byteLength } = this.bytes;
    return new DataView(buffer, byteOffset, byteLength);
  }

  /** The device's address of the byte at `offset`. What follows may be elsewhere: see {@link segments}. */
  deviceAddress(offset = 0): DeviceAddress {
    this.#require();
    checkRange('buffer', offset, 1, this.byteLength);
    return this.memory.deviceAddress(this.offset + offset);
  }

  /** The runs of device addresses that make up `length` bytes from `offset`; their offsets count from the buffer. */
  segments(offset = 0, length = this.byteLength - offset): DeviceSegment[] {
    this.#require();
    checkRange('buffer', offset, length, this.byteLength);
    return this.memory.pages
      .segments(this.offset + offset, length)
      .map(segment => ({ ...segment, offset: segment.offset - this.offset }));
  }

  /**
   * The same memory, `length` bytes from `offset`, as a buffer: for a transfer of a part. Disposing of the part frees
   * nothing.
   */
  part(offset: number, length = this.byteLength - offset): DmaBuffer {
    checkRange('buffer', offset, length, this.byteLength);
    this.bytes; // throws when it was freed
    return new DmaBuffer(this.memory, this.offset + offset, length, () => undefined);
  }

  /** Returns the room to the memory. Idempotent. */
  [Symbol.dispose](): void {
    if (this.#freed) return;
    this.#freed = true;
    this.#release();
  }
}
