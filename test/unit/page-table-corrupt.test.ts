// Tables that are not what they should be: each is refused, and the error says where.
import assert from 'node:assert/strict';
import { test } from 'tap';
import { iova, type PhysicalAddress, physicalAddress } from '../../src/address.js';
import { PageTable, PageTableFormat } from '../../src/memory/page-table.js';
import { PageTableError } from '../../src/memory/page-table-error.js';
import { TABLE_PAGE, TableMemory } from '../../src/memory/table-memory.js';
import { random } from '../support/random.js';
import { formats, readEntry, tablePage, writeEntry } from './support/page-tables.js';

const BASE = 0x1_0000_0000n;
const memory = new TableMemory({ base: physicalAddress(BASE), pages: 64 });
const IR_IW = 0x6000_0000_0000_0000n;

/** A table entry of `level`, and a 4 KiB leaf, as the specifications have them. */
const tableEntry = (format: PageTableFormat, level: number, to: bigint): bigint =>
  ({
    amdv1: IR_IW | (BigInt(level) << 9n) | 1n,
    'vtd-second-stage': 3n,
    'x86-first-stage': 0x27n,
    'arm-stage-1': 3n,
    'arm-stage-2': 3n,
  })[format] | to;
const pageEntry = (format: PageTableFormat, to: bigint): bigint =>
  ({
    amdv1: IR_IW | 1n,
    'vtd-second-stage': 3n,
    'x86-first-stage': 0x67n,
    'arm-stage-1': 0xf47n,
    'arm-stage-2': 0x7ffn,
  })[format] | to;

interface Expected {
  code: string;
  level: number;
  index?: number;
  iova?: bigint;
}

/** Everything that goes over all of the table refuses it for the reason given; nothing changes. */
function refuses(table: PageTable, expected: Expected, walks = true): void {
  const { code, level, index, iova: at } = expected;
  const finding = table.findings().find(each => each.code === code && each.level === level);
  assert(
    finding !== undefined,
    `${code} at level ${level}, among ${JSON.stringify(table.findings().map(f => [f.code, f.level]))}`,
  );
  if (index !== undefined) assert.equal(finding.index, index);
  if (at !== undefined) assert.equal(finding.iova, at);
  assert.throws(() => table.verify(), PageTableError);
  if (!walks) return;
  const refused = (error: unknown): boolean => {
    assert(error instanceof PageTableError, String(error));
    assert.equal(error.code, code);
    assert.equal(error.level, level);
    if (at !== undefined) assert.equal(error.iova, at);
    if (index !== undefined) assert.equal(error.where?.index, index);
    return true;
  };
  const { freePages } = memory;
  const before = [...memory.read(table.root)];
  assert.throws(() => [...table.extents()], refused);
  assert.throws(() => table.unmap(iova(0), 1n << 38n), refused);
  assert.throws(() => PageTable.compare(table, table), refused);
  if (table.format === PageTableFormat.AmdV1) {
    assert.throws(() => table.readAndClearDirty(iova(0), 1n << 38n), refused);
  }
  assert.equal(memory.freePages, freePages);
  assert.deepEqual([...memory.read(table.root)], before);
}

