// Saved states: random ones against an independent reader of device trees and a model of the packed form; what is kept,
// what is refused, and in which words.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { Iova, PhysicalAddress } from '../../src/address.js';
import { decodeState, decodeStateInPieces } from '../../src/keepalive/state/decode-state.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import { ExtentTable } from '../../src/keepalive/state/extent-table.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { MappingTable } from '../../src/keepalive/state/mapping-table.js';
import type { SavedArena, State } from '../../src/keepalive/state/saved-state.js';
import { StateError } from '../../src/keepalive/state/state-error.js';
import { PageSize } from '../../src/memory/memfd.js';
import { type EditableNode, edit } from '../support/edit-state.js';
import { type FlatNode, readFlatTree, reseal, slowCrc32c } from '../support/flat-tree.js';
import { layOutFlatTree } from '../support/flat-tree-writer.js';
import { goldenStates } from '../support/golden-states.js';
import { packExtents, packMappings } from '../support/packed-rows.js';
import { random } from '../support/random.js';
import { plain, randomMappings, randomState } from '../support/random-state.js';
import { runScript } from './support/child.js';

const { u32, u64, u64s, string, strings } = FdtValue;
const { seed } = random();
t.comment(`seed ${seed}`);

function property(node: FlatNode, name: string): Uint8Array {
  const found = node.properties.find(([candidate]) => candidate === name);
  assert(found, `${node.name} has a property ${name}`);
  return found[1];
}

const nodesOf = (node: FlatNode, type: string): FlatNode[] =>
  node.children.filter(child => {
    const compatible = child.properties.find(([name]) => name === 'compatible');
    return compatible !== undefined && FdtValue.readString(compatible[1]) === type;
  });

/** That every packed property in `bytes` is what the model makes of the same rows. @returns the number of rows */
function comparePacked(state: State, bytes: Uint8Array): number {
  const { root } = readFlatTree(bytes);
  let rows = 0;
  const compare = (node: FlatNode, row: 'mapping' | 'extent', packed: Uint8Array, count: number): void => {
    assert.deepEqual(property(node, `${row}s`), packed);
    assert.equal(FdtValue.readU32(property(node, `${row}-count`)), count);
    assert.equal(FdtValue.readU32(property(node, `${row}-crc32c`)), slowCrc32c(packed));
    rows += count;
  };
  for (const arena of state.arenas) {
    const node = nodesOf(root, 'iommufd,arena-v1').find(
      candidate => FdtValue.readU64(property(candidate, 'token')) === arena.token,
    );
    assert(node);
    if (!arena.extents) continue;
    const list = Array.from(arena.extents, ({ offset, address, length }) => ({
      offset: BigInt(offset),
      address: BigInt(address),
      length: BigInt(length),
    }));
    compare(node, 'extent', packExtents(list), list.length);
  }
  for (const { id, ioases } of state.iommufds) {
    const iommufd = nodesOf(root, 'iommufd,iommufd-v1').find(
      candidate => FdtValue.readU32(property(candidate, 'id')) === id,
    );
    assert(iommufd);
    for (const ioas of ioases) {
      const node = nodesOf(iommufd, 'iommufd,ioas-v1').find(
        candidate => FdtValue.readU32(property(candidate, 'id')) === ioas.id,
      );
      assert(node);
      const tokens = FdtValue.readU64s(property(node, 'mapping-arenas')) ?? [];
      const list = Array.from(ioas.mappings, mapping => ({
        iova: BigInt(mapping.iova),
        length: BigInt(mapping.length),
        offset: BigInt(mapping.offset),
        arena: tokens.indexOf(mapping.arena),
        access: (mapping.readable ? 1 : 0) + (mapping.writeable ? 2 : 0),
      }));
      compare(node, 'mapping', packMappings(list), list.length);
    }
  }
  return rows;
}

t.test('random states', async t => {
  const r = random(seed);
  let rows = 0;
  let states = 0;
  const check = (limit: number): void => {
    states++;
    const state = randomState(r, limit);
    const bytes = encodeState(state);
    const wanted = plain(state);
    rows += comparePacked(state, bytes);
    const whole = Uint8Array.from(bytes);
    const crc = crcOffset(whole);
    whole.fill(0, crc, crc + 4);
    assert.equal(new DataView(bytes.buffer, bytes.byteOffset).getUint32(crc), slowCrc32c(whole), 'the whole');
    const decoded = decodeState(bytes);
    assert.deepEqual(plain(decoded), wanted);
    assert.deepEqual(encodeState(decoded), bytes, 'equal content makes equal bytes');
    assert.deepEqual(encodeState(decodeStateInPieces(bytes)), bytes, 'also piece by piece');
  };
  for (let run = 0; run < 800; run++) check(20);
  for (let run = 0; run < 80; run++) check(500);
  // Of more rows than the codec takes at a time.
  for (let run = 0; run < 6 || rows < 150_000; run++) check(12_000);
  t.ok(rows >= 100_000, `${rows} mappings and extents in ${states} states`);
});

