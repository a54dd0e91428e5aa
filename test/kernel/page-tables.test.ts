/**
 * The library's page tables against the running kernel's, entry by entry, for the same mappings. The kernel's tables
 * are read out of physical memory; where the mapped memory is comes from /proc/self/pagemap.
 */
import { readFileSync } from 'node:fs';
import {
  allocateIova,
  claim,
  type Device,
  DmaArena,
  type DmaArenaOptions,
  type DmaMemoryOptions,
  Ioas,
  type Iova,
  iova,
  linux,
  type MapOptions,
  openDevice,
  PageSize,
  PageTable,
} from 'iommufd';
import t, { type Test } from 'tap';
import { random } from '../support/random.js';
import { address } from '../vm/topology.js';
import {
  type Dump,
  dumpTables,
  findRoot,
  leafSizes,
  type PrintedPath,
  pathsOf,
  printedTable,
  type RawEntry,
  significant,
  type TableFormat,
} from './support/kernel-tables.js';
import { nothingLeaked, snapshot } from './support/leaks.js';
import { buildTable, entriesOf, keptTables, type Operation, openDump } from './support/our-table.js';
import { physicalRuns, readPhysical } from './support/physical.js';
import { profile } from './support/profile.js';

const PAGE = 4096;
const MIB = 2 ** 20;
const GIB = 1n << 30n;

const isAmd = profile === 'amd';
const target = address.nvmeA;
const rng = random(Number(process.env.SEED) || undefined);

const hex = (value: bigint): string => `0x${value.toString(16)}`;

const describe = (entry: RawEntry, format: TableFormat): string =>
  `level ${entry.level} iova ${hex(entry.iova)} index ${entry.index} ` +
  `${entry.table ? 'table' : 'leaf'} ${hex(significant(format, entry))}`;

const describePath = ({ iova, path }: PrintedPath, format: TableFormat): string =>
  `${hex(iova)}: ${path
    .map((value, index) => hex(significant(format, { value, table: index < path.length - 1 })))
    .join(' ')}`;

/** Fails with the first few differences, rather than with a thousand lines. */
function equalLines(t: Test, found: readonly string[], wanted: readonly string[], message: string): void {
  const here = new Set(found);
  const there = new Set(wanted);
  const differences = [
    ...found.filter(line => !there.has(line)).map(line => `found ${line}`),
    ...wanted.filter(line => !here.has(line)).map(line => `wanted ${line}`),
  ];
  t.strictSame(differences.slice(0, 8), [], message);
  t.equal(found.length, wanted.length, `${message}: as many`);
}

type Change =
  | { readonly at: bigint; readonly memory: Uint8Array; readonly options: MapOptions }
  | { readonly at: bigint; readonly length: number };

interface Both {
  readonly kernel: Dump;
  readonly ours: PageTable;
  readonly operations: readonly Operation[];
}

/** An address space of the kernel, and a record of its mappings from which ours is made. */
class Twins implements Disposable {
  readonly space: Ioas;
  readonly #changes: Change[] = [];
  readonly #arenas: DmaArena[] = [];

  constructor(device: Device) {
    if (!(device.space instanceof Ioas)) throw new Error('this needs iommufd');
    this.space = device.space;
  }

  /** Maps memory of an {@link arena}. */
  map(memory: Uint8Array, options: DmaMemoryOptions = {}): Iova {
    const at = options.iova ?? allocateIova(this.space, memory.length);
    this.space.map(linux().addressOf(memory), memory.length, at, options);
    this.#changes.push({ at, memory, options });
    return at;
  }

  /** Memory of its own, all of it in use, and mapped. */
  arena(size: number, options: DmaArenaOptions = {}): Uint8Array {
    const arena = DmaArena.create(this.space, size, options);
    this.#arenas.push(arena);
    const memory = new Uint8Array(arena.buffer);
    for (let offset = 0; offset < size; offset += PAGE) memory[offset] = 1;
    this.#changes.push({ at: arena.iova, memory, options });
    return memory;
  }

  /** Maps `memory`, which `source` maps, again. */
  copy(source: Iova, memory: Uint8Array, options: DmaMemoryOptions & { readonly iova: Iova }): Iova {
    const at = options.iova;
    this.space.copy(this.space, source, memory.length, at, options);
    this.#changes.push({ at, memory, options });
    return at;
  }

  unmap(at: Iova, length: number): void {
    this.space.unmap(at, length);
    this.#changes.push({ at, length });
  }

