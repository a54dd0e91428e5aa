// How the simulated kernel resets a function, and how it is told not to: reset_method, reset, and what VFIO makes of it.
import t from 'tap';
import { EACCES, EINVAL, ENOENT, ENOTTY } from '../../bindings/uapi/errno.js';
import * as vfio from '../../bindings/uapi/vfio.js';
import { claim } from '../../src/pci/claim.js';
import { Capability } from '../../src/sim/process/process.js';
import { address, type Machine, machine } from './support/sim-pci-machine.js';
import { issue, opened } from './support/sim-vfio-calls.js';

const COMMAND = 4;
const MASTER = 0x4;
const MSIX_FLAGS = 0x42;
const MSIX_ENABLE = 0x8000;
const attributeOf = (at: string, name: string): string => `/sys/bus/pci/devices/${at}/${name}`;

t.test('the attribute', async t => {
  const kernel = machine().process();
  const path = attributeOf(address.nvmeB, 'reset_method');
  const read = (): unknown => kernel.readText(path);
  t.equal(read(), 'flr bus\n');
  for (const [text, methods] of [
    ['bus flr', 'bus flr\n'],
    ['default', 'flr bus\n'],
    ['bus', 'bus\n'],
    ['default\n', 'flr bus\n'],
    ['  flr  \n', 'flr\n'],
    ['\n', ''],
    ['flr flr bus\n', 'flr flr bus\n'],
    [' ', ''],
    ['\tbus\t', 'bus\n'],
  ] as const) {
    t.equal(kernel.writeText(path, text), text.length, JSON.stringify(text));
    t.equal(read(), methods, JSON.stringify(text));
  }
  for (const text of ['flr,bus', 'pm', 'none', 'flr pm', 'Flr', ' default', 'flr\tbus', 'bus '.repeat(8)]) {
    t.equal(kernel.writeText(path, text), -EINVAL, JSON.stringify(text));
    t.equal(read(), 'bus\n', 'it stays as it was');
  }
  t.equal(kernel.writeText(path, 'bus '.repeat(7)), 28);
  t.equal(kernel.writeText(path, ''), 0, 'nothing is written, and nothing happens');
  t.equal(read(), 'bus bus bus bus bus bus bus\n');
  t.equal(kernel.writeText(attributeOf(address.nvmeA, 'reset_method'), 'bus'), -EINVAL, 'it has no such bus');
  for (const name of ['reset_method', 'reset']) {
    t.equal(
      kernel.access(attributeOf(address.edu, name), 0),
      -ENOENT,
      'one that cannot be reset has neither',
    );
  }
});

t.test('reset', async t => {
  const { process, nvmeA, bus } = machine();
  const kernel = process();
  const path = attributeOf(address.nvmeA, 'reset');
  t.equal(kernel.readText(path), -EACCES);
  bus.slot(address.nvmeA)?.changeConfig(COMMAND, 0, MASTER);
  let resets = 0;
  for (const text of ['1', '1\n', '0x1', '01', '+1']) {
    t.equal(kernel.writeText(path, text), text.length);
    t.equal(nvmeA.resets, ++resets, text);
  }
  t.equal(bus.slot(address.nvmeA)?.busMaster, true, 'its configuration is put back');
  for (const text of ['0', '2', '11', 'x', '\n', ' 1', '1 '])
    t.equal(kernel.writeText(path, text), -EINVAL, text);
  kernel.writeText(attributeOf(address.nvmeA, 'reset_method'), '\n');
  t.equal(kernel.writeText(path, '1'), -ENOTTY);
  t.equal(nvmeA.resets, resets);
  kernel.writeText(attributeOf(address.nvmeA, 'reset_method'), 'default');
  t.equal(kernel.writeText(path, '1'), 1);
});

/** Takes a device with no reset method, or with those that are written. */
async function withMethods(at: string, methods: string, on: Machine = machine()) {
  const kernel = on.process();
  kernel.writeText(attributeOf(at, 'reset_method'), methods);
  return opened(at, on, kernel);
}

