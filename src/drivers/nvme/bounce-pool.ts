/** DMA buffers for callers whose data is in ordinary memory: a bounded pool that is waited for, first come first served. */
import { DeviceError } from '../../errors.js';
import { DEVICE_PAGE } from '../../memory/device-pages.js';
import type { DmaBuffer } from '../../memory/dma-buffer.js';
import type { DmaMemory } from '../../memory/dma-memory.js';

export class BouncePool {
  readonly #memory: DmaMemory;
  /** Ends when everyone who asked before has been served. */
  #last: Promise<void> = Promise.resolve();
  /** Wakes the one whose turn it is, and who waits for room. */
  #wake: (() => void) | undefined;
  #end: Error | undefined;

  constructor(memory: DmaMemory) {
    this.#memory = memory;
  }

  /** Largest buffer it can ever give, in bytes. */
  get capacity(): number {
    return this.#memory.size;
  }

  /** A buffer of `size` bytes, page-aligned, as soon as there is room. Disposing of it makes room again. */
  async acquire(size: number): Promise<DmaBuffer> {
    const before = this.#last;
    let done = (): void => undefined;
    this.#last = new Promise(resolve => {
      done = resolve;
    });
    try {
      // In order, or large requests would starve.
      await before;
      for (;;) {
        if (this.#end) throw this.#end;
        try {
          return this.#memory.allocate(size, { alignment: DEVICE_PAGE });
        } catch (error) {
          if (!(error instanceof DeviceError)) throw error;
        }
        await new Promise<void>(resolve => {
          this.#wake = resolve;
        });
      }
    } finally {
      done();
    }
  }

  /** Returns a buffer. */
  release(buffer: DmaBuffer): void {
    buffer[Symbol.dispose]();
    this.noteRoom();
  }

  /** There is more room in the memory than before. */
  noteRoom(): void {
    this.#wake?.();
  }

  /** Whoever waits, and whoever comes, gets `error`. */
  end(error: Error): void {
    this.#end = error;
    this.#wake?.();
  }
}