/** Of the root's crc32c, whose properties come first. */
function crcOffset(bytes: Uint8Array): number {
  const { root } = readFlatTree(bytes);
  const value = property(root, 'crc32c');
  const at = Buffer.from(bytes).indexOf(value);
  assert(at > 0);
  return at;
}

t.test('the order of records, arenas and tokens says nothing', async t => {
  const golden = goldenStates['ioas-v1'] as State;
  const tokens = golden.arenas.map(({ token }) => token).toReversed();
  // One table for each row, all with the same list of arenas.
  const inPieces = (rows: MappingTable): MappingTable[] =>
    Array.from(rows, row => {
      const piece = MappingTable.decoded(tokens, 1);
      piece.push(row);
      return piece;
    });
  const state: State<Iterable<MappingTable>> = {
    ...golden,
    arenas: golden.arenas.toReversed(),
    iommufds: golden.iommufds.map(iommufd => ({
      ...iommufd,
      ioases: iommufd.ioases.toReversed().map(ioas => ({ ...ioas, mappings: inPieces(ioas.mappings) })),
    })),
  };
  t.strictSame(encodeState(state), encodeState(golden));
});

t.test('a state may be followed by anything, as in a file of whole pages', async t => {
  const bytes = encodeState(goldenStates['arena-v1'] as State);
  const page = new Uint8Array(4096).fill(0x5a);
  page.set(bytes);
  t.strictSame(encodeState(decodeState(page)), bytes);
});

const all: State = {
  ...(goldenStates['ioas-v1'] as State),
  devices: goldenStates['driver-v1']?.devices ?? [],
  drivers: goldenStates['driver-v1']?.drivers ?? [],
  sessions: goldenStates['session-v1']?.sessions ?? [],
};
const good = encodeState({
  ...all,
  arenas: [...all.arenas, ...(goldenStates['arena-v1'] as State).arenas.slice(2)],
});

/** Decodes a changed state, which must be refused in these words. */
function refused(
  t: Test,
  title: string,
  change: (root: EditableNode) => void,
  wanted: { code: string; path?: string; property?: string; message: RegExp },
): void {
  const bytes = edit(good, change);
  t.throws(() => decodeState(bytes), { name: 'StateError', ...wanted }, title);
}

t.test('what is not known and not required is kept', async t => {
  const bytes = edit(good, root => {
    root.set('colour', string('red'));
    root.add('zebra', { compatible: string('iommufd,zebra-v9'), x: u32(1) }).add('foal');
    root.add('aardvark');
    root.add('list', { compatible: strings(['iommufd,zebra-v1', 'iommufd,state-v1']) });
    root
      .child('arena-1')
      .set('tint', u64(5n))
      .add('part', { size: u32(5) });
    root
      .child('iommufd')
      .set('shade', new Uint8Array(0))
      .add('fault-queue-0', { compatible: string('iommufd,fault-queue-v1') });
    root.child('iommufd').child('ioas-0').set('huge', new Uint8Array(0)).add('more');
    root
      .child('device')
      .set('slot', string('3'))
      .set('required', strings(['vendor-id']));
    root.child('driver').set('since', u32(1)).add('other');
    root.child('driver').child('state').set('required', new Uint8Array(0)).set('mine', u32(2));
    root.child('session').set('owner', string('x')).set('required', new Uint8Array(0));
    // A record that is not understood may require things of those who do.
    root.child('zebra').set('required', strings(['x']));
    root.child('zebra').child('foal').set('required', new Uint8Array(0));
  });
  const state = decodeState(bytes);
  t.same([...(state.kept?.properties.keys() ?? [])], ['colour']);
  t.same(state.kept?.nodes.map(({ name }) => name).sort(), ['aardvark', 'list', 'zebra']);
  t.same(state.arenas[0]?.kept?.nodes[0]?.name, 'part');
  t.same([...(state.devices[0]?.kept?.properties.keys() ?? [])].sort(), ['required', 'slot']);
  t.strictSame(state.drivers[0]?.properties.get('mine'), u32(2));
  t.same(
    state.drivers[0]?.kept?.nodes.map(({ name }) => name),
    ['other'],
  );
  const again = encodeState(state);
  t.strictSame(plain(decodeState(again)), plain(state), 'and passed on');
  const kept = readFlatTree(again).root.children.find(({ name }) => name === 'zebra');
  t.strictSame(kept?.properties.find(([name]) => name === 'x')?.[1], u32(1));
  t.strictSame(encodeState(decodeState(again)), again);
});

