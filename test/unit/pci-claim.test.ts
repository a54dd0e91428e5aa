// Taking a device from its driver and giving it back, against a tree in memory that reacts as the kernel does. Whatever
// goes wrong, the device must be back where it was.
import t from 'tap';
import { EACCES, EIO } from '../../bindings/uapi/errno.js';
import { DeviceErrorCode } from '../../src/errors.js';
import { pciAddress } from '../../src/pci/address.js';
import { claim } from '../../src/pci/claim.js';
import { findMounts } from '../../src/pci/mounts.js';
import { type FakeDeviceOptions, FakeSysfs } from './support/fake-sysfs.js';

const ADDRESS = '0000:00:04.0';
const DEVICE = `/sys/bus/pci/devices/${ADDRESS}`;

function machine(options: FakeDeviceOptions = {}, drivers?: readonly string[]): FakeSysfs {
  const kernel = new FakeSysfs(drivers);
  kernel.device(ADDRESS, { group: 3, ...options });
  kernel.device('0000:00:05.0', { group: 4 });
  return kernel;
}

/** What a claim may write, and nothing else. */
const allowed = [`${DEVICE}/driver_override`, `${DEVICE}/driver/unbind`, '/sys/bus/pci/drivers_probe'];

t.test('a device is taken from its driver and returned to it', async t => {
  const kernel = machine();
  const claimed = await claim('00:04.0', { kernel });
  t.match(claimed, {
    address: ADDRESS,
    previousDriver: 'nvme',
    released: false,
    node: { kind: 'cdev', path: '/dev/vfio/devices/vfio0', noiommu: false },
  });
  t.same(kernel.state(ADDRESS), { driver: 'vfio-pci', override: 'vfio-pci' });
  t.same(kernel.writes, [
    [`${DEVICE}/driver_override`, 'vfio-pci'],
    [`${DEVICE}/driver/unbind`, ADDRESS],
    ['/sys/bus/pci/drivers_probe', ADDRESS],
  ]);
  claimed.release();
  t.equal(claimed.released, true);
  t.same(kernel.state(ADDRESS), { driver: 'nvme', override: undefined });
  t.same(
    kernel.state('0000:00:05.0'),
    { driver: 'nvme', override: undefined },
    'the other one was left alone',
  );
  t.ok(
    kernel.writes.every(([path]) => allowed.includes(path)),
    'only by its override',
  );
  const { length } = kernel.writes;
  claimed.release();
  claimed[Symbol.dispose]();
  t.equal(kernel.writes.length, length, 'released once');
});

t.test('it goes back to the very driver that had it', async t => {
  // Two drivers match, and the one that had it is not the first.
  const kernel = machine({ drivers: ['nvme', 'other'], bound: 'other' }, ['vfio-pci', 'nvme', 'other']);
  const claimed = await claim(ADDRESS, { kernel });
  t.equal(claimed.previousDriver, 'other');
  claimed[Symbol.dispose]();
  t.same(kernel.state(ADDRESS), { driver: 'other', override: undefined });
});

t.test('an override that was there is restored', async t => {
  const kernel = machine({ override: 'nvme' });
  const claimed = await claim(ADDRESS, { kernel });
  t.equal(kernel.state(ADDRESS).override, 'vfio-pci');
  claimed.release();
  t.same(kernel.state(ADDRESS), { driver: 'nvme', override: 'nvme' });
});

t.test('a device without driver', async t => {
  const kernel = machine({ bound: null, drivers: [] });
  const claimed = await claim(ADDRESS, { kernel });
  t.equal(claimed.previousDriver, undefined);
  t.notOk(
    kernel.writes.some(([path]) => path.endsWith('unbind')),
    'there is nothing to unbind',
  );
  claimed.release();
  t.same(kernel.state(ADDRESS), { driver: undefined, override: undefined });
});

t.test('a device that vfio-pci has stays there', async t => {
  const kernel = machine({ bound: 'vfio-pci', override: 'vfio-pci' });
  const claimed = await claim(ADDRESS, { kernel });
  t.equal(claimed.previousDriver, 'vfio-pci');
  claimed.release();
  t.same(kernel.state(ADDRESS), { driver: 'vfio-pci', override: 'vfio-pci' });
  t.same(kernel.writes, [], 'nothing was written');
});

t.test('every kind of node', async t => {
  for (const [offer, path] of [
    ['cdev', '/dev/vfio/devices/vfio0'],
    ['noiommu-cdev', '/dev/vfio/devices/noiommu-vfio0'],
    ['group', '/dev/vfio/3'],
    ['noiommu-group', '/dev/vfio/noiommu-3'],
  ] as const) {
    const kernel = machine({ offer });
    using claimed = await claim(ADDRESS, { kernel });
    t.equal(claimed.node.path, path);
    t.equal(claimed.node.noiommu, offer.startsWith('noiommu'));
  }
});

