// Entries bit by bit, as the specifications have them, and what the wrapper refuses.
import { test } from 'tap';
import { type Iova, iova, type PhysicalAddress, physicalAddress } from '../../src/address.js';
import {
  type PagePermissions,
  PageTable,
  PageTableFormat,
  type PageTableOptions,
} from '../../src/memory/page-table.js';
import { TableMemory } from '../../src/memory/table-memory.js';

const memory = new TableMemory(64);
const { AmdV1, VtdSecondStage, X86FirstStage, ArmStage1, ArmStage2 } = PageTableFormat;

/** The leaves that mapping `size` bytes from 4 GiB on to `address` makes, and the table entry above them. */
function made(
  format: PageTableFormat,
  size: bigint,
  address: bigint,
  permissions: PagePermissions = {},
  options: PageTableOptions = {},
): { values: bigint[]; level: number; above: bigint; table: bigint } {
  memory.clear();
  const table = PageTable.create(format, memory, options);
  table.map(iova(1n << 40n), physicalAddress(address), size, permissions);
  const entries = [...table.entries()];
  const leaves = entries.filter(entry => entry.kind === 'leaf');
  const { level, table: page } = leaves[0] as (typeof leaves)[0];
  const above = entries.find(entry => entry.level === level + 1)?.value as bigint;
  return { values: leaves.map(({ value }) => value), level, above, table: page };
}

test('AMDv1 entries', async t => {
  // PR is bit 0, next level 11:9, IR bit 61, IW bit 62, FC bit 60.
  const size = (log2: number): bigint => 1n << BigInt(log2);
  const leaf = (log2: number, address: bigint) => made(AmdV1, size(log2), address, {}, { levels: 6 });
  t.same(leaf(12, 0x12345000n).values, [0x6000_0000_1234_5001n], 'next level 0');
  t.equal(
    leaf(12, 0x12345000n).above,
    leaf(12, 0x12345000n).table + 0x6000_0000_0000_0201n,
    'to level 1 tables',
  );
  t.same(leaf(13, 0x12346000n).values, Array(2).fill(0x6000_0000_1234_6e01n), '8 KiB: no ones');
  t.same(leaf(14, 0x12344000n).values, Array(4).fill(0x6000_0000_1234_5e01n), '16 KiB: 1');
  t.same(leaf(15, 0x12348000n).values, Array(8).fill(0x6000_0000_1234_be01n), '32 KiB: 11');
  t.same(leaf(16, 0x12340000n).values, Array(16).fill(0x6000_0000_1234_7e01n), '64 KiB: 111');
  t.same(leaf(20, 0x12300000n).values, Array(256).fill(0x6000_0000_1237_fe01n), '1 MiB');
  t.same(leaf(21, 0x12200000n).values, [0x6000_0000_1220_0001n], '2 MiB: natural again');
  t.equal(leaf(21, 0x12200000n).above, leaf(21, 0x12200000n).table + 0x6000_0000_0000_0401n);
  t.same(leaf(22, 0x12400000n).values, Array(2).fill(0x6000_0000_125f_fe01n), '4 MiB');
  t.same(leaf(30, 0x4000_0000n).values, [0x6000_0000_4000_0001n], '1 GiB');
  t.same(leaf(31, 0x8000_0000n).values, Array(2).fill(0x6000_0000_bfff_fe01n), '2 GiB');
  for (let log2 = 12; log2 <= 40; log2++) {
    if (log2 === 39) continue;
    const { values, level } = leaf(log2, size(log2));
    // Where not natural: ones from bit 12 up to below half the size, which is half the size less a page.
    const natural = (log2 - 12) % 9 === 0;
    const expected = 0x6000_0000_0000_0001n + size(log2) + (natural ? 0n : 0xe00n + size(log2 - 1) - 4096n);
    t.same(values, Array(1 << ((log2 - 12) % 9)).fill(expected), `2^${log2}`);
    t.equal(level, Math.floor((log2 - 12) / 9));
  }
  t.same(made(AmdV1, 4096n, 0x5000n, { writeable: false }).values, [0x2000_0000_0000_5001n], 'read-only');
  t.same(made(AmdV1, 4096n, 0x5000n, { readable: false }).values, [0x4000_0000_0000_5001n], 'write-only');
  t.same(made(AmdV1, 4096n, 0x5000n, {}, { snoop: true }).values, [0x7000_0000_0000_5001n], 'FC');
});

