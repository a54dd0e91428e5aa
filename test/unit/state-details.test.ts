// Saved states: what a record need not say. What of it is refused, read or written, and in which words; and that its
// order says nothing where it is none.
import t from 'tap';
import { RlimitMode } from '../../src/iommufd/iommufd.js';
import { decodeState } from '../../src/keepalive/state/decode-state.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import type {
  SavedBar,
  SavedDevice,
  SavedHwpt,
  SavedIoas,
  State,
} from '../../src/keepalive/state/saved-state.js';
import { pciAddress } from '../../src/pci/address.js';
import { InterruptKind } from '../../src/vfio/interrupts.js';
import { type EditableNode, edit } from '../support/edit-state.js';
import { goldenStates } from '../support/golden-states.js';

const { u32, u32s, u64, string, strings } = FdtValue;

const spaces = goldenStates['hwpt-v1'] as State;
const details = goldenStates['device-v1-details'] as State;
const device = { ...details.devices[0], ...spaces.devices[0] } as SavedDevice;
const ioas = spaces.iommufds[0]?.ioases[0] as SavedIoas;
const [hwpt] = ioas.hwpts as [SavedHwpt];

/** The device that says all is attached to an HWPT; there is an iommufd beside. */
const whole: State = {
  ...spaces,
  iommufds: [
    ...spaces.iommufds,
    { id: 2, ioases: [{ id: 0, allowed: [], mappings: ioas.mappings }], rlimitMode: RlimitMode.Process },
  ],
  devices: [device, ...details.devices.slice(1)],
};
const good = encodeState(whole);

const DEVICE = '/device-0000-00-04.0';
const deviceOf = (root: EditableNode): EditableNode => root.child('device-0000-00-04.0');
const ioasOf = (root: EditableNode): EditableNode => root.child('iommufd-1').child('ioas-0');

/** A change, and where and in which words it is refused. */
type Case = readonly [
  title: string,
  change: (root: EditableNode) => unknown,
  path: string,
  property: string,
  message: RegExp,
];

t.test('rows of cells must be good', async t => {
  const lists: Readonly<Record<string, readonly [title: string, cells: number[], message: RegExp][]>> = {
    bars: [
      ['half a row', [0, 3, 0], /list of 5 cells each/],
      ['BAR 6', [6, 2, 0, 0, 4096], /there is no BAR 6/],
      ['of no kind', [0, 0, 0, 0, 4096], /BAR 0 must be of kind/],
      ['of an unknown kind', [0, 4, 0, 0, 4096], /BAR 0 must be of kind/],
      ['prefetchable twice', [0, 2, 2, 0, 4096], /prefetchable/],
      ['I/O that is prefetchable', [0, 1, 1, 0, 32], /prefetchable/],
      ['without size', [0, 2, 0, 0, 0], /power of two, and is 0/],
      ['three pages', [0, 2, 0, 0, 0x3000], /power of two, and is 12288/],
      ['2^32 + 1 bytes', [0, 3, 0, 1, 1], /power of two, and is 4294967297/],
      ['4 GiB below 4 GiB', [0, 2, 0, 1, 0], /BAR 0 has 32 bits/],
      ['out of order', [1, 2, 0, 0, 16, 0, 2, 0, 0, 16], /ascending order/],
      ['twice', [1, 2, 0, 0, 16, 1, 2, 0, 0, 16], /once/],
      ['in the upper half of another', [0, 3, 0, 0, 16, 1, 2, 0, 0, 16], /BAR 0 has 64 bits/],
      ['64 bits at the end', [5, 3, 0, 0, 16], /BAR 5 has 64 bits/],
    ],
    capabilities: [
      ['half a row', [1, 0], /list of 4 cells each/],
      ['in the header', [1, 0, 0x3c, 0], /no capability can be at 60/],
      ['beyond', [1, 0, 0x100, 0], /no capability can be at 256/],
      ['at an odd place', [1, 0, 0x42, 0], /no capability can be at 66/],
      ['with a version', [1, 0, 0x40, 1], /the version .* at 64 cannot be 1/],
      ['an id of 9 bits', [0x100, 0, 0x40, 0], /the id .* at 64 cannot be 256/],
      ['an extended one below', [1, 1, 0xfc, 1], /no extended capability can be at 252/],
      ['an extended one beyond', [1, 1, 0x1000, 1], /no extended capability can be at 4096/],
      ['an extended one of version 16', [1, 1, 0x100, 16], /the version .* cannot be 16/],
      ['an extended one, its id of 17 bits', [0x10000, 1, 0x100, 1], /the id .* cannot be 65536/],
      ['more than extended', [1, 2, 0x100, 1], /and here 2/],
      ['two in a place', [1, 0, 0x40, 0, 5, 0, 0x40, 0], /same offset/],
    ],
    'interrupts-enabled': [
      ['half a row', [2], /list of 2 cells each/],
      ['none', [2, 0], /1 to 2048 vectors, and not 0/],
      ['too many of MSI-X', [2, 2049], /1 to 2048 vectors, and not 2049/],
      ['too many of MSI', [1, 33], /1 to 32 vectors/],
      ['two of INTx', [0, 2], /1 to 1 vectors/],
      ['a kind that is none', [5, 1], /no kind 5/],
      ['MSI beside MSI-X', [1, 1, 2, 1], /only one of INTx, MSI and MSI-X/],
      ['INTx beside MSI', [0, 1, 1, 1], /only one/],
      ['a kind twice', [2, 1, 2, 1], /once/],
      ['out of order', [4, 1, 2, 1], /ascending order/],
    ],
  };
  for (const [property, cases] of Object.entries(lists)) {
    for (const [title, cells, message] of cases) {
      t.throws(
        () => decodeState(edit(good, root => deviceOf(root).set(property, u32s(cells)))),
        { name: 'StateError', code: 'INVALID', path: DEVICE, property, message },
        `${property}: ${title}`,
      );
    }
    t.throws(
      () => decodeState(edit(good, root => deviceOf(root).set(property, new Uint8Array(3)))),
      { name: 'StateError', path: DEVICE, property, message: /list of cells/ },
      `${property}: three bytes`,
    );
  }
});