t.test('what is required and not known is refused by name', async t => {
  const code = 'UNSUPPORTED';
  refused(
    t,
    'a record',
    root => root.add('z', { compatible: string('iommufd,zebra-v9'), required: new Uint8Array(0) }),
    {
      code,
      path: '/z',
      message: /"iommufd,zebra-v9" is required, and unknown.*Restore with the version that wrote it/,
    },
  );
  refused(t, 'a record without a type', root => root.add('z', { required: new Uint8Array(0) }), {
    code,
    path: '/z',
    message: /without a type is required/,
  });
  refused(
    t,
    'a record within another',
    root => root.child('device').add('z', { required: new Uint8Array(0) }),
    {
      code,
      path: '/device-0000-00-04.0/z',
      message: /is required/,
    },
  );
  refused(
    t,
    'a property',
    root =>
      root
        .child('session')
        .set('x', u32(1))
        .set('required', strings(['label', 'x'])),
    {
      code,
      path: '/session-0',
      property: 'required',
      message: /property x is required/,
    },
  );
  refused(t, 'a node', root => root.set('required', strings(['n'])).add('n'), {
    code,
    path: '/',
    message: /node n is required/,
  });
  refused(
    t,
    'another version',
    root => root.child('iommufd').child('ioas-0').set('compatible', string('iommufd,ioas-v2')),
    {
      code,
      path: '/iommufd-7/ioas-0',
      property: 'compatible',
      message: /iommufd,ioas is of version 2, and this library reads version 1 alone/,
    },
  );
  refused(t, 'another version of the whole', root => root.set('compatible', string('iommufd,state-v2')), {
    code,
    path: '/',
    message: /iommufd,state is of version 2/,
  });
  refused(t, 'a version written otherwise', root => root.set('compatible', string('iommufd,state-v01')), {
    code,
    message: /version 01/,
  });
  refused(t, 'something else', root => root.set('compatible', string('linux,dummy')), {
    code,
    message: /must be a record/,
  });
  refused(t, 'nothing', root => root.remove('compatible'), {
    code,
    message: /has no compatible of one string/,
  });
  refused(
    t,
    'a compatible that is no text',
    root => root.child('device').set('compatible', u32(0xffffffff)),
    {
      code: 'INVALID',
      property: 'compatible',
      message: /list of strings/,
    },
  );
});

t.test('what is damaged is refused', async t => {
  for (let index = 0; index < good.length; index++) {
    const bytes = Uint8Array.from(good);
    bytes[index] = (bytes[index] as number) ^ (1 << (index & 7));
    assert.throws(() => decodeState(bytes), { name: 'StateError' }, `byte ${index}`);
    if (index % 7 === 0)
      assert.throws(() => decodeState(good.subarray(0, index)), { name: 'StateError' }, `${index} bytes`);
  }
  t.pass('one bit in each byte, and cut off anywhere');
  const crc = Uint8Array.from(good);
  crc[crcOffset(crc)] = 1 ^ (crc[crcOffset(crc)] as number);
  t.throws(() => decodeState(crc), {
    code: 'DAMAGED',
    path: '/',
    property: 'crc32c',
    message: /checksum of the whole/,
  });
  refused(t, 'rows', root => root.child('iommufd').child('ioas-12').get('mappings').reverse(), {
    code: 'DAMAGED',
    path: '/iommufd-7/ioas-12',
    property: 'mappings',
    message: /checksum of its rows/,
  });
  refused(t, 'extents', root => root.child('arena-2').get('extents').reverse(), {
    code: 'DAMAGED',
    property: 'extents',
    message: /checksum/,
  });
  const reserved = readFlatTree(good).root;
  const bytes = layOutFlatTree(reserved, {
    version: 16,
    reservations: [[1n, 2n]],
    random: random(1),
    nops: true,
    shareStrings: true,
    loose: true,
  });
  reseal(bytes);
  t.throws(() => decodeState(bytes), { code: 'UNSUPPORTED', message: /memory reservations/ });
});

t.test('any layout of a state is read', async t => {
  const r = random(seed);
  for (let run = 0; run < 50; run++) {
    const bytes = layOutFlatTree(readFlatTree(good).root, {
      version: r.below(2) ? 16 : 17,
      reservations: [],
      random: r,
      nops: true,
      shareStrings: true,
      loose: true,
    });
    reseal(bytes);
    assert.deepEqual(encodeState(decodeState(bytes)), good);
  }
  t.pass('50 layouts');
});