const threeLeaves = (
  format: PageTableFormat,
  bits: { page: bigint; large: bigint; table: bigint },
  options: PageTableOptions = {},
): [string, () => ReturnType<typeof made>, bigint, number, bigint][] => [
  ['4 KiB', () => made(format, 4096n, 0x1234_5000n, {}, options), 0x1234_5000n | bits.page, 0, bits.table],
  [
    '2 MiB',
    () => made(format, 1n << 21n, 0x1220_0000n, {}, options),
    0x1220_0000n | bits.large,
    1,
    bits.table,
  ],
  [
    '1 GiB',
    () => made(format, 1n << 30n, 0x4000_0000n, {}, options),
    0x4000_0000n | bits.large,
    2,
    bits.table,
  ],
];

for (const [name, cases] of [
  // R, W; PS is bit 7.
  ['VT-d second stage', threeLeaves(VtdSecondStage, { page: 0x003n, large: 0x083n, table: 3n })],
  // P, RW, U, A, D; tables P, RW, U, A.
  ['x86 first stage', threeLeaves(X86FirstStage, { page: 0x067n, large: 0x0e7n, table: 0x27n })],
  // nG, AF, inner shareable, unprivileged, AttrIndx 1; page 3, block 1.
  ['ARM stage 1', threeLeaves(ArmStage1, { page: 0xf47n, large: 0xf45n, table: 3n })],
  // AF, inner shareable, S2AP 11, MemAttr 1111.
  ['ARM stage 2', threeLeaves(ArmStage2, { page: 0x7ffn, large: 0x7fdn, table: 3n })],
] as const) {
  test(`${name} entries of every size`, async t => {
    for (const [title, make, leaf, level, table] of cases) {
      const found = make();
      t.same(found.values, [leaf], title);
      t.equal(found.level, level);
      t.equal(found.above, found.table | table);
    }
  });
}

test('permissions, bit by bit', async t => {
  const bits = (format: PageTableFormat, permissions: PagePermissions, options: PageTableOptions = {}) =>
    made(format, 4096n, 0n, permissions, options).values[0];
  t.equal(bits(VtdSecondStage, { writeable: false }), 1n);
  t.equal(bits(VtdSecondStage, { readable: false }), 2n);
  t.equal(bits(VtdSecondStage, {}, { snoop: true }), 0x803n, 'SNP is bit 11');
  t.equal(bits(X86FirstStage, { writeable: false }), 0x25n, 'neither RW nor D');
  t.equal(bits(X86FirstStage, { privileged: true }), 0x63n, 'no U');
  t.equal(bits(X86FirstStage, { executable: false }), 0x8000_0000_0000_0067n, 'XD');
  t.equal(bits(ArmStage1, { writeable: false }), 0xfc7n, 'AP[2]');
  t.equal(bits(ArmStage1, { privileged: true }), 0xf07n, 'AP[1] clear');
  t.equal(bits(ArmStage1, { executable: false }), 0x0060_0000_0000_0f47n, 'UXN and PXN');
  t.equal(bits(ArmStage1, { memoryType: 'device' }), 0xe4bn, 'AttrIndx 2, outer shareable');
  t.equal(bits(ArmStage1, { memoryType: 'uncached' }), 0xe43n, 'AttrIndx 0, outer shareable');
  t.equal(bits(ArmStage1, {}, { hardwareDirty: true }), 0x0008_0000_0000_0f47n, 'DBM');
  t.equal(bits(ArmStage1, { writeable: false }, { hardwareDirty: true }), 0xfc7n, 'no DBM');
  t.equal(bits(ArmStage2, { writeable: false }), 0x77fn);
  t.equal(bits(ArmStage2, { readable: false }), 0x7bfn);
  t.equal(bits(ArmStage2, { executable: false }), 0x0060_0000_0000_07ffn);
  t.equal(bits(ArmStage2, { memoryType: 'device' }), 0x6c7n, 'MemAttr 0001');
  t.equal(bits(ArmStage2, { memoryType: 'uncached' }), 0x6d7n, 'MemAttr 0101');
});

test('what was mapped is read back', async t => {
  const all: [PageTableFormat, PagePermissions, PageTableOptions][] = [
    [AmdV1, { writeable: false }, { snoop: true }],
    [VtdSecondStage, { readable: false }, { snoop: true }],
    [X86FirstStage, { writeable: false, executable: false, privileged: true }, {}],
    [ArmStage1, { executable: false, memoryType: 'device' }, { hardwareDirty: true }],
    [ArmStage1, { writeable: false, privileged: true, memoryType: 'uncached' }, {}],
    [ArmStage2, { readable: false, memoryType: 'uncached' }, {}],
  ];
  for (const [format, permissions, options] of all) {
    memory.clear();
    const table = PageTable.create(format, memory, options);
    table.map(iova(0x1000), physicalAddress(0x2000n), 4096, permissions);
    const expected = {
      readable: true,
      writeable: true,
      executable: true,
      privileged: false,
      snoop: options.snoop === true,
      memoryType: 'cached',
      ...permissions,
    };
    t.match(table.translate(iova(0x1000)), expected, format);
    t.match([...table.extents()][0], expected, format);
  }
});

