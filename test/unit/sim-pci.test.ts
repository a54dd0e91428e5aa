// The simulated PCI bus: sysfs, drivers, configuration space, hot-plug.
import t from 'tap';
import { DeviceError } from '../../src/errors.js';
import { openDevice } from '../../src/open-device.js';
import { claim } from '../../src/pci/claim.js';
import { listPciDevices, readPciDevice } from '../../src/pci/devices.js';
import { address, machine, RegisterFunction } from './support/sim-pci-machine.js';

t.test('what sysfs shows', async t => {
  const kernel = machine().process();
  const devices = listPciDevices(kernel);
  t.strictSame(
    devices.map(device => device.address),
    [address.nvmeA, address.edu, address.port, address.nvmeB],
  );
  t.match(readPciDevice(address.nvmeA, kernel), {
    vendorId: 0x1b36,
    deviceId: 0x0010,
    subsystemVendorId: 0x1af4,
    subsystemDeviceId: 0x1100,
    classCode: 0x010802,
    revision: 2,
    driver: 'nvme',
    iommuGroup: 3,
    noiommu: false,
    numaNode: undefined,
    vfio: undefined,
  });
  t.strictSame(readPciDevice(address.edu, kernel).bars, [
    { index: 0, address: 0xfe400000n, size: 0x100000, kind: 'memory', prefetchable: false, is64Bit: false },
  ]);
  t.match(readPciDevice(address.nvmeB, kernel).bars, [{ address: 0xfe200000n, size: 0x4000, is64Bit: true }]);
  const path = `/sys/bus/pci/devices/${address.nvmeB}`;
  t.equal(kernel.readLink(path), '../../../devices/pci0000:00/0000:00:07.0/0000:01:00.0');
  t.equal(kernel.readLink(`${path}/driver`), '../../../../bus/pci/drivers/nvme');
  t.equal(kernel.readLink(`${path}/iommu_group`), '../../../../kernel/iommu_groups/9');
  t.equal(kernel.readText(`${path}/reset_method`), 'flr bus\n');
  t.equal(kernel.readText(`/sys/bus/pci/devices/${address.edu}/reset_method`), -2);
  t.equal(kernel.readText(`${path}/driver_override`), '(null)\n');
  t.equal(
    (kernel.readText(`/sys/bus/pci/devices/${address.nvmeA}/resource`) as string).split('\n')[0],
    '0x00000000fe500000 0x00000000fe503fff 0x0000000000140204',
  );
  t.strictSame(kernel.readDirectory('/sys/kernel/iommu_groups'), ['3', '4', '9']);
  t.strictSame(kernel.readDirectory('/dev/vfio'), ['vfio']);
});

t.test('claim and release', async t => {
  const { process } = machine();
  const kernel = process();
  const claimed = await claim(address.nvmeA, { kernel });
  t.equal(claimed.previousDriver, 'nvme');
  t.strictSame(claimed.node, { kind: 'cdev', path: '/dev/vfio/devices/vfio0', noiommu: false });
  t.equal(readPciDevice(address.nvmeA, kernel).driver, 'vfio-pci');
  t.equal(kernel.readText(`/sys/bus/pci/devices/${address.nvmeA}/vfio-dev/vfio0/dev`), '249:0\n');
  t.strictSame(kernel.readDirectory('/dev/vfio'), ['3', 'devices', 'vfio']);
  t.strictSame(kernel.readDirectory('/dev/vfio/devices'), ['vfio0']);

  // The kernel would wait for the file to be closed.
  const fd = kernel.open(claimed.node.path, 2);
  t.equal(kernel.writeText('/sys/bus/pci/drivers/vfio-pci/unbind', address.nvmeA), -16);
  kernel.close(fd);
  claimed.release();
  t.equal(readPciDevice(address.nvmeA, kernel).driver, 'nvme');
  t.strictSame(kernel.readDirectory('/dev/vfio'), ['vfio']);
  t.equal(kernel.readText(`/sys/bus/pci/devices/${address.nvmeA}/driver_override`), '(null)\n');
});

t.test('drivers', async t => {
  const kernel = machine().process();
  const drivers = '/sys/bus/pci/drivers';
  t.equal(kernel.writeText(`${drivers}/vfio-pci/bind`, address.edu), -19, 'only with an override');
  t.equal(kernel.writeText(`${drivers}/nvme/unbind`, address.edu), -19);
  t.equal(kernel.writeText(`${drivers}/nvme/unbind`, '0000:00:1e.0'), -19);
  t.equal(kernel.writeText('/sys/bus/pci/drivers_probe', '0000:00:1e.0'), -19);
  t.equal(kernel.writeText(`/sys/bus/pci/devices/${address.edu}/driver_override`, 'nvme\n'), 5);
  t.equal(kernel.readText(`/sys/bus/pci/devices/${address.edu}/driver_override`), 'nvme\n');
  t.equal(kernel.writeText(`${drivers}/nvme/bind`, address.edu), 12);
  t.equal(kernel.writeText(`${drivers}/nvme/bind`, address.edu), -16);
  t.equal(kernel.writeText(`${drivers}/nvme/unbind`, `${address.edu}\n`), 13);
  const override = `/sys/bus/pci/devices/${address.edu}/driver_override`;
  t.equal(kernel.writeText(override, ''), 0, 'which changes nothing');
  t.equal(kernel.readText(override), 'nvme\n');
  t.equal(kernel.writeText(override, 'x'.repeat(4095)), -22);
  t.equal(kernel.writeText(override, '\n'), 1);
  t.equal(kernel.writeText('/sys/bus/pci/drivers_probe', address.edu), 12, 'nobody wants it');
  t.equal(readPciDevice(address.edu, kernel).driver, undefined);
});

