/** Choices of a generator of sequences. @module */
import { type Random, random } from '../../support/random.js';
import type { Integer, Step, Value } from './step.js';

/** A way to make a step, and how often it is taken among all. */
export type Weighted = readonly [weight: number, make: (g: Pick) => Step];

export class Pick {
  readonly #random: Random;

  /** The same choices for the same seed and index. */
  constructor(seed: number, index: number) {
    // Neighbouring seeds of xorshift begin alike; the multiplications part them (Knuth, and Steele's golden ratio).
    const mixed = (Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) + Math.imul(index + 1, 0xc2b2ae35)) >>> 0;
    this.#random = random(mixed || 1);
    for (let i = 0; i < 8; i++) this.#random.below(2);
  }

  below(limit: number): number {
    return this.#random.below(limit);
  }

  /** True in `percent` of a hundred cases. */
  often(percent: number): boolean {
    return this.below(100) < percent;
  }

  of<T>(...values: readonly T[]): T {
    return values[this.below(values.length)] as T;
  }

  /** From a table of weights. */
  step(table: readonly Weighted[]): Step {
    let at = this.below(table.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, make] of table) {
      at -= weight;
      if (at < 0) return make(this);
    }
    throw new Error('no steps to choose from');
  }

  /** Usually `good`; else one of the others. */
  mostly<T>(good: T, ...others: readonly T[]): T {
    return this.often(90) ? good : this.of(...others);
  }

  /** The id of an object: of that kind, as a rule. */
  id(...kinds: readonly string[]): Value {
    const dice = this.below(100);
    const back = this.often(70) ? 0 : this.below(4);
    if (dice < 94) return { id: this.of(...kinds), back };
    if (dice < 97) return { id: this.of('ioas', 'hwpt', 'device', 'stdev', 'fault', 'viommu'), back };
    return this.of<Value>(0, 1, 77, '0xffffffff');
  }

  fd(name: string): Value {
    return { fd: name, back: this.often(80) ? 0 : this.below(3) };
  }

  /** A page-aligned number of bytes, small as a rule. */
  pages(limit = 16): number {
    return (1 + this.below(limit)) * 4096;
  }
}

/** `value` as JSON has it. */
export function integer(value: bigint): Integer {
  return value <= 0xffff_ffffn && value >= 0n ? Number(value) : `0x${BigInt.asUintN(64, value).toString(16)}`;
}
