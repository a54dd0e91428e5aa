// Page tables against a slow model: one map entry per page, or per large page where only such are mapped. Every step
// is compared, and now and then the whole table is.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { test } from 'tap';
import { type Iova, iova, type PhysicalAddress } from '../../src/address.js';
import { type PagePermissions, PageTable } from '../../src/memory/page-table.js';
import { TableMemory } from '../../src/memory/table-memory.js';
import { random } from '../support/random.js';
import { expectedLeaves, type FormatFacts, formats, readEntry, writeEntry } from './support/page-tables.js';

const STEPS_PER_RUN = 120;
const RUNS_PER_FORMAT = 100;
/** Units that a space has: enough for a large page or two and pages around it. */
const UNITS = 1100;

interface Page {
  readonly pa: bigint;
  readonly readable: boolean;
  readonly writeable: boolean;
  dirty: boolean;
}

type Step =
  | { op: 'map'; at: number; count: number; shift: number; access: number }
  | { op: 'unmap'; at: number; count: number }
  | { op: 'write'; at: number }
  | { op: 'dirty'; at: number; count: number; clear: boolean };

/** Short ranges, whole large pages, and everything. */
const counts = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 40 }) },
  { weight: 2, arbitrary: fc.constantFrom(256, 512, 513, 1024) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: UNITS }) },
);
const places = fc.oneof(fc.integer({ min: 0, max: UNITS - 1 }), fc.constantFrom(0, 16, 64, 512, 576, 1024));
const steps: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constant('map' as const),
      at: places,
      count: counts,
      // Physical addresses aligned as the IOVAs are, off by a little, and off by more.
      shift: fc.constantFrom(0, 0, 0, 1, 2, 8, 16, 512),
      access: fc.constantFrom(3, 3, 1, 2),
    }),
  },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('unmap' as const), at: places, count: counts }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('write' as const), at: places }) },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('dirty' as const),
      at: places,
      count: counts,
      clear: fc.boolean(),
    }),
  },
);

class Model {
  readonly pages = new Map<number, Page>();
  readonly base: bigint;
  readonly unit: bigint;

  constructor(base: bigint, unit: bigint) {
    this.base = base;
    this.unit = unit;
  }

  iova(at: number): Iova {
    return iova((this.base + BigInt(at) * this.unit) & (2n ** 64n - 1n));
  }

  /** Runs of pages that `joins` the one before. */
  runs<T>(value: (page: Page) => T, joins: (a: Page, b: Page) => boolean, wanted: (page: Page) => boolean) {
    const found: { iova: bigint; length: bigint; first: T }[] = [];
    let previous: { at: number; page: Page } | undefined;
    for (const [at, page] of [...this.pages].sort(([a], [b]) => a - b)) {
      if (!wanted(page)) continue;
      const last = found.at(-1);
      if (last !== undefined && previous?.at === at - 1 && joins(previous.page, page))
        last.length += this.unit;
      else found.push({ iova: this.iova(at), length: this.unit, first: value(page) });
      previous = { at, page };
    }
    return found;
  }
}

class Run {
  readonly #facts: FormatFacts;
  readonly #memory: TableMemory;
  readonly #table: PageTable;
  readonly #model: Model;
  #steps = 0;

  constructor(facts: FormatFacts, memory: TableMemory, base: bigint, unit: bigint) {
    memory.clear();
    this.#facts = facts;
    this.#memory = memory;
    this.#table = PageTable.create(facts.format, memory, facts.options);
    this.#model = new Model(base, unit);
  }