t.test('without an IOMMU', async t => {
  const { process } = machine('noiommu');
  const kernel = process();
  t.equal(readPciDevice(address.nvmeA, kernel).iommuGroup, undefined);
  await t.rejects(claim(address.nvmeA, { kernel }), { code: 'UNSUPPORTED', hint: /No IOMMU/ });
  t.equal(readPciDevice(address.nvmeA, kernel).driver, 'nvme', 'it is back with its driver');
  const parameter = '/sys/module/vfio/parameters/enable_unsafe_noiommu_mode';
  t.equal(kernel.readText(parameter), 'N\n');
  for (const text of ['x', '2']) t.equal(kernel.writeText(parameter, text), -22, text);
  for (const text of ['on', 'of', 'true']) kernel.writeText(parameter, text);
  t.equal(kernel.writeText(parameter, '1'), 1);
  t.equal(kernel.readText(parameter), 'Y\n');
  const claimed = await claim(address.nvmeA, { kernel });
  t.strictSame(claimed.node, { kind: 'cdev', path: '/dev/vfio/devices/noiommu-vfio0', noiommu: true });
  t.equal(readPciDevice(address.nvmeA, kernel).iommuGroup, 0);
  t.equal(kernel.readText('/sys/kernel/iommu_groups/0/name'), 'vfio-noiommu\n');
  t.strictSame(kernel.readDirectory('/dev/vfio'), ['devices', 'noiommu-0', 'vfio']);
  const stranger = process();
  stranger.capabilities.delete('CAP_SYS_RAWIO');
  t.equal(stranger.open(claimed.node.path, 2), -1);
  t.equal(stranger.open('/dev/vfio/noiommu-0', 2), -1);
  const device = openDevice(claimed, { noiommu: true });
  t.equal(device.config.vendorId, 0x1b36);
  device[Symbol.dispose]();
  claimed.release();
  t.equal(kernel.readDirectory('/sys/kernel/iommu_groups/0'), -2);
  t.strictSame(kernel.readDirectory('/dev/vfio'), ['vfio']);
});

t.test('an announced removal', async t => {
  const { bus, process, nvmeB, plug } = machine();
  const kernel = process();
  const claimed = await claim(address.nvmeB, { kernel });
  const device = openDevice(claimed);
  const asked = new Promise<void>(resolve => device.onReleaseRequest(resolve));
  const left = bus.unplug(address.nvmeB);
  const alive = setTimeout(() => t.fail('nobody asked'), 5000);
  await asked;
  clearTimeout(alive);
  t.equal(kernel.open(claimed.node.path, 2), -2, 'nobody can open it any more');
  t.equal(device.config.vendorId, 0x1b36, 'it still works');
  device[Symbol.dispose]();
  await left;
  claimed.release();
  t.equal(nvmeB.removals, 1);
  t.throws(() => readPciDevice(address.nvmeB, kernel), { code: 'ENOENT' });
  t.strictSame(kernel.readDirectory('/sys/kernel/iommu_groups'), ['3', '4']);
  plug(new RegisterFunction('nvme'));
  t.equal(readPciDevice(address.nvmeB, kernel).driver, 'nvme');
  await bus.unplug(address.nvmeB);
  t.throws(
    () => readPciDevice(address.nvmeB, kernel),
    { code: 'ENOENT' },
    'the native driver lets go at once',
  );
});

t.test('a device that is pulled out', async t => {
  const { bus, process, nvmeB } = machine();
  const kernel = process();
  const claimed = await claim(address.nvmeB, { kernel });
  const device = openDevice(claimed);
  const bar = device.region(0);
  bar.write32(0, 1);
  const asked = new Promise<void>(resolve => device.onReleaseRequest(resolve));
  const left = bus.pull(address.nvmeB);
  t.equal(bar.read32(0), 0xffffffff);
  t.equal(device.config.read32(8), 0xffffffff);
  t.equal(device.config.vendorId, 0x1b36, 'the kernel keeps this one');
  t.equal(nvmeB.removals, 1);
  const alive = setTimeout(() => t.fail('nobody asked'), 5000);
  await asked;
  clearTimeout(alive);
  device[Symbol.dispose]();
  await left;
  claimed.release();
  t.throws(() => readPciDevice(address.nvmeB, kernel), { code: 'ENOENT' });
});

t.test('a claim cannot be released while the device is open', async t => {
  const kernel = machine().process();
  const claimed = await claim(address.edu, { kernel });
  const device = openDevice(claimed);
  t.throws(() => claimed.release(), DeviceError);
  device[Symbol.dispose]();
  claimed.release();
});