t.test('what a state says of itself must hold', async t => {
  const code = 'INVALID';
  const cases: [string, (root: EditableNode) => void, string, string, RegExp][] = [
    ['no crc32c', root => root.remove('crc32c'), '/', 'crc32c', /must have it/],
    [
      'a cell of 8 bytes',
      root => root.child('device').set('vendor-id', u64(1n)),
      '/device-0000-00-04.0',
      'vendor-id',
      /one cell/,
    ],
    [
      'a vendor of 17 bits',
      root => root.child('device').set('vendor-id', u32(0x10000)),
      '/device-0000-00-04.0',
      'vendor-id',
      /at most 65535/,
    ],
    [
      'no device id',
      root => root.child('device').remove('device-id'),
      '/device-0000-00-04.0',
      'device-id',
      /must have it/,
    ],
    [
      'an unknown interface',
      root => root.child('device').set('interface', string('uio')),
      '/device-0000-00-04.0',
      'interface',
      /one of cdev, legacy/,
    ],
    [
      'an address that is none',
      root => root.child('device').set('address', string('0:4')),
      '/device-0000-00-04.0',
      'address',
      /PCI address/,
    ],
    [
      'an address in capitals',
      root => root.child('device').set('address', string('0000:0A:04.0')),
      '/device-0000-00-04.0',
      'address',
      /PCI address/,
    ],
    [
      'no such IOAS',
      root => root.child('device').set('address-space', u64((7n << 32n) | 9n)),
      '/device-0000-00-04.0',
      'address-space',
      /no IOAS 9 in an iommufd 7/,
    ],
    [
      'one device twice',
      root => root.add('device-x').flat.properties.push(...root.child('device-0').flat.properties),
      '/device-x',
      '',
      /must be named device-0000-00-04.0/,
    ],
    [
      'an odd address space',
      root => root.child('device').set('address-space', u32(7)),
      '/device-0000-00-04.0',
      'address-space',
      /two cells/,
    ],
    [
      'one token twice',
      root => root.child('arena-2').set('token', u64(1n)),
      '/arena-2',
      '',
      /must be named arena-1/,
    ],
    [
      'a size of 2^53',
      root => root.child('arena-1').set('size', u64(2n ** 53n)),
      '/arena-1',
      'size',
      /less than 2\^53/,
    ],
    [
      'a size of no pages',
      root => root.child('arena-1').set('size', u64(4096n)),
      '/arena-1',
      'size',
      /multiple of the page size/,
    ],
    ['no size', root => root.child('arena-1').set('size', u64(0n)), '/arena-1', 'size', /not 0/],
    [
      'a page of 8 KiB',
      root => root.child('arena-1').set('page-size', u64(8192n)),
      '/arena-1',
      'page-size',
      /not a page size/,
    ],
    [
      'a name that is no text',
      root => root.child('arena-1').set('label', Uint8Array.of(0xff, 0)),
      '/arena-1',
      'label',
      /one string/,
    ],
    [
      'two names',
      root => root.child('arena-1').set('label', strings(['a', 'b'])),
      '/arena-1',
      'label',
      /one string/,
    ],
    ['no iommufd id', root => root.child('iommufd').remove('id'), '/iommufd-7', 'id', /must have it/],
    [
      'one IOAS twice',
      root => root.child('iommufd').child('ioas-12').set('id', u32(0)),
      '/iommufd-7/ioas-12',
      '',
      /must be named ioas-0/,
    ],
    [
      'one iommufd twice',
      root => root.add('iommufd-x', { compatible: string('iommufd,iommufd-v1'), id: u32(7) }),
      '/iommufd-x',
      '',
      /must be named iommufd-7/,
    ],
    [
      'an IOAS elsewhere',
      root => root.add('ioas', { compatible: string('iommufd,ioas-v1') }),
      '/ioas',
      'compatible',
      /no place here/,
    ],
    [
      'half a range',
      root => root.child('iommufd').child('ioas-0').set('allowed-iovas', u64(1n)),
      '/iommufd-7/ioas-0',
      'allowed-iovas',
      /first and last/,
    ],
    [
      'an empty range',
      root =>
        root
          .child('iommufd')
          .child('ioas-0')
          .set('allowed-iovas', u64s([2n, 1n])),
      '/iommufd-7/ioas-0',
      'allowed-iovas',
      /ascending/,
    ],
    [
      'ranges that overlap',
      root =>
        root
          .child('iommufd')
          .child('ioas-0')
          .set('allowed-iovas', u64s([1n, 2n, 2n, 3n])),
      '/iommufd-7/ioas-0',
      'allowed-iovas',
      /disjoint/,
    ],
    [
      'tokens out of order',
      root =>
        root
          .child('iommufd')
          .child('ioas-0')
          .set('mapping-arenas', u64s([2n, 1n])),
      '/iommufd-7/ioas-0',
      'mapping-arenas',
      /ascending/,
    ],
    [
      'a token of no arena',
      root =>
        root
          .child('iommufd')
          .child('ioas-0')
          .set('mapping-arenas', u64s([77n])),
      '/iommufd-7/ioas-0',
      'mapping-arenas',
      /no arena with token 77/,
    ],
    [
      'a driver of no device',
      root => root.child('driver').set('device', string('0000:00:05.0')).rename('driver-0000-00-05.0'),
      '/driver-0000-00-05.0',
      'device',
      /no device 0000:00:05.0/,
    ],
    [
      'two drivers',
      root =>
        root
          .add('driver-x', { compatible: string('iommufd,driver-v1'), device: string('0000:00:04.0') })
          .add('state', { compatible: string('x') }),
      '/driver-x',
      '',
      /must be named driver-0000-00-04.0/,
    ],
    [
      'a driver without state',
      root => root.child('driver').flat.children.splice(0),
      '/driver-0000-00-04.0',
      '',
      /node state/,
    ],
    [
      'a driver without type',
      root => root.child('driver').child('state').remove('compatible'),
      '/driver-0000-00-04.0/state',
      'compatible',
      /must have it/,
    ],
    [
      'a driver of type ""',
      root => root.child('driver').child('state').set('compatible', string('')),
      '/driver-0000-00-04.0/state',
      'compatible',
      /not be empty/,
    ],
    [
      'a session without name',
      root => root.child('session-0').set('label', string('')),
      '/session-0',
      'label',
      /1 to 63 bytes/,
    ],
    [
      'a session with a long name',
      root => root.child('session-0').set('label', string('ä'.repeat(32))),
      '/session-0',
      'label',
      /1 to 63 bytes/,
    ],
    [
      'two sessions of a name',
      root => root.child('session-0').set('label', string('iommufd')),
      '/session-1',
      'label',
      /second session/,
    ],
    [
      'tokens without purpose',
      root => root.child('session-0').set('tokens', u64(1n)),
      '/session-0',
      'token-purposes',
      /one purpose for each/,
    ],
    [
      'one purpose twice',
      root => root.child('session-1').set('token-purposes', strings(['a', 'a'])),
      '/session-1',
      'token-purposes',
      /each once/,
    ],
    [
      'one token twice in a session',
      root => root.child('session-1').set('tokens', u64s([5n, 5n])),
      '/session-1',
      'tokens',
      /token 5 is there twice/,
    ],
    [
      'required that is no text',
      root => root.set('required', Uint8Array.of(1)),
      '/',
      'required',
      /list of strings/,
    ],
    [
      'a list of 2 MiB',
      root => root.child('session-0').set('tokens', new Uint8Array(2 ** 21)),
      '/session-0',
      'tokens',
      /at most 1048576 bytes/,
    ],
    [
      'extents without number',
      root => root.child('arena-2').remove('extent-count'),
      '/arena-2',
      'extent-count',
      /must have it/,
    ],
    [
      'a number without extents',
      root => root.child('arena-2').remove('extents'),
      '/arena-2',
      'extents',
      /must have it/,
    ],
    [
      'more rows than bytes',
      root => root.child('arena-2').set('extent-count', u32(0xffff_ffff)),
      '/arena-2',
      'extent-count',
      /cannot be 4294967295 rows/,
    ],
  ];
  for (const [title, change, path, name, message] of cases) {
    refused(t, title, change, { code, path, ...(name && { property: name }), message });
  }
});

