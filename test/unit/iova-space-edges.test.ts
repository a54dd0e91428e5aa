// The IOVA allocator at its edges: bad arguments, damaged snapshots, exhaustion, tickets, memory.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { instantiateSync } from '@assemblyscript/loader';
import t from 'tap';
import type { Iova, IovaRange } from '../../src/address.js';
import { IovaBlockKind, type IovaSnapshot, IovaSpace, type Placement } from '../../src/memory/iova-space.js';
import { random } from '../support/random.js';
import { TOP } from './support/iova-model.js';

const PAGE = 4096;
const at = (value: bigint | number): Iova => BigInt(value) as Iova;
const range = (first: bigint | number, last: bigint | number): IovaRange => ({
  first: at(first),
  last: at(last),
});
/** The IOVA ranges of an x86 machine of AMD's. */
const x86 = [range(0, 0xfedf_ffffn), range(0xfef0_0000n, 0xfc_ffff_ffffn), range(2n ** 40n, 2n ** 57n - 1n)];
const rangeError = { name: 'RangeError' };
const typeError = { name: 'TypeError' };

t.test('where allocations go', async t => {
  const space = new IovaSpace(x86);
  t.equal(space.granule, PAGE);
  t.equal(space.allocate(1), 0x1000n, 'never page 0');
  t.equal(space.allocate(2 * PAGE), 0x2000n, 'at a multiple of its size');
  t.equal(space.allocate(3 * PAGE), 0x4000n, 'of its size rounded up, but no more is taken');
  t.equal(space.allocate(PAGE), 0x7000n);
  t.equal(space.allocate(2 ** 21), 0x20_0000n, 'where an IOMMU can use a large page');
  t.equal(space.allocate(PAGE), 0x8000n, 'the room before it is not lost');
  t.equal(space.allocate(2 ** 30, { highest: 0xffff_ffffn }), 0x4000_0000n);
  t.equal(space.allocate(2 ** 30, { highest: 0xffff_ffffn }), 0x8000_0000n);
  t.equal(
    space.allocate(2 ** 30 - 2 ** 23, { highest: 0xffff_ffffn }),
    0x40_0000n,
    'no aligned block is left below the hole, but this fits',
  );
  t.equal(space.allocate(2 ** 30 - 2 ** 23, { highest: 0xffff_ffffn }), undefined);
  t.equal(space.allocate(2 ** 30), 0x1_0000_0000n);
  t.equal(space.free(at(0x40_0000n)), 2 ** 30 - 2 ** 23);
  t.equal(space.free(at(0x4000)), 3 * PAGE, 'not what the alignment was for');
  t.equal(space.allocate(2n ** 57n), undefined, 'more than there is');
  t.equal(space.allocate(TOP), undefined);
  t.equal(space.allocate(PAGE, { alignment: 2 ** 63 }), undefined, 'only address 0 is as aligned as that');
  t.equal(space.allocate(PAGE, { alignment: 2 ** 56 }), 2n ** 56n);
  t.equal(space.allocate(PAGE, { lowest: 0x2_0000_0001n }), 0x2_0000_1000n);
  t.equal(space.allocate(PAGE, { lowest: at(0x5000), highest: at(0x4fff) }), undefined, 'no room between');
  t.equal(space.allocate(2 * PAGE, { boundary: PAGE }), undefined, 'is more than the boundary allows');
  t.equal(space.allocate(PAGE, { highest: 0xffen }), undefined);
  space.check();
});

t.test('first fit', async t => {
  const space = new IovaSpace([range(0x1_0000, 0x1_ffff)], { granule: 64, firstFit: true });
  const [a, b] = [space.allocate(192) as Iova, space.allocate(4096 - 192) as Iova];
  t.same([a, b], [0x1_0000n, 0x1_00c0n], 'side by side');
  t.equal(space.allocate(5000, { alignment: 4096 }), 0x1_1000n);
  t.equal(space.allocate(0xf000 - 5056), 0x1_1000n + 5056n, 'to the last byte');
  t.equal(space.freeBytes, 0n);
  space.free(a);
  t.equal(IovaSpace.from(space.snapshot()).allocate(65), a);
  space.check();
});