for (const { name, format, options } of formats) {
  if (options.levels === 6) continue;
  const AT = 0x4020_3000n;
  /** A sound table with pages at AT, and the page of each level that leads there. */
  const make = (): { table: PageTable; pages: bigint[] } => {
    memory.clear();
    const table = PageTable.create(format, memory, options);
    table.map(iova(AT), physicalAddress(0x7000n), 4096);
    const pages: bigint[] = [];
    for (const entry of table.entries()) pages[entry.level] = entry.table;
    return { table, pages };
  };
  const index = (level: number): number => Number((AT >> BigInt(12 + 9 * level)) & 511n);

  test(`${name}: pointers that lead nowhere`, async t => {
    const end = BASE + 64n * 4096n;
    for (const to of [
      0n,
      BASE - 4096n,
      end,
      end + 4096n,
      0xf_ffff_f000n,
      0xffff_ffff_f000n,
      BASE + 63n * 4096n,
    ]) {
      for (const level of [1, 2]) {
        const { table, pages } = make();
        // What lies beyond the heap in linear memory looks like tables, but is somewhere else.
        const decoy = tablePage(
          Object.fromEntries(Array.from({ length: 512 }, (_, at) => [at, pageEntry(format, 0n)])),
        );
        for (let at = 0n; at < 4n; at++) memory.load(physicalAddress(0x9_0000_0000n + at * 4096n), decoy);
        writeEntry(memory, pages[level] as bigint, index(level), tableEntry(format, level, to));
        const start = (AT >> BigInt(12 + 9 * level)) << BigInt(12 + 9 * level);
        refuses(table, { code: 'OUTSIDE_MEMORY', level, index: index(level), iova: start });
        if (to !== BASE + 63n * 4096n) {
          t.throws(() => table.translate(iova(AT)), { code: 'OUTSIDE_MEMORY', level });
        }
        t.throws(() => table.map(iova(AT + 4096n), physicalAddress(0n), 4096), {
          code: 'OUTSIDE_MEMORY',
          level,
        });
        t.same([...table.translateMany(BigUint64Array.of(AT, AT))], [2n ** 64n - 1n, 2n ** 64n - 1n]);
        t.ok([...table.entries()].length > 0, 'raw entries are listed all the same');
      }
    }
  });

  test(`${name}: loops and shared tables`, async t => {
    for (const [level, to] of [
      [1, 1],
      [1, 2],
      [2, 2],
    ] as const) {
      const { table, pages } = make();
      // A slot before the sound one, so that the loop is met first.
      writeEntry(memory, pages[level] as bigint, 0, tableEntry(format, level, pages[to] as bigint));
      refuses(table, { code: 'SHARED_TABLE', level, index: 0 });
      t.throws(() => [...table.entries()], { code: 'SHARED_TABLE' });
    }
    // Two entries for one table.
    const { table, pages } = make();
    writeEntry(memory, pages[1] as bigint, index(1) + 1, tableEntry(format, 1, pages[0] as bigint));
    refuses(table, { code: 'SHARED_TABLE', level: 1, index: index(1) + 1 });
    t.pass();
  });

  test(`${name}: every entry of every level the same table: 512^n visits if it were believed`, async t => {
    memory.clear();
    const levels = options.levels ?? (format === PageTableFormat.AmdV1 ? 3 : 4);
    for (let level = levels - 1; level >= 0; level--) {
      const entry =
        level === 0
          ? (at: number) => pageEntry(format, BigInt(at ^ 1) << 12n)
          : () => tableEntry(format, level, BASE + BigInt(level - 1) * 4096n);
      const page = tablePage(Object.fromEntries(Array.from({ length: 512 }, (_, at) => [at, entry(at)])));
      memory.load((BASE + BigInt(level) * 4096n) as PhysicalAddress, page);
    }
    const root = (BASE + BigInt(levels - 1) * 4096n) as PhysicalAddress;
    const table = PageTable.open(format, memory, root, { ...options, levels });
    const start = process.hrtime.bigint();
    refuses(table, { code: 'SHARED_TABLE', level: 1 });
    t.throws(() => [...table.entries()], { code: 'SHARED_TABLE' });
    t.throws(() => table.map(iova(0), physicalAddress(0n), 1n << 30n), { name: 'PageTableError' });
    t.ok(Number(process.hrtime.bigint() - start) < 1e9);
  });

  test(`${name}: reserved bits and illegal entries`, async t => {
    /** What, at which level, how the entry there is spoilt, whether walking meets it too. */
    type Bad = [code: string, level: number, spoil: (value: bigint) => bigint, walks: boolean];
    const flip = (bits: bigint) => (value: bigint) => value ^ bits;
    /** A large leaf in place of the pointer. */
    const leaf = (bits: bigint) => () => pageEntry(format, 0n) ^ bits;
    const bad: Bad[] = (
      {
        amdv1: [
          ['RESERVED_BITS', 0, flip(1n << 52n), false],
          ['RESERVED_BITS', 1, flip(1n << 55n), false],
          ['RESERVED_BITS', 1, leaf(1n << 13n), false],
          // Next level of a leaf, of a table that skips levels.
          ['ILLEGAL_ENTRY', 0, flip(1n << 9n), true],
          ['ILLEGAL_ENTRY', 2, flip(3n << 9n), true],
        ],
        'vtd-second-stage': [
          ['RESERVED_BITS', 1, leaf((1n << 7n) | (1n << 13n)), false],
          ['RESERVED_BITS', 2, leaf((1n << 7n) | (1n << 29n)), false],
          // Neither readable nor writeable, and not zero.
          ['ILLEGAL_ENTRY', 0, flip(3n), true],
        ],
        'x86-first-stage': [
          ['RESERVED_BITS', 1, leaf((1n << 7n) | (1n << 13n)), false],
          ['RESERVED_BITS', 2, leaf((1n << 7n) | (1n << 29n)), false],
          // PS where no leaf may be.
          ['ILLEGAL_ENTRY', 3, flip(1n << 7n), true],
        ],
        'arm-stage-1': [
          ['RESERVED_BITS', 0, flip(1n << 48n), false],
          ['RESERVED_BITS', 1, flip(1n << 50n), false],
          // A block, misaligned; the reserved type at level 0.
          ['RESERVED_BITS', 1, leaf(2n | (1n << 13n)), false],
          ['ILLEGAL_ENTRY', 0, flip(2n), true],
        ],
        'arm-stage-2': [
          ['RESERVED_BITS', 0, flip(1n << 49n), false],
          ['RESERVED_BITS', 1, flip(1n << 60n), false],
          ['RESERVED_BITS', 2, leaf(2n | (1n << 29n)), false],
          ['ILLEGAL_ENTRY', 0, flip(2n), true],
        ],
      } satisfies Record<PageTableFormat, Bad[]>
    )[format];
    for (const [code, level, spoil, walks] of bad) {
      const { table, pages } = make();
      const page = pages[level] as bigint;
      const value = readEntry(memory, page, index(level));
      writeEntry(memory, page, index(level), spoil(value));
      const start = (AT >> BigInt(12 + 9 * level)) << BigInt(12 + 9 * level);
      refuses(table, { code, level, index: index(level), iova: start }, walks);
      const finding = table.findings()[0];
      if (code === 'RESERVED_BITS') t.not(finding?.bits, 0n);
      if (walks) t.throws(() => table.translate(iova(AT)), { code, level });
    }
    t.pass();
  });

  test(`${name}: the root`, async t => {
    const { table } = make();
    memory.clear();
    t.throws(() => table.verify(), { code: 'OUTSIDE_MEMORY', where: { table: undefined } });
    t.throws(() => [...table.extents()], { code: 'OUTSIDE_MEMORY' });
    t.throws(() => table.map(iova(AT), physicalAddress(0n), 4096), { code: 'OUTSIDE_MEMORY' });
    t.throws(() => table.unmap(iova(AT), 4096), { code: 'OUTSIDE_MEMORY' });
    t.throws(() => PageTable.open(format, memory, physicalAddress(BASE - 4096n), options), {
      code: 'OUTSIDE_MEMORY',
    });
  });
}