  step(step: Step): void {
    const { at } = step;
    const { unit } = this.#model;
    const count = 'count' in step ? Math.min(step.count, UNITS - at) : 1;
    const length = BigInt(count) * unit;
    if (step.op === 'map') this.#map(at, count, length, step.shift, step.access);
    else if (step.op === 'unmap') this.#unmap(at, count, length);
    else if (this.#facts.dirty === undefined) return;
    else if (step.op === 'write') this.#write(at);
    else this.#dirty(at, count, length, step.clear);
    for (const near of [at - 1, at, at + count - 1, at + count]) this.#translate(near);
    this.#steps++;
    if (this.#steps % 20 === 0) this.whole();
  }

  #map(at: number, count: number, length: bigint, shift: number, access: number): void {
    const { pages, unit } = this.#model;
    const address = (BigInt(at + shift) * unit + (1n << 40n)) as PhysicalAddress;
    const permissions: PagePermissions = { readable: (access & 1) !== 0, writeable: (access & 2) !== 0 };
    const taken = Array.from({ length: count }, (_, index) => at + index).some(page => pages.has(page));
    const { freePages } = this.#memory;
    const { root, levels } = this.#table;
    const before = taken ? undefined : new Map(this.#table.sizes().leaves);
    if (before === undefined) {
      assert.throws(() => this.#table.map(this.#model.iova(at), address, length, permissions), {
        name: 'PageTableError',
        code: 'EXISTS',
      });
      assert.deepEqual(
        [this.#memory.freePages, this.#table.root, this.#table.levels],
        [freePages, root, levels],
      );
      return;
    }
    this.#table.map(this.#model.iova(at), address, length, permissions);
    const { leaves } = this.#table.sizes();
    const made = expectedLeaves(this.#facts.sizes, this.#model.iova(at), address, length);
    for (const [size, expected] of made) before.set(size, (before.get(size) ?? 0) + expected);
    assert.deepEqual(leaves, new Map([...before].sort(([a], [b]) => Number(a - b))));
    for (let index = 0; index < count; index++) {
      const writeable = permissions.writeable === true;
      pages.set(at + index, {
        pa: address + BigInt(index) * unit,
        readable: permissions.readable === true || this.#facts.alwaysReadable === true,
        writeable,
        dirty: writeable && this.#facts.bornDirty === true,
      });
    }
  }

  #unmap(at: number, count: number, length: bigint): void {
    let removed = 0;
    for (let page = at; page < at + count; page++) if (this.#model.pages.delete(page)) removed++;
    assert.equal(this.#table.unmap(this.#model.iova(at), length), BigInt(removed) * this.#model.unit);
  }

  /** The pages of the entry that maps a page, and where it starts. */
  #entry(at: number): { first: number; count: number } {
    const found = this.#table.translate(this.#model.iova(at));
    assert(found !== undefined);
    const count = Number(found.entrySize / this.#model.unit);
    const offset = (this.#model.iova(at) & (found.entrySize - 1n)) / this.#model.unit;
    return { first: at - Number(offset), count };
  }

  /** What hardware does to a page that a device writes to, in one of the slots where the leaf is repeated. */
  #write(at: number): void {
    const { pages } = this.#model;
    const { dirty } = this.#facts;
    if (pages.get(at)?.writeable !== true || dirty === undefined) return;
    const { first, count } = this.#entry(at);
    let table: bigint = this.#table.root;
    const mask = (1n << BigInt(12 + 9 * this.#table.levels)) - 1n;
    for (let level = this.#table.levels - 1; ; level--) {
      const index = Number(((this.#model.iova(at) & mask) >> BigInt(12 + 9 * level)) & 511n);
      const value = readEntry(this.#memory, table, index);
      // The leaf is where what one entry spans is no more than the size of the leaf.
      if (1n << BigInt(12 + 9 * level) <= BigInt(count) * this.#model.unit) {
        writeEntry(this.#memory, table, index, dirty.inverted ? value & ~dirty.bit : value | dirty.bit);
        break;
      }
      table = value & 0x000f_ffff_ffff_f000n;
    }
    for (let page = first; page < first + count; page++) (pages.get(page) as Page).dirty = true;
  }

  #dirty(at: number, count: number, length: bigint, clear: boolean): void {
    const { pages, unit } = this.#model;
    const touched = new Set<number>();
    for (let page = at; page < at + count; page++) {
      if (!pages.has(page)) continue;
      const entry = this.#entry(page);
      for (let each = entry.first; each < entry.first + entry.count; each++) touched.add(each);
      page = entry.first + entry.count - 1;
    }
    const expected: { iova: bigint; length: bigint }[] = [];
    let previous = Number.NaN;
    for (const page of [...touched].sort((a, b) => a - b)) {
      const state = pages.get(page) as Page;
      if (!state.dirty) continue;
      const last = expected.at(-1);
      if (last !== undefined && previous === page - 1) last.length += unit;
      else expected.push({ iova: this.#model.iova(page), length: unit });
      previous = page;
      if (clear) state.dirty = false;
    }
    assert.deepEqual(this.#table.readAndClearDirty(this.#model.iova(at), length, clear), expected);
  }

  #translate(at: number): void {
    if (at < 0 || at >= UNITS) return;
    const page = this.#model.pages.get(at);
    const offset = this.#model.unit / 3n;
    const found = this.#table.translate(iova(this.#model.iova(at) + offset));
    const many = this.#table.translateMany(BigUint64Array.of(this.#model.iova(at) + offset));
    if (page === undefined) {
      assert.equal(found, undefined);
      assert.equal(many[0], 2n ** 64n - 1n);
      return;
    }
    assert.equal(found?.address, page.pa + offset);
    assert.equal(many[0], page.pa + offset);
    assert.equal(found?.readable, page.readable);
    assert.equal(found?.writeable, page.writeable);
  }

  whole(): void {
    this.#table.verify();
    const expected = this.#model.runs(
      page => [page.pa, page.readable, page.writeable] as const,
      (a, b) => b.pa === a.pa + this.#model.unit && a.readable === b.readable && a.writeable === b.writeable,
      () => true,
    );
    const found = [...this.#table.extents()].map(({ iova: at, address, length, readable, writeable }) => ({
      iova: at as bigint,
      length,
      first: [address as bigint, readable, writeable] as const,
    }));
    assert.deepEqual(found, expected);
    // A part of it, ending and beginning within entries.
    const [from, to] = [this.#model.iova(5), iova(this.#model.iova(600) - 1n)];
    const part = [...this.#table.extents(from, to)].reduce((sum, { length }) => sum + length, 0n);
    const pages = [...this.#model.pages.keys()].filter(at => at >= 5 && at < 600).length;
    assert.equal(part, BigInt(pages) * this.#model.unit);
  }

  end(): void {
    this.whole();
    this.#unmap(0, UNITS, BigInt(UNITS) * this.#model.unit);
    assert.deepEqual([...this.#table.extents()], []);
    // What is left is the root, and the chain below the new roots of a table that grew.
    assert.ok(this.#table.sizes().tables <= this.#table.levels);
  }
}

const seed = Number(process.env.SEED ?? random().seed) | 0;

for (const facts of formats) {
  const { name, limit, options } = facts;
  test(`${name}: like the model, seed ${seed}`, async t => {
    const memory = new TableMemory(1024);
    const spaces: { base: bigint; unit: bigint }[] = [];
    for (const unit of [1n << 12n, 1n << 21n, 1n << 30n]) {
      const size = BigInt(UNITS) * unit;
      // Near 0, near the limit, and over the edge of a table of each level.
      const edges = [21n, 30n, 39n, 48n, 57n].map(shift => (1n << shift) - unit * 500n);
      const all = [0n, limit - size, ...edges];
      if (options.signExtend) all.push((1n << 64n) - size, (1n << 64n) - limit);
      for (const base of all) {
        const upper = options.signExtend === true && base >= (1n << 64n) - limit;
        const end = upper ? 1n << 64n : limit;
        if (base >= 0n && base % unit === 0n && base + size <= end) spaces.push({ base, unit });
      }
    }
    fc.assert(
      fc.property(
        fc.constantFrom(...spaces),
        fc.array(steps, { minLength: STEPS_PER_RUN, maxLength: STEPS_PER_RUN }),
        ({ base, unit }, all) => {
          const run = new Run(facts, memory, base, unit);
          for (const step of all) run.step(step);
          run.end();
        },
      ),
      { seed, numRuns: RUNS_PER_FORMAT, endOnFailure: false },
    );
    t.pass();
  });
}
