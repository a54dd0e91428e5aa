// What two saved states say differently: against a page-by-page model of mappings and extents, and field by field.
import assert from 'node:assert/strict';
import t from 'tap';
import type { Iova, PhysicalAddress } from '../../src/address.js';
import { RlimitMode } from '../../src/iommufd/iommufd.js';
import { compareStates, type StateDifference } from '../../src/keepalive/state/compare-states.js';
import { decodeState, decodeStateInPieces } from '../../src/keepalive/state/decode-state.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import { ExtentTable } from '../../src/keepalive/state/extent-table.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { MappingTable } from '../../src/keepalive/state/mapping-table.js';
import type { SavedArena, State } from '../../src/keepalive/state/saved-state.js';
import { PageSize } from '../../src/memory/memfd.js';
import { InterruptKind } from '../../src/vfio/interrupts.js';
import { goldenStates } from '../support/golden-states.js';
import { type Random, random } from '../support/random.js';
import { randomState } from '../support/random-state.js';

const { u32, string } = FdtValue;
const { seed } = random();
t.comment(`seed ${seed}`);

const PAGE = 4096;
const golden = (name: string): State => goldenStates[name] as State;

t.test('a state is the same as itself, in any order and in pieces', async t => {
  const r = random(seed);
  for (let run = 0; run < 200; run++) {
    const state = randomState(r, 100);
    const bytes = encodeState(state);
    assert.deepEqual(compareStates(state, decodeState(bytes)), []);
    assert.deepEqual(compareStates(decodeStateInPieces(bytes), state), []);
  }
  t.pass('200 random states');
});

t.test('what differs is found, whichever is first', async t => {
  const r = random(seed);
  let found = 0;
  for (let run = 0; run < 200; run++) {
    const [a, b] = [randomState(r, 10), randomState(r, 10)];
    const differences = compareStates(a, b);
    const empty = Buffer.compare(encodeState(a), encodeState(b)) === 0;
    assert.equal(differences.length === 0, empty);
    found += differences.length;
    const turned = compareStates(b, a).map(difference => turn(difference));
    assert.deepEqual(new Set(turned.map(show)), new Set(differences.map(show)));
  }
  t.ok(found > 500, `${found} differences`);
});

function turn(difference: StateDifference): StateDifference {
  if (difference.kind === 'record') return { ...difference, in: difference.in === 'a' ? 'b' : 'a' };
  if (difference.kind === 'property') return { ...difference, a: difference.b, b: difference.a };
  const ranges = difference.ranges.map(range => ({ ...range, a: range.b, b: range.a }));
  return { ...difference, ranges } as StateDifference;
}

const show = (difference: StateDifference): string =>
  JSON.stringify(difference, (_, value) => {
    if (value === undefined) return 'nothing';
    if (typeof value === 'bigint') return `${value}n`;
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) {
      return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
    }
    return value;
  });

/** Some pages of two arenas, mostly one after the other, so that two of these are often the same in places. */
function fewMappings(r: Random): MappingTable {
  const table = new MappingTable();
  for (let page = 0; page < 60; ) {
    const pages = 1 + r.below(5);
    const offset = r.below(4) === 0 ? r.below(4) : page;
    if (r.below(5) > 0) {
      table.push({
        iova: BigInt(page * PAGE) as Iova,
        length: pages * PAGE,
        arena: BigInt(1 + (r.below(6) === 0 ? 1 : 0)),
        offset: offset * PAGE,
        writeable: r.below(6) > 0,
      });
    }
    page += pages;
  }
  return table;
}

