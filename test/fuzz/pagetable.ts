// Page tables with bits flipped, pointers bent and pages spliced: every operation ends soon, in a result or in a typed
// error; and where verify() finds nothing wrong, nothing else does, before and after changes.
import assert from 'node:assert/strict';
import { type Iova, iova, type PhysicalAddress, physicalAddress } from '../../src/address.js';
import { PageTable, PageTableFormat, type PageTableOptions } from '../../src/memory/page-table.js';
import { PageTableError } from '../../src/memory/page-table-error.js';
import { TABLE_PAGE, TableMemory } from '../../src/memory/table-memory.js';
import type { Random } from '../support/random.js';
import type { FuzzTarget } from './fuzz.js';

const BASE = 0x1_0000_0000n;
const PAGES = 12;
/** A page outside the heap, as a dump has them. */
const FAR = 0x7_0000_0000n;
/** Far above what any input takes, even on a busy machine; a walk that multiplies takes for ever. */
const MILLISECONDS = 2000;

const configurations: readonly (readonly [PageTableFormat, PageTableOptions])[] = [
  [PageTableFormat.AmdV1, {}],
  [PageTableFormat.AmdV1, { levels: 6 }],
  [PageTableFormat.VtdSecondStage, { levels: 3 }],
  [PageTableFormat.VtdSecondStage, { levels: 5 }],
  [PageTableFormat.X86FirstStage, {}],
  [PageTableFormat.X86FirstStage, { signExtend: true, levels: 5 }],
  [PageTableFormat.ArmStage1, { hardwareDirty: true }],
  [PageTableFormat.ArmStage2, { levels: 3 }],
];

const MAPPINGS: readonly (readonly [bigint, bigint, bigint])[] = [
  [0x1000n, 0x5000n, 0x1000n],
  [0x1_0000n, 0x1_0000n, 0x1_8000n],
  [0x20_0000n, 0x60_0000n, 0x40_0000n],
  [0x4000_0000n, 0x4000_0000n, 0x4000_0000n],
  [0x40_0000_0000n - 0x2000n, 0x2000n, 0x3000n],
];
/** Where walks and changes go: what is mapped, and around it. */
const PLACES = [
  0n,
  0x1000n,
  0x1_4000n,
  0x20_0000n,
  0x3f_f000n,
  0x4000_0000n,
  0x4012_3000n,
  0x3f_ffff_e000n,
  0x40_0000_0000n,
];
const LENGTHS = [0x1000n, 0x3000n, 0x1_0000n, 0x20_0000n, 0x4000_0000n, 0x80_0000_0000n];

interface Seed {
  readonly format: PageTableFormat;
  readonly options: PageTableOptions;
  readonly root: PhysicalAddress;
  readonly pages: readonly { readonly address: PhysicalAddress; readonly bytes: Uint8Array }[];
  /** The slots of each page that are not zero. */
  readonly taken: readonly (readonly number[])[];
  /** The same table, never changed. */
  readonly sound: PageTable;
}

function makeSeed(format: PageTableFormat, options: PageTableOptions): Seed {
  const memory = new TableMemory({ base: physicalAddress(BASE), pages: PAGES });
  const table = PageTable.create(format, memory, options);
  for (const [at, to, length] of MAPPINGS) table.map(iova(at), physicalAddress(to), length);
  const addresses = [...new Set([...table.entries()].map(entry => entry.table))];
  const pages = addresses.map(address => ({ address, bytes: memory.read(address) }));
  const taken = addresses.map(address => [
    ...new Set([...table.entries()].filter(entry => entry.table === address).map(entry => entry.index)),
  ]);
  return {
    format,
    options: { ...options, levels: table.levels },
    root: table.root,
    pages,
    taken,
    sound: table,
  };
}

/** Spoils the pages that are loaded, a little. */
function mutate(
  pages: DataView[],
  taken: readonly (readonly number[])[],
  addresses: readonly bigint[],
  random: Random,
): void {
  const pick = <T>(list: readonly T[]): T => list[random.below(list.length)] as T;
  for (let times = random.below(4); times >= 0; times--) {
    const page = pick(pages);
    // Mostly entries that are there.
    const slot =
      random.below(8) === 0 ? random.below(512) : pick(taken[pages.indexOf(page)] as readonly number[]);
    const value = page.getBigUint64(slot * 8, true);
    const set = (to: bigint): void => page.setBigUint64(slot * 8, to, true);
    const keep = 0xfff0_0000_0000_0fffn;
    switch (random.below(8)) {
      case 0:
      case 1:
        set(value ^ (1n << BigInt(random.below(64))));
        break;
      case 2:
        set((value & keep) | pick(addresses));
        break;
      case 3:
        set((value & keep) | (BigInt(random.below(2 ** 20)) << BigInt(12 + random.below(28))));
        break;
      case 4:
        page.setUint32(slot * 8, random.below(2 ** 32), true);
        page.setUint32(slot * 8 + 4, random.below(2 ** 32), true);
        break;
      case 5: {
        // An entry of another table, or one repeated a few times.
        const other = pick(pages);
        const copied = other.getBigUint64(random.below(512) * 8, true) || value;
        for (let count = random.below(20); count >= 0; count--) {
          page.setBigUint64(((slot + count) % 512) * 8, copied, true);
        }
        break;
      }
      case 6: {
        const other = pick(pages);
        const length = (1 + random.below(64)) * 8;
        const from = random.below(TABLE_PAGE - length) & ~7;
        const bytes = new Uint8Array(other.buffer, other.byteOffset + from, length).slice();
        new Uint8Array(page.buffer, page.byteOffset).set(bytes, random.below(TABLE_PAGE - length) & ~7);
        break;
      }
      case 7:
        set(0n);
        break;
    }
  }
}