t.test('both ends of the address space', async t => {
  const space = new IovaSpace([range(0, TOP)]);
  t.equal(space.freeBytes, 2n ** 64n - 2n * 4096n);
  t.equal(space.allocateAt(at(0), PAGE), false);
  t.equal(space.reserve(at(TOP - 4095n), PAGE), false);
  t.equal(space.allocateAt(at(TOP - 8191n), PAGE), true, 'the one before the last');
  t.equal(space.allocate(2n ** 63n), 4096n, 'half of it, though at no half');
  t.equal(space.allocate(2n ** 62n), 2n ** 63n + 4096n);
  t.equal(space.free(at(4096)), 2n ** 63n, 'as a bigint where a number is not exact');
  t.same(space.find(at(TOP)), { iova: TOP - 4095n, size: 4096n, kind: IovaBlockKind.Hole });
  t.same(space.find(at(123)), { iova: 0n, size: 4096n, kind: IovaBlockKind.Hole });
  space.check();

  const carving = new IovaSpace([range(0, TOP)], { granule: 64 });
  t.equal(carving.allocate(1), 4096n, 'page 0, not granule 0');
  t.equal(carving.allocateAt(at(TOP - 4095n), 64), false);
  t.equal(carving.allocateAt(at(TOP - 4095n - 64n), 64), true);
  carving.check();

  const large = new IovaSpace([range(0, TOP)], { granule: 2 ** 30 });
  t.equal(large.allocate(1), 2n ** 30n);
  t.equal(large.allocateAt(at(2n ** 64n - 2n ** 30n), 1), false);
  large.check();

  const nothing = new IovaSpace([range(0, 4095)]);
  t.equal(nothing.freeBytes, 0n);
  t.equal(nothing.allocate(1), undefined);
  t.same([...nothing.blocks()], [{ iova: 0n, size: 2n ** 64n, kind: IovaBlockKind.Hole }]);
  t.same(IovaSpace.from(nothing.snapshot()).snapshot(), nothing.snapshot());
});