t.test('what else is read must be good', async t => {
  const resets = (title: string, value: Uint8Array, message = /names with a space between/): Case => [
    title,
    root => deviceOf(root).set('reset-methods', value),
    DEVICE,
    'reset-methods',
    message,
  ];
  const inDevice = (
    title: string,
    property: string,
    change: (device: EditableNode) => unknown,
    message: RegExp,
  ): Case => [title, root => change(deviceOf(root)), DEVICE, property, message];
  const inHwpt = (
    title: string,
    property: string,
    change: (hwpt: EditableNode) => unknown,
    message: RegExp,
  ): Case => [
    title,
    root => change(ioasOf(root).child('hwpt-0')),
    '/iommufd-1/ioas-0/hwpt-0',
    property,
    message,
  ];
  const cases: readonly Case[] = [
    resets('reset methods of two lines', string('flr\nbus')),
    resets('reset methods apart', string('flr  bus')),
    resets('reset methods in capitals', string('FLR')),
    resets('too many reset methods', string('a'.repeat(256))),
    resets('two texts of reset methods', strings(['flr', 'bus']), /one string/),
    inDevice('a serial of one cell', 'serial', node => node.set('serial', u32(1)), /two cells/),
    inDevice(
      'no such HWPT',
      'address-space-hwpt',
      node => node.set('address-space-hwpt', u32(7)),
      /no HWPT 7 in IOAS 0 of iommufd 1/,
    ),
    inDevice(
      'an HWPT of two cells',
      'address-space-hwpt',
      node => node.set('address-space-hwpt', u64(7n)),
      /one cell/,
    ),
    inDevice(
      'an HWPT without IOAS',
      'address-space-hwpt',
      node => node.remove('address-space'),
      /not be there without address-space/,
    ),
    inHwpt(
      'flags that ask for a fault queue',
      'flags',
      node => node.set('flags', u32(4)),
      /of 0xb, and are 0x4/,
    ),
    inHwpt('unknown flags', 'flags', node => node.set('flags', u32(0x8000_0000)), /and are 0x80000000/),
    inHwpt('no flags', 'flags', node => node.remove('flags'), /must have it/),
    inHwpt('another name', '', node => node.set('id', u32(1)), /must be named hwpt-1/),
    inHwpt(
      'an HWPT of no device',
      'device',
      node => node.set('device', string('0000:00:06.0')),
      /no device 0000:00:06.0/,
    ),
    inHwpt(
      'an HWPT of no address',
      'device',
      node => node.set('device', string('6')),
      /"6" is not a PCI address/,
    ),
    [
      'an HWPT for a device in another iommufd',
      root => {
        const { properties } = ioasOf(root).child('hwpt-0').flat;
        root
          .child('iommufd-2')
          .child('ioas-0')
          .add('hwpt-0')
          .flat.properties.push(...properties);
      },
      '/iommufd-2/ioas-0/hwpt-0',
      'device',
      /0000:00:04.0 is in iommufd 1, and this HWPT in 2/,
    ],
    [
      'an HWPT elsewhere',
      root => root.child('iommufd-1').add('hwpt', { compatible: string('iommufd,hwpt-v1') }),
      '/iommufd-1/hwpt',
      'compatible',
      /no place here/,
    ],
    [
      'another version of an HWPT',
      root => ioasOf(root).child('hwpt-0').set('compatible', string('iommufd,hwpt-v2')),
      '/iommufd-1/ioas-0/hwpt-0',
      'compatible',
      /iommufd,hwpt is of version 2/,
    ],
    [
      'an IOAS that is not sure of huge pages',
      root => ioasOf(root).set('no-huge-pages', u32(1)),
      '/iommufd-1/ioas-0',
      'no-huge-pages',
      /must be empty/,
    ],
    [
      'another way to charge',
      root => root.child('iommufd-2').set('rlimit-mode', string('user')),
      '/iommufd-2',
      'rlimit-mode',
      /one of process, and is "user"/,
    ],
  ];
  for (const [title, change, path, property, message] of cases) {
    t.throws(
      () => decodeState(edit(good, change)),
      { name: 'StateError', path, ...(property && { property }), message },
      title,
    );
  }
});