t.test('it waits for the node', async t => {
  const kernel = machine({ offer: 'nothing', group: undefined });
  setTimeout(() => kernel.offer(ADDRESS, 'cdev'), 20);
  const late = await claim(ADDRESS, { kernel, timeout: 5000 });
  t.equal(late.node.path, '/dev/vfio/devices/vfio0');

  // It appears at once, and gets its permissions a moment later.
  const other = machine();
  other.denied.push({ pattern: /^\/dev\/vfio/, call: 'access', errno: EACCES });
  setTimeout(() => other.denied.pop(), 20);
  t.equal((await claim(ADDRESS, { kernel: other, timeout: 5000 })).node.kind, 'cdev');
});

t.test('failures put everything back', async t => {
  const cases: {
    name: string;
    device?: FakeDeviceOptions;
    prepare?: (kernel: FakeSysfs) => void;
    expected: { name: string; code: string; device?: string; path?: string; hint?: RegExp };
  }[] = [
    {
      name: 'vfio-pci refuses it',
      prepare: kernel => void kernel.refusing.add('vfio-pci'),
      expected: {
        name: 'DeviceError',
        code: DeviceErrorCode.Unsupported,
        device: ADDRESS,
        hint: /kernel log/,
      },
    },
    {
      name: 'vfio-pci refuses it for want of an IOMMU',
      device: { group: undefined },
      prepare: kernel => void kernel.refusing.add('vfio-pci'),
      expected: { name: 'DeviceError', code: DeviceErrorCode.Unsupported, hint: /No IOMMU/ },
    },
    {
      name: 'no node appears',
      device: { offer: 'nothing', group: undefined },
      expected: { name: 'DeviceError', code: DeviceErrorCode.Timeout, hint: /devtmpfs/ },
    },
    {
      name: 'the node of the group does not appear',
      device: { offer: 'nothing' },
      expected: { name: 'KernelError', code: 'ENOENT', path: '/dev/vfio/3' },
    },
    {
      name: 'the node stays closed to us',
      prepare: kernel => void kernel.denied.push({ pattern: /^\/dev\/vfio/, call: 'access', errno: EACCES }),
      expected: { name: 'KernelError', code: 'EACCES', path: '/dev/vfio/devices/vfio0', hint: /VFIO node/ },
    },
    {
      name: 'the override cannot be written',
      prepare: kernel =>
        void kernel.denied.push({ pattern: /driver_override$/, call: 'write', errno: EACCES }),
      expected: {
        name: 'KernelError',
        code: 'EACCES',
        path: `${DEVICE}/driver_override`,
        hint: /needs root/,
      },
    },
    {
      name: 'the driver cannot be unbound',
      prepare: kernel => void kernel.denied.push({ pattern: /unbind$/, call: 'write', errno: EACCES }),
      expected: { name: 'KernelError', code: 'EACCES', path: `${DEVICE}/driver/unbind`, hint: /needs root/ },
    },
    {
      name: 'the node cannot be looked for',
      prepare: kernel => void kernel.denied.push({ pattern: /vfio-dev$/, call: 'read', errno: EIO }),
      expected: { name: 'KernelError', code: 'EIO' },
    },
  ];
  for (const { name, device, prepare, expected } of cases) {
    for (const state of [{}, { bound: null }, { override: 'nvme' }]) {
      const kernel = machine({ ...device, ...state });
      const before = kernel.state(ADDRESS);
      // Without driver there is nothing to unbind.
      if (before.driver === undefined && name.includes('unbound')) continue;
      prepare?.(kernel);
      await t.rejects(claim(ADDRESS, { kernel, timeout: 15 }), expected, `${name}: error`);
      t.same(kernel.state(ADDRESS), before, `${name}: as before, ${JSON.stringify(before)}`);
    }
  }
});

t.test('a probe that may not be written is reported as such', async t => {
  const kernel = machine({ bound: null });
  kernel.denied.push({ pattern: /drivers_probe$/, call: 'write', errno: EACCES });
  await t.rejects(claim(ADDRESS, { kernel, timeout: 0 }), {
    name: 'KernelError',
    code: 'EACCES',
    path: '/sys/bus/pci/drivers_probe',
  });
  t.same(kernel.state(ADDRESS), { driver: undefined, override: undefined });
});

t.test('when it cannot be put back, both errors are reported', async t => {
  const kernel = machine();
  kernel.refusing.add('vfio-pci');
  // The old driver does not want it any more.
  kernel.onWrite = path => void (path.endsWith('unbind') && kernel.refusing.add('nvme'));
  await t.rejects(claim(ADDRESS, { kernel, timeout: 0 }), {
    name: 'AggregateError',
    errors: [
      { code: DeviceErrorCode.Unsupported, message: /could not be given back to nvme; no driver has it/ },
      { code: DeviceErrorCode.Unsupported, message: /does not accept the device/ },
    ],
  });
  t.equal(kernel.state(ADDRESS).override, undefined, 'at least the override is gone');
});