t.test('rows must be good', async t => {
  const code = 'INVALID';
  const ioas = (root: EditableNode): EditableNode => root.child('iommufd').child('ioas-12');
  // Arenas: 0 has 16384 pages, 1 has 512.
  const mappings: [string, number[], number, RegExp][] = [
    ['too few', [0x40, 0, 0], 3, /there should be 3 rows, and there are 2/],
    ['too many', [0x40, 0, 0], 1, /there should be 1 rows.*1 bytes after/],
    ['no arena', [0x00], 1, /arena that is not in the list/],
    ['no arena, and a gap', [0x10, 1], 1, /arena that is not in the list/],
    ['an arena beyond the list', [0x40, 2], 1, /arena that is not in the list/],
    ['the same arena again', [0x40, 0, 0x40, 0], 2, /row 1: .*minimal/],
    ['no gap', [0x50, 0, 0], 1, /minimal/],
    ['no jump', [0x60, 0, 0], 1, /minimal/],
    ['the same access again', [0xc0, 0, 3], 1, /minimal/],
    ['an access of 0', [0xc0, 0, 0], 1, /permissions/],
    ['an access of 4', [0xc0, 0, 4], 1, /permissions/],
    ['no length', [0x4f, 0, 0], 1, /minimal/],
    ['a length that a code stands for', [0x4f, 0, 16], 1, /minimal/],
    ['a number with a superfluous byte', [0x50, 0x81, 0, 0], 1, /number/],
    ['a number of nine bytes', [0x50, ...Array(8).fill(0x80), 1, 0], 1, /number/],
    ['ends within a number', [0x50, 0x80], 1, /number/],
    ['ends before the arena', [0x40], 1, /number/],
    ['ends before the access', [0xc0, 0], 1, /ends within a row/],
    ['ends before the length', [0x4f, 0], 1, /number/],
    ['past its arena', [0x4a, 1], 1, /row 0: .*beyond its arena/],
    ['past its arena at once', [0x49, 1, 0], 2, /row 1: .*beyond its arena/],
    ['a jump past its arena', [0x60, 1, 0x80, 0x08, 0], 1, /beyond its arena/],
    ['a jump before its arena', [0x60, 1, 1], 1, /beyond its arena/],
    ['a gap past the top', [0x50, ...Array(7).fill(0xff), 0x08, 0], 1, /beyond 2\^64/],
    ['a gap much past the top', [0x50, ...Array(7).fill(0xff), 0x7f, 0], 1, /beyond 2\^64/],
    ['rows past the top', [0x50, ...Array(7).fill(0xff), 0x07, 0, 0], 2, /row 1: .*2\^64/],
  ];
  for (const [title, packed, count, message] of mappings) {
    refused(t, title, root => ioas(root).setPacked('mapping', packed, Math.min(count, packed.length)), {
      code,
      path: '/iommufd-7/ioas-12',
      property: 'mappings',
      message,
    });
    const state = decodeStateInPieces(
      edit(good, root => ioas(root).setPacked('mapping', packed, Math.min(count, packed.length))),
    );
    t.throws(
      () => [...(state.iommufds[0]?.ioases[1]?.mappings ?? [])],
      { name: 'StateError', code, property: 'mappings', message },
      `${title}, in pieces`,
    );
  }
  const top = edit(good, root => ioas(root).setPacked('mapping', [0x50, ...Array(7).fill(0xff), 0x07, 0], 1));
  t.equal(
    decodeState(top).iommufds[0]?.ioases[1]?.mappings.get(0).iova,
    0xffff_ffff_ffff_f000n as Iova,
    'the last page is one',
  );

  // 2048 pages.
  const extents: [string, number[], number, RegExp][] = [
    ['too few', [0, 0], 1, /there should be 1 rows.*1 bytes after/],
    ['a reserved bit', [0x40, 0], 1, /minimal/],
    ['no gap', [0x10, 0], 1, /minimal/],
    ['no jump', [0x20, 0], 1, /minimal/],
    ['no length', [0x0f, 0], 1, /minimal/],
    ['ends within a gap', [0x10], 1, /number/],
    ['ends within a jump', [0x20, 0x80], 1, /number/],
    ['ends within a length', [0x0f], 1, /number/],
    ['past its arena', [0x0c], 1, /beyond its arena/],
    ['a gap past its arena', [0x10, 0x80, 0x10], 1, /beyond its arena/],
    ['a jump below 0', [0x20, 1], 1, /2\^64/],
    ['a jump past the top', [0x20, ...Array(7).fill(0xff), 0x1f], 1, /2\^64/],
    ['a row past the top', [0x20, 0xfe, ...Array(6).fill(0xff), 0x0f, 0], 2, /row 1: .*2\^64/],
  ];
  for (const [title, packed, count, message] of extents) {
    refused(t, title, root => root.child('arena-2').setPacked('extent', packed, count), {
      code,
      path: '/arena-2',
      property: 'extents',
      message,
    });
  }
});

