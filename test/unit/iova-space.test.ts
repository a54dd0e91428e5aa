// The IOVA allocator in WASM against a sorted list: the same calls must give the same addresses, and what fits must
// never be refused.
import { randomInt } from 'node:crypto';
import fc from 'fast-check';
import t from 'tap';
import type { Placement } from '../../src/memory/iova-space.js';
import { type Range, TOP } from './support/iova-model.js';
import { run, type Setting, type Step, type Tally } from './support/iova-steps.js';

const newTally = (): Tally => ({ steps: 0, allocated: 0, refused: 0, conflicts: 0, restricted: 0 });

const total = newTally();

const newSeed = (): number => randomInt(2 ** 31);

/** Stands for an optional property. */
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined, freq: 2 });

function placement(parts: {
  alignment?: number | undefined;
  lowest?: bigint | undefined;
  highest?: bigint | undefined;
  boundary?: number | bigint | undefined;
}): Placement {
  return Object.fromEntries(Object.entries(parts).filter(([, value]) => value !== undefined));
}

/** Steps on addresses and sizes that `at` and `size` make, both of whole granules. */
function stepsOf(
  granule: number,
  at: fc.Arbitrary<bigint>,
  size: fc.Arbitrary<bigint>,
  alignment: fc.Arbitrary<number>,
  ranges: fc.Arbitrary<readonly Range[]>,
): fc.Arbitrary<Step> {
  const index = fc.nat(1000);
  // Sizes need not be whole granules.
  const anySize = fc
    .tuple(size, fc.constantFrom(0, 0, 1, granule - 1))
    .map(([whole, less]) => whole - BigInt(less));
  const inside = fc.tuple(at, fc.constantFrom(0, 0, 1, granule - 1)).map(([a, more]) => a + BigInt(more));
  const of = <T extends Step['op']>(op: T) => fc.constant(op);
  return fc.oneof(
    { weight: 10, arbitrary: fc.record({ op: of('allocate'), size: anySize }) },
    {
      weight: 10,
      arbitrary: fc.record({
        op: of('allocate'),
        size: anySize,
        placement: fc
          .record({
            alignment: maybe(alignment),
            lowest: maybe(inside),
            highest: maybe(inside),
            boundary: maybe(fc.oneof(alignment, alignment.map(BigInt))),
          })
          .map(placement),
      }),
    },
    { weight: 3, arbitrary: fc.record({ op: of('allocateAt'), at, size: anySize }) },
    { weight: 2, arbitrary: fc.record({ op: of('reserve'), at, size: anySize }) },
    { weight: 14, arbitrary: fc.record({ op: of('free'), index }) },
    { weight: 2, arbitrary: fc.record({ op: of('unreserve'), index }) },
    { weight: 1, arbitrary: fc.record({ op: fc.constantFrom('freeAt', 'unreserveAt'), at: inside }) },
    { weight: 2, arbitrary: fc.record({ op: of('find'), at: inside }) },
    { weight: 1, arbitrary: fc.record({ op: of('ticket') }) },
    { weight: 1, arbitrary: fc.record({ op: of('recycle'), index: maybe(index) }) },
    { weight: 1, arbitrary: fc.record({ op: of('restrict'), ranges }) },
    { weight: 1, arbitrary: fc.record({ op: of('rebuild') }) },
  );
}

/** Ranges with holes between them, from numbers of granules: hole, range, hole, range ... */
function rangesFrom(base: bigint, granule: number, lengths: readonly number[]): Range[] {
  const ranges: Range[] = [];
  let next = base;
  for (const [index, length] of lengths.entries()) {
    const end = next + BigInt(length * granule);
    if (end > 2n ** 64n) break;
    if (index % 2 === 1) ranges.push({ first: next, last: end - 1n });
    next = end;
  }
  return ranges;
}

const orAll = (base: bigint, ranges: Range[]): Range[] =>
  ranges.length > 0 ? ranges : [{ first: base, last: TOP }];

/** A few granules, so that exhaustion, exact fits and fragments are common. */
function dense(base: bigint, granule: number, units: number, longest: number): fc.Arbitrary<Setting> {
  const unit = BigInt(granule);
  const at = fc.nat(units + 8).map(n => {
    const address = base + BigInt(n) * unit;
    return address > TOP ? TOP - unit + 1n : address;
  });
  const size = fc
    .oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: longest }))
    .map(n => BigInt(n) * unit);
  const alignment = fc.integer({ min: 0, max: 10 }).map(bits => granule * 2 ** bits);
  const lengths = fc
    .array(fc.tuple(fc.nat(40), fc.integer({ min: 1, max: Math.ceil(units / 2) })), {
      minLength: 1,
      maxLength: 4,
    })
    .map(pairs => pairs.flat());
  // What a restriction leaves is most of it.
  const most = fc
    .tuple(fc.nat(3), fc.integer({ min: 1, max: units }), fc.nat(3))
    .map(([less, length, gap]) => orAll(base, rangesFrom(base, granule, [less, length, gap, 2 * units])));
  return fc.record({
    ranges: lengths.map(list => orAll(base, rangesFrom(base, granule, list))),
    granule: fc.constant(granule),
    delayed: fc.boolean(),
    firstFit: fc.boolean(),
    steps: fc.array(stepsOf(granule, at, size, alignment, most), {
      minLength: 1,
      maxLength: 500,
      size: 'max',
    }),
  });
}