function resetFlag(on: Awaited<ReturnType<typeof opened>>): boolean {
  const { values } = issue(on.kernel, on.fd, vfio.VFIO_DEVICE_GET_INFO, { argsz: 24 });
  return (values.flags & vfio.VFIO_DEVICE_FLAGS_RESET) !== 0;
}

t.test('VFIO leaves a device alone that is not to be reset', async t => {
  const on = await withMethods(address.nvmeA, '\n');
  const { kernel, fd, device, claimed, nvmeA, bus } = on;
  t.equal(nvmeA.resets, 0, 'opening does not reset it');
  t.equal(resetFlag(on), false);
  t.equal(kernel.ioctl(fd, vfio.VFIO_DEVICE_RESET.number, 0), -EINVAL);
  on.writeConfig(COMMAND, 2, 0x6);
  device.bar(0).write32(0x100, 0xfeed);
  device.interrupts.enable(2, 3);
  const slot = bus.slot(address.nvmeA);
  t.equal(slot?.busMaster, true);
  t.equal((slot?.readConfig(MSIX_FLAGS, 2) ?? 0) & MSIX_ENABLE, MSIX_ENABLE);
  device[Symbol.dispose]();
  t.equal(nvmeA.resets, 0, 'nor does closing');
  t.equal(slot?.busMaster, false, 'but it is no master of the bus any more');
  t.equal((slot?.readConfig(MSIX_FLAGS, 2) ?? 0) & MSIX_ENABLE, 0, 'and sends no interrupts');
  t.equal(nvmeA.registers[0x100], 0xed, 'its registers are what they were');
  claimed.release();
});

t.test('the methods are taken away while the device is open', async t => {
  const on = await withMethods(address.nvmeA, 'default');
  const { kernel, fd, device, nvmeA } = on;
  t.equal(nvmeA.resets, 1);
  t.equal(kernel.ioctl(fd, vfio.VFIO_DEVICE_RESET.number, 0), 0);
  t.equal(nvmeA.resets, 2);
  const path = attributeOf(address.nvmeA, 'reset_method');
  kernel.writeText(path, '\n');
  t.equal(resetFlag(on), true, 'what was found out at the first open');
  t.equal(kernel.ioctl(fd, vfio.VFIO_DEVICE_RESET.number, 0), -ENOTTY);
  // Function-level reset through configuration space, which the kernel makes by its own methods.
  on.writeConfig(0x88, 2, 0x8000);
  device[Symbol.dispose]();
  t.equal(nvmeA.resets, 2);
  kernel.writeText(path, 'flr');
  on.claimed.release();

  const late = await withMethods(address.nvmeA, '\n', on);
  late.kernel.writeText(path, 'default');
  t.equal(resetFlag(late), false);
  t.equal(late.kernel.ioctl(late.fd, vfio.VFIO_DEVICE_RESET.number, 0), -EINVAL);
  late.writeConfig(0x88, 2, 0x8000);
  t.equal(nvmeA.resets, 3, 'that one asks anew');
  late.device[Symbol.dispose]();
  t.equal(nvmeA.resets, 3, 'the last close goes by what the first open found out');
  late.claimed.release();
});

t.test('a device behind a port is reset with its bus all the same, by the last close', async t => {
  const on = await withMethods(address.nvmeB, '\n');
  const { kernel, fd, device, nvmeB, bus } = on;
  t.equal(nvmeB.resets, 0);
  t.equal(resetFlag(on), false);
  t.equal(kernel.ioctl(fd, vfio.VFIO_DEVICE_RESET.number, 0), -EINVAL);
  const copy = kernel.share(fd, kernel);
  device[Symbol.dispose]();
  t.equal(nvmeB.resets, 0, 'somebody still has it open');
  kernel.close(copy);
  t.equal(nvmeB.resets, 1);
  t.equal(bus.slot(address.nvmeB)?.busMaster, false);
  on.claimed.release();

  const again = await withMethods(address.nvmeB, '\n', on);
  const { result } = issue(again.kernel, again.fd, vfio.VFIO_DEVICE_PCI_HOT_RESET, { argsz: 12 });
  t.equal(result, 0, 'a hot reset is asked for in so many words');
  t.equal(nvmeB.resets, 2);
  again.device[Symbol.dispose]();
  again.claimed.release();
});

