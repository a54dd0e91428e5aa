// What Linux's own tests of these formats check (generic_pt/kunit_iommu_pt.h, io-pgtable-arm-selftests.c).
import assert from 'node:assert/strict';
import { test } from 'tap';
import { type Iova, iova, type PhysicalAddress, physicalAddress } from '../../src/address.js';
import { PageTable, PageTableFormat } from '../../src/memory/page-table.js';
import { TableMemory } from '../../src/memory/table-memory.js';
import { expectedLeaves, formats, writeEntry } from './support/page-tables.js';

const memory = new TableMemory(2048);

for (const { name, format, options, limit, sizes, dirty, bornDirty } of formats) {
  const make = (): PageTable => {
    memory.clear();
    return PageTable.create(format, memory, options);
  };
  const countLeaves = (table: PageTable): number =>
    [...table.sizes().leaves.values()].reduce((sum, count) => sum + count, 0);

  test(`${name}: pgsize_boundary`, async t => {
    const table = make();
    table.map(iova(0xfef80000n), physicalAddress(0x208b95d000n), 0xfef9ffff - 0xfef80000 + 1);
    t.same(table.sizes().leaves, new Map([[4096n, 32]]));
    t.equal(table.translate(iova(0xfef9fff0n))?.address, 0x208b97cff0n);
    table.verify();
  });

  test(`${name}: mixed`, async t => {
    const table = make();
    const start = 0x3fe400n << 12n;
    const length = (0x4c0600n << 12n) - start;
    table.map(iova(start), physicalAddress(start), length);
    if (sizes.length === 3) {
      t.same(
        table.sizes().leaves,
        new Map([
          [1n << 21n, 17],
          [1n << 30n, 3],
        ]),
      );
      // In order: 14 of 2 MiB, 3 of 1 GiB, 3 of 2 MiB.
      const leaves = [...table.entries()].filter(entry => entry.kind === 'leaf').map(entry => entry.size);
      t.same(leaves, [
        ...Array(14).fill(1n << 21n),
        ...Array(3).fill(1n << 30n),
        ...Array(3).fill(1n << 21n),
      ]);
    }
    t.same(table.sizes().leaves, expectedLeaves(sizes, start, start, length));
    for (let at = start; at < start + length; at += 0x1ff000n) {
      assert.equal(table.translate(iova(at))?.address, at);
    }
    t.equal([...table.extents()].length, 1);
    t.equal(table.unmap(iova(start), length), length);
    t.equal(countLeaves(table), 0);
  });

  test(`${name}: map_simple: every size once`, async t => {
    const table = make();
    const seed = 0x74a71445deadbeefn;
    const top =
      table.format === PageTableFormat.ArmStage1 || table.format === PageTableFormat.ArmStage2 ? 48n : 52n;
    const places: { at: bigint; length: bigint }[] = [];
    let at = 0x100000n;
    for (const log2 of sizes) {
      const length = 1n << BigInt(log2);
      const pa = (seed % (1n << top)) & ~(length - 1n);
      at = (at + length - 1n) & ~(length - 1n);
      table.map(iova(at), physicalAddress(pa), length);
      for (const offset of [0n, length / 3n, length - 1n]) {
        const found = table.translate(iova(at + offset));
        t.equal(found?.address, pa + offset);
        t.equal(found?.entrySize, length);
      }
      places.push({ at, length });
      at += length;
    }
    t.same(table.sizes().leaves, new Map(sizes.map(log2 => [1n << BigInt(log2), 1])));
    t.equal([...table.extents()].length, sizes.length);
    for (const { at, length } of places) t.equal(table.unmap(iova(at), length), length);
    t.equal(countLeaves(table), 0);
    t.equal(table.sizes().tables, 1, 'only the root is left');
  });

  test(`${name}: map_table_to_oa: an empty table gives way to a leaf`, async t => {
    // Ours gives empty tables back, so one is left over by hand.
    for (const log2 of sizes.filter(each => each > 12 && each <= 33)) {
      const size = 1n << BigInt(log2);
      const at = iova(1n << 34n);
      const table = make();
      table.map(at, physicalAddress(0n), 4096n);
      const before = memory.freePages;
      for (const entry of [...table.entries()]) {
        if (entry.level === 0) writeEntry(memory, entry.table, entry.index, 0n);
      }
      t.equal(countLeaves(table), 0);
      t.ok(table.sizes().tables > 1, 'tables are left');
      table.map(at, physicalAddress(0n), size);
      t.same(table.sizes().leaves, new Map([[size, 1]]));
      if (log2 >= 21) t.ok(memory.freePages > before, 'the table was given back');
      table.verify();
    }
  });

  test(`${name}: unmap_split: exactly the range goes, where the kernel removes the whole entry`, async t => {
    for (const small of sizes.filter(log2 => log2 <= 33)) {
      for (const large of sizes.filter(log2 => log2 > small && log2 <= 34)) {
        const [part, whole] = [1n << BigInt(small), 1n << BigInt(large)];
        const table = make();
        for (const offset of [0n, part, whole - part]) {
          table.map(iova(0), physicalAddress(whole), whole);
          table.map(iova(whole), physicalAddress(0n), whole);
          assert.equal(table.unmap(iova(offset), part), part);
          assert.equal(table.translate(iova(offset)), undefined);
          assert.equal(table.translate(iova(offset + part - 1n)), undefined);
          if (offset > 0n) assert.equal(table.translate(iova(offset - 1n))?.address, whole + offset - 1n);
          if (offset + part < whole) {
            assert.equal(table.translate(iova(offset + part))?.address, whole + offset + part);
          }
          assert.equal(table.translate(iova(whole))?.entrySize, whole);
          assert.equal(table.unmap(iova(0), whole * 2n), whole * 2n - part);
          assert.equal(countLeaves(table), 0);
        }
        table.verify();
      }
    }
    t.pass();
  });

  test(`${name}: dirty`, async t => {
    const table = make();
    if (dirty === undefined) {
      t.throws(() => table.readAndClearDirty(iova(0), 4096), { name: 'PageTableError', code: 'UNSUPPORTED' });
      return;
    }
    const length = (1n << 21n) + (1n << 16n) + 4096n;
    table.map(iova(1n << 21n), physicalAddress(1n << 21n), length);
    if (bornDirty) t.same(table.readAndClearDirty(iova(0), 1n << 30n), [{ iova: 1n << 21n, length }]);
    t.same(table.readAndClearDirty(iova(0), 1n << 30n), []);
    const leaves = [...table.entries()].filter(entry => entry.kind === 'leaf');
    for (const { table: page, index, iova: at, size, value } of leaves) {
      const whole = at & ~(size - 1n);
      writeEntry(memory, page, index, value ^ dirty.bit);
      t.same(table.readAndClearDirty(iova(0), 1n << 30n, false), [{ iova: whole, length: size }], 'read');
      t.same(
        table.readAndClearDirty(whole as Iova, 4096n),
        [{ iova: whole, length: size }],
        'read and cleared',
      );
      t.same(table.readAndClearDirty(iova(0), 1n << 30n), [], 'clean');
    }
    // Neighbours are told as one, and a leaf that is split stays dirty.
    for (const { table: page, index, value } of leaves) writeEntry(memory, page, index, value ^ dirty.bit);
    t.same(table.readAndClearDirty(iova(0), 1n << 30n, false), [{ iova: 1n << 21n, length }]);
    table.unmap(iova((1n << 21n) + 0x5000n), 4096n);
    t.same(table.readAndClearDirty(iova(0), 1n << 30n), [
      { iova: 1n << 21n, length: 0x5000n },
      { iova: (1n << 21n) + 0x6000n, length: length - 0x6000n },
    ]);
  });

  test(`${name}: the last large page below the limit; ends of the space`, async t => {
    const table = make();
    const size = 1n << 30n;
    const last = iova(limit - size);
    table.map(last, physicalAddress(size), size);
    t.equal(table.translate(iova(limit - 1n))?.address, 2n * size - 1n);
    t.same([...table.extents()][0]?.iova, last);
    t.equal(table.unmap(last, size), size);
    table.map(iova(limit - 4096n), physicalAddress(0n), 4096);
    table.map(iova(0), physicalAddress(4096n), 4096);
    t.equal([...table.extents()].length, 2);
    if (limit < 1n << 64n) {
      t.throws(() => table.map(iova(limit), physicalAddress(0n), 4096), RangeError);
      t.throws(() => table.map(iova(limit - 4096n), physicalAddress(0n), 8192), RangeError);
      t.throws(() => table.unmap(iova(limit), 4096), RangeError);
      t.equal(table.translate(iova(limit)), undefined);
    }
    table.verify();
  });

  test(`${name}: distinct mappings of every granule, overlapped, unmapped, mapped again`, async t => {
    const table = make();
    const places = sizes
      .filter(log2 => log2 <= 30)
      .map((log2, index) => [iova(BigInt(index) << 30n), 1n << BigInt(log2)] as const);
    for (const at of [42n, (1n << 30n) + 42n, (1n << 31n) + 42n])
      t.equal(table.translate(iova(at)), undefined);
    for (const [at, size] of places) {
      table.map(at, at as bigint as PhysicalAddress, size);
      t.throws(() => table.map(at, physicalAddress(at + size), size, { writeable: false }), {
        code: 'EXISTS',
        iova: at,
      });
      t.equal(table.translate(iova(at + 42n))?.address, at + 42n);
    }
    for (const [at, size] of places) {
      t.equal(table.unmap(at, size), size);
      t.equal(table.translate(iova(at + 42n)), undefined);
      table.map(at, at as bigint as PhysicalAddress, size, { writeable: true });
      t.equal(table.translate(iova(at + 42n))?.address, at + 42n);
    }
  });
}

