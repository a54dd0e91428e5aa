/** Memory that can be mapped: anonymous, a memfd's, or a device's own. Page by page it has frames. @module */
import type { FrameOwner } from './physical-memory.js';
import { PAGE, type PhysicalMemory } from './physical-memory.js';

const HUGE = 2 ** 21;

/**
 * Bytes with page frames behind them, which a page gets when it is first asked for ({@link frame}). The bytes are one
 * `ArrayBuffer`, so that a view of them is a view of the very memory that devices reach.
 */
export class MemoryObject implements FrameOwner {
  readonly name: string;
  readonly #physical: PhysicalMemory;
  /** In bytes: 4096, or 2 MiB. */
  readonly pageSize: number;
  #buffer: ArrayBuffer | undefined;
  #bytes = new Uint8Array(0);
  #size: number;
  readonly #frames = new Map<number, number>();
  #references = 1;

  constructor(physical: PhysicalMemory, name: string, size: number, pageSize = PAGE, buffer?: ArrayBuffer) {
    this.#physical = physical;
    this.name = name;
    this.#size = size;
    this.pageSize = pageSize;
    if (buffer !== undefined) {
      this.#buffer = buffer;
      this.#bytes = new Uint8Array(buffer);
    }
  }

  /** In bytes. */
  get size(): number {
    return this.#size;
  }

  /** In pages of 4096 bytes. */
  get pages(): number {
    return Math.ceil(this.#size / PAGE);
  }

  /** Whole pages, always the same until their number is another. */
  get buffer(): ArrayBuffer {
    if (this.#buffer === undefined) {
      this.#buffer = new ArrayBuffer(this.pages * PAGE);
      this.#bytes = new Uint8Array(this.#buffer);
    }
    return this.#buffer;
  }

  get bytes(): Uint8Array {
    this.buffer;
    return this.#bytes;
  }

  page(index: number): Uint8Array {
    return this.bytes.subarray(index * PAGE, (index + 1) * PAGE);
  }

  /** Another size. Frames beyond it go; views made before show what was. */
  resize(size: number): void {
    if (size === this.#size) return;
    // Before the bytes go: a frame that is pinned keeps its own.
    const end = Math.ceil(size / PAGE);
    for (const [index, frame] of this.#frames) {
      if (index >= end) {
        this.#frames.delete(index);
        this.#physical.free(frame);
      }
    }
    if (this.#buffer !== undefined) {
      if (end !== this.pages) {
        const old = this.#bytes.subarray(0, end * PAGE);
        this.#buffer = new ArrayBuffer(end * PAGE);
        this.#bytes = new Uint8Array(this.#buffer);
        this.#bytes.set(old);
      }
      // What is beyond the end in the last page is cleared when the end comes there, and left alone when it goes on.
      if (size < this.#size) this.#bytes.fill(0, size);
    }
    this.#size = size;
  }

  /** The frame of page `index`, given to it now if it has none; undefined when there is no memory. */
  frame(index: number): number | undefined {
    const found = this.#frames.get(index);
    if (found !== undefined) return found;
    if (this.pageSize === PAGE) {
      const frame = this.#physical.allocate(this, index);
      if (frame !== undefined) this.#frames.set(index, frame);
      return frame;
    }
    const pages = HUGE / PAGE;
    const first = index - (index % pages);
    const frame = this.#physical.allocateHuge(this, first);
    if (frame === undefined) return undefined;
    for (let i = 0; i < pages; i++) this.#frames.set(first + i, frame + i);
    return frame + (index - first);
  }

  /** Gives frames to `count` pages from `first` on. @returns whether there is memory for all of them */
  populate(first: number, count: number): boolean {
    for (let page = first; page < first + count; page += this.pageSize / PAGE) {
      if (this.frame(page) === undefined) return false;
    }
    return true;
  }

  /** A device may be using a page of it. */
  get pinned(): boolean {
    for (const frame of this.#frames.values()) if (this.#physical.pins(frame) > 0) return true;
    return false;
  }

  /** Gives page `index` a frame that was kept for it: memory that outlives its kernel. */
  restore(index: number, frame: number): void {
    this.#physical.place(frame, this, index);
    this.#frames.set(index, frame);
  }

  /** The frame of page `index` if it has one. */
  frameIfPresent(index: number): number | undefined {
    return this.#frames.get(index);
  }

  /** One more user: an open file, or a mapping. */
  get(): this {
    this.#references++;
    return this;
  }

  /** A user less. With the last one all frames go that are not pinned; those go with their last pin. */
  put(): void {
    if (--this.#references > 0) return;
    for (const frame of this.#frames.values()) this.#physical.free(frame);
    this.#frames.clear();
  }
}
