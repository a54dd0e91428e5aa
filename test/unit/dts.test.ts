// Device-tree source text. That dtc makes the same tree of it is tested with dtc itself, in test/vm/dtc.test.ts.
import t from 'tap';
import { fdtSource } from '../../src/keepalive/state/dts.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';

const { u32, u32s, u64, string, strings } = FdtValue;

t.test('a tree', async t => {
  const root = {
    name: '',
    properties: new Map<string, Uint8Array>([
      ['empty', new Uint8Array(0)],
      ['text', string('a "b" \\c')],
      ['texts', strings(['a', 'b'])],
      ['no-text', string('')],
      ['umlaut', string('ä')],
      ['umlauts', string('äöü')],
      ['two-ends', Uint8Array.of(0x61, 0, 0)],
      ['no-end', Uint8Array.of(0x61, 0x62, 0x63)],
      ['cell', u32(0x10)],
      ['cells', u64(2n ** 63n)],
      ['eight', u32s([1, 2, 3, 4, 5, 6, 7, 8])],
      ['nine', u32s([1, 2, 3, 4, 5, 6, 7, 8, 9])],
      ['bytes', new Uint8Array(25).fill(0xab)],
    ]),
    children: [
      { name: 'a@1', properties: new Map([['x', u32(1)]]), children: [] },
      { name: 'b', properties: new Map(), children: [{ name: 'c', properties: new Map(), children: [] }] },
    ],
  };
  const tree = { root, reservations: [{ address: 0x1000n, size: 2n ** 63n }], bootCpu: 0 };
  t.equal(
    [...fdtSource(tree)].join(''),
    `/dts-v1/;
/memreserve/ 0x1000 0x8000000000000000;

/ {
	empty;
	text = "a \\"b\\" \\\\c";
	texts = "a", "b";
	no-text = [00];
	umlaut = [c3 a4 00];
	umlauts = [c3 a4 c3 b6 c3 bc 00];
	two-ends = [61 00 00];
	no-end = [61 62 63];
	cell = <0x10>;
	cells = <0x80000000 0x0>;
	eight = <0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8>;
	nine = <
		0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8
		0x9
	>;
	bytes = [
		${'ab '.repeat(24).trim()}
		ab
	];

	a@1 {
		x = <0x1>;
	};

	b {

		c {
		};
	};
};
`,
  );
});

t.test('a part of a larger buffer', async t => {
  const value = Uint8Array.of(9, 9, 0, 0, 0, 7, 9).subarray(2, 6);
  const root = { name: '', properties: new Map([['x', value]]), children: [] };
  t.match([...fdtSource({ root, reservations: [], bootCpu: 0 })].join(''), 'x = <0x7>;');
});