test('AMDv1: replicated leaves', async t => {
  const make = (): { table: PageTable; page: bigint } => {
    memory.clear();
    const table = PageTable.create(PageTableFormat.AmdV1, memory);
    table.map(iova(0x10000), physicalAddress(0x10000n), 0x10000);
    return { table, page: [...table.entries()].find(({ level }) => level === 0)?.table as bigint };
  };
  for (const slot of [16, 20, 31]) {
    for (const value of [0n, readEntry(memory, make().page, 16) ^ (1n << 62n), IR_IW | 0x13001n]) {
      const { table, page } = make();
      writeEntry(memory, page, slot, value);
      t.throws(() => table.verify(), { code: 'REPLICAS_DIFFER', level: 0 });
      t.throws(() => [...table.extents()], { code: 'REPLICAS_DIFFER' });
      t.throws(() => table.unmap(iova(0), 1 << 20), { code: 'REPLICAS_DIFFER' });
      t.throws(() => table.readAndClearDirty(iova(0), 1 << 20), { code: 'REPLICAS_DIFFER' });
    }
    // What hardware marks in one of them is no difference.
    const { table, page } = make();
    writeEntry(memory, page, slot, readEntry(memory, page, slot) | (1n << 6n) | (1n << 5n));
    table.verify();
    t.same(table.readAndClearDirty(iova(0), 1 << 20), [{ iova: 0x10000n, length: 0x10000n }]);
  }
  // Sizes that no leaf of the level has: 4 MiB at level 0; 8 KiB at level 1; 512 GiB.
  const sizes: [number, bigint][] = [
    [0, IR_IW | 0xe01n | 0x1ff000n],
    [1, IR_IW | 0xe01n],
    [1, IR_IW | 0xe01n | ((1n << 51n) - 4096n)],
    [2, IR_IW | 0xe01n | ((1n << 38n) - 4096n)],
  ];
  for (const [level, value] of sizes) {
    const { table } = make();
    const page = [...table.entries()].find(entry => entry.level === level)?.table as bigint;
    writeEntry(memory, page, 100, value);
    t.throws(() => table.verify(), { code: 'ILLEGAL_ENTRY', level });
  }
});