test('what an entry above withholds, nothing below can give', async t => {
  const cases: [PageTableFormat, bigint, PageTableOptions, Record<string, boolean>][] = [
    // Without IW, W, RW, U; with XD, APTable, XNTable.
    [AmdV1, 1n << 62n, {}, { readable: true, writeable: false }],
    [VtdSecondStage, 1n, {}, { readable: false, writeable: true }],
    [X86FirstStage, 1n << 1n, {}, { readable: true, writeable: false }],
    [X86FirstStage, 1n << 2n, {}, { privileged: true }],
    [X86FirstStage, 1n << 63n, {}, { executable: false }],
    [ArmStage1, 1n << 62n, { hardwareDirty: true }, { writeable: false }],
    [ArmStage1, 1n << 61n, {}, { privileged: true }],
    [ArmStage1, 1n << 60n, {}, { executable: false }],
  ];
  for (const [format, bit, options, expected] of cases) {
    memory.clear();
    const table = PageTable.create(format, memory, options);
    table.map(iova(0x1000), physicalAddress(0x2000n), 4096);
    const above = [...table.entries()].find(({ kind }) => kind === 'table');
    const page = memory.read(above?.table as PhysicalAddress);
    const view = new DataView(page.buffer);
    const at = (above?.index as number) * 8;
    view.setBigUint64(at, view.getBigUint64(at, true) ^ bit, true);
    memory.load(above?.table as PhysicalAddress, page);
    t.match(table.translate(iova(0x1000)), expected, `${format} 0x${bit.toString(16)}`);
    t.match([...table.extents()][0], expected);
  }
});

test('x86: PAT moves from bit 12 to bit 7 when a large page is split', async t => {
  memory.clear();
  const table = PageTable.create(X86FirstStage, memory);
  table.map(iova(1n << 30n), physicalAddress(1n << 30n), 1n << 30n);
  const [, leaf] = [...table.entries()].slice(-2);
  const page = memory.read(leaf?.table as PhysicalAddress);
  new DataView(page.buffer).setBigUint64(
    (leaf?.index as number) * 8,
    (leaf?.value as bigint) | 0x1000n,
    true,
  );
  memory.load(leaf?.table as PhysicalAddress, page);
  table.verify();
  t.equal(table.translate(iova(1n << 30n))?.address, 1n << 30n);
  table.unmap(iova(1n << 30n), 4096);
  table.verify();
  for (const { kind, level, iova: at, value } of table.entries()) {
    if (kind === 'leaf') t.equal(value, at | (level === 0 ? 0xe7n : 0x10e7n));
  }
  table.map(iova(1n << 30n), physicalAddress(1n << 30n), 4096);
  t.equal(table.translate(iova((1n << 30n) + 5n))?.address, (1n << 30n) + 5n);
});

test('sign extension', async t => {
  memory.clear();
  const table = PageTable.create(X86FirstStage, memory, { signExtend: true });
  const upper = iova((1n << 64n) - (1n << 47n));
  const half = 1n << 47n;
  table.map(upper, physicalAddress(0x5000n), 4096);
  table.map(iova(half - 4096n), physicalAddress(0x4000n), 4096);
  t.equal(table.translate(iova(upper + 1n))?.address, 0x5001n);
  t.equal(table.translate(iova(half)), undefined);
  t.same(
    [...table.extents()].map(extent => [extent.iova, extent.length]),
    [
      [half - 4096n, 4096n],
      [upper, 4096n],
    ],
    'not joined, though they adjoin in the table',
  );
  t.equal([...table.extents(iova(half))].length, 1);
  t.equal([...table.extents(iova(0), iova(half))].length, 1);
  t.equal([...table.extents(iova(half), iova(upper - 1n))].length, 0);
  t.throws(() => table.map(iova(half), physicalAddress(0n), 4096), RangeError);
  t.throws(() => table.map(iova(half - 4096n), physicalAddress(0n), 8192), RangeError);
  t.throws(() => table.unmap(iova(0), (1n << 64n) - 4096n), RangeError);
  t.same(
    [...table.translateMany(BigUint64Array.of(upper, half, half - 1n))],
    [0x5000n, 2n ** 64n - 1n, 0x4fffn],
  );
  t.equal(table.unmap(upper, 4096), 4096n);
});

