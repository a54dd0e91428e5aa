// The readers of the kernel's IO page tables that the kernel tier compares the library's with, on what Linux 7.3 printed.
import t from 'tap';
import {
  dumpTables,
  leafSizes,
  parseDeviceTable,
  parseDomain,
  parseTranslationStruct,
  pathsOf,
  significant,
  TableFormat,
} from '../kernel/support/kernel-tables.js';

const rows = (...lines: string[]): string =>
  [
    'IOMMU dmar0: Root Table Address: 0xb2e000',
    'B.D.F\tRoot_entry\t\t\t\tContext_entry\t\t\t\tPASID\tPASID_table_entry',
    ...lines,
    '',
  ].join('\n');

t.test('the root of a device, in VT-d legacy mode', async t => {
  const text = rows(
    '00:04.0\t0x0000000000000000:0x0000000000b37001\t0x0000000000000501:0x0000000002b93001\t-1    \t0x0000000000000000:0x0000000000000000:0x0000000000000000',
    '00:05.0\t0x0000000000000000:0x0000000000b37001\t0x0000000000000602:0x0000000000b44001\t-1    \t0x0000000000000000:0x0000000000000000:0x0000000000000000',
  );
  t.strictSame(parseTranslationStruct(text, '0000:00:04.0'), {
    ...{ format: TableFormat.SecondStage, root: 0x2b93000n, levels: 3 },
    descriptor: [0x2b93001n, 0x501n],
  });
  t.match(parseTranslationStruct(text, '0000:00:05.0'), { root: 0xb44000n, levels: 4 });
  t.throws(() => parseTranslationStruct(text, '0000:01:00.0'), /0000:01:00.0 is not in/);
});

t.test('in scalable mode, second and first stage', async t => {
  const text = rows(
    '00:04.0\t0x00000000001ea001:0x0000000000d4d001\t0x0000000000000000:0x00000000001e0401\t0     \t0x0000000000000000:0x0000000000000005:0x0000000000fa3089',
    '00:05.0\t0x00000000028e0001:0x0000000002882001\t0x0000000000000000:0x0000000002888401\t0     \t0x0000000002ac6000:0x0000000000000006:0x0000000000000049',
    '00:06.0\t0x00000000028e0001:0x0000000002882001\t0x0000000000000000:0x0000000002888401\t0     \t0x0000000000000000:0x0000000000000006:0x0000000000000109',
  );
  t.strictSame(parseTranslationStruct(text, '0000:00:04.0'), {
    ...{ format: TableFormat.SecondStage, root: 0xfa3000n, levels: 4 },
    descriptor: [0xfa3089n, 5n, 0n],
  });
  t.match(parseTranslationStruct(text, '0000:00:05.0'), {
    ...{ format: TableFormat.FirstStage, root: 0x2ac6000n, levels: 4 },
  });
  t.throws(() => parseTranslationStruct(text, '0000:00:06.0'), /type 4/, 'passed through');
});

t.test("an entry of AMD's device table", async t => {
  const text =
    'DeviceId             QWORD[3]         QWORD[2]         QWORD[1]         QWORD[0] iommu\n' +
    '0000:00:04.0 0000000000000000 2000000002998013 000000000000000d 6000000002bca603 iommu0\n';
  t.strictSame(parseDeviceTable(text, '0000:00:04.0'), {
    ...{ format: TableFormat.Amd, root: 0x2bca000n, levels: 3 },
    descriptor: [0x6000000002bca603n, 0xdn, 0x2000000002998013n, 0n],
  });
  t.throws(() => parseDeviceTable(text, '0000:00:05.0'), /not in devtbl/);
});