test('a dump: pages anywhere, in any order, thousands of them', async t => {
  const numbers = random();
  t.comment(`seed ${numbers.seed}`);
  const source = new TableMemory(4096);
  const original = PageTable.create(PageTableFormat.VtdSecondStage, source);
  for (let at = 0n; at < 3000n; at++) {
    original.map(iova(at * 0x40_0000n), physicalAddress(at << 13n), 4096, { writeable: at % 3n !== 0n });
  }
  // Every table somewhere else, none beside another.
  const moved = new Map<bigint, bigint>();
  const place = (page: bigint): bigint => {
    const known = moved.get(page);
    if (known !== undefined) return known;
    const to = (BigInt(moved.size * 2 + 1) << 12n) + (BigInt(numbers.below(2 ** 20)) << 30n);
    moved.set(page, to);
    return to;
  };
  const pages = new Map<bigint, Record<number, bigint>>();
  for (const { table, index, value, kind } of original.entries()) {
    const entries = pages.get(table) ?? {};
    const to = value & 0x000f_ffff_ffff_f000n;
    entries[index] = kind === 'table' ? (value ^ to) | place(to) : value;
    pages.set(table, entries);
  }
  const dump = new TableMemory(0);
  for (const page of numbers.shuffle([...pages.keys()])) {
    dump.load(place(page) as PhysicalAddress, tablePage(pages.get(page) as Record<number, bigint>));
  }
  t.ok(dump.pages > 3000);
  const copy = PageTable.open(PageTableFormat.VtdSecondStage, dump, place(original.root) as PhysicalAddress);
  copy.verify();
  t.same(copy.sizes(), original.sizes());
  t.equal(PageTable.compare(copy, original), undefined);
  t.equal(PageTable.compare(copy, original, { entrySizes: true }), undefined);
  t.same(
    copy.translateMany(BigUint64Array.from({ length: 6001 }, (_, at) => BigInt(at) * 0x20_0000n + 5n)),
    original.translateMany(BigUint64Array.from({ length: 6001 }, (_, at) => BigInt(at) * 0x20_0000n + 5n)),
  );
  // No heap, so no new table; but what needs none can be done.
  t.throws(() => copy.map(iova(0x20_0000), physicalAddress(0n), 4096), { code: 'NO_MEMORY' });
  copy.map(iova(0x1000), physicalAddress(0x1000n), 4096);
  t.equal(copy.unmap(iova(0), 8192), 8192n);
  t.equal(dump.pages, pages.size, 'loaded pages stay');
});