t.test('a device that is not attached can have HWPTs in one iommufd alone', async t => {
  const { addressSpace: _, ...detached } = device;
  const inBoth = (devices: SavedDevice[]): State => ({
    ...spaces,
    iommufds: [1, 2].map(id => ({ id, ioases: [{ ...ioas, hwpts: [hwpt] }] })),
    devices,
  });
  t.doesNotThrow(() => encodeState({ ...spaces, devices: [detached] }));
  t.throws(() => encodeState(inBoth([detached])), /0000:00:04.0 is in iommufd 1, and this HWPT in 2/);
  const other = { ...detached, address: pciAddress('0000:00:06.0') };
  const [first, second] = inBoth([]).iommufds;
  const each = { ...second, ioases: [{ ...ioas, hwpts: [{ ...hwpt, device: other.address }] }] };
  t.doesNotThrow(() =>
    encodeState({ ...spaces, iommufds: [first, each] as State['iommufds'], devices: [detached, other] }),
  );
});

t.test('what is no state is not encoded', async t => {
  const withDevice = (change: object): State =>
    ({ ...whole, devices: [{ ...device, ...change }, ...whole.devices.slice(1)] }) as State;
  const withIoas = (change: object): State =>
    ({ ...spaces, iommufds: [{ id: 1, ioases: [{ ...ioas, ...change }] }] }) as State;
  const bar: SavedBar = { index: 0, size: 4096n, kind: 'memory32', prefetchable: false };
  const capability = { id: 1, offset: 0x40, extended: false, version: 0 };
  const msix = { kind: InterruptKind.Msix, count: 1 };
  const range: readonly [string, State, RegExp][] = [
    ['a BAR twice', withDevice({ bars: [bar, bar] }), /^bars: each BAR must be there once/],
    ['a BAR of three pages', withDevice({ bars: [{ ...bar, size: 0x3000n }] }), /power of two/],
    ['a BAR of no kind', withDevice({ bars: [{ ...bar, kind: 'memory' }] }), /kind/],
    ['BAR 6', withDevice({ bars: [{ ...bar, index: 6 }] }), /BAR index/],
    ['a capability in the header', withDevice({ capabilities: [{ ...capability, offset: 0 }] }), /at 0/],
    ['a capability of no id', withDevice({ capabilities: [{ ...capability, id: -1 }] }), /-1/],
    ['no vectors', withDevice({ interrupts: [{ ...msix, count: 0 }] }), /1 to 2048/],
    ['no kind', withDevice({ interrupts: [{ ...msix, kind: 9 }] }), /no kind 9/],
    ['reset methods of two lines', withDevice({ resetMethods: 'flr\n' }), /resetMethods must be names/],
    ['a serial of 65 bits', withDevice({ serial: 2n ** 64n }), /2\^64/],
    ['no such HWPT', withDevice({ addressSpace: { iommufd: 1, ioas: 0, hwpt: 5 } }), /no HWPT 5/],
    ['an HWPT twice', withIoas({ hwpts: [...(ioas.hwpts ?? []), hwpt] }), /second HWPT .* has id 0/],
    ['a fault queue', withIoas({ hwpts: [...(ioas.hwpts ?? []), { ...hwpt, id: 1, flags: 4 }] }), /flags/],
    ['an HWPT of no device', withIoas({ hwpts: [{ ...hwpt, device: 'x' }] }), /no device x/],
    ['huge pages', withIoas({ hugePages: true }), /hugePages/],
    [
      'an rlimit mode',
      { ...spaces, iommufds: [{ ...spaces.iommufds[0], rlimitMode: 2 }] } as unknown as State,
      /rlimitMode/,
    ],
  ];
  for (const [title, state, message] of range)
    t.throws(() => encodeState(state), { name: 'RangeError', message }, title);
  const kind: readonly [string, State, RegExp][] = [
    ['BARs that are none', withDevice({ bars: {} }), /bars must be an array/],
    ['a size that is text', withDevice({ bars: [{ ...bar, size: '1' }] }), /BAR size/],
    ['an address', withDevice({ bars: [{ ...bar, address: 0n }] }), /no such field: address/],
    ['a capability and more', withDevice({ capabilities: [{ ...capability, x: 1 }] }), /no such field: x/],
    ['a count that is text', withDevice({ interrupts: [{ ...msix, count: '1' }] }), /number/],
    ['interrupts and more', withDevice({ interrupts: [{ ...msix, x: 1 }] }), /no such field: x/],
    ['reset methods that are none', withDevice({ resetMethods: 5 }), /string/],
    ['a place and more', withDevice({ addressSpace: { iommufd: 1, ioas: 0, x: 1 } }), /no such field: x/],
    [
      'an HWPT and more',
      withIoas({ hwpts: [...(ioas.hwpts ?? []), { ...hwpt, id: 1, x: 1 }] }),
      /no such field: x/,
    ],
  ];
  for (const [title, state, message] of kind)
    t.throws(() => encodeState(state), { name: 'TypeError', message }, title);
});

