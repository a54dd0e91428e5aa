/** Sets of integers as intervals, both ends included. @module */

export interface Interval {
  readonly first: bigint;
  readonly last: bigint;
}

/** The largest unsigned 64-bit integer, which is the last IOVA there can be. */
export const U64_MAX = 0xffff_ffff_ffff_ffffn;

export function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

export function min(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

export function overlap(a: Interval, b: Interval): boolean {
  return a.first <= b.last && a.last >= b.first;
}

/** What is used, in order and in as few pieces as possible; what overlaps or touches is one. */
export function merged(intervals: Iterable<Interval>): Interval[] {
  const sorted = [...intervals].sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0));
  const result: { first: bigint; last: bigint }[] = [];
  for (const { first, last } of sorted) {
    const previous = result.at(-1);
    if (previous !== undefined && first <= previous.last + 1n) {
      if (last > previous.last) previous.last = last;
    } else result.push({ first, last });
  }
  return result;
}

/** What is left of `within` when the intervals in `used`, which are {@link merged}, are taken out. */
export function* holes(used: readonly Interval[], within: Interval): IterableIterator<Interval> {
  let next = within.first;
  for (let i = firstEndingAt(used, within.first); i < used.length; i++) {
    const { first, last } = used[i] as Interval;
    if (first > within.last) break;
    if (first > next) yield { first: next, last: first - 1n };
    if (last >= within.last) return;
    next = last + 1n;
  }
  yield { first: next, last: within.last };
}

/** The index of the first interval, of some that do not overlap, that ends at `at` or later. */
export function firstEndingAt(intervals: readonly Interval[], at: bigint): number {
  let low = 0;
  let high = intervals.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((intervals[middle] as Interval).last < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The largest runs of what is used, kept up to date as pieces that do not overlap come and go. */
export class Runs {
  readonly #runs: Interval[] = [];

  get list(): readonly Interval[] {
    return this.#runs;
  }

  add({ first, last }: Interval): void {
    const at = firstEndingAt(this.#runs, first);
    const before = this.#runs[at - 1];
    const after = this.#runs[at];
    const joinsBefore = before !== undefined && before.last + 1n === first;
    const joinsAfter = after !== undefined && last + 1n === after.first;
    this.#runs.splice(at - (joinsBefore ? 1 : 0), (joinsBefore ? 1 : 0) + (joinsAfter ? 1 : 0), {
      first: joinsBefore ? before.first : first,
      last: joinsAfter ? after.last : last,
    });
  }

  remove({ first, last }: Interval): void {
    const at = firstEndingAt(this.#runs, first);
    const run = this.#runs[at] as Interval;
    const left: Interval[] = [];
    if (run.first < first) left.push({ first: run.first, last: first - 1n });
    if (run.last > last) left.push({ first: last + 1n, last: run.last });
    this.#runs.splice(at, 1, ...left);
  }
}
