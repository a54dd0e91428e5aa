// What a device is, found out without opening it, against a tree in memory.
import t from 'tap';
import { EIO } from '../../bindings/uapi/errno.js';
import { KernelError } from '../../src/errors.js';
import { pciAddress } from '../../src/pci/address.js';
import { readConfigFile } from '../../src/pci/config-file.js';
import { compareIdentity, type PciIdentity, readIdentity } from '../../src/pci/identity.js';
import { matchesAlias, modaliasOf } from '../../src/pci/modalias.js';
import { configText } from './support/config-bytes.js';
import { FakeSysfs } from './support/fake-sysfs.js';

const ADDRESS = pciAddress('0000:00:04.0');
const NO_SOFT_RESET = 1 << 3;

function machine(config: string | undefined): FakeSysfs {
  const kernel = new FakeSysfs();
  const path = kernel.device(ADDRESS, {
    attributes: {
      resource: [
        '0x00000000febd4000 0x00000000febd7fff 0x0000000000140204',
        '0x0000000000000000 0x0000000000000000 0x0000000000000000',
        '0x000000000000c040 0x000000000000c05f 0x0000000000040101',
        '0x00000000fe800000 0x00000000fe8fffff 0x0000000000042208',
      ].join('\n'),
    },
  });
  if (config !== undefined) kernel.file(`${path}/config`, config);
  return kernel;
}

const identity: PciIdentity = {
  address: ADDRESS,
  vendorId: 0x1b36,
  deviceId: 0x0010,
  subsystemVendorId: 0x1af4,
  subsystemDeviceId: 0x1100,
  classCode: 0x010802,
  serial: 0xfedc_ba98_7654_3210n,
  bars: [
    { index: 0, size: 0x4000n, kind: 'memory64', prefetchable: false },
    { index: 2, size: 0x20n, kind: 'io', prefetchable: false },
    { index: 3, size: 0x10_0000n, kind: 'memory32', prefetchable: true },
  ],
};

t.test('identity', async t => {
  const { serial } = identity;
  const full = machine(configText({ ...(serial !== undefined && { serial }), powerControl: 0 }));
  t.strictSame(readIdentity('00:04.0', full), identity);
  const { serial: _, ...rest } = identity;
  t.strictSame(readIdentity(ADDRESS, machine(configText())), rest, 'no serial number');
  t.strictSame(readIdentity(ADDRESS, machine(configText({ size: 256 }))), rest, 'conventional PCI');
  t.strictSame(readIdentity(ADDRESS, machine(undefined)), rest, 'no configuration space to be seen');
  t.throws(
    () => readIdentity(ADDRESS, machine(configText({ size: 64 }))),
    { name: KernelError.name, code: 'EACCES', message: /root/ },
    'anyone but root sees 64 bytes',
  );
  const failing = machine(configText());
  failing.denied.push({ pattern: /config$/, call: 'read', errno: EIO });
  t.throws(() => readIdentity(ADDRESS, failing), { code: 'EIO', path: /config$/ });
  t.throws(() => readIdentity('00:05.0', full), { code: 'ENOENT' });
  t.throws(() => readIdentity('4', full), RangeError);
});

t.test('nothing is left open', async t => {
  const kernel = machine(configText());
  readIdentity(ADDRESS, kernel);
  kernel.refuse('pread', EIO);
  t.throws(() => readIdentity(ADDRESS, kernel), { code: 'EIO', syscall: 'pread' });
  t.equal(kernel.count('close'), kernel.count('open'));
});

t.test('state that is lost without power', async t => {
  const loses = (config: string): boolean | undefined =>
    readConfigFile(machine(config), ADDRESS)?.losesStateInD3;
  t.equal(loses(configText({ powerControl: 0 })), true);
  t.equal(loses(configText({ powerControl: NO_SOFT_RESET })), false);
  t.equal(loses(configText({ powerControl: NO_SOFT_RESET | 3 })), false, 'asleep');
  t.equal(loses(configText()), false, 'it cannot sleep');
});

t.test('a serial number that leads out of its space', async t => {
  const bytes = Buffer.from(configText(), 'latin1');
  bytes.writeUInt32LE(0xff80_0001, 0x100);
  bytes.writeUInt32LE(0x0001_0003, 0xff8);
  t.equal(readConfigFile(machine(bytes.toString('latin1')), ADDRESS)?.serial, undefined);
});

t.test('differences', async t => {
  const differs = (change: Partial<PciIdentity>): string[] =>
    compareIdentity(identity, { ...identity, ...change }).map(each => each.property);
  t.strictSame(differs({}), []);
  t.strictSame(differs({ address: pciAddress('00:05.0') }), ['address']);
  for (const name of [
    'vendorId',
    'deviceId',
    'subsystemVendorId',
    'subsystemDeviceId',
    'classCode',
  ] as const) {
    t.strictSame(compareIdentity(identity, { ...identity, [name]: 7 }), [
      { property: name, expected: `0x${identity[name].toString(16)}`, found: '0x7' },
    ]);
  }
  t.strictSame(differs({ serial: 1n }), ['serial']);
  const [first, ...others] = identity.bars ?? [];
  if (first === undefined) throw new Error('no BARs');
  t.strictSame(differs({ bars: [...others, first] }), [], 'in any order');
  for (const bars of [
    others,
    [],
    [{ ...first, size: 0x8000n }, ...others],
    [{ ...first, kind: 'memory32' as const }, ...others],
    [{ ...first, prefetchable: true }, ...others],
    [{ ...first, index: 1 }, ...others],
  ]) {
    t.strictSame(differs({ bars }), ['bars']);
  }
  const { serial, bars, ...ids } = identity;
  t.strictSame(compareIdentity(identity, ids), [
    { property: 'serial', expected: '0xfedcba9876543210', found: 'none' },
    {
      property: 'bars',
      expected: '0: 16384 bytes of memory64; 2: 32 bytes of io; 3: 1048576 bytes of memory32, prefetchable',
      found: 'none',
    },
  ]);
  t.strictSame(compareIdentity(ids, identity), [], 'what was not expected is not compared');
});

t.test('modalias', async t => {
  const modalias = modaliasOf(identity);
  t.equal(modalias, 'pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02');
  for (const alias of [
    'pci:v*d*sv*sd*bc01sc08i02*',
    'pci:v00001B36d00000010sv*sd*bc*sc*i*',
    'pci:v00001B3?d*',
    'pci:v0000[01]B36d*',
  ]) {
    t.equal(matchesAlias(alias, modalias), true, alias);
  }
  for (const alias of [
    'pci:v*d*sv*sd*bc01sc08i03*',
    'pci:v00001B36',
    'pci:v0000[02]B36d*',
    'v00001B36d*',
    'pci:v.*',
    '',
  ]) {
    t.equal(matchesAlias(alias, modalias), false, JSON.stringify(alias));
  }
});
