// The range allocator in WASM against two models: one cell per address, where overlaps and joins are plain to see, and
// a list of intervals over all of 2^64.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { RangeAllocator } from '../../src/memory/ranges.js';

const TOP = 2n ** 64n - 1n;

/** A window of addresses from `base` on, as one boolean each: true is free. */
class Cells {
  readonly free: boolean[];
  readonly base: bigint;

  constructor(base: bigint, size: number) {
    this.base = base;
    this.free = new Array<boolean>(size).fill(false);
  }

  #all(from: number, length: number, wanted: boolean): boolean {
    for (let i = from; i < from + length; i++) if (this.free[i] !== wanted) return false;
    return true;
  }

  /** False when part of it is free already, or lies outside. */
  give(from: number, length: number): boolean {
    if (!this.#all(from, length, false)) return false;
    this.free.fill(true, from, from + length);
    return true;
  }

  takeAt(from: number, length: number): boolean {
    if (!this.#all(from, length, true)) return false;
    this.free.fill(false, from, from + length);
    return true;
  }

  take(length: number, alignment: number, lowest: bigint, highest: bigint): bigint | undefined {
    for (let from = 0; from + length <= this.free.length; from++) {
      const address = this.base + BigInt(from);
      if (address % BigInt(alignment) !== 0n || address < lowest) continue;
      if (address + BigInt(length) - 1n > highest) return undefined;
      if (this.takeAt(from, length)) return address;
    }
    return undefined;
  }

  get runs(): number {
    return this.free.filter((free, i) => free && !this.free[i - 1]).length;
  }

  get count(): number {
    return this.free.filter(Boolean).length;
  }
}

const CELLS = 192;
const place = fc.nat(CELLS - 1);
const length = fc.integer({ min: 1, max: 24 });

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ op: fc.constant('add' as const), from: place, length }) },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('allocate' as const),
      length,
      alignment: fc.constantFrom(1, 1, 2, 4, 16, 64, 4096),
      from: fc.option(place, { nil: undefined }),
      to: fc.option(place, { nil: undefined }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('allocateAt' as const), from: place, length }) },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('free' as const), from: place, length }) },
);

t.test('agrees with one cell per address', async t => {
  let steps = 0;
  for (const base of [0n, 2n ** 32n - 96n, 2n ** 63n - 96n, 2n ** 64n - BigInt(CELLS)]) {
    fc.assert(
      fc.property(fc.array(step, { minLength: 300, maxLength: 500, size: 'max' }), list => {
        const model = new Cells(base, CELLS);
        const allocator = new RangeAllocator();
        for (const action of list) {
          steps++;
          // What reaches beyond the window is cut: the model knows nothing of what is outside.
          const from = action.from ?? 0;
          const size = Math.min(action.length, CELLS - from);
          const first = base + BigInt(from);
          switch (action.op) {
            case 'add': {
              const add = (): void => allocator.add(first, first + BigInt(size) - 1n);
              if (model.give(from, size)) add();
              else assert.throws(add, RangeError);
              break;
            }
            case 'free': {
              const free = (): void => allocator.free(first, size);
              if (model.give(from, size)) free();
              else assert.throws(free, RangeError);
              break;
            }
            case 'allocateAt':
              assert.equal(allocator.allocateAt(first, size), model.takeAt(from, size));
              break;
            case 'allocate': {
              const lowest = action.from === undefined ? undefined : first;
              const highest = action.to === undefined ? undefined : base + BigInt(action.to);
              assert.equal(
                allocator.allocate(action.length, {
                  alignment: action.alignment,
                  ...(lowest !== undefined && { lowest }),
                  ...(highest !== undefined && { highest }),
                }),
                model.take(action.length, action.alignment, lowest ?? 0n, highest ?? TOP),
              );
              break;
            }
          }
          assert.equal(allocator.freeRanges, model.runs);
          assert.equal(allocator.freeBytes, BigInt(model.count));
        }
      }),
      { numRuns: 80 },
    );
  }
  t.ok(steps >= 100_000, `${steps} steps`);
});

