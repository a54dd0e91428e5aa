// Page tables: VT-d second stage of 4 levels, beside the same walk and the same mapper in C.
import { type Iova, iova, type PhysicalAddress, physicalAddress } from '../../src/address.js';
import { PageTable, PageTableFormat } from '../../src/memory/page-table.js';
import { TableMemory } from '../../src/memory/table-memory.js';
import { type BenchCase, type Contender, nanoseconds } from './measure.js';
import { buildPeer, nativePeer } from './native.js';

const PAGES = 1 << 20;
const BYTES = 2n ** 32n;
const FIRST = iova(0x40_0000_0000n);
const PHYSICAL = physicalAddress(0x2_0000_0000n);
/** The peers repeat a job and print the best time; so does this side. */
const REPEATS = 5;

/** One record a page, no two of which can be joined into a larger entry. */
function pageRecords(): Uint8Array {
  const words = new BigUint64Array(PAGES * 3);
  for (let page = 0; page < PAGES; page++) {
    words[page * 3] = FIRST + BigInt(page) * 4096n;
    words[page * 3 + 1] = 4096n;
    words[page * 3 + 2] = PHYSICAL + BigInt(page ^ 1) * 4096n;
  }
  return new Uint8Array(words.buffer);
}

function best(units: number, prepare: () => void, job: () => void): Contender {
  return () => {
    let least = Number.POSITIVE_INFINITY;
    for (let round = 0; round < REPEATS; round++) {
      prepare();
      least = Math.min(least, nanoseconds(units, job));
    }
    return least;
  };
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(`pagetable: ${what}`);
}

function translateCase(program: string, records: Uint8Array): BenchCase {
  const memory = new TableMemory(4096);
  const table = PageTable.create(PageTableFormat.VtdSecondStage, memory);
  table.mapMany(records);
  const { core } = memory;
  const count = PAGES;
  // As much memory beside the tables as numbers in and out take: any pages of the instance do.
  const aside = physicalAddress(0x10_0000_0000n);
  memory.load(aside, new Uint8Array(count * 16));
  const from = core.pageTablePage(aside) >>> 0;
  const iovas = new BigUint64Array(memory.memory.buffer, from, count);
  // The same numbers as the peer's.
  let state = 0x2545f491;
  const expected = new BigUint64Array(count);
  for (let i = 0; i < count; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    const page = state % PAGES;
    const offset = BigInt(state >>> 20);
    iovas[i] = FIRST + BigInt(page) * 4096n + offset;
    expected[i] = PHYSICAL + BigInt(page ^ 1) * 4096n + offset;
  }
  table.translate(FIRST);
  const to = from + count * 8;
  return {
    name: 'translate random IOVAs, 1 Mi pages of 4 KiB',
    unit: 'ns each',
    ours: () => {
      const figure = best(
        count,
        () => {},
        () => core.pageTableTranslateMany(from, to, count),
      )();
      const results = new BigUint64Array(memory.memory.buffer, to, count);
      check(
        Buffer.from(results.slice().buffer).equals(Buffer.from(expected.buffer)),
        'translations are wrong',
      );
      return figure;
    },
    peers: { 'C -O3': nativePeer(program, ['translate', PAGES, count]) },
  };
}

interface MapCase {
  name: string;
  unit: string;
  units: number;
  peer: (string | number)[];
  leaves: readonly [bigint, number];
  job(table: PageTable): void;
}

function mapCase(program: string, { name, unit, units, peer, leaves, job }: MapCase): BenchCase {
  const memory = new TableMemory(4096);
  let table: PageTable | undefined;
  return {
    name,
    unit,
    ours: () => {
      const figure = best(
        units,
        () => {
          memory.clear();
          table = PageTable.create(PageTableFormat.VtdSecondStage, memory);
        },
        () => job(table as PageTable),
      )();
      const sizes = (table as PageTable).sizes().leaves;
      check(sizes.size === 1 && sizes.get(leaves[0]) === leaves[1], `unexpected entries ${[...sizes]}`);
      return figure;
    },
    peers: { 'C -O3': nativePeer(program, peer) },
  };
}

export function cases(): BenchCase[] {
  const program = buildPeer('pagetable');
  const records = pageRecords();
  const other = (PHYSICAL + 4096n) as PhysicalAddress;
  return [
    translateCase(program, records),
    mapCase(program, {
      name: 'map 1 Mi pages of 4 KiB in order, one record each',
      unit: 'ns per page',
      units: PAGES,
      peer: ['map-pages', PAGES],
      leaves: [4096n, PAGES],
      job: table => table.mapMany(records),
    }),
    mapCase(program, {
      name: 'map 4 GiB that only 4 KiB pages fit, one range',
      unit: 'ns per page',
      units: PAGES,
      peer: ['map-range', PAGES],
      leaves: [4096n, PAGES],
      job: table => table.map(FIRST as Iova, other, BYTES),
    }),
    mapCase(program, {
      name: 'map 4 GiB in 2 MiB pages, one range',
      unit: 'ns per 2 MiB',
      units: 2048,
      peer: ['map-large', Number(BYTES)],
      leaves: [2n ** 21n, 2048],
      job: table => table.map(iova(FIRST + 2n ** 21n), PHYSICAL, BYTES),
    }),
  ];
}
