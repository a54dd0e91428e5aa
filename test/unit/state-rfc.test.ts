// The layout of the kernel's RFC, written and read, against an independent reader and writer of device trees.
import assert from 'node:assert/strict';
import t from 'tap';
import type { Iova } from '../../src/address.js';
import { AreaTable, type SavedArea } from '../../src/keepalive/state/area-table.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { exportRfc, importRfc, type RfcState } from '../../src/keepalive/state/rfc.js';
import type { State } from '../../src/keepalive/state/saved-state.js';
import { type FlatNode, readFlatTree } from '../support/flat-tree.js';
import { layOutFlatTree } from '../support/flat-tree-writer.js';
import { goldenStates } from '../support/golden-states.js';
import { type Random, random } from '../support/random.js';

const { seed } = random();
t.comment(`seed ${seed}`);

interface PlainIoas {
  id: number;
  areas: SavedArea[];
}
interface PlainIommufd {
  id: number;
  ioases: PlainIoas[];
}

function randomAreas(r: Random): SavedArea[] {
  const areas: SavedArea[] = [];
  let iova = BigInt(r.below(1000));
  for (let count = r.below(r.below(10) === 0 ? 12_000 : 8); count > 0; count--) {
    const length = 1n + BigInt(r.below(2 ** 20));
    areas.push({ iova: iova as Iova, length, prot: r.below(64) });
    iova += length + BigInt(r.below(3));
  }
  // Now and then up to the very top.
  if (r.below(4) === 0) areas.push({ iova: iova as Iova, length: 2n ** 64n - iova, prot: 1 });
  return areas;
}

function randomIds(r: Random): number[] {
  return [...new Set(Array.from({ length: r.below(4) }, () => r.below(2 ** (1 + r.below(32)))))];
}

const randomRfc = (r: Random): PlainIommufd[] =>
  randomIds(r).map(id => ({ id, ioases: randomIds(r).map(id => ({ id, areas: randomAreas(r) })) }));

function stateOf(iommufds: readonly PlainIommufd[]): RfcState {
  const table = (areas: readonly SavedArea[]): AreaTable => {
    const made = new AreaTable();
    for (const area of areas) made.push(area);
    return made;
  };
  return {
    iommufds: iommufds.map(({ id, ioases }) => ({
      id,
      ioases: ioases.map(({ id, areas }) => ({ id, mappings: table(areas) })),
    })),
  };
}

const sorted = <T extends { id: number }>(items: readonly T[]): T[] => items.toSorted((a, b) => a.id - b.id);

const plain = ({ iommufds }: RfcState): PlainIommufd[] =>
  iommufds.map(({ id, ioases }) => ({
    id,
    ioases: ioases.map(ioas => ({ id: ioas.id, areas: [...ioas.mappings] })),
  }));

const named = (
  name: number | string,
  properties: [string, Uint8Array][],
  ...children: FlatNode[]
): FlatNode => ({
  name: String(name),
  properties,
  children,
});

function little(value: bigint, size: 4 | 8): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes.subarray(0, size);
}

const areaNode = ({ iova, length, prot }: SavedArea, index: number): FlatNode =>
  named(index, [
    ['iova-start', little(iova, 8)],
    ['iova-len', little(length, 8)],
    ['iommu-prot', little(BigInt(prot), 4)],
  ]);

const compatible: [string, Uint8Array] = ['compatible', FdtValue.string('iommufd-v0')];

/** The layout, as the RFC describes it. */
const treeOf = (iommufds: readonly PlainIommufd[]): FlatNode =>
  named(
    '',
    [compatible],
    named(
      'iommufds',
      [],
      ...iommufds.map(({ id, ioases }) =>
        named(
          id,
          [],
          named('ioases', [], ...ioases.map(({ id, areas }) => named(id, [], ...areas.map(areaNode)))),
        ),
      ),
    ),
  );

const plainLayout = {
  version: 17,
  reservations: [],
  random: random(1),
  nops: false,
  shareStrings: false,
  loose: false,
} as const;

t.test('what is written is the layout of the RFC, and is read again', async t => {
  const r = random(seed);
  let areas = 0;
  for (let run = 0; run < 40; run++) {
    const iommufds = randomRfc(r);
    const bytes = exportRfc(stateOf(iommufds));
    const ordered = sorted(iommufds).map(({ id, ioases }) => ({ id, ioases: sorted(ioases) }));
    const { root } = readFlatTree(bytes);
    assert.deepEqual(root, treeOf(ordered));
    const read = importRfc(bytes);
    assert.deepEqual(plain(read), ordered);
    assert.deepEqual(exportRfc(read), bytes);
    areas += ordered.reduce(
      (sum, { ioases }) => sum + ioases.reduce((sum, ioas) => sum + ioas.areas.length, 0),
      0,
    );
  }
  t.pass(`${areas} areas`);
});

