// Flattened device trees: what we write is read by an independent reader, and we read whatever the specification allows
// and nothing else.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { type FdtNode, readFdt, writeFdt } from '../../src/keepalive/state/fdt.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { StateError } from '../../src/keepalive/state/state-error.js';
import { canonical, type FlatNode, readFlatTree } from '../support/flat-tree.js';
import { layOutFlatTree } from '../support/flat-tree-writer.js';
import { random } from '../support/random.js';
import { randomNode } from '../support/random-state.js';

const flat = (node: FdtNode): FlatNode => ({
  name: node.name,
  properties: [...node.properties],
  children: node.children.map(flat),
});

const seed = random().seed;
t.comment(`seed ${seed}`);

t.test('what is written, an independent reader reads, and ours', async t => {
  const r = random(seed);
  let nodes = 0;
  for (let run = 0; run < 500; run++) {
    const root = randomNode(r, '', 4);
    const reservations = Array.from({ length: r.below(3) }, () => ({
      address: BigInt(r.below(2 ** 32)) << 12n,
      size: 1n + BigInt(r.below(2 ** 32)),
    }));
    const bytes = writeFdt({ root, reservations, bootCpu: r.below(2 ** 32) });
    const theirs = readFlatTree(bytes);
    const wanted = flat(root);
    assert.deepEqual(theirs.root, wanted);
    assert.equal(theirs.totalSize, bytes.length);
    assert.deepEqual(
      theirs.reservations,
      reservations.map(({ address, size }) => [address, size]),
    );
    const ours = readFdt(bytes);
    assert.deepEqual(flat(ours.root), wanted, 'order is kept');
    assert.deepEqual(ours.reservations, reservations);
    assert.deepEqual(writeFdt(ours), bytes, 'and again the same');
    const count = (node: FdtNode): number =>
      node.children.reduce((sum, child) => sum + count(child), 1 + node.properties.size);
    nodes += count(root);
  }
  t.pass(`${nodes} nodes and properties`);
});

t.test('every layout that the specification allows is read', async t => {
  const r = random(seed);
  for (let run = 0; run < 500; run++) {
    const root = flat(randomNode(r, '', 3));
    const bytes = layOutFlatTree(root, {
      version: r.below(2) ? 16 : 17,
      reservations: Array.from({ length: r.below(3) }, () => [BigInt(r.below(1000)), 1n] as const),
      random: r,
      nops: r.below(2) === 1,
      shareStrings: r.below(2) === 1,
      loose: r.below(2) === 1,
    });
    assert.deepEqual(canonical(readFlatTree(bytes).root), canonical(root));
    const read = readFdt(bytes);
    assert.deepEqual(flat(read.root), root);
    assert.equal(read.bootCpu, 7);
  }
  t.pass('500 trees');
});

t.test('names of properties are found again, whatever their places', async t => {
  // More names than the reader remembers, with places that fall together, and one that is the end of another.
  const names = Array.from({ length: 300 }, (_, index) => `property-${'y'.repeat(index % 64)}${index}`);
  const properties = new Map(
    [...names, ...names.map(name => `x${name}`)].map(name => [name, FdtValue.string(name)]),
  );
  const children = [0, 1, 2].map(index => ({ name: `node-${index}`, properties, children: [] }));
  const bytes = writeFdt({ root: { name: '', properties, children }, reservations: [], bootCpu: 0 });
  const { root } = readFdt(bytes);
  t.strictSame(root.properties, properties);
  t.strictSame(root.children[2]?.properties, properties);
});

t.test('what follows the tree is ignored', async t => {
  const tree = { root: { name: '', properties: new Map(), children: [] }, reservations: [], bootCpu: 0 };
  const page = new Uint8Array(4096).fill(0xaa);
  page.set(writeFdt(tree));
  t.strictSame(readFdt(page), tree);
  t.strictSame(readFdt(page.subarray(0, 100)), tree, 'also in part of a buffer');
});

