/** DMA buffers for callers whose data is in ordinary memory: a bounded pool that is waited for, first come first served. */
import { DeviceError } from '../../errors.js';
import { DEVICE_PAGE } from '../../memory/device-pages.js';
import type { DmaBuffer } from '../../memory/dma-buffer.js';
import type { DmaMemory } from '../../memory/dma-memory.js';

export class BouncePool {
  readonly #memory: DmaMemory;
  readonly #waiting: (() => void)[] = [];

  constructor(memory: DmaMemory) {
    this.#memory = memory;
  }

  /** Largest buffer it can ever give, in bytes. */
  get capacity(): number {
    return this.#memory.size;
  }

  /** A buffer of `size` bytes, page-aligned, as soon as there is room. Disposing of it makes room again. */
  async acquire(size: number): Promise<DmaBuffer & Disposable> {
    // Whoever waits already goes first, or large requests would starve.
    if (this.#waiting.length > 0) await this.#turn();
    for (;;) {
      try {
        return this.#memory.allocate(size, { alignment: DEVICE_PAGE });
      } catch (error) {
        if (!(error instanceof DeviceError)) throw error;
      }
      await this.#turn();
    }
  }

  #turn(): Promise<void> {
    return new Promise(resolve => this.#waiting.push(resolve));
  }

  /** Returns a buffer. */
  release(buffer: DmaBuffer): void {
    buffer[Symbol.dispose]();
    this.#waiting.shift()?.();
  }
}
