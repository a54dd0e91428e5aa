// What an address space notes of its mappings, against a plain map; and the tables of saved states made of it.
import t from 'tap';
import { type Iova, iova } from '../../src/address.js';
import type { IoasMapping, OpenFile } from '../../src/iommufd/ioas.js';
import { MappingBook } from '../../src/iommufd/mapping-book.js';
import { MappingRows } from '../../src/iommufd/mapping-rows.js';
import { MappingTable } from '../../src/keepalive/state/mapping-table.js';
import { by } from '../../src/order.js';
import { random } from '../support/random.js';

const SPACING = 0x10_0000n;
const files: readonly (OpenFile | number | undefined)[] = [{ fd: 3 }, { fd: 4 }, 5, undefined];

function mappingAt(place: number, below: (limit: number) => number): IoasMapping {
  const access = 1 + below(3);
  return {
    // Some begin and end within a page, as the kernel allows it.
    iova: (BigInt(place) * SPACING + BigInt(below(3))) as Iova,
    length: BigInt(1 + below(0xf_0000)),
    file: files[below(files.length)],
    offset: BigInt(below(2 ** 31)) << BigInt(below(30)),
    readable: (access & 1) !== 0,
    writeable: (access & 2) !== 0,
  };
}

function rowsOf(mappings: readonly IoasMapping[]): MappingRows {
  const rows = new MappingRows(mappings.length);
  for (const mapping of mappings) rows.write(rows.length++, mapping, files.indexOf(mapping.file));
  return rows;
}

t.test('against a map', async t => {
  const { seed, below, shuffle } = random(Number(process.env.SEED) || Date.now() & 0x7fff_ffff);
  t.comment(`seed ${seed}`);
  const book = new MappingBook();
  const model = new Map<bigint, IoasMapping>();
  const sorted = (): IoasMapping[] => [...model.values()].sort(by(mapping => mapping.iova));
  const partsOf = (first: bigint, length: bigint): IoasMapping[] =>
    sorted().flatMap(mapping => {
      const start = mapping.iova > first ? mapping.iova : first;
      const ends = [mapping.iova + mapping.length, first + length].sort((a, b) => (a < b ? -1 : 1));
      const inside = (ends[0] as bigint) - start;
      const offset = mapping.offset + (start - mapping.iova);
      return inside > 0n ? [{ ...mapping, iova: start as Iova, length: inside, offset }] : [];
    });
  const compare = (what: string): void => {
    t.equal(book.size, model.size, what);
    t.strictSame([...book], sorted());
    const used = new Set(sorted().map(({ file }) => file));
    t.strictSame(new Set(book.files), used, 'files that are in use');
    t.equal([...book.files].length, used.size);
    const rows = [...book.pieces].map(({ length }) => length);
    t.ok(rows.every(length => length > 0));
    t.equal(
      rows.reduce((sum, length) => sum + length, 0),
      model.size,
    );
    for (let probe = 0; probe < 20; probe++) {
      const first = BigInt(below(6000)) * SPACING + BigInt(below(0x10_0000));
      const length = BigInt(below(8)) * SPACING + BigInt(below(0x10_0000));
      t.strictSame([...book.within(first, length)], partsOf(first, length));
    }
  };
  const add = (mapping: IoasMapping): void => {
    book.add(mapping);
    model.set(mapping.iova, mapping);
  };
  const addAll = (from: number, to: number, step = 1): void => {
    const mappings: IoasMapping[] = [];
    for (let place = from; place < to; place += step) mappings.push(mappingAt(place, below));
    book.addAll(rowsOf(mappings), files);
    for (const mapping of mappings) model.set(mapping.iova, mapping);
  };
  compare('empty');
  addAll(0, 0);
  compare('nothing more');
  addAll(1000, 1700);
  compare('many at once');
  addAll(2000, 2300);
  compare('behind them');
  addAll(0, 300);
  compare('before them');
  addAll(1800, 1801);
  compare('between them');
  const free = Array.from({ length: 3000 }, (_, index) => 3000 + index);
  for (const place of shuffle([...free]).slice(0, 2000)) add(mappingAt(place, below));
  compare('one by one, anywhere');
  addAll(301, 1000, 7);
  addAll(302, 1000, 7);
  compare('in the gaps of each other');
  for (const mapping of sorted().slice(0, 300)) add({ ...mapping, file: files[below(4)], length: 7n });
  compare('replaced');
  for (const mapping of shuffle(sorted()).slice(0, 1200)) {
    book.delete(mapping.iova, 1n);
    model.delete(mapping.iova);
  }
  compare('some gone');
  for (let count = 0; count < 30; count++) {
    const first = BigInt(below(6000)) * SPACING + BigInt(below(5));
    const length = BigInt(below(60)) * SPACING;
    book.delete(first, length);
    for (const key of model.keys()) if (key >= first && key < first + length) model.delete(key);
  }
  compare('ranges gone');
  for (const { iova } of sorted().slice(0, 50)) t.strictSame([...book.within(iova, 1n)], partsOf(iova, 1n));
  book.clear();
  model.clear();
  compare('cleared');
  add(mappingAt(1, below));
  compare('and used again');
});

