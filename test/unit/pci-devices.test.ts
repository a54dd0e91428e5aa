// PCI addresses, and what sysfs tells of devices, against a tree in memory.
import t from 'tap';
import { EACCES, EIO } from '../../bindings/uapi/errno.js';
import { isPciAddress, pciAddress } from '../../src/pci/address.js';
import { groupMembers, listPciDevices, readPciDevice } from '../../src/pci/devices.js';
import { FakeSysfs } from './support/fake-sysfs.js';

const ADDRESS = '0000:00:04.0';

t.test('addresses', async t => {
  for (const [text, full] of [
    ['0000:00:04.0', '0000:00:04.0'],
    ['00:04.0', '0000:00:04.0'],
    ['af:1F.7', '0000:af:1f.7'],
    ['ABCD:EF:00.3', 'abcd:ef:00.3'],
    ['10000:e0:17.0', '10000:e0:17.0'],
  ] as const) {
    t.equal(pciAddress(text), full, text);
    t.equal(isPciAddress(full), true);
  }
  for (const text of [
    '',
    '04.0',
    '0000:00:04',
    '0000:00:04.8',
    '0000:00:20.0',
    '000:00:04.0',
    '0000:0:04.0',
    '0000:00:04.0 ',
    '0000:00:04.0\n',
    '../0000:00:04.0',
    '0000:00:04.0/..',
    'g000:00:04.0',
    '123456789:00:04.0',
  ]) {
    t.throws(() => pciAddress(text), RangeError, JSON.stringify(text));
    t.equal(isPciAddress(text), false);
  }
  t.equal(isPciAddress('00:04.0'), false, 'not in full');
  for (const value of [undefined, null, 4, {}])
    t.throws(() => pciAddress(value as unknown as string), TypeError);
});

t.test('a device', async t => {
  const kernel = new FakeSysfs();
  kernel.device(ADDRESS, {
    group: 12,
    attributes: {
      numa_node: '1',
      resource: [
        '0x00000000febd4000 0x00000000febd7fff 0x0000000000140204',
        '0x0000000000000000 0x0000000000000000 0x0000000000000000',
        '0x000000000000c040 0x000000000000c05f 0x0000000000040101',
        '0x0000008000000000 0x00000083ffffffff 0x000000000014220c',
        '0x0000000000000000 0x0000000000000000 0x0000000000000000',
        '0x00000000febd8000 0x00000000febd8fff 0x0000000000040200',
        '0x00000000fe000000 0x00000000fe00ffff 0x0000000000046200',
        '0x0000000000000000 0x0000000000000000 0x0000000000000000',
      ].join('\n'),
    },
  });
  t.same(readPciDevice('00:04.0', kernel), {
    address: ADDRESS,
    vendorId: 0x1b36,
    deviceId: 0x10,
    subsystemVendorId: 0x1af4,
    subsystemDeviceId: 0x1100,
    classCode: 0x010802,
    revision: 2,
    driver: 'nvme',
    iommuGroup: 12,
    noiommu: false,
    numaNode: 1,
    bars: [
      { index: 0, address: 0xfebd4000n, size: 0x4000, kind: 'memory', prefetchable: false, is64Bit: true },
      { index: 2, address: 0xc040n, size: 0x20, kind: 'io', prefetchable: false, is64Bit: false },
      {
        index: 3,
        address: 0x80_0000_0000n,
        size: 0x4_0000_0000,
        kind: 'memory',
        prefetchable: true,
        is64Bit: true,
      },
      { index: 5, address: 0xfebd8000n, size: 0x1000, kind: 'memory', prefetchable: false, is64Bit: false },
    ],
    vfio: undefined,
  });
});

t.test('what a device may lack', async t => {
  const kernel = new FakeSysfs();
  kernel.device(ADDRESS, { bound: null });
  const plain = readPciDevice(ADDRESS, kernel);
  t.match(plain, {
    driver: undefined,
    iommuGroup: undefined,
    numaNode: undefined,
    bars: [],
    vfio: undefined,
  });
  t.equal(plain.noiommu, false);
  const none = { numa_node: undefined, resource: undefined, subsystem_vendor: undefined };
  kernel.device('0000:00:05.0', { bound: null, attributes: none });
  const bare = readPciDevice('0000:00:05.0', kernel);
  t.same(bare.bars, []);
  t.equal(bare.subsystemVendorId, 0);
  t.equal(bare.numaNode, undefined, 'a kernel without NUMA says nothing of nodes');
});

t.test('the VFIO node', async t => {
  for (const [offer, group, node] of [
    ['cdev', 3, { kind: 'cdev', path: '/dev/vfio/devices/vfio0', noiommu: false }],
    ['noiommu-cdev', 3, { kind: 'cdev', path: '/dev/vfio/devices/noiommu-vfio0', noiommu: true }],
    ['noiommu-cdev', undefined, { kind: 'cdev', path: '/dev/vfio/devices/noiommu-vfio0', noiommu: true }],
    ['group', 3, { kind: 'group', path: '/dev/vfio/3', noiommu: false }],
    ['noiommu-group', 3, { kind: 'group', path: '/dev/vfio/noiommu-3', noiommu: true }],
  ] as const) {
    const kernel = new FakeSysfs();
    kernel.device(ADDRESS, { bound: 'vfio-pci', offer, ...(group !== undefined && { group }) });
    const device = readPciDevice(ADDRESS, kernel);
    t.same(device.vfio, node, offer);
    t.equal(device.noiommu, node.noiommu);
    t.equal(device.driver, 'vfio-pci');
  }
  const kernel = new FakeSysfs();
  kernel.device(ADDRESS, { bound: 'vfio-pci', offer: 'nothing' });
  t.equal(readPciDevice(ADDRESS, kernel).vfio, undefined, 'neither a cdev nor a group');
  kernel.denied.push({ pattern: /vfio-dev$/, call: 'read', errno: EACCES });
  t.throws(() => readPciDevice(ADDRESS, kernel), { name: 'KernelError', code: 'EACCES', syscall: 'readdir' });
});

t.test('the list', async t => {
  const kernel = new FakeSysfs();
  kernel.device('0000:00:1f.2', { group: 4 });
  kernel.device('0000:00:04.0', { group: 4 });
  kernel.device('10000:e0:17.0');
  kernel.file('/sys/bus/pci/devices/README', 'no device');
  t.same(
    listPciDevices(kernel).map(device => device.address),
    ['0000:00:04.0', '0000:00:1f.2', '10000:e0:17.0'],
  );
  t.same(
    groupMembers(4, kernel).map(device => device.address),
    ['0000:00:04.0', '0000:00:1f.2'],
  );
  t.throws(() => groupMembers(5, kernel), { name: 'KernelError', code: 'ENOENT' });
  t.throws(() => readPciDevice('0000:00:05.0', kernel), {
    name: 'KernelError',
    code: 'ENOENT',
    hint: /no PCI device at this address/,
  });
  kernel.forget();
  t.throws(() => readPciDevice('nvme0', kernel), RangeError);
  t.same(kernel.calls, [], 'no call for what is no address');
  kernel.denied.push({ pattern: /\/vendor$/, call: 'read', errno: EIO });
  t.throws(() => listPciDevices(kernel), { name: 'KernelError', code: 'EIO', path: /vendor$/ });
  const empty = new FakeSysfs();
  empty.remove('/sys/bus/pci/devices');
  t.throws(() => listPciDevices(empty), { name: 'KernelError', code: 'ENOENT', hint: /sysfs/ });
});