test('a bitmap of sizes limits what is written', async t => {
  memory.clear();
  const table = PageTable.create(VtdSecondStage, memory, { pageSizes: (1n << 12n) | (1n << 21n) });
  table.map(iova(0), physicalAddress(0n), 1n << 30n);
  t.same(table.sizes().leaves, new Map([[1n << 21n, 512]]));
  t.throws(() => PageTable.create(VtdSecondStage, memory, { pageSizes: 1n << 21n }), RangeError);
});

test('wrong arguments are refused before anything happens', async t => {
  memory.clear();
  const table = PageTable.create(VtdSecondStage, memory);
  const before = memory.freePages;
  const at = iova(0x1000);
  const to = physicalAddress(0x2000n);
  const wrongKind = [
    () => PageTable.create('nonsense' as PageTableFormat, memory),
    () => PageTable.create(VtdSecondStage, {} as TableMemory),
    () => PageTable.create(VtdSecondStage, memory, { levels: '4' as unknown as number }),
    () => PageTable.open(VtdSecondStage, memory, 0x1000 as unknown as PhysicalAddress),
    () => table.map(1 as unknown as Iova, to, 4096),
    () => table.map(at, 1 as unknown as PhysicalAddress, 4096),
    () => table.map(at, to, '4096' as unknown as number),
    () => table.map(at, to, 4096, { memoryType: 'other' as 'cached' }),
    () => table.unmap(1 as unknown as Iova, 4096),
    () => table.translate(1 as unknown as Iova),
    () => table.translateMany([1n] as unknown as BigUint64Array),
    () => table.mapMany([1n] as unknown as Uint8Array),
    () => table.extents(0 as unknown as Iova),
    () => PageTable.compare(table, {} as PageTable),
    () => memory.load(1 as unknown as PhysicalAddress, new Uint8Array(4096)),
    () => memory.load(to, 'x' as unknown as Uint8Array),
    () => new TableMemory('1' as unknown as number),
  ];
  for (const wrong of wrongKind) t.throws(wrong, TypeError, String(wrong));
  const wrongRange = [
    () => PageTable.create(VtdSecondStage, memory, { levels: 2 }),
    () => PageTable.create(VtdSecondStage, memory, { levels: 6 }),
    () => PageTable.create(AmdV1, memory, { levels: 7 }),
    () => PageTable.create(X86FirstStage, memory, { levels: 3 }),
    () => PageTable.create(X86FirstStage, memory, { snoop: true }),
    () => PageTable.create(ArmStage2, memory, { hardwareDirty: true }),
    () => PageTable.create(AmdV1, memory, { signExtend: true }),
    () => PageTable.open(VtdSecondStage, memory, physicalAddress(0x1001n)),
    () => table.map(iova(1), to, 4096),
    () => table.map(at, physicalAddress(1n), 4096),
    () => table.map(at, physicalAddress(1n << 52n), 4096),
    () => table.map(at, physicalAddress((1n << 52n) - 4096n), 8192),
    () => table.map(at, to, 0),
    () => table.map(at, to, 4097),
    () => table.map(at, to, -4096),
    () => table.map(iova((1n << 64n) - 4096n), to, 8192),
    () => table.map(at, to, 4096, { readable: false, writeable: false }),
    () => table.map(at, to, 4096, { executable: false }),
    () => table.map(at, to, 4096, { privileged: true }),
    () => table.map(at, to, 4096, { memoryType: 'device' }),
    () => table.mapMany(new Uint8Array(25)),
    () => table.mapMany(new Uint8Array(24), {}, 8),
    () => table.mapMany(new Uint8Array(24)),
    () => table.unmap(iova(1), 4096),
    () => table.unmap(at, 0),
    () => table.translate(-1n as Iova),
    () => table.readAndClearDirty(at, 1),
    () => table.findings(0),
    () => memory.load(physicalAddress(1n), new Uint8Array(4096)),
    () => memory.load(to, new Uint8Array(4095)),
    () => memory.load(physicalAddress((1n << 52n) - 4096n), new Uint8Array(8192)),
    () => memory.read(to),
    () => new TableMemory(-1),
    () => new TableMemory({ base: physicalAddress(1n) }),
    () => new TableMemory({ base: physicalAddress((1n << 52n) - 4096n), pages: 2 }),
  ];
  for (const wrong of wrongRange) t.throws(wrong, RangeError, String(wrong));
  t.equal(memory.freePages, before);
  t.same([...table.entries()], []);
});