t.test('a StateError says what, where and what to do', async t => {
  try {
    decodeState(
      edit(good, root => root.child('iommufd').child('ioas-12').setPacked('mapping', [0x40, 0, 0x40, 0], 2)),
    );
    t.fail('is accepted');
  } catch (error) {
    assert(error instanceof StateError);
    t.match(
      error.message,
      /^saved state \(\/iommufd-7\/ioas-12, property mappings, byte \d+\): row 1: a row is not in its minimal form\. What wrote it is at fault; /,
    );
    t.equal(good.length > (error.offset ?? 0) && (error.offset ?? 0) > 0, true);
  }
  t.throws(() => decodeState('x' as unknown as Uint8Array), TypeError);
});

t.test('what is no state is not encoded', async t => {
  const [arena] = all.arenas as [SavedArena];
  const device = all.devices[0] as State['devices'][0];
  const driver = all.drivers[0] as State['drivers'][0];
  const table = new MappingTable();
  table.push({ iova: 0n as Iova, length: 2 ** 27, arena: 1n, offset: 0 });
  const extents = new ExtentTable();
  extents.push({ offset: 2 ** 30, address: 0n as PhysicalAddress, length: 4096 });
  const with_ = (change: object): State => ({ ...all, ...change }) as State;
  const ioas = (mappings: unknown): State =>
    with_({ iommufds: [{ id: 7, ioases: [{ id: 0, allowed: [], mappings }] }] });
  const cases: [string, State, RegExp][] = [
    [
      'a mapping outside its arena',
      ioas(table),
      /iommufd-7\/ioas-0, mapping 0: a range ends beyond its arena/,
    ],
    ['pieces out of order', ioas([table, table]), /mapping 1|mapping 0/],
    [
      'pieces with other arenas',
      ioas([MappingTable.decoded([1n], 0), MappingTable.decoded([], 0)]),
      /same list of arenas/,
    ],
    [
      'extents outside the arena',
      with_({ arenas: [{ ...arena, extents }, ...all.arenas.slice(1)] }),
      /extent 0: a range ends beyond its arena/,
    ],
    ['an arena twice', with_({ arenas: [...all.arenas, arena] }), /second arena/],
    [
      'a size of no pages',
      with_({ arenas: [{ ...arena, size: 4096 }, ...all.arenas.slice(1)] }),
      /multiple of its page size/,
    ],
    [
      'an unknown page size',
      with_({ arenas: [{ ...arena, size: 8192, pageSize: 8192 }, ...all.arenas.slice(1)] }),
      /pageSize/,
    ],
    ['no arena', with_({ arenas: [] }), /no arena with token/],
    ['no device', with_({ devices: [] }), /no device/],
    ['a device twice', with_({ devices: [device, device] }), /second device/],
    [
      'an address that is none',
      with_({ devices: [{ ...device, address: '1' }], drivers: [] }),
      /PCI address/,
    ],
    ['an unknown interface', with_({ devices: [{ ...device, interface: 'uio' }] }), /interface/],
    ['a vendor of 17 bits', with_({ devices: [{ ...device, vendorId: 0x10000 }] }), /vendorId/],
    [
      'no such place',
      with_({
        arenas: [{ ...arena, place: { iommufd: 7, ioas: 1, iova: 0n as Iova } }, ...all.arenas.slice(1)],
      }),
      /no IOAS/,
    ],
    ['no such IOAS', with_({ devices: [{ ...device, addressSpace: { iommufd: 7, ioas: 1 } }] }), /no IOAS/],
    ['two drivers', with_({ drivers: [driver, driver] }), /second driver/],
    ['a driver of no type', with_({ drivers: [{ ...driver, compatible: '' }] }), /compatible/],
    [
      'a driver with two types',
      with_({ drivers: [{ ...driver, properties: new Map([['compatible', u32(1)]]) }] }),
      /compatible is one/,
    ],
    [
      'a session with a long name',
      with_({ sessions: [{ name: 'x'.repeat(64), tokens: new Map() }] }),
      /session name/,
    ],
    [
      'kept what the record has',
      with_({ devices: [{ ...device, kept: { properties: new Map([['address', u32(1)]]), nodes: [] } }] }),
      /kept property address/,
    ],
    [
      'kept a node of the same name',
      with_({
        kept: { properties: new Map(), nodes: [{ name: 'iommufd-7', properties: new Map(), children: [] }] },
      }),
      /two nodes are named/,
    ],
    [
      'kept a node without name',
      with_({ kept: { properties: new Map(), nodes: [{ name: '', properties: new Map(), children: [] }] } }),
      /cannot name a node/,
    ],
    [
      'an id of 33 bits',
      with_({ iommufds: [{ id: 2 ** 32, ioases: [] }], devices: [], drivers: [] }),
      /value must be/,
    ],
  ];
  for (const [title, state, message] of cases)
    t.throws(() => encodeState(state), { name: 'RangeError', message }, title);
  const many = Array.from({ length: 22_000 }, (_, id) => ({ id, ioases: [] }));
  t.throws(
    () => encodeState({ ...decodeState(good), iommufds: many, devices: [], drivers: [] }),
    /more than 65536 nodes/,
  );
  const ranges = Array.from({ length: 65_537 }, (_, i) => ({
    first: BigInt(2 * i) as Iova,
    last: BigInt(2 * i) as Iova,
  }));
  const crowded = {
    ...all,
    iommufds: [{ id: 7, ioases: [{ id: 12, allowed: ranges, mappings: new MappingTable() }] }],
    devices: [],
    drivers: [],
  };
  t.throws(() => encodeState(crowded), /allowed-iovas is longer than 1048576 bytes/);
  t.throws(() => encodeState(with_({ colour: 1 })), { name: 'TypeError', message: /no such field: colour/ });
  t.throws(() => encodeState(ioas(5)), TypeError);
  t.throws(() => encodeState(ioas([5])), TypeError);
  t.throws(
    () => encodeState(with_({ arenas: [{ ...arena, extents: [] }, ...all.arenas.slice(1)] })),
    TypeError,
  );
  t.strictSame(encodeState(decodeState(good)), good, 'and after all that, one is');
});