  #operations(): Operation[] {
    return this.#changes.flatMap((change): Operation[] => {
      const { at } = change;
      if ('length' in change) return [{ kind: 'unmap', iova: at, length: change.length }];
      const { readable = true, writeable = true } = change.options;
      // Without large pages the kernel maps page by page.
      const runs = physicalRuns(change.memory, this.space.hugePages ? undefined : PAGE);
      return runs.map(({ offset, physical, length }) => ({
        ...{ kind: 'map', iova: at + BigInt(offset), physical, length, readable, writeable },
      }));
    });
  }

  /** The kernel's table as it is now, ours after the same operations, and those. */
  both(): Both {
    const kernel = dumpTables(findRoot(target, isAmd), readPhysical);
    const operations = this.#operations();
    return { kernel, ours: buildTable(kernel, target, operations), operations };
  }

  [Symbol.dispose](): void {
    for (const arena of this.#arenas) arena[Symbol.dispose]();
  }
}

/** What must hold of any two tables of the same mappings, however they came about. */
function alike(t: Test, { kernel, ours }: Both): void {
  ours.verify();
  const { format, entries } = kernel;
  // One by one, as they are: the dump itself, read by the library and by a reader that knows nothing of it.
  const dump = openDump(kernel, target);
  dump.verify();
  const exact = (list: readonly RawEntry[]): string[] =>
    list.map(({ level, iova, index, value }) => `level ${level} ${hex(iova)} index ${index} ${hex(value)}`);
  equalLines(t, exact(entriesOf(dump)), exact(entries), 'the dump, entry by entry');
  const difference = PageTable.compare(ours, dump, { entrySizes: true });
  t.equal(difference, undefined, 'the dump translates as ours does, with entries of the same sizes');
  const sizes = [...leafSizes(format, entries)];
  const counted = [...ours.sizes().leaves].map(([size, count]) => [Number(size), count]);
  t.strictSame(counted, sizes, 'leaves of each size');
  t.comment(sizes.map(([size, count]) => `${count} of ${size / 1024} KiB`).join(', ') || 'no leaves');
}

/** The kernel's table is ours, entry by entry, as it is in memory and as debugfs prints it. */
function same(t: Test, twins: Twins): Dump {
  const both = twins.both();
  const { kernel, ours } = both;
  const { format } = kernel;
  t.equal(ours.levels, kernel.levels, 'as many levels');
  const entries = entriesOf(ours);
  const lines = (list: readonly RawEntry[]): string[] => list.map(entry => describe(entry, format));
  equalLines(t, lines(entries), lines(kernel.entries), 'every entry');
  if (!isAmd) {
    const printed = printedTable(target);
    t.equal(printed.root, kernel.root, 'debugfs has the same root');
    const paths = (list: readonly PrintedPath[]): string[] => list.map(path => describePath(path, format));
    equalLines(t, paths(pathsOf(entries)), paths(printed.paths), 'every path that debugfs prints');
  }
  alike(t, both);
  return kernel;
}

/**
 * After an unmap the kernel keeps tables that did not lie wholly in its range, empty though they may be; we keep none.
 * Nothing else may differ.
 */
function sameButEmptyTables(t: Test, twins: Twins): Dump {
  const both = twins.both();
  const { kernel, operations } = both;
  const used = new Set<RawEntry>();
  const open: RawEntry[] = [];
  for (const entry of kernel.entries) {
    while (open.length > 0 && (open.at(-1) as RawEntry).level <= entry.level) open.pop();
    if (entry.table) open.push(entry);
    else for (const leading of [...open, entry]) used.add(leading);
  }
  const lines = (list: readonly RawEntry[]): string[] => list.map(entry => describe(entry, kernel.format));
  const wanted = kernel.entries.filter(entry => used.has(entry));
  equalLines(t, lines(entriesOf(both.ours)), lines(wanted), 'every entry, but those of empty tables');
  const place = ({ level, iova }: Pick<RawEntry, 'level' | 'iova'>): string =>
    `level ${level} iova ${hex(iova)}`;
  const tables = kernel.entries.filter(({ table }) => table);
  equalLines(
    t,
    tables.map(place),
    keptTables(kernel, target, operations).map(place),
    'the tables that are kept',
  );
  t.comment(`${kernel.entries.length - wanted.length} of ${tables.length} tables of the kernel are empty`);
  alike(t, both);
  return kernel;
}

/** How much is mapped by leaves of at least `size` bytes. */
function bytesInLeaves(dump: Dump, size: number): number {
  let bytes = 0;
  for (const [leaf, count] of leafSizes(dump.format, dump.entries)) if (leaf >= size) bytes += leaf * count;
  return bytes;
}