t.test('what comes and goes while it is read', async t => {
  const book = new MappingBook();
  const mapping = (place: number): IoasMapping => ({
    ...{ length: 4096n, file: undefined, offset: 0n, readable: true, writeable: true },
    iova: iova(BigInt(place) * 8192n),
  });
  for (let place = 0; place < 1000; place++) book.add(mapping(place));
  const seen: bigint[] = [];
  for (const { iova, length } of book) {
    seen.push(iova / 8192n);
    book.delete(iova, length);
    // Behind and before what is being read.
    if (iova === 500n * 8192n) for (let place = 0; place < 1000; place += 3) book.add(mapping(place));
  }
  t.strictSame(
    seen,
    Array.from({ length: 1000 }, (_, place) => BigInt(place)),
  );
  t.equal(book.size, 167, 'those that came behind');
});

t.test('tables of saved states', async t => {
  const { below } = random(7);
  const arenas = [{ fd: 1 }, { fd: 2 }, { fd: 3 }];
  const book = new MappingBook();
  const table = new MappingTable();
  // More arenas than the low half of an index has bits for.
  for (let index = 0; index < 5000; index++)
    table.push({ iova: iova(index * 4096), length: 4096, arena: BigInt(index), offset: 0 });
  const rows = new MappingRows(5000);
  table.readRows(0, rows);
  t.equal(rows.length, 5000);
  t.strictSame(
    [4999, 4096, 4095, 1].map(row => rows.file(row)),
    [4999, 4096, 4095, 1],
  );
  const again = new MappingTable();
  again.pushRows(rows, file => BigInt(file));
  t.strictSame(again.rows, table.rows);
  t.throws(() => again.push({ iova: iova(4999 * 4096), length: 4096, arena: 1n, offset: 0 }), RangeError);

  for (let index = 0; index < 700; index++) {
    book.add({
      iova: iova(2n ** 63n + BigInt(index) * 2n ** 40n),
      length: 4096n * BigInt(1 + below(1000)) + (index === 300 ? 2n ** 39n : 0n),
      file: arenas[below(3)],
      offset: BigInt(below(2 ** 30)) * 4096n,
      readable: index % 3 > 0,
      writeable: index % 3 !== 1,
    });
  }
  const fast = new MappingTable();
  for (const piece of book.pieces) fast.pushRows(piece, file => BigInt((book.files.at(file) as OpenFile).fd));
  const slow = new MappingTable();
  for (const { iova, length, file, offset, readable, writeable } of book) {
    const arena = BigInt((file as OpenFile).fd);
    slow.push({ iova, length: Number(length), arena, offset: Number(offset), readable, writeable });
  }
  t.strictSame(fast.rows, slow.rows);
  t.strictSame(fast.arenas, slow.arenas);
  const back = new MappingBook();
  for (let start = 0; start < fast.length; start += 100) {
    const part = new MappingRows(100);
    fast.readRows(start, part);
    back.addAll(
      part,
      fast.arenas.map(token => arenas[Number(token) - 1]),
    );
  }
  t.strictSame([...back], [...book]);
  for (const wrong of ['iova', 'length', 'offset'] as const) {
    const odd = new MappingBook();
    odd.add({ ...[...book][0]!, [wrong]: 2n ** 40n + 1n });
    const refused = new MappingTable();
    for (const piece of odd.pieces) {
      t.throws(
        () => refused.pushRows(piece, () => 1n),
        new RangeError(
          `${wrong} must be a multiple of 4096, got ${wrong === 'iova' ? '0x10000000001' : 2 ** 40 + 1}`,
        ),
      );
    }
  }
});