t.test('tables', async t => {
  const table = new MappingTable();
  const mapping = { iova: 0x2000n as Iova, length: 8192, arena: 5n, offset: 4096 };
  table.push(mapping);
  t.strictSame(table.get(0), { ...mapping, readable: true, writeable: true });
  t.strictSame([...table], [table.get(0)]);
  t.strictSame(table.arenas, [5n]);
  t.equal(table.rows.length, 24);
  const bad: [string, object, RegExp][] = [
    ['misaligned', { iova: 0x4001n }, /iova/],
    ['overlapping', { iova: 0x3000n }, /before the last one ends, at 0x4000/],
    ['empty', { iova: 0x4000n, length: 0 }, /length/],
    ['of odd length', { iova: 0x4000n, length: 4097 }, /length/],
    ['of odd offset', { iova: 0x4000n, offset: 1 }, /offset/],
    ['below its arena', { iova: 0x4000n, offset: -4096 }, /offset/],
    ['of an odd arena', { iova: 0x4000n, arena: -1n }, /arena/],
    [
      'neither readable nor writeable',
      { iova: 0x4000n, readable: false, writeable: false },
      /readable or writeable/,
    ],
    ['beyond the top', { iova: 0xffff_ffff_ffff_f000n }, /beyond 2\^64/],
  ];
  for (const [title, change, message] of bad)
    t.throws(() => table.push({ ...mapping, ...change }), { name: 'RangeError', message }, title);
  t.equal(table.length, 1, 'a refused row leaves nothing');
  t.throws(() => table.get(1), RangeError);
  table.push({ ...mapping, iova: 0xffff_ffff_ffff_e000n as Iova });
  t.throws(() => table.push({ ...mapping, iova: 0xffff_ffff_ffff_e000n as Iova }), RangeError);
  t.throws(() => new MappingTable(-1), RangeError);

  const extents = new ExtentTable(1);
  const extent = { offset: 4096, address: 0x1000n as PhysicalAddress, length: 4096 };
  extents.push(extent);
  t.strictSame([...extents], [extent]);
  t.throws(() => extents.push(extent), /before the last one ends/);
  t.throws(() => extents.push({ ...extent, offset: 8192, length: 1 }), /length/);
  t.throws(() => extents.push({ ...extent, offset: 8192, address: 1n as PhysicalAddress }), /address/);
  t.throws(() => extents.push({ ...extent, offset: 8193 }), /offset/);
  t.throws(
    () =>
      extents.push({
        ...extent,
        offset: 8192,
        address: (2n ** 64n - 4096n) as PhysicalAddress,
        length: 8192,
      }),
    /2\^64/,
  );
  t.throws(
    () => extents.push({ ...extent, offset: Number.MAX_SAFE_INTEGER - 4095, length: 8192 }),
    /end of the extent/,
  );

  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 31 - 1 }), fc.nat(300), (seed, count) => {
      const arenas = [1n, 2n].map(token => ({ token, size: 2 ** 30, pageSize: PageSize.Small, name: '' }));
      const from = randomMappings(random(seed), arenas, count);
      const to = new MappingTable(count >> 1);
      for (const row of from) to.push(row);
      assert.deepEqual(to.rows, from.rows);
    }),
    { seed: seed | 0 },
  );
});