t.test('bad arguments change nothing', async t => {
  for (const ranges of [
    [],
    [range(8192, 4095)],
    [range(0, 8191), range(4096, 12287)],
    [range(8192, 12287), range(0, 4095)],
    [range(1, 4095)],
    [range(0, 4096)],
    [range(-1n, 4095)],
    [range(0, TOP + 1n)],
  ]) {
    t.throws(() => new IovaSpace(ranges), rangeError);
  }
  t.throws(() => new IovaSpace([{ first: 0, last: 4095 }] as unknown as IovaRange[]), typeError);
  t.throws(() => new IovaSpace(undefined as unknown as IovaRange[]), typeError);
  for (const granule of [0, 32, 100, 2 ** 31, -64, 4096.5, Number.NaN]) {
    t.throws(() => new IovaSpace(x86, { granule }), rangeError, `granule ${granule}`);
  }
  t.throws(() => new IovaSpace(x86, { granule: '64' as unknown as number }), typeError);
  t.throws(() => new IovaSpace(x86, { delayedRecycling: 1 as unknown as boolean }), typeError);
  t.throws(() => new IovaSpace(x86, { firstFit: 'no' as unknown as boolean }), typeError);

  const space = new IovaSpace(x86);
  const block = space.allocate(4 * PAGE) as Iova;
  t.ok(space.reserve(at(0x10_0000), 4 * PAGE));
  const before = space.snapshot();
  for (const size of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 0n, -1n, TOP + 1n]) {
    t.throws(() => space.allocate(size), rangeError, `size ${size}`);
    t.throws(() => space.allocate(size, {}), rangeError, `size ${size}`);
    t.throws(() => space.allocateAt(at(0x1000_0000), size), rangeError, `size ${size}`);
  }
  for (const size of ['4096', undefined, null, {}] as unknown as number[]) {
    t.throws(() => space.allocate(size), typeError);
    t.throws(() => space.reserve(at(0x1000_0000), size), typeError);
  }
  for (const placement of [
    { alignment: 0 },
    { alignment: 3 * PAGE },
    { alignment: -PAGE },
    { alignment: 2 ** 64 },
    { alignment: 0.5 },
    { lowest: -1n },
    { lowest: TOP + 1n },
    { highest: -1n },
    { highest: TOP + 1n },
    { boundary: 0 },
    { boundary: 64 },
    { boundary: 3n * 4096n },
    { boundary: 2n ** 64n },
    { boundary: -4096 },
  ] satisfies Placement[]) {
    t.throws(() => space.allocate(PAGE, placement), rangeError, JSON.stringify(Object.keys(placement)));
  }
  for (const placement of [{ alignment: 4096n }, { lowest: '0' }, { highest: 5 / 0 }, { boundary: {} }]) {
    t.throws(
      () => space.allocate(PAGE, placement as unknown as Placement),
      'highest' in placement ? rangeError : typeError,
    );
  }
  for (const iova of [block + 1n, -4096n, TOP + 1n]) {
    t.throws(() => space.allocateAt(at(iova), PAGE), rangeError);
    t.throws(() => space.reserve(at(iova), PAGE), rangeError);
  }
  t.throws(() => space.allocateAt(at(TOP - 4095n), 2 * PAGE), rangeError, 'wraps around');
  t.throws(() => space.allocateAt(at(4096), TOP), rangeError, 'wraps around');
  for (const iova of [
    block + 1n,
    block + 4096n,
    0n,
    0x10_0000n,
    0x20_0000n,
    0xfee0_0000n,
    TOP,
    // Those that would be the block's if their upper bits were lost.
    block + 2n ** 64n,
    block - 2n ** 64n,
    -1n,
  ]) {
    t.throws(() => space.free(at(iova)), rangeError, `free ${iova}`);
  }
  t.throws(() => space.free(4096 as unknown as Iova), typeError);
  t.throws(() => space.free(undefined as unknown as Iova), typeError);
  for (const iova of [block, 0x10_1000n, 0x20_0000n, -1n, 0x10_0000n + 2n ** 64n]) {
    t.throws(() => space.unreserve(at(iova)), rangeError);
  }
  t.throws(() => space.unreserve(5.5 as unknown as Iova), rangeError);
  t.throws(() => space.find(at(-1)), rangeError);
  t.throws(() => space.recycle(1), rangeError, 'a ticket that was not issued');
  t.throws(() => space.recycle(-1), rangeError);
  t.throws(() => space.recycle('0' as unknown as number), typeError);
  t.throws(() => space.restrict([]), rangeError);
  t.throws(() => space.restrict([range(0, 4096)]), rangeError);
  t.throws(() => [...space.blocks(-1n)], rangeError);
  t.equal(space.allocateAt(block, PAGE), false, 'in use');
  t.equal(space.allocateAt(at(0xfedf_f000n), 2 * PAGE), false, 'a hole in part');
  t.equal(space.reserve(at(block + 12288n), 2 * PAGE), false, 'in use in part');
  t.same(space.snapshot(), before);
  space.check();

  t.match(
    (() => {
      try {
        return space.free(at(block + 4096n));
      } catch (error) {
        return error;
      }
    })(),
    { message: /0x5000: it is in 0x4000, 16384 bytes, allocated/ },
    'says what is there instead',
  );
  t.equal(space.free(block), 4 * PAGE);
  t.throws(() => space.free(block), rangeError, 'twice');
  space.unreserve(at(0x10_0000));
  t.throws(() => space.unreserve(at(0x10_0000)), rangeError, 'twice');
  t.equal(space.freeBytes, new IovaSpace(x86).freeBytes);
});

