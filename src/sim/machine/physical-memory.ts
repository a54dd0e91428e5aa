/**
 * The physical memory of the simulated machine: page frames, who has them, and what devices do to them.
 *
 * A frame has a number and, once somebody owns it, bytes; what nobody owns reads as zero and swallows writes, which are
 * counted ({@link PhysicalMemory.strayWrites}): without an IOMMU that is where a wild DMA lands.
 *
 * @module
 */
import { random } from '../random.js';

/** In bytes. */
export const PAGE = 4096;
const PAGES_2M = 512;

/** Where the bytes of a frame are. */
export interface FrameOwner {
  /** What it is, for messages. */
  readonly name: string;
  /** The bytes of its page `index`. */
  page(index: number): Uint8Array;
  /** A device wrote to the page, or user mode may have. */
  touched?(index: number): void;
}

interface Frame {
  readonly owner: FrameOwner;
  readonly index: number;
  /** References that keep it although its owner let go: pages that are pinned for DMA. */
  pins: number;
  /** Its owner let go; it is free once the last pin goes. */
  readonly orphan: boolean;
}

/** How a machine hands out frames. */
export interface PhysicalMemoryOptions {
  /** In bytes, a multiple of 2 MiB; 2 GiB unless told. */
  readonly size?: number;
  /**
   * The longest run of consecutive frames that an allocation gets, in pages: 1 scatters everything, `Infinity` keeps
   * each allocation in one piece. 8 unless told.
   */
  readonly longestRun?: number;
  /** Huge pages of 2 MiB set aside at boot; 8 unless told. */
  readonly hugePages?: number;
  readonly seed?: number;
  /** Frames that are in use from the beginning, and get their owners by {@link PhysicalMemory.place}. */
  readonly kept?: ReadonlySet<number>;
}

/** A write by a device to memory that belongs to nobody. */
export interface StrayWrite {
  readonly address: bigint;
  /** In bytes. */
  readonly length: number;
}

/** What belongs to nobody, and what comes after memory that ends within a page, as some in the heap does. */
const NO_BYTES = new Uint8Array(0);
/** Frames are given out from here on; below it are firmware and the kernel. */
const FIRST_FRAME = 0x1000;
/** Memory is cut up chunk by chunk, as it is needed; in pages. */
const CHUNK = 512;

export class PhysicalMemory {
  /** In bytes. */
  readonly size: number;
  readonly strayWrites: StrayWrite[] = [];
  readonly #frames = new Map<number, Frame>();
  /** Frames that can be had at once. */
  readonly #free: number[] = [];
  /** Pieces of memory that nothing was taken from yet; the first frame of each. */
  readonly #chunks: number[] = [];
  readonly #huge: number[] = [];
  /** The first frame that is a part of a huge page. */
  readonly #firstHuge: number;
  readonly #longestRun: number;
  readonly #kept: ReadonlySet<number>;
  readonly #options: PhysicalMemoryOptions;
  readonly #random;