t.test('mappings, page by page', async t => {
  const arenas = [1n, 2n].map(token => ({ token, size: 100 * PAGE, pageSize: PageSize.Small, name: '' }));
  const stateOf = (mappings: MappingTable): State => ({
    ...golden('state-v1'),
    arenas,
    iommufds: [{ id: 0, ioases: [{ id: 0, allowed: [], mappings }] }],
  });
  const pagesOf = (table: MappingTable): Map<number, string> =>
    new Map(
      [...table].flatMap(({ iova, length, arena, offset, readable, writeable }) =>
        Array.from({ length: length / PAGE }, (_, index): [number, string] => [
          Number(iova) / PAGE + index,
          `${arena} ${offset / PAGE + index} ${readable} ${writeable}`,
        ]),
      ),
    );
  const r = random(seed);
  let ranges = 0;
  for (let run = 0; run < 500; run++) {
    const [a, b] = [fewMappings(r), fewMappings(r)];
    const [pagesA, pagesB] = [pagesOf(a), pagesOf(b)];
    const wanted: [number, string | undefined, string | undefined][] = [];
    for (let page = 0; page < 70; page++) {
      if (pagesA.get(page) !== pagesB.get(page)) wanted.push([page, pagesA.get(page), pagesB.get(page)]);
    }
    const [difference, ...rest] = compareStates(stateOf(a), stateOf(b));
    assert.equal(rest.length, 0);
    if (wanted.length === 0) {
      assert.equal(difference, undefined);
      continue;
    }
    assert(difference?.kind === 'mappings');
    assert.equal(difference.path, '/iommufd-0/ioas-0');
    assert.equal(difference.ranges.length, Math.min(16, difference.count));
    const found: typeof wanted = difference.ranges.flatMap(({ iova, length, a, b }) =>
      Array.from({ length: Number(length) / PAGE }, (_, index): (typeof wanted)[number] => {
        const text = (side: typeof a): string | undefined =>
          side && `${side.arena} ${side.offset / PAGE + index} ${side.readable} ${side.writeable}`;
        return [Number(iova) / PAGE + index, text(a), text(b)];
      }),
    );
    assert.deepEqual(found, difference.count > 16 ? wanted.slice(0, found.length) : wanted);
    ranges += difference.count;
  }
  t.ok(ranges > 1000, `${ranges} ranges`);
});

t.test('where one mapping ends and the next goes on says nothing', async t => {
  const state = golden('ioas-v1');
  const split = new MappingTable();
  for (const mapping of (state.iommufds[0]?.ioases[1]?.mappings ?? []) as MappingTable) {
    for (let done = 0; done < mapping.length; done += mapping.length / 2) {
      if (mapping.length % (2 * PAGE) !== 0) {
        split.push(mapping);
        break;
      }
      const iova = (mapping.iova + BigInt(done)) as Iova;
      split.push({ ...mapping, iova, length: mapping.length / 2, offset: mapping.offset + done });
    }
  }
  t.equal(split.length, 8);
  const [iommufd] = state.iommufds as [State['iommufds'][number]];
  const ioases = iommufd.ioases.map((ioas, index) => (index === 1 ? { ...ioas, mappings: split } : ioas));
  t.strictSame(compareStates(state, { ...state, iommufds: [{ ...iommufd, ioases }] }), []);
});

t.test('the top of the address space', async t => {
  const at = (offset: number): State => {
    const mappings = new MappingTable();
    mappings.push({ iova: 0xffff_ffff_ffff_f000n as Iova, length: PAGE, arena: 1n, offset });
    const arenas = [{ token: 1n, size: 2 ** 52, pageSize: PageSize.Small, name: '' }];
    return {
      ...golden('state-v1'),
      arenas,
      iommufds: [{ id: 0, ioases: [{ id: 0, allowed: [], mappings }] }],
    };
  };
  const access = { arena: 1n, readable: true, writeable: true };
  t.strictSame(compareStates(at(0), at(2 ** 52 - PAGE)), [
    {
      kind: 'mappings',
      path: '/iommufd-0/ioas-0',
      count: 1,
      ranges: [
        {
          iova: 0xffff_ffff_ffff_f000n,
          length: 4096n,
          a: { ...access, offset: 0 },
          b: { ...access, offset: 2 ** 52 - PAGE },
        },
      ],
    },
  ]);
});

t.test('extents', async t => {
  const extentsOf = (...list: [offset: number, address: bigint, length: number][]): ExtentTable => {
    const table = new ExtentTable();
    for (const [offset, address, length] of list)
      table.push({ offset: offset * PAGE, address: address as PhysicalAddress, length: length * PAGE });
    return table;
  };
  const stateOf = (extents?: ExtentTable): State => ({
    ...golden('state-v1'),
    arenas: [
      { token: 1n, size: 100 * PAGE, pageSize: PageSize.Small, name: '', ...(extents && { extents }) },
    ],
  });
  const whole = extentsOf([0, 0x10_0000n, 10]);
  t.strictSame(compareStates(stateOf(whole), stateOf(extentsOf([0, 0x10_0000n, 4], [4, 0x10_4000n, 6]))), []);
  t.strictSame(compareStates(stateOf(whole), stateOf(extentsOf([0, 0x10_0000n, 4], [4, 0x20_0000n, 5]))), [
    {
      kind: 'extents',
      path: '/arena-1',
      count: 2,
      ranges: [
        { offset: 4 * PAGE, length: 5 * PAGE, a: 0x10_4000n, b: 0x20_0000n },
        { offset: 9 * PAGE, length: PAGE, a: 0x10_9000n, b: undefined },
      ],
    },
  ]);
  const none = { kind: 'property', path: '/arena-1', property: 'extents', a: true, b: false };
  t.strictSame(compareStates(stateOf(extentsOf()), stateOf()), [none], 'not known is not none');
});