test('AMDv1: increase_level', async t => {
  for (const levels of [2, 3, 4, 5, 6]) {
    memory.clear();
    const table = PageTable.create(PageTableFormat.AmdV1, memory, { levels });
    table.map(iova(0x1000), physicalAddress(0x7000n), 4096);
    for (let expected = levels + 1; expected <= 6; expected++) {
      const root = table.root;
      table.map(iova(1n << BigInt(12 + 9 * (expected - 1))), physicalAddress(0n), 4096);
      t.equal(table.levels, expected);
      t.not(table.root, root);
    }
    table.map(iova((1n << 64n) - 4096n), physicalAddress(0n), 4096);
    t.equal(table.levels, 6);
    t.equal(table.translate(iova(0x1234))?.address, 0x7234n);
    table.verify();
  }
});

test('AMDv1: a large leaf may need a new root too; a refused mapping leaves the root as it was', async t => {
  memory.clear();
  const table = PageTable.create(PageTableFormat.AmdV1, memory, { levels: 2 });
  const { root } = table;
  table.map(iova(0), physicalAddress(0n), 4096);
  const free = memory.freePages;
  t.throws(() => table.map(iova(0), physicalAddress(0n), 1n << 40n), { code: 'EXISTS' });
  t.equal(table.root, root);
  t.equal(table.levels, 2);
  t.equal(memory.freePages, free);
  table.unmap(iova(0), 4096);
  table.map(iova(0), physicalAddress(0n), 1n << 40n);
  t.equal(table.levels, 4);
  t.same(table.sizes().leaves, new Map([[1n << 40n, 1]]));
});