t.test('the paths that debugfs prints', async t => {
  const text = [
    'Device 0000:00:04.0 with pasid 0 @0xfa3000',
    'IOVA_PFN         \tPML5E             \tPML4E             \tPDPE              \tPDE               \tPTE',
    '0x0000000000002 |\t0x0000000000000000\t0x0000000002ebc403\t0x0000000002ebd403\t0x0000000002ec2403\t0x0000000002ec0803',
    '0x0000000000200 |\t0x0000000000000000\t0x0000000002ebc403\t0x0000000002ebd403\t0x0000000000200883',
    '',
  ].join('\n');
  t.strictSame(parseDomain(text), {
    root: 0xfa3000n,
    paths: [
      { iova: 0x2000n, path: [0x2ebc403n, 0x2ebd403n, 0x2ec2403n, 0x2ec0803n] },
      { iova: 0x20_0000n, path: [0x2ebc403n, 0x2ebd403n, 0x200883n] },
    ],
  });
  t.strictSame(parseDomain('Device 0000:00:04.0 @0x2b93000\n'), { root: 0x2b93000n, paths: [] });
  t.throws(() => parseDomain('DMA Remapping is not enabled on dmar0\n'), /no root/);
});

/** Physical memory with a table of these entries at each address. */
function memoryOf(tables: Readonly<Record<number, Readonly<Record<number, bigint>>>>) {
  return (address: bigint, length: number): Uint8Array => {
    const table = tables[Number(address)];
    if (!table) throw new Error(`nothing at 0x${address.toString(16)}`);
    const words = new BigUint64Array(length / 8);
    for (const [index, value] of Object.entries(table)) words[Number(index)] = value;
    return new Uint8Array(words.buffer);
  };
}

t.test('a table in memory: its entries, paths and sizes', async t => {
  const read = memoryOf({
    4096: { 0: 0x2403n, 5: 0x4000_0083n, 511: 0x3403n },
    8192: { 1: 0x4003n },
    12288: { 0: 0x20_0083n, 2: 0x5003n },
    16384: { 7: 0x7003n },
    20480: {},
  });
  const dump = dumpTables({ format: TableFormat.SecondStage, root: 4096n, levels: 3, descriptor: [] }, read);
  t.equal(dump.tables.size, 5);
  const top = 511n << 30n;
  t.strictSame(
    dump.entries.map(({ level, iova, index, value, table }) => [level, iova, index, value, table]),
    [
      [2, 0n, 0, 0x2403n, true],
      [1, 0x20_0000n, 1, 0x4003n, true],
      [0, 0x20_7000n, 7, 0x7003n, false],
      [2, 5n << 30n, 5, 0x4000_0083n, false],
      [2, top, 511, 0x3403n, true],
      [1, top, 0, 0x20_0083n, false],
      [1, top + 0x40_0000n, 2, 0x5003n, true],
    ],
  );
  t.strictSame(pathsOf(dump.entries), [
    { iova: 0x20_7000n, path: [0x2403n, 0x4003n, 0x7003n] },
    { iova: 5n << 30n, path: [0x4000_0083n] },
    { iova: top, path: [0x3403n, 0x20_0083n] },
  ]);
  t.strictSame(
    [...leafSizes(dump.format, dump.entries)],
    [
      [2 ** 12, 1],
      [2 ** 21, 1],
      [2 ** 30, 1],
    ],
  );
  t.equal(
    significant(dump.format, { value: 0x2403n, table: true }),
    3n,
    'neither address nor mark of a table',
  );
  t.equal(significant(dump.format, { value: 0x7c03n, table: false }), 0x7c03n, 'everything of a leaf');
  t.throws(
    () => dumpTables(dump, memoryOf({ 4096: { 0: 0x1003n } })),
    /reached twice/,
    'a loop does not go on for ever',
  );
});

t.test("sizes of AMD's leaves", async t => {
  const leaf = (level: number, value: bigint) => ({ level, iova: 0n, index: 0, value, table: false });
  const entries = [
    leaf(0, 0x5001n),
    ...Array.from({ length: 4 }, () => leaf(0, 0x8e01n)), // two leaves of 8 KiB
    ...Array.from({ length: 4 }, () => leaf(0, 0x9e01n)), // one of 16 KiB
    leaf(1, 0x20_0001n),
    leaf(1, 0x1f_fe01n | 0x80_0000n), // half of one of 4 MiB
    leaf(1, 0x1f_fe01n | 0x80_0000n),
  ];
  t.strictSame(
    [...leafSizes(TableFormat.Amd, entries)],
    [
      [4096, 1],
      [8192, 2],
      [16384, 1],
      [2 ** 21, 1],
      [2 ** 22, 1],
    ],
  );
});