t.test('by any other method it is reset once', async t => {
  const on = await withMethods(address.nvmeB, 'bus');
  t.equal(on.nvmeB.resets, 1);
  t.equal(resetFlag(on), true);
  on.device[Symbol.dispose]();
  t.equal(on.nvmeB.resets, 2);
  on.claimed.release();
});

t.test('config', async t => {
  const { process, bus } = machine();
  const kernel = process();
  const path = attributeOf(address.nvmeA, 'config');
  const slot = bus.slot(address.nvmeA);
  const fd = kernel.open(path, 0);
  const bytes = new Uint8Array(8192);
  t.equal(kernel.pread(fd, bytes, 0), 4096);
  t.strictSame(bytes.subarray(0, 4096), slot?.config.bytes);
  t.equal(kernel.pread(fd, bytes.subarray(0, 4), 0x2c), 4);
  t.strictSame([...bytes.subarray(0, 4)], [0xf4, 0x1a, 0x00, 0x11]);
  t.equal(kernel.pread(fd, bytes, 4094), 2);
  t.equal(kernel.pread(fd, bytes, 4096), 0);
  t.equal(kernel.read(fd, bytes.subarray(0, 3)), 3);
  t.equal(kernel.read(fd, bytes.subarray(0, 3)), 3);
  t.equal(bytes[1], slot?.config.bytes[4], 'one read after the other');
  slot?.changeConfig(COMMAND, 0, MASTER);
  kernel.pread(fd, bytes.subarray(0, 2), COMMAND);
  t.equal((bytes[0] ?? 0) & MASTER, MASTER, 'as it is now');
  t.equal(kernel.open(path, 2), -EACCES);

  const restricted = process();
  restricted.capabilities.delete(Capability.SysAdmin);
  const header = restricted.open(path, 0);
  t.equal(restricted.pread(header, bytes, 0), 64, 'the header only');
  t.equal(restricted.pread(header, bytes, 60), 4);
  t.equal(restricted.pread(header, bytes, 64), 0);
  const conventional = kernel.open(attributeOf(address.edu, 'config'), 0);
  t.equal(kernel.pread(conventional, bytes, 0), 256);
  await Promise.all([bus.pull(address.nvmeB)]);
  t.equal(kernel.open(attributeOf(address.nvmeB, 'config'), 0), -ENOENT);
});

t.test('modules', async t => {
  const kernel = machine().process();
  t.equal(
    kernel.readText(attributeOf(address.nvmeA, 'modalias')),
    'pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02\n',
  );
  for (const [driver, module] of [
    ['nvme', 'nvme'],
    ['vfio-pci', 'vfio_pci'],
  ]) {
    t.equal(kernel.readLink(`/sys/bus/pci/drivers/${driver}/module`), `../../../../module/${module}`);
    t.equal(kernel.readText(`/sys/bus/pci/drivers/${driver}/module/initstate`), 'live\n');
    t.equal(kernel.access(`/sys/module/${module}/drivers/pci:${driver}/bind`, 0), 0);
  }
  const parameter = '/sys/module/vfio_pci/parameters/disable_idle_d3';
  t.equal(kernel.readText(parameter), 'N\n');
  t.equal(kernel.writeText(parameter, '1'), 1);
  t.equal(kernel.readText(parameter), 'Y\n');
  t.equal(kernel.writeText(parameter, 'x'), -EINVAL);
  const claimed = await claim(address.nvmeA, { kernel });
  t.equal(kernel.access('/sys/bus/pci/drivers/vfio-pci/0000:00:04.0/config', 0), 0);
  claimed.release();
});
