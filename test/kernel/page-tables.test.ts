/**
 * The library's page tables against the running kernel's, entry by entry, for the same mappings. The kernel's tables
 * are read out of physical memory; where the mapped memory is comes from /proc/self/pagemap.
 */
import { readFileSync } from 'node:fs';
import {
  claim,
  type Device,
  DmaArena,
  Ioas,
  type Iova,
  iova,
  linux,
  type MapOptions,
  openDevice,
  PageSize,
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
import { profile } from './support/nvme.js';
import { buildTable, type Operation } from './support/our-table.js';
import { physicalRuns, readPhysical } from './support/physical.js';

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
  map(memory: Uint8Array, options: MapOptions = {}): Iova {
    const at = this.space.map(linux().addressOf(memory), memory.length, options);
    this.#changes.push({ at, memory, options });
    return at;
  }

  /** Memory of its own, all of it in use, and mapped. */
  arena(size: number, options: MapOptions & { pageSize?: PageSize } = {}): Uint8Array {
    const arena = DmaArena.create(this.space, size, options);
    this.#arenas.push(arena);
    const memory = new Uint8Array(arena.buffer);
    for (let offset = 0; offset < size; offset += PAGE) memory[offset] = 1;
    this.#changes.push({ at: arena.iova, memory, options });
    return memory;
  }

  /** Maps `memory`, which `source` maps, again. */
  copy(source: Iova, memory: Uint8Array, options: MapOptions = {}): Iova {
    const at = this.space.copy(this.space, source, memory.length, options);
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

  /** The kernel's table as it is now, and ours with as many levels. */
  both(): { kernel: Dump; ours: ReturnType<typeof buildTable> } {
    const kernel = dumpTables(findRoot(target, isAmd), readPhysical);
    return { kernel, ours: buildTable(kernel, this.#operations()) };
  }

  [Symbol.dispose](): void {
    for (const arena of this.#arenas) arena[Symbol.dispose]();
  }
}

/** The kernel's table is ours, as it is in memory and as debugfs prints it. */
function same(t: Test, twins: Twins): Dump {
  const { kernel, ours } = twins.both();
  const { format } = kernel;
  const lines = (entries: Iterable<RawEntry>): string[] =>
    [...entries].map(entry => describe(entry, format)).sort();
  equalLines(t, lines(ours.entries), lines(kernel.entries), 'every entry');
  const sizes = leafSizes(format, kernel.entries);
  t.strictSame(leafSizes(format, ours.entries), sizes, 'leaves of each size');
  t.comment([...sizes].map(([size, count]) => `${count} of ${size / 1024} KiB`).join(', '));
  if (!isAmd) {
    const printed = printedTable(target);
    t.equal(printed.root, kernel.root, 'debugfs has the same root');
    const paths = (list: readonly PrintedPath[]): string[] => list.map(path => describePath(path, format));
    equalLines(t, paths(pathsOf(ours.entries)), paths(printed.paths), 'every path that debugfs prints');
  }
  return kernel;
}

/** After an unmap the kernel keeps empty tables that did not lie wholly in the range: leaves are what must be equal. */
function sameTranslation(t: Test, twins: Twins): Dump {
  const { kernel, ours } = twins.both();
  const lines = (entries: Iterable<RawEntry>, table: boolean): string[] =>
    [...entries].filter(entry => entry.table === table).map(entry => describe(entry, kernel.format));
  equalLines(t, lines(ours.entries, false).sort(), lines(kernel.entries, false).sort(), 'every leaf');
  const here = new Set(lines(ours.entries, true));
  const there = new Set(lines(kernel.entries, true));
  const onlyHere = [...here].filter(line => !there.has(line));
  const onlyThere = [...there].filter(line => !here.has(line));
  t.comment(
    `tables: ${there.size} of the kernel, ${onlyThere.length} of them not ours; ${onlyHere.length} only ours`,
  );
  return kernel;
}

/** Leaves of at least `size` bytes. */
function leavesFrom(dump: Dump, size: number): number {
  let count = 0;
  for (const [leaf, leaves] of leafSizes(dump.format, dump.entries)) if (leaf >= size) count += leaves;
  return count;
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
      t.ok(leavesFrom(same(t, twins), 2 * MIB) >= 1, 'the kernel uses large leaves');
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
      // Small pages and huge pages on both sides of boundaries of all levels: 1 GiB, 512 GiB and (none) 64 TiB.
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
      t.equal(leavesFrom(same(t, twins), 2 * PAGE), 0);
    });
  });

  const giant = readFileSync('/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages', 'utf8').trim();
  await t.test('a page of 1 GiB', { skip: giant === '0' && 'none is reserved' }, async t => {
    await withTwins(twins => {
      const gib = twins.arena(2 ** 30, { pageSize: PageSize.Huge1G, iova: iova(2n * GIB) });
      t.equal(leavesFrom(same(t, twins), 2 ** 30), 1, 'one leaf');
      twins.map(gib.subarray(4 * MIB), { iova: iova(10n * GIB + BigInt(4 * MIB)) });
      twins.map(gib.subarray(PAGE, 2 ** 30 - 3 * MIB), { iova: iova(12n * GIB + BigInt(PAGE)) });
      twins.map(gib.subarray(0, 2 ** 29), { iova: iova(14n * GIB + BigInt(2 ** 29)) });
      twins.map(gib, { iova: iova(16n * GIB + BigInt(64 * MIB)), writeable: false });
      same(t, twins);
    });
  });

  await t.test('hundreds of random mappings, then without some of them', async t => {
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
      mapSome(0, 300);
      same(t, twins);
      for (const { at, length } of rng.shuffle(mapped).splice(0, 150)) twins.unmap(at, length);
      sameTranslation(t, twins);
      mapSome(300, 350);
      sameTranslation(t, twins);
    });
  });

  await t.test('a large leaf where a table was', async t => {
    await withTwins(twins => {
      const huge = twins.arena(4 * MIB, { pageSize: PageSize.Huge2M });
      const at = iova(0x8000_0000n);
      for (const length of [PAGE, 16 * PAGE, 2 * MIB - PAGE]) {
        twins.map(huge.subarray(0, length), { iova: at });
        twins.unmap(at, length);
        sameTranslation(t, twins);
        twins.map(huge, { iova: at });
        t.ok(leavesFrom(sameTranslation(t, twins), 2 * MIB) >= 2, 'the kernel puts it there');
        twins.unmap(at, 4 * MIB);
      }
      sameTranslation(t, twins);
    });
  });

  await nothingLeaked(t, before);
});