const spaces: readonly [string, fc.Arbitrary<Setting>, number][] = [
  ['64 pages from 0', dense(0n, 4096, 64, 20), 90],
  ['300 pages from 0', dense(0n, 4096, 300, 80), 90],
  ['300 pages around a leaf, a node and 2^32', dense(2n ** 32n - 150n * 4096n, 4096, 300, 80), 75],
  ['300 pages across 64^5', dense(2n ** 42n - 100n * 4096n, 4096, 300, 80), 60],
  ['5000 pages', dense(2n ** 30n + 4096n, 4096, 5000, 1200), 90],
  ['300 pages up to 2^64', dense(2n ** 64n - 300n * 4096n, 4096, 300, 80), 60],
  ['carving: 300 units of 64 bytes', dense(0x1234_5000n, 64, 300, 80), 60],
  ['carving beside page 0', dense(0n, 64, 300, 80), 30],
  ['carving beside the last page', dense(2n ** 64n - 300n * 64n, 64, 300, 80), 30],
  ['64 KiB granules', dense(2n ** 50n - 2n ** 22n, 2 ** 16, 300, 80), 30],
  ['1 GiB granules up to 2^64', dense(2n ** 64n - 200n * 2n ** 30n, 2 ** 30, 200, 50), 15],
];

for (const [name, setting, numRuns] of spaces) {
  t.test(`agrees with a sorted list: ${name}`, async t => {
    const tally = newTally();
    const seed = newSeed();
    t.comment(`seed ${seed}`);
    fc.assert(
      fc.property(setting, each => run(each, tally)),
      { numRuns, seed },
    );
    t.comment(JSON.stringify(tally));
    t.ok(tally.allocated > tally.steps / 20, 'much was allocated');
    t.ok(tally.refused > tally.steps / 100, 'much was refused');
    t.ok(tally.restricted > 0);
    total.steps += tally.steps;
  });
}

/** Addresses of every magnitude, many of them at the ends of nodes of every level. */
function anyAddress(granule: number): fc.Arbitrary<bigint> {
  const unit = BigInt(granule);
  const units = 2n ** 64n / unit;
  return fc
    .oneof(
      fc.bigInt(0n, units - 1n),
      fc
        .tuple(fc.integer({ min: 0, max: 9 }), fc.bigInt(0n, 64n), fc.bigInt(-2n, 2n))
        .map(([level, slot, delta]) => 64n ** BigInt(level) * slot + delta),
      fc
        .tuple(fc.integer({ min: 0, max: 58 }), fc.bigInt(-2n, 2n))
        .map(([bit, delta]) => 2n ** BigInt(bit) + delta),
      fc.bigInt(1n, 64n).map(n => units - n),
    )
    .map(n => (((n % units) + units) % units) * unit);
}

function anySize(granule: number): fc.Arbitrary<bigint> {
  const unit = BigInt(granule);
  return fc
    .oneof(
      fc.bigInt(1n, 130n),
      fc
        .tuple(fc.integer({ min: 0, max: 63 - Math.log2(granule) }), fc.bigInt(-1n, 1n))
        .map(([bit, delta]) => 2n ** BigInt(bit) + delta),
    )
    .map(n => (n < 1n ? 1n : n) * unit);
}

function sparse(granule: number): fc.Arbitrary<Setting> {
  const alignment = fc.integer({ min: Math.log2(granule), max: 63 }).map(bits => 2 ** bits);
  const at = anyAddress(granule);
  const unit = BigInt(granule);
  // Between two addresses: all in use conflicts with most, so that few take effect.
  const ranges = fc
    .array(at, { minLength: 2, maxLength: 4 })
    .map(list => [...new Set(list)].sort((a, b) => (a < b ? -1 : 1)))
    .map(list => {
      const found: Range[] = [];
      for (let i = 0; i + 1 < list.length; i += 2)
        found.push({ first: list[i] as bigint, last: (list[i + 1] as bigint) - 1n });
      return found.length > 0 ? found : [{ first: unit, last: TOP }];
    });
  return fc.record({
    ranges: fc.constantFrom<readonly Range[]>(
      [{ first: 0n, last: TOP }],
      [
        { first: 0n, last: 0xfedf_ffffn },
        { first: 0xfef0_0000n, last: 0xfc_ffff_ffffn },
        { first: 0x100_0000_0000n, last: 2n ** 57n - 1n },
      ],
    ),
    granule: fc.constant(granule),
    delayed: fc.boolean(),
    firstFit: fc.boolean(),
    steps: fc.array(stepsOf(granule, at, anySize(granule), alignment, ranges), {
      minLength: 1,
      maxLength: 500,
      size: 'max',
    }),
  });
}

for (const granule of [4096, 64, 2 ** 20]) {
  t.test(`agrees with a sorted list over all of 2^64, granule ${granule}`, async t => {
    const tally = newTally();
    const seed = newSeed();
    t.comment(`seed ${seed}`);
    fc.assert(
      fc.property(sparse(granule), each => run(each, tally)),
      { numRuns: 80, seed },
    );
    t.comment(JSON.stringify(tally));
    t.ok(tally.allocated > tally.steps / 20, 'much was allocated');
    t.ok(tally.conflicts > 0);
    total.steps += tally.steps;
  });
}

t.test('enough steps', async t => {
  t.ok(total.steps >= 100_000, `${total.steps} steps`);
});