t.test('delayed recycling', async t => {
  const space = new IovaSpace([range(0, 16 * PAGE - 1)], { delayedRecycling: true });
  const [a, b] = [space.allocate(PAGE) as Iova, space.allocate(PAGE) as Iova];
  t.equal(space.free(a), PAGE);
  t.match(space.find(a), { kind: IovaBlockKind.Recycling });
  t.equal(space.recyclingBytes, 4096n);
  t.equal(space.allocate(PAGE), 0x3000n, 'not handed out again');
  const ticket = space.ticket();
  t.equal(space.free(b), PAGE);
  t.throws(() => space.free(b), rangeError, 'already free');
  space.recycle(ticket);
  t.match(space.find(a), { kind: IovaBlockKind.Free });
  t.match(space.find(b), { kind: IovaBlockKind.Recycling }, 'was freed after the flush began');
  t.equal(space.allocate(PAGE), a);
  const copy = IovaSpace.from(space.snapshot());
  space.recycle(ticket);
  t.equal(space.recyclingBytes, 4096n, 'an old ticket does no harm');
  for (const each of [space, copy]) {
    each.recycle();
    t.equal(each.recyclingBytes, 0n);
    t.equal(each.allocate(PAGE), b);
    each.check();
  }
  // Many at once: more than one chunk of the queue, and of a snapshot.
  const many = new IovaSpace([range(0, 2 ** 24 - 1)], { delayedRecycling: true });
  const pages = Array.from({ length: 2000 }, () => many.allocate(PAGE) as Iova);
  const { below, shuffle, seed } = random();
  t.comment(`seed ${seed}`);
  shuffle(pages);
  for (const page of pages) many.free(page);
  const half = below(2000);
  for (const each of [many, IovaSpace.from(structuredClone(many.snapshot()))]) {
    each.recycle(half);
    each.check();
    t.ok(
      pages.every(
        (page, index) =>
          each.find(page).kind === (index < half ? IovaBlockKind.Free : IovaBlockKind.Recycling),
      ),
      `the first ${half}, and no more`,
    );
    each.recycle();
    t.equal(each.freeBytes, 2n ** 24n - 4096n);
  }
});

t.test('restricting', async t => {
  const space = new IovaSpace(x86, { delayedRecycling: true });
  const low = space.allocate(2 ** 21) as Iova;
  const high = space.allocate(2 ** 21, { lowest: 2n ** 40n }) as Iova;
  t.ok(space.reserve(at(2n ** 39n), 2n ** 30n));
  const freed = space.allocate(PAGE, { lowest: 2n ** 50n }) as Iova;
  space.free(freed);
  const before = space.snapshot();
  t.same(
    space.restrict([range(0, 2n ** 32n - 1n)]).map(({ iova, kind }) => [iova, kind]),
    [
      [2n ** 39n, IovaBlockKind.Reserved],
      [high, IovaBlockKind.Allocated],
      [freed, IovaBlockKind.Recycling],
    ],
    'says what is in the way',
  );
  t.same(space.snapshot(), before, 'and changes nothing');
  t.same(
    space.restrict([range(0, low + 4095n), range(low + 8192n, TOP)]),
    [{ iova: low, size: 2n ** 21n, kind: IovaBlockKind.Allocated }],
    'also what is cut in the middle, once',
  );
  space.recycle();
  space.free(high);
  space.recycle();
  space.unreserve(at(2n ** 39n));
  t.same(space.restrict([range(0, 2n ** 39n - 1n)]), []);
  t.equal(space.find(at(2n ** 50n)).kind, IovaBlockKind.Hole);
  t.same([...space.blocks()].at(-1), {
    iova: 2n ** 39n,
    size: 2n ** 64n - 2n ** 39n,
    kind: IovaBlockKind.Hole,
  });
  t.same(space.restrict([range(0, TOP)]), []);
  t.equal(space.find(at(2n ** 50n)).kind, IovaBlockKind.Hole, 'it never widens');
  t.equal(space.find(at(0xfee0_0000n)).kind, IovaBlockKind.Hole);
  space.check();
});