test('pages are found wherever they were loaded, and only there', async t => {
  const numbers = random();
  t.comment(`seed ${numbers.seed}`);
  const pages = new TableMemory({ base: physicalAddress(40n << 12n), pages: 8 });
  for (let round = 0; round < 40; round++) {
    pages.clear();
    const loaded = new Map<number, number>();
    const most = 1 + numbers.below(300);
    let next = 0;
    for (let times = 0; times < most; times++) {
      // Close together, so that windows join on either side, now and then as a run; some within the heap.
      const first = numbers.below(2) === 0 && next < 400 ? next : numbers.below(400);
      const count = numbers.below(4) === 0 ? 1 + numbers.below(30) : 1;
      next = first + count;
      const bytes = new Uint8Array(count * TABLE_PAGE);
      for (let at = 0; at < count; at++) {
        const mark = 1 + numbers.below(255);
        bytes.fill(mark, at * TABLE_PAGE, (at + 1) * TABLE_PAGE);
        loaded.set(first + at, mark);
      }
      pages.load(physicalAddress(first << 12), bytes);
    }
    for (let at = 0; at < 440; at++) {
      const mark = loaded.get(at);
      const address = physicalAddress(at << 12);
      if (mark === undefined) assert.throws(() => pages.read(address), RangeError);
      else
        assert(
          pages.read(address).every(byte => byte === mark),
          `page ${at}`,
        );
    }
    const inHeap = [...loaded.keys()].filter(at => at >= 40 && at < 48).length;
    assert.equal(pages.freePages, 8 - inHeap);
    assert.equal(pages.pages, 8 + loaded.size - inHeap);
    // New tables go between what is loaded.
    for (let free = 8 - inHeap; free > 0; free--) {
      const { root } = PageTable.create(PageTableFormat.ArmStage1, pages);
      assert(!loaded.has(Number(root >> 12n)));
    }
    assert.throws(() => PageTable.create(PageTableFormat.ArmStage1, pages), { code: 'NO_MEMORY' });
  }
  t.pass();
});

test('compare finds the first difference', async t => {
  const other = new TableMemory(64);
  const pair = (): [PageTable, PageTable] => {
    memory.clear();
    other.clear();
    const tables = [
      PageTable.create(PageTableFormat.VtdSecondStage, memory),
      PageTable.create(PageTableFormat.AmdV1, other),
    ] as [PageTable, PageTable];
    for (const table of tables) {
      table.map(iova(0x10000), physicalAddress(0x10000n), 0x10000);
      table.map(iova(0x40000), physicalAddress(0x90000n), 0x10000, { writeable: false });
    }
    return tables;
  };
  const [a, b] = pair();
  t.equal(PageTable.compare(a, b), undefined, 'whatever the format and the sizes');
  t.match(PageTable.compare(a, b, { entrySizes: true }), {
    a: { iova: 0x10000n, length: 4096n },
    b: { iova: 0x10000n, length: 0x10000n },
  });
  b.unmap(iova(0x48000), 0x1000);
  t.match(PageTable.compare(a, b), { a: { iova: 0x40000n, length: 0x10000n }, b: { length: 0x8000n } });
  b.map(iova(0x48000), physicalAddress(0x98000n), 0x1000);
  t.match(PageTable.compare(a, b), { a: { writeable: false }, b: { length: 0x8000n } });
  const [c, d] = pair();
  c.map(iova(0x50_0000), physicalAddress(0n), 4096);
  t.match(PageTable.compare(c, d), { a: { iova: 0x50_0000n }, b: undefined });
  t.match(PageTable.compare(d, c), { a: undefined, b: { iova: 0x50_0000n } });
  // Two tables in one memory.
  const e = PageTable.create(PageTableFormat.VtdSecondStage, memory);
  t.match(PageTable.compare(c, e), { a: { iova: 0x10000n }, b: undefined });
  for (const { iova: at, address, length, writeable } of c.extents())
    e.map(at, address, length, { writeable });
  t.equal(PageTable.compare(c, e, { entrySizes: true }), undefined);
});