t.test('no more than 16 ranges are listed, and all are counted', async t => {
  const stateOf = (shift: number): State => {
    const mappings = new MappingTable();
    for (let page = 0; page < 2000; page += 2) {
      mappings.push({
        iova: BigInt(page * PAGE) as Iova,
        length: PAGE,
        arena: 1n,
        offset: page * PAGE + shift,
      });
    }
    const arenas = [{ token: 1n, size: 4000 * PAGE, pageSize: PageSize.Small, name: '' }];
    return {
      ...golden('state-v1'),
      arenas,
      iommufds: [{ id: 0, ioases: [{ id: 0, allowed: [], mappings }] }],
    };
  };
  const [difference] = compareStates(stateOf(0), stateOf(PAGE));
  assert(difference?.kind === 'mappings');
  t.equal(difference.count, 1000);
  t.equal(difference.ranges.length, 16);
});

t.test('every property of every record', async t => {
  const place = golden('arena-v1-place').arenas[0]?.place;
  const state: State = {
    ...golden('everything'),
    arenas: [...golden('arena-v1-place').arenas, ...golden('everything').arenas.slice(1)],
    iommufds: [...golden('hwpt-v1').iommufds, ...golden('everything').iommufds],
    devices: [
      {
        ...golden('device-v1-details').devices[0],
        ...golden('hwpt-v1').devices[0],
      } as State['devices'][number],
      ...golden('everything').devices.slice(1),
    ],
  };
  const change = <K extends keyof State>(records: K, index: number, by: object): State => ({
    ...state,
    [records]: (state[records] as readonly object[]).map((record, at) =>
      at === index ? { ...record, ...by } : record,
    ),
  });
  const [iommufd] = state.iommufds as [State['iommufds'][number]];
  const [ioas] = iommufd.ioases as [State['iommufds'][number]['ioases'][number]];
  const withIoas = (by: object): State => change('iommufds', 0, { ioases: [{ ...ioas, ...by }] });
  const hwpts = ioas.hwpts ?? [];
  const [arena] = state.arenas as [SavedArena];
  const { kept: _, ...unkept } = state;
  const cases: readonly [State, path: string, property: string, a: unknown, b: unknown][] = [
    [change('arenas', 0, { size: 2 ** 21 }), '/arena-1', 'size', arena.size, 2 ** 21],
    [change('arenas', 0, { pageSize: 4096 }), '/arena-1', 'page-size', 2 ** 21, 4096],
    [change('arenas', 0, { name: 'x' }), '/arena-1', 'label', 'queues', 'x'],
    [
      change('arenas', 0, { place: { ...place, iova: 0x1000n } }),
      '/arena-1',
      'place-iova',
      0x8000_0000_0000_0000n,
      0x1000n,
    ],
    [
      change('arenas', 0, { place: { ...place, ioas: 5 } }),
      '/arena-1',
      'place',
      { iommufd: 1, ioas: 0 },
      { iommufd: 1, ioas: 5 },
    ],
    [
      change('iommufds', 0, { rlimitMode: RlimitMode.Process }),
      '/iommufd-1',
      'rlimit-mode',
      undefined,
      'process',
    ],
    [
      withIoas({ allowed: [] }),
      '/iommufd-1/ioas-0',
      'allowed-iovas',
      [{ first: 0n, last: 0xfedf_ffffn }],
      [],
    ],
    [withIoas({ hugePages: undefined }), '/iommufd-1/ioas-0', 'no-huge-pages', true, undefined],
    [withIoas({ hwpts: [{ ...hwpts[0], flags: 2 }, hwpts[1]] }), '/iommufd-1/ioas-0/hwpt-0', 'flags', 0, 2],
    [
      withIoas({ hwpts: [{ ...hwpts[0], device: '0000:00:05.0' }, hwpts[1]] }),
      '/iommufd-1/ioas-0/hwpt-0',
      'device',
      '0000:00:04.0',
      '0000:00:05.0',
    ],
    ...(
      [
        ['vendorId', 'vendor-id', 0x1b36, 1],
        ['deviceId', 'device-id', 0x10, 1],
        ['subsystemVendorId', 'subsystem-vendor-id', 0x1af4, 1],
        ['subsystemDeviceId', 'subsystem-device-id', 0x1100, 1],
        ['classCode', 'class-code', 0x010802, 1],
        ['interface', 'interface', 'cdev', 'legacy'],
        ['translation', 'translation', 'iommu', 'none'],
        ['serial', 'serial', 0x0123_4567_89ab_cdefn, undefined],
        ['resetMethods', 'reset-methods', 'flr bus', ''],
        ['capabilities', 'capabilities', state.devices[0]?.capabilities, undefined],
        ['bars', 'bars', state.devices[0]?.bars, []],
        [
          'interrupts',
          'interrupts-enabled',
          state.devices[0]?.interrupts,
          [{ kind: InterruptKind.Intx, count: 1 }],
        ],
      ] as const
    ).map(([field, property, a, b]): (typeof cases)[number] => [
      change('devices', 0, { [field]: b }),
      '/device-0000-00-04.0',
      property,
      a,
      b,
    ]),
    [
      change('devices', 0, { addressSpace: { iommufd: 7, ioas: 12, hwpt: 0xffff_ffff } }),
      '/device-0000-00-04.0',
      'address-space',
      { iommufd: 1, ioas: 0 },
      { iommufd: 7, ioas: 12 },
    ],
    [
      change('devices', 0, { addressSpace: { iommufd: 1, ioas: 0 } }),
      '/device-0000-00-04.0',
      'address-space-hwpt',
      0xffff_ffff,
      undefined,
    ],
    [change('drivers', 0, { compatible: 'x' }), '/driver-0000-00-04.0/state', 'compatible', 'nvme-v1', 'x'],
    [
      change('drivers', 0, { properties: new Map([['doorbell-stride', u32(4)]]) }),
      '/driver-0000-00-04.0/state',
      'serial',
      string('S3RI4L'),
      undefined,
    ],
    [
      change('sessions', 0, { tokens: new Map() }),
      '/session "iommufd"',
      'tokens',
      { 'arena 1': 1n, state: 0xffff_ffff_ffff_ffffn },
      {},
    ],
    [
      { ...state, kept: { properties: new Map([['generation', u32(8)]]), nodes: state.kept?.nodes ?? [] } },
      '/',
      'generation',
      u32(9),
      u32(8),
    ],
  ];
  for (const [other, path, property, a, b] of cases) {
    t.strictSame(
      compareStates(state, other),
      [{ kind: 'property', path, property, a, b }],
      `${path} ${property}`,
    );
  }

  const records: readonly [State, path: string, type: string | undefined][] = [
    [{ ...state, arenas: state.arenas.slice(0, -1) }, '/arena-2', 'iommufd,arena-v1'],
    [{ ...state, iommufds: state.iommufds.slice(1) }, '/iommufd-1', 'iommufd,iommufd-v1'],
    [change('iommufds', 0, { ioases: [] }), '/iommufd-1/ioas-0', 'iommufd,ioas-v1'],
    [withIoas({ hwpts: hwpts.slice(1) }), '/iommufd-1/ioas-0/hwpt-0', 'iommufd,hwpt-v1'],
    [{ ...state, devices: state.devices.slice(0, 1) }, '/device-0000-00-05.0', 'iommufd,device-v1'],
    [{ ...state, drivers: [] }, '/driver-0000-00-04.0', 'iommufd,driver-v1'],
    [change('drivers', 0, { children: [] }), '/driver-0000-00-04.0/state/queue-1', undefined],
    [{ ...state, sessions: state.sessions.slice(0, 1) }, '/session "a"', 'iommufd,session-v1'],
    [
      { ...state, kept: { properties: state.kept?.properties ?? new Map(), nodes: [] } },
      '/fault-queue-0',
      'iommufd,fault-queue-v1',
    ],
  ];
  for (const [other, path, type] of records) {
    t.strictSame(compareStates(state, other), [{ kind: 'record', path, type, in: 'a' }], path);
    t.strictSame(
      compareStates(other, state),
      [{ kind: 'record', path, type, in: 'b' }],
      `${path}, the other way`,
    );
  }
  t.strictSame(
    compareStates(state, unkept).map(({ path }) => path),
    ['/', '/fault-queue-0'],
    'all that was kept',
  );
  const moved = { ...arena, token: 5n };
  t.strictSame(
    compareStates({ ...golden('state-v1'), arenas: [arena] }, { ...golden('state-v1'), arenas: [moved] }),
    [
      { kind: 'record', path: '/arena-1', type: 'iommufd,arena-v1', in: 'a' },
      { kind: 'record', path: '/arena-5', type: 'iommufd,arena-v1', in: 'b' },
    ],
    'another token is another arena',
  );
  t.throws(() => compareStates({ ...state, colour: 1 } as State, state), {
    name: 'TypeError',
    message: /no such field: colour/,
  });
});