interface Interval {
  first: bigint;
  last: bigint;
}

/** Free intervals, sorted; joined only when they are counted. */
class Intervals {
  list: Interval[] = [];

  give(first: bigint, last: bigint): boolean {
    if (last < first || last > TOP) return false;
    if (this.list.some(other => other.first <= last && first <= other.last)) return false;
    this.list.push({ first, last });
    this.list.sort((a, b) => (a.first < b.first ? -1 : 1));
    this.list = this.joined;
    return true;
  }

  get joined(): Interval[] {
    const joined: Interval[] = [];
    for (const { first, last } of this.list) {
      const previous = joined.at(-1);
      if (previous && previous.last + 1n === first) previous.last = last;
      else joined.push({ first, last });
    }
    return joined;
  }

  takeAt(first: bigint, last: bigint): boolean {
    const found = this.list.find(other => other.first <= first && last <= other.last);
    if (!found || last < first) return false;
    const rest = [
      { first: found.first, last: first - 1n },
      { first: last + 1n, last: found.last },
    ].filter(part => part.first <= part.last);
    this.list = this.list.flatMap(other => (other === found ? rest : [other]));
    return true;
  }

  take(size: bigint, alignment: bigint, lowest: bigint, highest: bigint): bigint | undefined {
    for (const { first, last } of this.list) {
      const from = first > lowest ? first : lowest;
      const aligned = ((from + alignment - 1n) / alignment) * alignment;
      const end = aligned + size - 1n;
      if (end <= last && end <= highest && this.takeAt(aligned, end)) return aligned;
    }
    return undefined;
  }
}

/** Addresses of every magnitude, and those around the powers of two. */
const anyAddress = fc.oneof(
  fc.bigInt(0n, TOP),
  fc.bigInt(0n, 64n).map(n => n * 4096n),
  fc.bigInt(0n, 64n).map(n => TOP - n * 2048n),
  fc
    .tuple(fc.integer({ min: 0, max: 63 }), fc.bigInt(-2n, 2n))
    .map(([bit, delta]) => BigInt.asUintN(64, 2n ** BigInt(bit) + delta)),
);
const anySize = fc.oneof(
  fc.bigInt(1n, 8192n),
  fc.bigInt(1n, TOP),
  fc.integer({ min: 0, max: 63 }).map(bit => 2n ** BigInt(bit)),
);
const wideStep = fc.oneof(
  fc.record({ op: fc.constant('add' as const), first: anyAddress, size: anySize }),
  fc.record({ op: fc.constant('allocateAt' as const), first: anyAddress, size: anySize }),
  fc.record({ op: fc.constant('free' as const), first: anyAddress, size: anySize }),
  fc.record({
    op: fc.constant('allocate' as const),
    size: anySize,
    alignment: fc.integer({ min: 0, max: 52 }).map(bit => 2 ** bit),
    lowest: anyAddress,
    highest: anyAddress,
  }),
);

t.test('agrees with intervals over all of 2^64', async t => {
  let steps = 0;
  let allocated = 0;
  fc.assert(
    fc.property(fc.array(wideStep, { minLength: 40, maxLength: 80, size: 'max' }), list => {
      const model = new Intervals();
      const allocator = new RangeAllocator();
      // Something to allocate from.
      for (const [first, last] of [
        [4096n, 2n ** 40n],
        [2n ** 41n + 1n, 2n ** 62n],
        [TOP - 2n ** 33n, TOP],
      ] as const) {
        assert.ok(model.give(first, last));
        allocator.add(first, last);
      }
      for (const action of list) {
        steps++;
        if (action.op === 'allocate') {
          const { size, alignment, lowest, highest } = action;
          const found = allocator.allocate(size, { alignment, lowest, highest });
          assert.equal(found, model.take(size, BigInt(alignment), lowest, highest));
          if (found !== undefined) allocated++;
        } else {
          const { first, size } = action;
          const last = first + size - 1n;
          if (action.op === 'allocateAt') {
            assert.equal(allocator.allocateAt(first, size), last <= TOP && model.takeAt(first, last));
          } else {
            const give = (): void => {
              if (action.op === 'free') allocator.free(first, size);
              else allocator.add(first, BigInt.asUintN(64, last));
            };
            // A range that wraps around is none.
            if (model.give(first, last)) give();
            else assert.throws(give, RangeError);
          }
        }
        const joined = model.joined;
        assert.equal(allocator.freeRanges, joined.length);
        const bytes = joined.reduce((sum, range) => sum + range.last - range.first + 1n, 0n);
        assert.equal(allocator.freeBytes, BigInt.asUintN(64, bytes));
      }
    }),
    { numRuns: 300 },
  );
  t.ok(steps > 10_000, `${steps} steps`);
  t.ok(allocated > 1000, `${allocated} allocations that succeeded`);
});