  constructor(options: PhysicalMemoryOptions = {}) {
    const { size = 2 ** 31, longestRun = 8, hugePages = 8, seed = 1, kept = new Set() } = options;
    this.#options = options;
    this.#kept = kept;
    this.size = size;
    this.#longestRun = longestRun;
    this.#random = random(seed);
    this.#firstHuge = size / PAGE - hugePages * PAGES_2M;
    for (let page = hugePages - 1; page >= 0; page--) this.#huge.push(this.#firstHuge + page * PAGES_2M);
    for (let frame = this.#firstHuge - CHUNK; frame >= FIRST_FRAME; frame -= CHUNK) this.#chunks.push(frame);
    if (longestRun !== Number.POSITIVE_INFINITY) this.#random.shuffle(this.#chunks);
  }

  /** Makes the frames of one more chunk free: in runs, in random order, as memory is some time after boot. */
  #refill(): boolean {
    const chunk = this.#chunks.pop();
    if (chunk === undefined) return false;
    const end = chunk + CHUNK;
    const runs: { frame: number; length: number }[] = [];
    for (let frame = chunk; frame < end; ) {
      if (this.#longestRun === Number.POSITIVE_INFINITY) {
        runs.push({ frame, length: CHUNK });
        break;
      }
      const length = Math.min(1 + this.#random.below(this.#longestRun), end - frame);
      runs.push({ frame, length });
      // A hole of one frame between runs, so that two never join by chance.
      frame += length + 1;
    }
    // Taken from the end: the first frame of a run comes last.
    for (const { frame, length } of this.#random.shuffle(runs)) {
      for (let i = length - 1; i >= 0; i--) {
        if (!this.#kept.has(frame + i)) this.#free.push(frame + i);
      }
    }
    return true;
  }

  /**
   * The memory as the next kernel finds it after a kexec: nobody has anything of it, but for the frames in `kept`, and
   * it is handed out in another order.
   */
  successor(kept: ReadonlySet<number>): PhysicalMemory {
    return new PhysicalMemory({ ...this.#options, seed: (this.#options.seed ?? 1) + 1, kept });
  }

  /** Frames that are in use, pinned or not. */
  get usedPages(): number {
    return this.#frames.size;
  }

  /** Huge pages of 2 MiB, free or not. */
  get hugePages(): number {
    return (this.size / PAGE - this.#firstHuge) / PAGES_2M;
  }

  /** Huge pages of 2 MiB that can still be had. */
  get freeHugePages(): number {
    return this.#huge.length;
  }

  /** One frame for page `index` of `owner`; undefined when there is none. */
  allocate(owner: FrameOwner, index: number): number | undefined {
    if (this.#free.length === 0 && !this.#refill()) return undefined;
    const frame = this.#free.pop() as number;
    this.#frames.set(frame, { owner, index, pins: 0, orphan: false });
    return frame;
  }

  /** 512 consecutive frames for the pages of `owner` from `index` on; undefined when no huge page is left. */
  allocateHuge(owner: FrameOwner, index: number): number | undefined {
    const first = this.#huge.pop();
    if (first === undefined) return undefined;
    for (let i = 0; i < PAGES_2M; i++) {
      this.#frames.set(first + i, { owner, index: index + i, pins: 0, orphan: false });
    }
    return first;
  }

  /** The owner lets go of a frame. It is free now, or when its last pin goes. */
  free(frame: number): void {
    const { owner, index, pins } = this.#entry(frame);
    if (pins === 0) {
      this.#reclaim(frame);
      return;
    }
    // Whoever pinned it keeps what is in it now; what the owner has there next is in another frame.
    const bytes = owner.page(index).slice();
    this.#frames.set(frame, { owner: { name: owner.name, page: () => bytes }, index: 0, pins, orphan: true });
  }

  #reclaim(frame: number): void {
    this.#frames.delete(frame);
    if (frame < this.#firstHuge) {
      this.#free.push(frame);
      return;
    }
    // A huge page is free when all of it is.
    const first = frame - ((frame - this.#firstHuge) % PAGES_2M);
    for (let i = 0; i < PAGES_2M; i++) if (this.#frames.has(first + i)) return;
    this.#huge.push(first);
  }

  #entry(frame: number): Frame {
    const entry = this.#frames.get(frame);
    if (entry === undefined) throw new Error(`frame ${frame} is not in use`);
    return entry;
  }

  /** Keeps the frame, whatever becomes of its owner. */
  pin(frame: number): void {
    this.#entry(frame).pins++;
  }

  unpin(frame: number): void {
    const entry = this.#entry(frame);
    if (entry.pins === 0) throw new Error(`frame ${frame} is not pinned`);
    entry.pins--;
    if (entry.pins === 0 && entry.orphan) this.#reclaim(frame);
  }

  /** How many pins a frame has. */
  pins(frame: number): number {
    return this.#frames.get(frame)?.pins ?? 0;
  }

  /** Whose a frame is; undefined when it is in nobody's hands. */
  ownerOf(frame: number): string | undefined {
    return this.#frames.get(frame)?.owner.name;
  }

  /** The frames that are pinned, in order, and whose they are. */
  pinned(): { frame: number; owner: string }[] {
    const found: { frame: number; owner: string }[] = [];
    for (const [frame, { pins, owner }] of this.#frames)
      if (pins > 0) found.push({ frame, owner: owner.name });
    return found.sort((a, b) => a.frame - b.frame);
  }

  /** All pins of all frames. */
  get pinnedPages(): number {
    let count = 0;
    for (const { pins } of this.#frames.values()) if (pins > 0) count++;
    return count;
  }

  /** What a device sees at `address`. What belongs to nobody reads as zero. */
  read(address: bigint, into: Uint8Array): void {
    this.#pieces(address, into.byteLength, (entry, offset, at, length) => {
      const found = entry?.owner.page(entry.index).subarray(offset, offset + length) ?? NO_BYTES;
      into.set(found, at);
      into.fill(0, at + found.byteLength, at + length);
    });
  }

  /** A device writes at `address`. */
  write(address: bigint, from: Uint8Array): void {
    this.#pieces(address, from.byteLength, (entry, offset, at, length) => {
      const found = entry?.owner.page(entry.index).subarray(offset, offset + length) ?? NO_BYTES;
      const { byteLength } = found;
      found.set(from.subarray(at, at + byteLength));
      if (byteLength > 0) entry?.owner.touched?.(entry.index);
      if (byteLength === length) return;
      this.strayWrites.push({ address: address + BigInt(at + byteLength), length: length - byteLength });
    });
  }

  #pieces(
    address: bigint,
    length: number,
    visit: (frame: Frame | undefined, offset: number, at: number, length: number) => void,
  ): void {
    let frame = Number(address >> 12n);
    let offset = Number(address & 0xfffn);
    for (let at = 0; at < length; ) {
      const piece = Math.min(PAGE - offset, length - at);
      visit(this.#frames.get(frame), offset, at, piece);
      at += piece;
      offset = 0;
      frame++;
    }
  }

  /** Tables and other memory of hardware or kernel at a fixed place, which is in use from then on. */
  place(frame: number, owner: FrameOwner, index: number): void {
    if (this.#frames.has(frame)) throw new Error(`frame ${frame} is in use`);
    this.#frames.set(frame, { owner, index, pins: 0, orphan: false });
  }
}