/** Opens the device anew for each test: an empty table. */
async function withTwins(body: (twins: Twins, device: Device) => void): Promise<void> {
  using claimed = await claim(target);
  using device = openDevice(claimed);
  using twins = new Twins(device);
  body(twins, device);
}

t.test(`page tables, ${profile}`, async t => {
  t.comment(`seed ${rng.seed}`);
  const before = snapshot();

  await t.test('nothing is mapped', async t => {
    await withTwins(twins => {
      const { format, levels, root, entries } = same(t, twins);
      t.comment(`${format}, ${levels} levels, root ${hex(root)}`);
      t.equal(entries.length, 0);
    });
  });

  await t.test('single pages and runs', async t => {
    await withTwins(twins => {
      for (let i = 0; i < 8; i++) twins.arena(PAGE);
      for (const size of [16 * PAGE, MIB, 4 * MIB]) twins.arena(size);
      same(t, twins);
    });
  });

  await t.test('what a device may do', async t => {
    await withTwins(twins => {
      const memory = twins.arena(64 * PAGE, { writeable: false });
      twins.map(memory.subarray(0, 8 * PAGE), { readable: false });
      twins.map(memory.subarray(8 * PAGE, 24 * PAGE), { writeable: false });
      twins.map(memory.subarray(PAGE, 2 * PAGE), { readable: false, iova: iova(0x1234_5000n) });
      same(t, twins);
    });
  });

  await t.test('huge pages, aligned and not', async t => {
    await withTwins(twins => {
      const huge = twins.arena(8 * MIB, { pageSize: PageSize.Huge2M, iova: iova(0x4000_0000n) });
      t.equal(bytesInLeaves(same(t, twins), 2 * MIB), huge.length, 'the kernel uses large leaves');
      // The same memory at IOVAs that are aligned to less and less: to what extent shows in the sizes.
      for (const [index, shift] of [MIB, 256 * 1024, 64 * 1024, 8192, 4096].entries()) {
        const start = 0x5000_0000n + (BigInt(index) << 24n);
        twins.map(huge, { iova: iova(start + BigInt(shift)) });
      }
      // Parts of a huge page, none of which can be a large leaf everywhere.
      twins.map(huge.subarray(PAGE, 2 * MIB), { iova: iova(0x6000_0000n + BigInt(PAGE)) });
      twins.map(huge.subarray(MIB, 3 * MIB), { iova: iova(0x6100_0000n + BigInt(MIB)) });
      twins.map(huge.subarray(3 * PAGE, 7 * MIB - 5 * PAGE), { iova: iova(0x6200_0000n + BigInt(3 * PAGE)) });
      twins.map(huge, { iova: iova(0x6300_0000n), writeable: false });
      same(t, twins);
    });
  });

  await t.test('the ends of the aperture, and the boundaries of its tables', async t => {
    await withTwins(twins => {
      const huge = twins.arena(4 * MIB, { pageSize: PageSize.Huge2M });
      const small = twins.arena(16 * PAGE);
      const { ranges } = twins.space.iovaRanges();
      const bottom = ranges[0]?.first ?? 0n;
      const top = (ranges.at(-1)?.last ?? 0n) + 1n;
      t.comment(`IOVAs ${ranges.map(({ first, last }) => `${hex(first)}..${hex(last)}`).join(' ')}`);
      const place = (memory: Uint8Array, at: bigint): void => {
        if (at + BigInt(memory.length) <= top) twins.map(memory, { iova: iova(at) });
        else t.comment(`${hex(at)} is beyond the aperture`);
      };
      place(small, bottom);
      // Small pages and huge pages on both sides of where tables of one level and of the next meet, and high up.
      for (const boundary of [2n * GIB, 1536n * GIB, 0x4000_0000_0000n]) {
        place(small.subarray(0, 2 * PAGE), boundary - BigInt(PAGE));
        place(small.subarray(2 * PAGE, 10 * PAGE), boundary - BigInt(2 * MIB + 4 * PAGE));
      }
      for (const boundary of [GIB, 512n * GIB, 0x6000_0000_0000n]) {
        place(huge, boundary - BigInt(2 * MIB));
        place(huge.subarray(2 * MIB - 8 * PAGE, 2 * MIB + 8 * PAGE), boundary + BigInt(8 * MIB - 8 * PAGE));
      }
      place(huge, top - BigInt(8 * MIB));
      place(small.subarray(0, PAGE), top - BigInt(PAGE));
      place(small, top - BigInt(20 * PAGE));
      same(t, twins);
    });
  });

  await t.test('a mapping that is copied', async t => {
    await withTwins(twins => {
      const memory = twins.arena(32 * PAGE);
      const at = twins.map(memory);
      twins.copy(at, memory, { iova: iova(0x7000_0000n) });
      twins.copy(at, memory, { iova: iova(0x7100_1000n), writeable: false });
      same(t, twins);
    });
  });

  await t.test('mapped before the device is attached', async t => {
    await withTwins((twins, device) => {
      device.detach();
      const huge = twins.arena(4 * MIB, { pageSize: PageSize.Huge2M });
      const small = twins.arena(100 * PAGE);
      twins.map(huge.subarray(3 * PAGE), { iova: iova(0x5000_0000n + BigInt(3 * PAGE)), writeable: false });
      twins.map(small.subarray(PAGE), { iova: iova(0x5100_0000n) });
      device.attach(twins.space);
      same(t, twins);
    });
  });

  await t.test('without large pages', async t => {
    await withTwins(twins => {
      twins.space.hugePages = false;
      twins.arena(4 * MIB, { pageSize: PageSize.Huge2M });
      twins.arena(64 * PAGE);
      t.equal(bytesInLeaves(same(t, twins), 2 * PAGE), 0);
    });
  });

  const giant = readFileSync('/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages', 'utf8').trim();
  await t.test('a page of 1 GiB', { skip: giant === '0' && 'none is reserved' }, async t => {
    await withTwins(twins => {
      const gib = twins.arena(2 ** 30, { pageSize: PageSize.Huge1G, iova: iova(2n * GIB) });
      t.equal(bytesInLeaves(same(t, twins), 2 ** 30), 2 ** 30, 'one leaf');
      twins.map(gib.subarray(4 * MIB), { iova: iova(10n * GIB + BigInt(4 * MIB)) });
      twins.map(gib.subarray(PAGE, 2 ** 30 - 3 * MIB), { iova: iova(12n * GIB + BigInt(PAGE)) });
      twins.map(gib.subarray(0, 2 ** 29), { iova: iova(14n * GIB + BigInt(2 ** 29)) });
      twins.map(gib, { iova: iova(16n * GIB + BigInt(64 * MIB)), writeable: false });
      same(t, twins);
    });
  });

  await t.test('a hundred and more random mappings, then without some of them', async t => {
    await withTwins(twins => {
      const sources = [twins.arena(2 * MIB), twins.arena(8 * MIB, { pageSize: PageSize.Huge2M })];
      const base = 0x1_0000_0000n;
      const slot = 32 * MIB;
      const mapped: { at: Iova; length: number }[] = [];
      const mapSome = (first: number, last: number): void => {
        for (let i = first; i < last; i++) {
          const source = sources[rng.below(2)] as Uint8Array;
          const pages = source.length / PAGE;
          const length = Math.min(1 + rng.below(2 ** rng.below(12)), pages);
          const offset = rng.below(pages - length + 1) * PAGE;
          // One in two where large leaves are possible: IOVA and memory are aligned alike.
          const shift = rng.below(2) === 0 ? offset % (2 * MIB) : rng.below(512) * PAGE;
          const at = iova(base + BigInt(i * slot + shift));
          const access = rng.below(4);
          const memory = source.subarray(offset, offset + length * PAGE);
          twins.map(memory, { iova: at, readable: access !== 1, writeable: access !== 2 });
          mapped.push({ at, length: memory.length });
        }
      };
      mapSome(0, 120);
      same(t, twins);
      for (const { at, length } of rng.shuffle(mapped).splice(0, 60)) twins.unmap(at, length);
      sameButEmptyTables(t, twins);
      mapSome(120, 140);
      sameButEmptyTables(t, twins);
    });
  });

  await t.test('empty tables that stay, that go, and that a large leaf replaces', async t => {
    await withTwins(twins => {
      const huge = twins.arena(4 * MIB, { pageSize: PageSize.Huge2M });
      const at = iova(0x8000_0000n);
      // Three tables of pages: of the middle one all is in the range.
      const shifted = iova(at + BigInt(64 * MIB + PAGE));
      twins.map(huge, { iova: shifted });
      twins.unmap(shifted, huge.length);
      sameButEmptyTables(t, twins);
      for (const length of [PAGE, 16 * PAGE, 2 * MIB - PAGE]) {
        twins.map(huge.subarray(0, length), { iova: at });
        twins.unmap(at, length);
        sameButEmptyTables(t, twins);
        twins.map(huge, { iova: at });
        t.equal(
          bytesInLeaves(sameButEmptyTables(t, twins), 2 * MIB),
          2 * huge.length,
          'the kernel puts it there',
        );
        twins.unmap(at, 4 * MIB);
      }
      sameButEmptyTables(t, twins);
    });
  });

  await nothingLeaked(t, before);
});