/** A tree token by token. */
function build(
  tokens: (number | string | Uint8Array)[],
  strings = 'p\0',
  change: (header: DataView) => void = () => {},
): Uint8Array {
  const parts: Buffer[] = tokens.map(token => {
    if (typeof token === 'number') {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(token >>> 0);
      return bytes;
    }
    return Buffer.from(token);
  });
  const structure = Buffer.concat(parts);
  const bytes = Buffer.concat([Buffer.alloc(56), structure, Buffer.from(strings, 'latin1')]);
  const end = 56 + structure.length;
  [0xd00dfeed, bytes.length, 56, end, 40, 17, 16, 0, strings.length, structure.length].forEach(
    (value, index) => {
      bytes.writeUInt32BE(value, index * 4);
    },
  );
  const copy = new Uint8Array(bytes);
  change(new DataView(copy.buffer));
  return copy;
}

const BEGIN = 1;
const END = 2;
const PROPERTY = 3;
const NOP = 4;
const DONE = 9;
const ROOT = [BEGIN, 0];
const good = [...ROOT, PROPERTY, 2, 0, 'ab\0\0', END, DONE];

/** Sets fields of the header. */
const set =
  (...fields: [field: number, value: number][]) =>
  (header: DataView): void => {
    for (const [field, value] of fields) header.setUint32(field * 4, value);
  };

t.test('what is not a flattened device tree is refused, with the place', async t => {
  t.equal(readFdt(build(good)).root.properties.get('p')?.length, 2);

  const cases: [string, Uint8Array, RegExp, number][] = [
    ['nothing', new Uint8Array(0), /shorter than it says/, 0],
    ['part of a header', build(good).subarray(0, 35), /shorter/, 35],
    ['cut off', build(good).subarray(0, -1), /shorter/, 4],
    ['no magic', build(good, 'p\0', set([0, 0xedfe0dd0])), /magic/, 0],
    ['smaller than its header', build(good, 'p\0', set([1, 39])), /shorter/, 4],
    ['version 15', build(good, 'p\0', set([5, 15])), /version/, 20],
    ['of the future', build(good, 'p\0', set([6, 18])), /version/, 24],
    ['compatible with none', build(good, 'p\0', set([5, 16], [6, 17])), /version/, 24],
    ['structure beyond the end', build(good, 'p\0', set([2, 0x7fff_fffc])), /block/, 8],
    ['structure misaligned', build(good, 'p\0', set([2, 58])), /block/, 8],
    ['structure too long', build(good, 'p\0', set([9, 0x7fff_fffc])), /block/, 36],
    ['strings beyond the end', build(good, 'p\0', set([3, 0xffff_ffff])), /block/, 12],
    ['strings too long', build(good, 'p\0', set([8, 0xffff_ffff])), /block/, 32],
    ['reservations beyond the end', build(good, 'p\0', set([4, 0xffff_fff8])), /block/, 16],
    ['reservations misaligned', build(good, 'p\0', set([4, 44])), /block/, 16],
    ['reservations without end', build(good, 'p\0', set([4, 56])), /reservations does not end/, 16],
    ['an empty reservation', build(good, 'p\0', header => header.setUint32(44, 1)), /empty one/, 40],
    ['reservations on the header', build(good, 'p\0', set([4, 32], [8, 0], [9, 0])), /overlap/, 16],
    ['structure on the header', build(good, 'p\0', set([2, 0], [9, 4])), /overlap/, 8],
    ['structure on the reservations', build(good, 'p\0', set([2, 52], [9, 8])), /overlap/, 8],
    ['strings on the structure', build(good, 'p\0', set([3, 60])), /overlap/, 12],
    ['strings on the header', build(good, 'p\0', set([3, 38])), /overlap/, 12],
    ['strings on the structure in version 16', build(good, 'p\0', set([5, 16], [3, 77])), /overlap/, 12],
    ['an unknown token', build([...ROOT, 5, END, DONE]), /no such token/, 64],
    ['a root with a name', build([BEGIN, 'r\0\0\0', END, DONE]), /name/, 60],
    ['a node without', build([...ROOT, BEGIN, 0, END, END, DONE]), /name/, 68],
    ['a name with a slash', build([...ROOT, BEGIN, 'a/b\0', END, END, DONE]), /name/, 68],
    ['a name that does not end', build([...ROOT, BEGIN, 'abcd']), /name/, 68],
    [
      'a name that is too long',
      build([...ROOT, BEGIN, `${'a'.repeat(256)}\0\0\0\0`, END, END, DONE]),
      /255/,
      68,
    ],
    ['no end of a node', build([...ROOT, DONE]), /begin and end/, 64],
    ['too many ends', build([...ROOT, END, END, DONE]), /begin and end/, 68],
    ['no root', build([DONE]), /begin and end/, 56],
    ['two roots', build([...ROOT, END, ...ROOT, END, DONE]), /begin and end/, 68],
    ['a property of nobody', build([PROPERTY, 0, 0, DONE]), /begin and end/, 56],
    ['a property after the root', build([...ROOT, END, PROPERTY, 0, 0, DONE]), /begin and end/, 68],
    [
      'a property after a node',
      build([...ROOT, BEGIN, 'a\0\0\0', END, PROPERTY, 0, 0, END, DONE]),
      /follows a subnode/,
      76,
    ],
    ['a value too long', build([...ROOT, PROPERTY, 13, 0, 'ab\0\0', END, DONE]), /value/, 68],
    ['a value of 4 GiB', build([...ROOT, PROPERTY, 0xffff_ffff, 0, 'ab\0\0', END, DONE]), /value/, 68],
    ['a property cut off', build([...ROOT, PROPERTY, 0]), /should/, 68],
    ['a string beyond the block', build([...ROOT, PROPERTY, 0, 2, END, DONE]), /strings/, 72],
    ['an empty string', build([...ROOT, PROPERTY, 0, 1, END, DONE]), /strings/, 72],
    ['a string without end', build([...ROOT, PROPERTY, 0, 0, END, DONE], 'p'), /strings/, 72],
    ['a string that is no name', build([...ROOT, PROPERTY, 0, 0, END, DONE], 'p q\0'), /strings/, 72],
    ['no end', build([...ROOT, END]), /does not end where/, 68],
    ['an end too early', build([...ROOT, END, DONE, NOP]), /does not end where/, 72],
    ['nothing but NOPs', build([NOP, NOP]), /does not end where/, 64],
    [
      'nested 65 deep',
      build([...ROOT, ...Array(64).fill([BEGIN, 'a\0\0\0']).flat(), ...Array(65).fill(END), DONE]),
      /64 deep/,
      64 + 63 * 8,
    ],
    ['a property twice', build([...ROOT, PROPERTY, 0, 0, PROPERTY, 0, 0, END, DONE]), /second property/, 88],
    [
      'a node twice',
      build([...ROOT, BEGIN, 'a\0\0\0', END, BEGIN, 'a\0\0\0', END, END, DONE]),
      /second node/,
      76,
    ],
  ];
  for (const [title, bytes, reason, offset] of cases) {
    try {
      readFdt(bytes);
      t.fail(`${title} is accepted`);
    } catch (error) {
      t.ok(
        error instanceof StateError && error.code === 'DAMAGED' && reason.test(error.message),
        `${title}: ${error}`,
      );
      if (offset >= 0) t.equal((error as StateError).offset, offset, `${title}: at ${offset}`);
    }
  }
  t.doesNotThrow(
    () =>
      readFdt(
        build([
          NOP,
          ...ROOT,
          ...Array(63).fill([BEGIN, 'a\0\0\0']).flat(),
          ...Array(64).fill(END),
          NOP,
          DONE,
        ]),
      ),
    '64 are fine',
  );
  t.throws(() => readFdt('x' as unknown as Uint8Array), TypeError);
});