t.test('order says nothing, but that of capabilities', async t => {
  const reversed = (change: Partial<SavedDevice>): Uint8Array =>
    encodeState({ ...whole, devices: [{ ...device, ...change }, ...whole.devices.slice(1)] });
  const { bars = [], interrupts = [], capabilities = [] } = device;
  t.strictSame(reversed({ bars: bars.toReversed(), interrupts: interrupts.toReversed() }), good);
  const other = reversed({ capabilities: capabilities.toReversed() });
  t.strictSame(decodeState(other).devices[0]?.capabilities, capabilities.toReversed());
  const hwpts = ioas.hwpts?.toReversed() ?? [];
  t.strictSame(
    encodeState({
      ...whole,
      iommufds: [{ id: 1, ioases: [{ ...ioas, hwpts }] }, ...whole.iommufds.slice(1)],
    }),
    good,
  );
});

t.test('what is the default is not written', async t => {
  const plain = goldenStates['ioas-v1'] as State;
  const explicit: State = {
    ...plain,
    iommufds: plain.iommufds.map(iommufd => ({
      ...iommufd,
      rlimitMode: RlimitMode.User,
      ioases: iommufd.ioases.map(each => ({ ...each, hwpts: [] })),
    })),
  };
  t.strictSame(encodeState(explicit), encodeState(plain));
});