t.test('a release that fails', async t => {
  const kernel = machine();
  const claimed = await claim(ADDRESS, { kernel });
  kernel.refusing.add('nvme');
  t.throws(() => claimed.release(), { name: 'DeviceError', message: /could not be given back to nvme/ });
  t.equal(kernel.state(ADDRESS).override, undefined);

  const other = machine();
  const second = await claim(ADDRESS, { kernel: other });
  other.denied.push({ pattern: /unbind$/, call: 'write', errno: EACCES });
  const errors: unknown[] = [];
  try {
    second.release();
  } catch (error) {
    errors.push(...(error instanceof AggregateError ? error.errors : [error]));
  }
  t.match(errors[0], { name: 'KernelError', code: 'EACCES', path: `${DEVICE}/driver/unbind` });
});

t.test('a device that leaves while it is given back', async t => {
  for (const moment of ['driver/unbind', 'driver_override', 'drivers_probe']) {
    const kernel = machine();
    const claimed = await claim(ADDRESS, { kernel });
    kernel.onWrite = path => {
      if (path.endsWith(moment)) kernel.leave(ADDRESS);
    };
    t.doesNotThrow(() => claimed.release(), `after ${moment}`);
    t.equal(claimed.released, true);
  }
});

t.test('an open device is not released', async t => {
  const kernel = machine();
  const claimed = await claim(ADDRESS, { kernel });
  const [first, second] = [claimed.use(), claimed.use()];
  const busy = { name: 'DeviceError', code: DeviceErrorCode.Busy };
  t.throws(() => claimed.release(), busy);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  t.throws(() => claimed.release(), busy, 'the second use counts, and the first only once');
  t.equal(claimed.released, false);
  t.equal(kernel.driverOf(ADDRESS), 'vfio-pci');
  second[Symbol.dispose]();
  claimed.release();
  t.equal(kernel.driverOf(ADDRESS), 'nvme');
});

t.test('without the driver vfio-pci', async t => {
  const kernel = machine({}, ['nvme']);
  await t.rejects(claim(ADDRESS, { kernel }), {
    name: 'KernelError',
    code: 'ENOENT',
    hint: /modprobe vfio-pci/,
  });
  t.same(kernel.writes, []);
  t.same(kernel.state(ADDRESS), { driver: 'nvme', override: undefined });
});

t.test('arguments', async t => {
  const kernel = machine();
  kernel.forget();
  await t.rejects(claim('nvme0', { kernel }), RangeError);
  await t.rejects(claim(4 as unknown as string, { kernel }), TypeError);
  await t.rejects(claim(ADDRESS, { kernel, timeout: -1 }), RangeError);
  await t.rejects(claim(ADDRESS, { kernel, timeout: Number.NaN }), RangeError);
  t.same(kernel.calls, [], 'no call was made');
  await t.rejects(claim('0000:00:06.0', { kernel }), { code: 'ENOENT', hint: /no PCI device/ });
});

/** A disk with a partition below the device. */
function disk(kernel: FakeSysfs): string {
  const controller = `/sys/devices/pci0000:00/${ADDRESS}/nvme/nvme0`;
  kernel.link(`${controller}/subsystem`, '../../../../../../class/nvme');
  kernel.link(`${controller}/device`, `../../../${ADDRESS}`);
  for (const [path, number] of [
    [`${controller}/nvme0n1`, '259:0'],
    [`${controller}/nvme0n1/nvme0n1p1`, '259:1'],
  ] as const) {
    kernel.link(`${path}/subsystem`, '../../../../../../../class/block');
    kernel.file(`${path}/dev`, `${number}\n`);
    kernel.directory(`${path}/holders`);
  }
  return `${controller}/nvme0n1`;
}

t.test('a mounted file system', async t => {
  const kernel = machine();
  const path = disk(kernel);
  const mounted = (lines: string): void => kernel.file('/proc/self/mountinfo', lines);
  const find = (): string[] => findMounts(kernel, pciAddress(ADDRESS));
  mounted('22 1 0:21 / /proc rw - proc proc rw\n30 1 8:1 / / rw - ext4 /dev/sda1 rw\n');
  t.same(find(), [], 'of another disk');
  mounted(
    '31 1 259:1 / /data rw,relatime shared:5 - ext4 /dev/nvme0n1p1 rw\n32 1 259:0 / /raw rw - xfs /dev/nvme0n1 rw\n',
  );
  t.same(find(), ['/data', '/raw'], 'of the partition and of the whole disk');
  await t.rejects(claim(ADDRESS, { kernel }), {
    name: 'DeviceError',
    code: DeviceErrorCode.Busy,
    message: /\/data, \/raw/,
  });
  t.same(kernel.writes, [], 'nothing was touched');
  const forced = await claim(ADDRESS, { kernel, force: true });
  t.equal(kernel.driverOf(ADDRESS), 'vfio-pci', 'unless forced');
  forced.release();

  // A volume on the partition: dm-0 holds it.
  mounted('33 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n');
  kernel.link(`${path}/nvme0n1p1/holders/dm-0`, '../../../../../../../../virtual/block/dm-0');
  kernel.file('/sys/devices/virtual/block/dm-0/dev', '253:0\n');
  kernel.directory('/sys/devices/virtual/block/dm-0/holders');
  kernel.link('/sys/class/block/dm-0', '../../devices/virtual/block/dm-0');
  t.same(find(), ['/'], 'on a volume that lies on the disk');
});
