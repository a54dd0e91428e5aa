/** Typed wrapper of the range allocator in `assembly/iova`. @module */
import { checkPowerOfTwo, checkU64 } from '../check.js';
import { instantiate } from '../wasm.js';

/** The status codes of assembly/iova/ranges.ts. */
const Status = { Ok: 0, NoSpace: 1, Invalid: 2, NotAllocated: 3 } as const;

interface RangeExports extends Record<string, unknown> {
  addRange(first: bigint, last: bigint): number;
  allocate(length: bigint, alignment: bigint, lowest: bigint, highest: bigint): number;
  allocateAt(first: bigint, length: bigint): number;
  free(first: bigint, length: bigint): number;
  lastResult(): bigint;
  freeRangeCount(): number;
  freeSpace(): bigint;
}

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** Where {@link RangeAllocator.allocate} may place a range. */
export interface Placement {
  /** A power of two in bytes; 1 by default. */
  alignment?: number;
  /** Lowest address of the range; 0 by default. */
  lowest?: bigint;
  /** Highest address of the range, included; 2^64-1 by default. */
  highest?: bigint;
}

/** Hands out address ranges, lowest first, from the free ranges it was given. */
export class RangeAllocator {
  readonly #core: RangeExports;

  constructor() {
    this.#core = instantiate<RangeExports>(1).exports;
  }

  /**
   * Adds `first..last`, both included, to the free ranges.
   *
   * @throws RangeError when the range is empty or overlaps a free one.
   */
  add(first: bigint, last: bigint): void {
    const status = this.#core.addRange(checkU64('first', first), checkU64('last', last));
    if (status !== Status.Ok)
      throw new RangeError(`range ${hex(first)}..${hex(last)} is empty or already free`);
  }

  /** The lowest fitting address, or `undefined` when no free range fits. */
  allocate(length: bigint | number, placement: Placement = {}): bigint | undefined {
    const size = checkU64('length', length);
    if (size === 0n) throw new RangeError('length must not be 0');
    const alignment = BigInt(checkPowerOfTwo('alignment', placement.alignment ?? 1, 1));
    const lowest = checkU64('lowest', placement.lowest ?? 0n);
    const highest = checkU64('highest', placement.highest ?? U64_MAX);
    if (this.#core.allocate(size, alignment, lowest, highest) !== Status.Ok) return undefined;
    return BigInt.asUintN(64, this.#core.lastResult());
  }

  /** Takes exactly `first..first+length-1`; false when part of it is not free. */
  allocateAt(first: bigint, length: bigint | number): boolean {
    return this.#core.allocateAt(checkU64('first', first), checkU64('length', length)) === Status.Ok;
  }

  /**
   * Makes a range free again.
   *
   * @throws RangeError when part of it is free already, or it is empty.
   */
  free(first: bigint, length: bigint | number): void {
    const status = this.#core.free(checkU64('first', first), checkU64('length', length));
    if (status !== Status.Ok) throw new RangeError(`${length} bytes at ${hex(first)} are not in use`);
  }

  /** Number of separate free ranges. */
  get freeRanges(): number {
    return this.#core.freeRangeCount();
  }

  /** Free bytes in all. */
  get freeBytes(): bigint {
    return BigInt.asUintN(64, this.#core.freeSpace());
  }
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}