t.test('damaged snapshots are refused', async t => {
  const space = new IovaSpace(x86, { delayedRecycling: true });
  const blocks = Array.from({ length: 8 }, () => space.allocate(2 * PAGE) as Iova);
  for (const block of blocks.slice(0, 3)) space.free(block);
  space.reserve(at(0x1000_0000), PAGE);
  const good = space.snapshot();
  t.same(IovaSpace.from(good).snapshot(), good);
  const damaged = (change: (words: BigUint64Array) => unknown, rest: Partial<IovaSnapshot> = {}) => {
    const words = good.blocks.slice();
    const made = change(words);
    return () => IovaSpace.from({ ...good, blocks: made instanceof BigUint64Array ? made : words, ...rest });
  };
  const none = (): void => {};
  t.doesNotThrow(damaged(none), 'as it is');
  const cases: [string, (words: BigUint64Array) => unknown][] = [
    ['half a block', words => words.slice(1)],
    ['nothing', () => new BigUint64Array()],
    ['no hole at 0', words => words.slice(2)],
    ['no hole at the end', words => words.slice(0, -2)],
    ['an unknown kind', words => (words[2] = (words[2] as bigint) | 4n)],
    ['a free block', words => (words[2] = (words[2] as bigint) | 7n)],
    ['a misaligned start', words => (words[2] = (words[2] as bigint) + 64n)],
    ['a misaligned end', words => (words[3] = (words[3] as bigint) - 1n)],
    ['an end before its start', words => (words[3] = (words[2] as bigint) & ~7n)],
    ['overlap', words => (words[3] = (words[3] as bigint) + 4096n)],
    ['a block in page 0', words => (words[0] = 0n)],
    ['a block in the last page', words => (words[words.length - 2] = (words.at(-2) as bigint) & ~7n)],
    ['a hole for a recycling block', words => (words[2] = (words[2] as bigint) | 3n)],
    ['one recycling block too many', words => (words[8] = (words[8] as bigint) | 2n)],
    [
      'holes side by side',
      words => {
        const more = new BigUint64Array(words.length + 2);
        more.set([...words.slice(0, -2), words.at(-2) as bigint, TOP - 4096n, (TOP - 4095n) | 3n, TOP]);
        return more;
      },
    ],
  ];
  for (const [name, change] of cases) t.throws(damaged(change), rangeError, name);
  for (const recycling of [
    good.recycling.slice(1),
    new BigUint64Array([...good.recycling, blocks[5] as bigint]),
    new BigUint64Array([good.recycling[0] as bigint, ...good.recycling.slice(0, 2)]),
    good.recycling.map(word => word + 4096n),
  ]) {
    t.throws(damaged(none, { recycling, ticket: 10 }), rangeError);
  }
  for (const ticket of [2, -1, 1.5, Number.NaN]) t.throws(damaged(none, { ticket }), rangeError);
  t.throws(damaged(none, { granule: 100 }), rangeError);
  t.throws(damaged(none, { granule: 2 ** 30 }), rangeError);
  t.throws(damaged(none, { version: 2 as 1 }), typeError);
  t.throws(damaged(none, { blocks: [] as unknown as BigUint64Array }), typeError);
  t.throws(damaged(none, { recycling: new Uint8Array() as unknown as BigUint64Array }), typeError);
  t.throws(damaged(none, { firstFit: 'yes' as unknown as boolean }), typeError);
  t.throws(() => IovaSpace.from(undefined as unknown as IovaSnapshot), typeError);
  t.throws(() => IovaSpace.from(null as unknown as IovaSnapshot), typeError);

  // Any one word replaced: refused, or a sound space.
  const { below, seed } = random();
  t.comment(`seed ${seed}`);
  for (let i = 0; i < 2000; i++) {
    const make = damaged(words => {
      const index = below(words.length);
      words[index] = (words[index] as bigint) ^ (1n << BigInt(below(64)));
    });
    try {
      const made = make();
      made.check();
      assert.deepEqual(IovaSpace.from(made.snapshot()).snapshot(), made.snapshot());
    } catch (error) {
      assert.ok(error instanceof RangeError, String(error));
    }
  }
});

t.test('a large one survives its snapshot', async t => {
  const { below, shuffle, seed } = random();
  t.comment(`seed ${seed}`);
  const space = new IovaSpace(x86);
  const live = Array.from({ length: 5000 }, () => space.allocate(PAGE * (1 + below(40))) as Iova);
  shuffle(live);
  for (const block of live.splice(2500)) space.free(block);
  const copy = IovaSpace.from(structuredClone(space.snapshot()));
  copy.check();
  t.same([...copy], [...space]);
  for (let i = 0; i < 1000; i++) {
    const size = PAGE * (1 + below(600));
    assert.equal(copy.allocate(size), space.allocate(size), 'goes on the same');
  }
});

