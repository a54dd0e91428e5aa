/** A bitmap in user memory with a bit for each page of a range of IOVAs: the counterpart of `struct iova_bitmap`. @module */
import { PAGE } from '../machine/physical-memory.js';
import type { SimulatedProcess } from '../process/process.js';

/** IOVAs, and where the bits for them go. */
export interface DirtyRange {
  readonly iova: bigint;
  /** In bytes. */
  readonly length: bigint;
  /** What a bit stands for, in bytes: its lowest bit counts. */
  readonly pageSize: bigint;
  /** Of the bitmap, in user memory. */
  readonly address: bigint;
}

/** As many pages of a bitmap are pinned at a time. */
const MAX_PINNED = 512;

/** The part of the bitmap that is pinned. */
interface Window {
  /** What its first bit stands for. */
  readonly iova: bigint;
  /** In bytes of IOVA. */
  readonly length: bigint;
  /** Where its first bit is. */
  readonly address: bigint;
  /** How many bits there are from there to the end of the last page that is pinned. */
  readonly bits: bigint;
}

export class IovaBitmap {
  readonly #process: SimulatedProcess;
  readonly #range: DirtyRange;
  readonly #shift: bigint;
  /** In bytes. */
  readonly #size: bigint;
  #window: Window | undefined;

  constructor(process: SimulatedProcess, range: DirtyRange) {
    this.#process = process;
    this.#range = range;
    let shift = 0n;
    while (((range.pageSize >> shift) & 1n) === 0n) shift++;
    this.#shift = shift;
    this.#size = ((range.length - 1n) >> shift) / 8n + 1n;
  }

  /**
   * Sets the bits of a range. Nothing is set, and nobody told, when it begins before the bitmap or where there is no
   * memory; a range that ends after the bitmap sets bits up to the end of the page that the bitmap ends in.
   */
  set(iova: bigint, length: bigint): void {
    let at = iova;
    const end = iova + length;
    while (at < end) {
      const window = this.#covering(at, end);
      if (window === undefined) return;
      const first = (at - window.iova) >> this.#shift;
      const last = (end - 1n - window.iova) >> this.#shift;
      const fits = last < window.bits ? last : window.bits - 1n;
      this.#fill(window.address, first, fits);
      if (fits === last) return;
      at = end - ((last - fits) << this.#shift);
    }
  }

  /** The window that has the range, or if there is none yet one that begins with it. */
  #covering(first: bigint, end: bigint): Window | undefined {
    const window = this.#window;
    if (window !== undefined && first >= window.iova && end <= window.iova + window.length) return window;
    const { iova } = this.#range;
    const index = first < iova ? this.#size : ((first - iova) >> this.#shift) / 8n;
    if (index >= this.#size) return undefined;
    this.#window = this.#pin(index);
    return this.#window;
  }

  /** Pins the bitmap from byte `index` on. */
  #pin(index: bigint): Window | undefined {
    const address = this.#range.address + index;
    const offset = Number(address % BigInt(PAGE));
    const wanted = Math.ceil(Number(this.#size - index) / PAGE) + (offset === 0 ? 0 : 1);
    let pages = 0;
    for (const limit = Math.min(wanted, MAX_PINNED); pages < limit; pages++) {
      const mapping = this.#process.memory.find(address - BigInt(offset) + BigInt(pages * PAGE));
      if (mapping === undefined || mapping.device || !mapping.writeable) break;
    }
    if (pages === 0) return undefined;
    const bytes = BigInt(pages * PAGE - offset);
    const used = bytes < this.#size - index ? bytes : this.#size - index;
    const iova = this.#range.iova + ((index * 8n) << this.#shift);
    const covered = (used * 8n) << this.#shift;
    const left = this.#range.iova + this.#range.length - iova;
    return { iova, length: covered < left ? covered : left, address, bits: bytes * 8n };
  }

  #fill(address: bigint, first: bigint, last: bigint): void {
    const start = first / 8n;
    const bytes = this.#process.copyIn(address + start, Number(last / 8n - start) + 1);
    if (typeof bytes === 'number') return;
    const from = Number(first % 8n);
    const to = from + Number(last - first);
    for (let bit = from; bit <= to; ) {
      const index = bit >> 3;
      if ((bit & 7) === 0 && bit + 7 <= to) {
        bytes[index] = 0xff;
        bit += 8;
      } else {
        bytes[index] = (bytes[index] as number) | (1 << (bit & 7));
        bit++;
      }
    }
    this.#process.copyOut(address + start, bytes);
  }
}