t.test('memory does not grow with the number of mappings beyond the output', async t => {
  const module = (path: string): string => new URL(`../../src/keepalive/state/${path}`, import.meta.url).href;
  const { code, stdout, stderr } = await runScript(
    `
    import { decodeStateInPieces } from '${module('decode-state.js')}';
    import { encodeState } from '${module('encode-state.js')}';
    import { MappingTable } from '${module('mapping-table.js')}';
    import { setFlagsFromString } from 'node:v8';
    import { runInNewContext } from 'node:vm';
    setFlagsFromString('--expose-gc');
    const collectGarbage = runInNewContext('gc');
    const used = () => process.resourceUsage().maxRSS;
    // Every table is of 4096 rows, and is the same but for its place.
    function* pieces(count) {
      let iova = 0n;
      for (let done = 0; done < count; done += 4096) {
        const table = MappingTable.decoded([1n], 4096);
        for (let row = 0; row < 4096; row++, iova += 8192n) {
          table.push({ iova, length: 4096, arena: 1n, offset: (row & 1) * 8192 });
        }
        yield table;
        if (done % 65536 === 0) collectGarbage();
      }
    }
    const state = count => ({
      arenas: [{ token: 1n, size: 2 ** 20, pageSize: 4096, name: '' }],
      iommufds: [{ id: 0, ioases: [{ id: 0, allowed: [], mappings: pieces(count) }] }],
      devices: [], sessions: [], drivers: [],
    });
    const run = count => {
      const bytes = encodeState(state(count));
      let rows = 0, tables = 0;
      for (const { length } of decodeStateInPieces(bytes).iommufds[0].ioases[0].mappings) {
        rows += length;
        if (++tables % 16 === 0) collectGarbage();
      }
      return { bytes: bytes.length, rows };
    };
    for (let warm = 0; warm < 3; warm++) run(65536);
    const before = used();
    const result = run(1048576);
    console.log(JSON.stringify({ ...result, grown: (used() - before) * 1024 }));
    `,
    60_000,
  );
  t.equal(code, 0, stderr);
  const { bytes, rows, grown } = JSON.parse(stdout);
  t.equal(rows, 1_048_576);
  // The rows alone would be 24 MiB. The output is there twice, then once more as the input; the rest is garbage,
  // of 16 tables.
  t.ok(grown < 3 * bytes + 12 * 2 ** 20, `${rows} mappings in ${bytes} bytes took ${grown} more bytes`);
});

t.test('several jobs at once do not meet', async t => {
  // Encoding calls the iterable, which decodes, and so on.
  const outer = goldenStates['ioas-v1'] as State;
  const bytes = encodeState(outer);
  function* nosy(table: MappingTable): Generator<MappingTable> {
    t.strictSame(plain(decodeState(bytes)), plain(outer));
    yield table;
    t.strictSame(encodeState(decodeStateInPieces(bytes)), bytes);
  }
  const state: State<Iterable<MappingTable>> = {
    ...outer,
    iommufds: outer.iommufds.map(iommufd => ({
      ...iommufd,
      ioases: iommufd.ioases.map(ioas => ({ ...ioas, mappings: nosy(ioas.mappings) })),
    })),
  };
  t.strictSame(encodeState(state), bytes);
  const { iommufds } = decodeStateInPieces(bytes);
  const iterators = iommufds[0]?.ioases.map(ioas => ioas.mappings[Symbol.iterator]()) ?? [];
  t.equal(iommufds[0]?.ioases[1]?.mappings.length, 5);
  const rows = iterators.map(iterator => (iterator.next().value as MappingTable | undefined)?.length);
  t.strictSame(rows, [undefined, 5], 'two iterations in turn');
  t.equal(iterators[1]?.next().done, true);
});