test('too little memory: refused, and not a bit is changed', async t => {
  for (const { format, options, name } of formats) {
    // As many pages as everything needs, then one less each time.
    let needed = 0;
    for (let pages = 24; pages > 0; pages--) {
      const small = new TableMemory({ base: physicalAddress(BASE), pages });
      const table = PageTable.create(format, small, options);
      const image = (): string => {
        const parts = [`${table.root} ${table.levels} ${small.freePages}`];
        const tables = new Set<bigint>([table.root]);
        for (const entry of table.entries()) tables.add(entry.table);
        for (const page of tables)
          parts.push(Buffer.from(small.read(page as PhysicalAddress)).toString('base64'));
        return parts.join();
      };
      const todo = [
        () => table.map(iova(1n << 30n), physicalAddress(1n << 30n), 1n << 30n),
        () => table.map(iova((1n << 21n) - 4096n), physicalAddress(0n), 8192),
        // Splits a page of 1 GiB.
        () => table.unmap(iova((1n << 30n) + 0x123000n), 0x1000),
        () => table.unmap(iova((1n << 30n) + 0x5a5a5000n - 0x20000000n), 0x5000),
        // Needs tables at both ends, of which some are the same.
        () => table.map(iova(5n << 30n), physicalAddress(5n << 30n), 1n << 30n),
        () => table.unmap(iova((5n << 30n) + 0x1000n), (1n << 30n) - 0x2000n),
        () => table.map(iova((1n << 38n) - 4096n), physicalAddress(0n), (1n << 21n) + 4096n),
      ];
      let refused = false;
      for (const step of todo) {
        const before = image();
        try {
          step();
        } catch (error) {
          assert(error instanceof PageTableError && error.code === 'NO_MEMORY', String(error));
          assert.equal(image(), before, `${name}, ${pages} pages`);
          refused = true;
        }
        table.verify();
      }
      if (!refused) needed = pages;
      else assert(pages < needed, name);
    }
    t.ok(needed > 2 && needed < 24, name);
  }
});

test('ranges that would need tables without number end soon', async t => {
  memory.clear();
  const table = PageTable.create(PageTableFormat.VtdSecondStage, memory, { levels: 5 });
  const start = process.hrtime.bigint();
  t.throws(() => table.map(iova(0x1000), physicalAddress(0n), 1n << 51n), { code: 'NO_MEMORY' });
  const amd = PageTable.create(PageTableFormat.AmdV1, memory, { levels: 6 });
  amd.map(iova(1n << 51n), physicalAddress(0n), 1n << 51n);
  const narrow = PageTable.open(PageTableFormat.AmdV1, memory, amd.root, { levels: 6, pageSizes: 4096n });
  t.throws(() => narrow.unmap(iova(1n << 51n), 1n << 50n), { code: 'NO_MEMORY' });
  t.throws(() => narrow.unmap(iova((1n << 51n) + (1n << 50n)), 4096), { code: 'NO_MEMORY' });
  t.equal(amd.unmap(iova((1n << 51n) + (1n << 50n)), 4096), 4096n);
  t.ok(Number(process.hrtime.bigint() - start) < 1e9);
  t.equal(table.unmap(iova(0), (1n << 57n) - 4096n), 0n);
});

test('many mappings in one call: all or nothing', async t => {
  memory.clear();
  const table = PageTable.create(PageTableFormat.VtdSecondStage, memory);
  const records = (list: readonly (readonly bigint[])[], stride = 24): Uint8Array => {
    const bytes = new Uint8Array(list.length * stride);
    const view = new DataView(bytes.buffer);
    for (const [at, words] of list.entries()) {
      for (const [word, value] of words.entries()) view.setBigUint64(at * stride + word * 8, value, true);
    }
    return bytes;
  };
  const list = [
    [0x1000n, 0x1000n, 0x5000n],
    [0x2000n, 0x1000n, 0x9000n],
    [0x20_0000n, 0x20_0000n, 0x40_0000n],
    [0x3000n, 0x1000n, 0x1000n],
    [0x3f_f000n + 0x1000n, 0x1000n, 0x1000n],
  ];
  table.mapMany(records(list), { writeable: false });
  const extents = [...table.extents()];
  t.same(
    extents.map(({ iova: at, length, address }) => [at, length, address]),
    [list[0], list[1], list[3], list[2], list[4]],
  );
  t.ok(extents.every(({ writeable }) => !writeable));
  const before = memory.freePages;
  for (const wrong of [
    [
      [0x8000n, 0x1000n, 0n],
      [0x40_0000_0000n, 0x1000n, 0n],
      [0x2000n, 0x1000n, 0n],
    ],
    [
      [0x8000n, 0x1000n, 0n],
      [0x8000n, 0x1000n, 0n],
    ],
  ]) {
    t.throws(() => table.mapMany(records(wrong)), { code: 'EXISTS' });
  }
  for (const wrong of [
    [0x9000n, 0n, 0n],
    [0x9001n, 0x1000n, 0n],
    [0x9000n, 0x1000n, 1n],
    [0x9000n, 0x1000n, 1n << 52n],
    [1n << 48n, 0x1000n, 0n],
    [0x9000n, 1n << 63n, 0n],
  ]) {
    t.throws(() => table.mapMany(records([[0x8000n, 0x1000n, 0n], wrong])), RangeError);
  }
  t.same([...table.extents()], extents, 'as before');
  t.equal(memory.freePages, before);
  // A stride, and more than one call's worth.
  const many = Array.from({ length: 40_000 }, (_, at) => [
    BigInt(at + 1024) << 12n,
    4096n,
    BigInt(at ^ 1) << 12n,
  ]);
  const big = new TableMemory(256);
  const all = PageTable.create(PageTableFormat.X86FirstStage, big);
  all.mapMany(records(many, 40), {}, 40);
  t.equal(all.sizes().leaves.get(4096n), 40_000);
  all.verify();
  t.throws(
    () =>
      all.mapMany(
        records(
          [...many.map(([at, ...rest]) => [(at as bigint) + (1n << 30n), ...rest]), many[0] as bigint[]],
          40,
        ),
        {},
        40,
      ),
    {
      code: 'EXISTS',
    },
  );
  t.equal(all.sizes().leaves.get(4096n), 40_000);
});