/** Runs an operation; an error must be of a kind that it may have. */
function attempt<T>(operation: () => T, sound: boolean): T | undefined {
  // Errors are most of what happens here, and most of an error is its stack.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    return operation();
  } catch (error) {
    // Not any RangeError: a stack that overflows is one too.
    if (error instanceof RangeError && /beyond what|exceed 2\^64/.test(error.message)) return undefined;
    assert(error instanceof PageTableError, error as Error);
    if (sound)
      assert(['EXISTS', 'NO_MEMORY', 'UNSUPPORTED'].includes(error.code), `sound, and yet ${error.message}`);
    return undefined;
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

/** Goes through an iterator; what is found must be in order. */
function drain(items: Iterable<{ iova: Iova; length?: bigint }>, ordered: boolean): number {
  let count = 0;
  let next = 0n;
  for (const { iova: at, length = 0n } of items) {
    if (ordered) assert(at >= next, 'out of order');
    next = at + length;
    count++;
  }
  return count;
}

export function target(): FuzzTarget {
  const seeds = configurations.map(([format, options]) => makeSeed(format, options));
  const memory = new TableMemory({ base: physicalAddress(BASE), pages: PAGES });
  const size = memory.memory.buffer.byteLength + 2 ** 16;

  return random => {
    const start = performance.now();
    const pick = <T>(list: readonly T[]): T => list[random.below(list.length)] as T;
    const seed = pick(seeds);
    memory.clear();
    for (const { address, bytes } of seed.pages) memory.load(address, bytes);
    const addresses = [
      ...seed.pages.map(({ address }) => address as bigint),
      BASE + BigInt(PAGES - 1) * 4096n,
      FAR,
      0n,
    ];
    if (random.below(8) === 0) memory.load(FAR as PhysicalAddress, pick(seed.pages).bytes);
    const views = seed.pages.map(
      ({ address }) =>
        new DataView(memory.memory.buffer, memory.core.pageTablePage(address) >>> 0, TABLE_PAGE),
    );
    mutate(views, seed.taken, addresses, random);
    const table = PageTable.open(seed.format, memory, seed.root, seed.options);

    const place = (): Iova =>
      iova(pick(PLACES) + (random.below(3) === 0 ? BigInt(random.below(2 ** 20)) * 4096n : 0n));
    let sound = table.findings(1).length === 0;
    for (let times = 2 + random.below(3); times > 0; times--) {
      const [at, length] = [place(), pick(LENGTHS)];
      const operation = random.below(9);
      switch (operation) {
        case 0: {
          const found = attempt(() => table.translate(iova(at + 5n)), sound);
          const many = table.translateMany(BigUint64Array.of(at + 5n))[0];
          assert.equal(many, found?.address ?? 2n ** 64n - 1n);
          break;
        }
        case 1:
          attempt(() => drain(table.extents(), true), sound);
          break;
        case 2:
          attempt(() => drain(table.entries(), false), sound);
          break;
        case 3:
          attempt(() => PageTable.compare(table, seed.sound, { entrySizes: random.below(2) === 0 }), sound);
          break;
        case 4:
          attempt(() => table.readAndClearDirty(at, length, random.below(2) === 0), sound);
          break;
        case 5: {
          const removed = attempt(() => table.unmap(at, length), sound);
          if (sound && removed !== undefined) assert.equal(table.translate(at), undefined);
          break;
        }
        case 6:
        case 7: {
          const to = ((at & 0xff_ffff_f000n) ^ pick([0n, 0n, 0x1000n, 0x20_0000n])) as PhysicalAddress;
          const mapped = attempt(() => table.map(at, to, length) ?? true, sound);
          if (sound && mapped)
            assert.equal(table.translate(iova(at + length - 1n))?.address, to + length - 1n);
          break;
        }
        case 8:
          attempt(() => table.sizes(), sound);
          break;
      }
      if (operation < 4 || operation === 8) continue;
      // A table that is not sound may become so, but not the other way round.
      const now = table.findings(1).length === 0;
      if (sound) assert(now, 'sound before a change, and not after it');
      sound = now;
    }
    assert(memory.memory.buffer.byteLength <= size, 'linear memory grew');
    assert(performance.now() - start < MILLISECONDS, 'took too long');
  };
}
