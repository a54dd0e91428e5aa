/**
 * Memory that a predecessor had in use: a device may still write to it, so that nobody gets it by accident. It is claimed
 * piece by piece by whoever knows what is where, or released on purpose.
 *
 * @module
 */
import type { Iova } from '../address.js';
import type { IovaSpace } from './iova-space.js';

/** Memory that nobody has claimed. */
export interface UnclaimedRange {
  /** In bytes from the start of the memory. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
}

const GRANULE = 64;

/** What of a piece of memory is in quarantine. The books of that memory have it as reserved. */
export class Quarantine {
  readonly #iovas: IovaSpace;
  readonly #start: Iova;
  readonly #size: number;
  /** Ascending and disjoint. */
  #ranges: UnclaimedRange[] = [];
  readonly #holds = new Set<UnclaimedRange>();
  #released = false;

  constructor(iovas: IovaSpace, start: Iova, size: number) {
    this.#iovas = iovas;
    this.#start = start;
    this.#size = size;
  }

  get unclaimed(): readonly UnclaimedRange[] {
    return this.#ranges;
  }

  /** Puts all of the memory in. */
  fill(): void {
    this.#set([{ offset: 0, length: this.#size }]);
  }

  #iova(offset: number): Iova {
    return (this.#start + BigInt(offset)) as Iova;
  }

  #set(ranges: UnclaimedRange[]): void {
    for (const { offset } of this.#ranges) this.#iovas.unreserve(this.#iova(offset));
    for (const { offset, length } of ranges) this.#iovas.reserve(this.#iova(offset), length);
    this.#ranges = ranges;
  }

  /** Takes a range out and allocates it. @returns false when part of it is allocated already */
  claim(offset: number, size: number): boolean {
    const length = Math.ceil(size / GRANULE) * GRANULE;
    const before = this.#ranges;
    this.#set(without(before, { offset, length: Math.min(length, this.#size - offset) }));
    if (this.#iovas.allocateAt(this.#iova(offset), size)) return true;
    this.#set(before);
    return false;
  }

  /** Lets everything out that is not held. */
  release(): void {
    this.#released = true;
    let kept: UnclaimedRange[] = [];
    for (const hold of this.#holds) kept = [...kept, ...intersection(without(this.#ranges, ...kept), hold)];
    this.#set(kept.sort((a, b) => a.offset - b.offset));
  }

  hold(offset: number, length: number): Disposable {
    const first = Math.floor(offset / GRANULE) * GRANULE;
    const end = Math.min(Math.ceil((offset + length) / GRANULE) * GRANULE, this.#size);
    const hold = { offset: first, length: end - first };
    this.#holds.add(hold);
    return {
      [Symbol.dispose]: () => {
        if (this.#holds.delete(hold) && this.#released) this.release();
      },
    };
  }
}

function intersection(ranges: readonly UnclaimedRange[], other: UnclaimedRange): UnclaimedRange[] {
  return ranges.flatMap(range => {
    const offset = Math.max(range.offset, other.offset);
    const end = Math.min(range.offset + range.length, other.offset + other.length);
    return offset < end ? [{ offset, length: end - offset }] : [];
  });
}

function without(ranges: readonly UnclaimedRange[], ...others: readonly UnclaimedRange[]): UnclaimedRange[] {
  let left = [...ranges];
  for (const { offset, length } of others) {
    const end = offset + length;
    left = left.flatMap(range => {
      const rangeEnd = range.offset + range.length;
      return [
        { offset: range.offset, length: Math.min(offset, rangeEnd) - range.offset },
        { offset: Math.max(end, range.offset), length: rangeEnd - Math.max(end, range.offset) },
      ].filter(part => part.length > 0);
    });
  }
  return left;
}