test('several walks at once, and changes between their parts', async t => {
  const two = new TableMemory({ base: physicalAddress(BASE), pages: 64 });
  const a = PageTable.create(PageTableFormat.VtdSecondStage, two);
  const b = PageTable.create(PageTableFormat.AmdV1, two);
  for (let at = 0n; at < 10_000n; at++) {
    a.map(iova(at << 12n), physicalAddress((at ^ 1n) << 12n), 4096);
    b.map(iova((at + 5n) << 12n), physicalAddress((at ^ 1n) << 13n), 4096);
  }
  const [left, right] = [a.extents(), b.extents()];
  const entries = b.entries();
  for (let at = 0n; at < 10_000n; at++) {
    const [one, other] = [left.next().value, right.next().value];
    assert.deepEqual([one?.iova, one?.address], [at << 12n, (at ^ 1n) << 12n]);
    assert.deepEqual([other?.iova, other?.address], [(at + 5n) << 12n, (at ^ 1n) << 13n]);
    entries.next();
    if (at % 1000n === 0n) t.ok(a.translate(iova(at << 12n)));
  }
  t.ok(left.next().done && right.next().done);
  const walk = a.extents();
  walk.next();
  a.unmap(iova(0), 10_000n << 12n);
  t.ok([...walk].length < 5000);
  t.equal(memory.read(a.root).length, TABLE_PAGE);
});

test('a sound table with no page to spare is no loop, wherever a part of a walk ends', async t => {
  // Levels deep in one go after each count of entries before: some part ends between two of those levels.
  for (let pages = 4080; pages <= 4096; pages++) {
    const made = new TableMemory({ base: physicalAddress(BASE), pages: 64 });
    const table = PageTable.create(PageTableFormat.VtdSecondStage, made);
    for (let at = 0; at < pages; at++) {
      table.map(iova(BigInt(at) << 12n), physicalAddress(BigInt(at ^ 1) << 12n), 4096);
    }
    table.map(iova(1n << 39n), physicalAddress(0n), 4096);
    const exact = new TableMemory({ pages: 0 });
    const tables = [
      table.root,
      ...[...table.entries()]
        .flatMap(each => (each.kind === 'table' ? [each] : []))
        .map(({ value }) => (value & 0xf_ffff_ffff_f000n) as PhysicalAddress),
    ];
    for (const page of tables) exact.load(page, made.read(page));
    const copy = PageTable.open(PageTableFormat.VtdSecondStage, exact, table.root);
    assert.deepEqual([...copy.entries()], [...table.entries()], `${pages} pages`);
    assert.deepEqual([...copy.extents()], [...table.extents()]);
  }
  t.pass();
});