t.test('the path of what is wrong', async t => {
  const bytes = build([...ROOT, BEGIN, 'a\0\0\0', BEGIN, 'b\0\0\0', PROPERTY, 0, 9, END, END, END, DONE]);
  t.throws(() => readFdt(bytes), { name: 'StateError', path: '/a/b', offset: 88, code: 'DAMAGED' });
});

t.test('more nodes and properties than are read', async t => {
  const properties = new Map(Array.from({ length: 65_535 }, (_, index) => [`p${index}`, new Uint8Array(0)]));
  const root = { name: '', properties, children: [] };
  const tree = { root, reservations: [], bootCpu: 0 };
  t.equal(readFdt(writeFdt(tree)).root.properties.size, 65_535);
  properties.set('one-more', new Uint8Array(0));
  t.throws(() => readFdt(writeFdt(tree)), {
    name: 'StateError',
    message: /more than 65536 nodes and properties/,
  });
});

t.test('more than 1 GiB', async t => {
  // Never touched beyond the header, so it costs nothing.
  const bytes = new Uint8Array(2 ** 30 + 4096);
  bytes.set(build(good));
  new DataView(bytes.buffer).setUint32(4, 2 ** 30 + 4);
  t.throws(() => readFdt(bytes), { name: 'StateError', offset: 4, message: /larger than 1073741824 bytes/ });
});