t.test('any layout and order is read', async t => {
  const r = random(seed);
  const shuffle = (node: FlatNode): FlatNode => ({
    name: node.name,
    properties: r.shuffle([...node.properties]),
    children: r.shuffle(node.children.map(shuffle)),
  });
  for (let run = 0; run < 30; run++) {
    const iommufds = randomRfc(r);
    let tree = shuffle(treeOf(iommufds));
    // As the kernel has it: a node of a tree that is not ours.
    if (r.below(2) === 0) {
      const kho: [string, Uint8Array] = ['compatible', FdtValue.string('kho-v1')];
      const other = named('memblock', [['iova-len', little(1n, 4)]], named('iommufds', []));
      tree = named('', [kho], other, { ...tree, name: 'iommufd' }, named('x', []));
    }
    const bytes = layOutFlatTree(tree, {
      version: r.below(2) ? 16 : 17,
      reservations: [],
      random: r,
      nops: r.below(2) === 0,
      shareStrings: r.below(2) === 0,
      loose: r.below(2) === 0,
    });
    const read = plain(importRfc(bytes));
    assert.deepEqual(
      sorted(read).map(({ id, ioases }) => ({ id, ioases: sorted(ioases) })),
      sorted(iommufds).map(({ id, ioases }) => ({ id, ioases: sorted(ioases) })),
    );
  }
  t.pass('30 trees');
});

t.test('the mappings of a state, without what is behind them', async t => {
  const state = goldenStates['ioas-v1'] as State;
  t.strictSame(plain(importRfc(exportRfc(state))), [
    {
      id: 7,
      ioases: [
        { id: 0, areas: [] },
        {
          id: 12,
          areas: Array.from(
            state.iommufds[0]?.ioases[1]?.mappings ?? [],
            ({ iova, length, readable, writeable }) => ({
              iova,
              length: BigInt(length),
              prot: 4 + (readable ? 1 : 0) + (writeable ? 2 : 0),
            }),
          ),
        },
      ],
    },
  ]);
});

t.test('properties that the layout does not have are ignored', async t => {
  const tree = treeOf([{ id: 1, ioases: [{ id: 2, areas: [{ iova: 0n as Iova, length: 1n, prot: 1 }] }] }]);
  const visit = (node: FlatNode): void => {
    node.properties.push(['account_mode', Uint8Array.of(1)]);
    node.children.forEach(visit);
  };
  visit(tree);
  t.equal(plain(importRfc(layOutFlatTree(tree, plainLayout)))[0]?.ioases[0]?.areas.length, 1);
});