t.test('holds more ranges than fit its first page of memory', async t => {
  const allocator = new RangeAllocator();
  const count = 20_000;
  // Backwards, so that each is inserted at the front.
  for (let i = count - 1; i >= 0; i--) allocator.add(BigInt(i) * 16n, BigInt(i) * 16n + 7n);
  t.equal(allocator.freeRanges, count);
  t.equal(allocator.freeBytes, BigInt(count) * 8n);
  t.equal(allocator.allocate(9), undefined, 'none is as long as that');
  t.equal(allocator.allocate(8, { lowest: 16n * 19_999n }), 16n * 19_999n, 'finds the last');
  allocator.free(16n * 19_999n, 8);
  for (let i = 0; i < count; i++) allocator.free(BigInt(i) * 16n + 8n, 8);
  t.equal(allocator.freeRanges, 1, 'they join when the gaps are freed');
  t.equal(allocator.allocate(16 * (count - 1)), 0n);
});

t.test('edges of the address space', async t => {
  const allocator = new RangeAllocator();
  allocator.add(0n, TOP);
  t.equal(allocator.freeRanges, 1);
  t.ok(allocator.allocateAt(TOP, 1), 'the very last address');
  t.ok(allocator.allocateAt(0n, 1), 'and the very first');
  t.equal(allocator.freeBytes, TOP - 1n);
  t.equal(
    allocator.allocate(1, { alignment: 2 ** 52, lowest: TOP - 4096n }),
    undefined,
    'aligning does not wrap',
  );
  allocator.free(TOP, 1);
  allocator.free(0n, 1);
  t.equal(allocator.freeRanges, 1, 'one range again');
  t.equal(allocator.allocate(TOP), 0n, 'all but one address');
  t.equal(allocator.freeBytes, 1n);
});

t.test('refuses what is no range', async t => {
  const allocator = new RangeAllocator();
  allocator.add(0n, 0xffffn);
  const range = { name: 'RangeError' };
  const type = { name: 'TypeError' };
  t.throws(() => allocator.add(2n, 1n), range);
  t.throws(() => allocator.add(-1n, 1n), range);
  t.throws(() => allocator.add(0n, TOP + 1n), range);
  t.throws(() => allocator.add('0' as unknown as bigint, 1n), type);
  t.throws(() => allocator.allocate(0), range);
  t.throws(() => allocator.allocate(1.5), range);
  t.throws(() => allocator.allocate(Number.NaN), range);
  t.throws(() => allocator.allocate(1, { alignment: 3 }), range);
  t.throws(() => allocator.allocate(1, { alignment: 0 }), range);
  t.throws(() => allocator.allocate(1, { lowest: -1n }), range);
  t.throws(() => allocator.allocate(1, { highest: TOP + 1n }), range);
  t.throws(() => allocator.free(0n, 1), range, 'free already');
  t.throws(() => allocator.free(0x1_0000n, 0), range, 'nothing');
  t.throws(() => allocator.free(TOP, 2), range, 'wraps around');
  t.equal(allocator.freeBytes, 0x1_0000n, 'none of these changed anything');
});