t.test('more reservations than are read', async t => {
  const reservations = Array.from({ length: 65_537 }, (_, index) => ({ address: BigInt(index), size: 1n }));
  const tree = { root: { name: '', properties: new Map(), children: [] }, reservations, bootCpu: 0 };
  t.throws(() => readFdt(writeFdt(tree)), {
    name: 'StateError',
    message: /more than 65536 memory reservations/,
  });
});

t.test('trees that cannot be written', async t => {
  const node = (name: string, ...children: FdtNode[]): FdtNode => ({ name, properties: new Map(), children });
  const write = (root: FdtNode, reservations: { address: bigint; size: bigint }[] = []) =>
    writeFdt({ root, reservations, bootCpu: 0 });
  t.throws(() => write(node('root')), RangeError);
  t.throws(() => write(node('', node(''))), RangeError);
  t.throws(() => write(node('', node('a/b'))), RangeError);
  t.throws(() => write(node('', node('a'.repeat(256)))), RangeError);
  t.throws(() => write(node('', node('a'), node('a'))), RangeError);
  t.throws(() => write({ ...node(''), properties: new Map([['a b', new Uint8Array(0)]]) }), RangeError);
  t.throws(() => write({ ...node(''), properties: new Map([['a', 1 as unknown as Uint8Array]]) }), TypeError);
  t.throws(() => write(node(''), [{ address: 1n, size: 0n }]), RangeError);
  let deep = node('x');
  for (let depth = 0; depth < 64; depth++) deep = node(depth === 63 ? '' : 'x', deep);
  t.throws(() => write(deep), RangeError);
  t.equal(write(node('')).length, 72, 'and after all that, one can');
});

t.test('values of properties', async t => {
  fc.assert(
    fc.property(fc.nat(2 ** 32 - 1), fc.array(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })), (cell, cells) => {
      assert.equal(FdtValue.readU32(FdtValue.u32(cell)), cell);
      assert.deepEqual(FdtValue.readU64s(FdtValue.u64s(cells)), cells);
    }),
  );
  t.strictSame(FdtValue.u32(0x12345678), Uint8Array.of(0x12, 0x34, 0x56, 0x78), 'cells are big-endian');
  t.strictSame(FdtValue.u64(0x1234n), Uint8Array.of(0, 0, 0, 0, 0, 0, 0x12, 0x34));
  t.equal(FdtValue.readU64(FdtValue.u64(5)), 5n);
  t.strictSame(FdtValue.strings(['a', 'ö']), Uint8Array.of(0x61, 0, 0xc3, 0xb6, 0));
  t.strictSame(FdtValue.readStrings(Uint8Array.of(0x61, 0, 0xc3, 0xb6, 0)), ['a', 'ö']);
  t.strictSame(FdtValue.readStrings(FdtValue.strings([])), []);
  t.strictSame(FdtValue.readStrings(FdtValue.strings(['', ''])), ['', '']);
  t.equal(FdtValue.readString(FdtValue.string('\ufeffx')), '\ufeffx');
  t.equal(FdtValue.readString(FdtValue.strings(['a', 'b'])), undefined);
  t.equal(FdtValue.readStrings(Uint8Array.of(0x61)), undefined, 'without an end');
  t.equal(FdtValue.readStrings(Uint8Array.of(0xff, 0)), undefined, 'not UTF-8');
  t.equal(FdtValue.readU32(new Uint8Array(8)), undefined);
  t.equal(FdtValue.readU64(new Uint8Array(4)), undefined);
  t.equal(FdtValue.readU64s(new Uint8Array(12)), undefined);
  t.throws(() => FdtValue.u32(2 ** 32), RangeError);
  t.throws(() => FdtValue.u64(-1n), RangeError);
  t.throws(() => FdtValue.string('a\0'), RangeError);
  t.throws(() => FdtValue.string('\ud800'), RangeError);
  t.throws(() => FdtValue.string(1 as unknown as string), TypeError);
});