t.test('memory follows the population', async t => {
  const space = new IovaSpace([range(0, TOP)]);
  const { below, seed } = random();
  t.comment(`seed ${seed}`);
  const live: Iova[] = [];
  // All over the address space, 500 at a time.
  const cycle = (): void => {
    for (let i = 0; i < 500; i++) {
      const iova = at((BigInt(below(2 ** 26)) << 38n) | (BigInt(below(2 ** 26)) << 12n));
      if (space.allocateAt(iova, PAGE * (1 + below(1000)))) live.push(iova);
    }
    for (const iova of live.splice(0)) space.free(iova);
  };
  for (let i = 0; i < 3; i++) cycle();
  const before = space.footprint;
  for (let i = 0; i < 50; i++) cycle();
  t.ok(space.footprint <= before * 1.25, `${before} bytes, then ${space.footprint}`);
  t.equal(space.freeBytes, 2n ** 64n - 8192n);
  space.check();

  // A window that moves through all of it, with delayed recycling.
  const delayed = new IovaSpace([range(0, TOP)], { delayedRecycling: true });
  let peak = 0;
  for (let step = 0n; step < 20_000n; step++) {
    const size = PAGE * (1 + below(700));
    live.push(delayed.allocate(size, { lowest: (step << 49n) + 12_288n }) as Iova);
    if (live.length > 100) delayed.free(live.shift() as Iova);
    if (step % 50n === 0n) delayed.recycle();
    if (step === 1000n) peak = delayed.footprint;
  }
  t.ok(delayed.footprint <= peak * 1.25, `${peak} bytes, then ${delayed.footprint}`);
  delayed.check();
});

interface Core extends Record<string, unknown> {
  iovaInit(granule: number, isDelayed: boolean, isFirstFit: boolean, ticket: number): number;
  iovaHole(first: bigint, last: bigint): number;
  iovaAllocate(size: number): bigint;
  iovaAllocateWithin(...values: bigint[]): bigint;
  iovaOccupy(first: bigint, last: bigint, isReserved: boolean): number;
  iovaFree(first: bigint): number;
  iovaRecycle(ticket: number): number;
  iovaPrepare(changes: number): number;
  iovaStatus(): number;
  iovaBlocks(kind: number): number;
  iovaCheck(): number;
}

t.test('when memory ends, nothing is half-done', async t => {
  const NO_MEMORY = 2;
  const bytes = readFileSync(new URL('../../assembly/core.debug.wasm', import.meta.url));
  for (const isDelayed of [false, true]) {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 4 });
    const core = instantiateSync<Core>(new WebAssembly.Module(bytes), { env: { memory } }).exports;
    t.equal(core.iovaInit(12, isDelayed, false, 0), 0);
    t.equal(core.iovaHole(0n, 4095n), 0);
    t.equal(core.iovaHole(BigInt.asIntN(64, TOP - 4095n), -1n), 0);
    // Blocks far apart take a path each.
    const { below, seed } = random();
    t.comment(`seed ${seed}`);
    const taken: bigint[] = [];
    for (;;) {
      const first = (BigInt(below(2 ** 25)) << 38n) + (BigInt(below(2 ** 26)) << 12n) + 2n ** 32n;
      const status = core.iovaOccupy(first, first + 8191n, false);
      if (status === NO_MEMORY) break;
      if (status === 0) taken.push(first);
    }
    t.ok(taken.length > 30, `${taken.length} blocks`);
    assert.equal(core.iovaCheck(), 0);
    assert.equal(core.iovaBlocks(0), taken.length);
    t.equal(core.iovaAllocate(4096), 0n);
    t.equal(core.iovaStatus(), NO_MEMORY);
    t.equal(core.iovaAllocateWithin(4096n, 1n, 0n, -1n, 0n), 0n);
    t.equal(core.iovaStatus(), NO_MEMORY);
    t.equal(core.iovaPrepare(1), NO_MEMORY);
    t.equal(core.iovaPrepare(0xffff_ffff), NO_MEMORY);
    assert.equal(core.iovaCheck(), 0);
    if (isDelayed) {
      t.equal(core.iovaFree(taken[0] as bigint), -NO_MEMORY, 'the queue has no room');
      assert.equal(core.iovaCheck(), 0);
      assert.equal(core.iovaBlocks(0), taken.length);
      continue;
    }
    for (const first of taken.splice(5)) assert.equal(core.iovaFree(first), 8192);
    assert.equal(core.iovaCheck(), 0);
    t.equal(core.iovaAllocate(4096), 4096n, 'works again');
    // The heap is all in lists now.
    let again = 0;
    for (let i = 0n; i < 30n; i++)
      again += Number(core.iovaOccupy(i << 50n, (i << 50n) + 4095n, false) === 0);
    t.ok(again > 20, `${again} more from what was given up`);
    assert.equal(core.iovaCheck(), 0);
  }
});