t.test('what is not in the layout is refused', async t => {
  const area = { iova: 0x1000n as Iova, length: 0x1000n, prot: 3 };
  const below = (...nodes: FlatNode[]): FlatNode =>
    named('', [compatible], named('iommufds', [], named(1, [], named('ioases', [], named(2, [], ...nodes)))));
  const changed = (name: string, value?: Uint8Array): FlatNode => {
    const node = areaNode(area, 0);
    const properties = node.properties.filter(([candidate]) => candidate !== name);
    return below({ ...node, properties: value ? [...properties, [name, value]] : properties });
  };
  const cases: [string, FlatNode, RegExp, string][] = [
    ['no compatible', named('', [], named('iommufds', [])), /compatible is not "iommufd-v0"/, '/iommufds'],
    [
      'another version',
      named('', [['compatible', FdtValue.string('iommufd-v1')]], named('iommufds', [])),
      /compatible/,
      '/iommufds',
    ],
    ['nothing at all', named('', []), /compatible/, '/iommufds'],
    [
      'below a node, another version',
      named('', [], named('iommufd', [['compatible', FdtValue.string('iommufd-v1')]])),
      /compatible/,
      '/iommufds',
    ],
    ['below a node, nothing', named('', [], named('iommufd', [])), /compatible/, '/iommufds'],
    [
      'another node',
      named('', [compatible], named('iommus', [])),
      /a node that the layout does not have/,
      '/iommufds',
    ],
    [
      'two lists',
      named('', [compatible], named('iommufds', []), named('iommufds', [])),
      /second/,
      '/iommufds',
    ],
    [
      'two lists of IOASes',
      named('', [compatible], named('iommufds', [], named(1, [], named('ioases', []), named('ioases', [])))),
      /second/,
      '/iommufds/1',
    ],
    [
      'two iommufds',
      treeOf([
        { id: 1, ioases: [] },
        { id: 1, ioases: [] },
      ]),
      /second/,
      '/iommufds/1',
    ],
    [
      'two IOASes',
      treeOf([
        {
          id: 1,
          ioases: [
            { id: 2, areas: [] },
            { id: 2, areas: [] },
          ],
        },
      ]),
      /second/,
      '/iommufds/1/ioases/2',
    ],
    [
      'another list',
      named('', [compatible], named('iommufds', [], named(1, [], named('hwpts', [])))),
      /layout does not have/,
      '/iommufds/1',
    ],
    [
      'an id that is none',
      named('', [compatible], named('iommufds', [], named('x', []))),
      /name/,
      '/iommufds',
    ],
    ['an id with a 0', named('', [compatible], named('iommufds', [], named('01', []))), /name/, '/iommufds'],
    [
      'an id of 33 bits',
      named('', [compatible], named('iommufds', [], named(2 ** 32, []))),
      /name/,
      '/iommufds',
    ],
    ['an area of any name', below(named('area', [])), /name/, '/iommufds/1/ioases/2'],
    [
      'a node in an area',
      below({ ...areaNode(area, 0), children: [named('x', [])] }),
      /layout does not have/,
      '/iommufds/1/ioases/2',
    ],
    ['no start', changed('iova-start'), /lacks/, '/iommufds/1/ioases/2'],
    ['no length', changed('iova-len'), /lacks/, '/iommufds/1/ioases/2'],
    ['no prot', changed('iommu-prot'), /lacks/, '/iommufds/1/ioases/2'],
    ['a start of 4 bytes', changed('iova-start', little(1n, 4)), /another size/, '/iommufds/1/ioases/2'],
    ['a prot of 8 bytes', changed('iommu-prot', little(1n, 8)), /another size/, '/iommufds/1/ioases/2'],
    ['an unknown prot', changed('iommu-prot', little(64n, 4)), /permissions/, '/iommufds/1/ioases/2'],
    ['an empty area', changed('iova-len', little(0n, 8)), /length is 0/, '/iommufds/1/ioases/2'],
    [
      'an area past the top',
      changed('iova-len', little(2n ** 64n - 4095n, 8)),
      /beyond 2\^64/,
      '/iommufds/1/ioases/2',
    ],
    [
      'a property twice',
      below({
        ...areaNode(area, 0),
        properties: [...areaNode(area, 0).properties, ...areaNode(area, 0).properties],
      }),
      /second/,
      '/iommufds/1/ioases/2',
    ],
    [
      'areas that overlap',
      below(areaNode(area, 0), areaNode({ ...area, iova: 0x1fffn as Iova }, 1)),
      /areas overlap at IOVA 0x1fff/,
      '/iommufds/1/ioases/2',
    ],
    [
      'an area after the top',
      below(
        areaNode({ ...area, length: 2n ** 64n - 0x1000n }, 0),
        areaNode({ ...area, iova: 0x2000n as Iova }, 1),
      ),
      /overlap/,
      '/iommufds/1/ioases/2',
    ],
    [
      'an area twice',
      below(areaNode(area, 5), areaNode({ ...area, iova: 0x9000n as Iova }, 5)),
      /second node/,
      '/iommufds/1/ioases/2/5',
    ],
  ];
  for (const [title, tree, message, path] of cases) {
    t.throws(
      () => importRfc(layOutFlatTree(tree, plainLayout)),
      { name: 'StateError', path, message },
      title,
    );
  }
  const many = named(
    '',
    [compatible],
    named('iommufds', [], ...Array.from({ length: 65_537 }, (_, id) => named(id, []))),
  );
  t.throws(() => importRfc(layOutFlatTree(many, plainLayout)), {
    name: 'StateError',
    message: /more than 65536 iommufds/,
  });
  t.throws(() => importRfc(new Uint8Array(100)), { name: 'StateError', message: /magic/ });
  t.throws(() => importRfc(5 as unknown as Uint8Array), TypeError);
});

t.test('what cannot be written', async t => {
  const table = new AreaTable();
  t.throws(
    () =>
      exportRfc({
        iommufds: [
          { id: 1, ioases: [] },
          { id: 1, ioases: [] },
        ],
      }),
    RangeError,
  );
  t.throws(() => exportRfc({ iommufds: [{ id: -1, ioases: [] }] }), RangeError);
  t.throws(
    () => exportRfc({ iommufds: [{ id: 1, ioases: [{ id: 2 ** 32, mappings: table }] }] }),
    RangeError,
  );
  t.throws(
    () => exportRfc({ iommufds: [{ id: 1, ioases: [{ id: 1, mappings: [] as unknown as AreaTable }] }] }),
    TypeError,
  );
  const area = { iova: 1n as Iova, length: 1n, prot: 1 };
  table.push(area);
  t.throws(() => table.push(area), /before the last one ends, at 0x2/);
  t.throws(() => table.push({ ...area, iova: 2n as Iova, length: 0n }), /length/);
  t.throws(() => table.push({ ...area, iova: 2n as Iova, length: 2n ** 64n - 1n }), /2\^64/);
  t.throws(() => table.push({ ...area, iova: 2n as Iova, prot: 64 }), /prot/);
  t.strictSame([...table], [area]);
});
