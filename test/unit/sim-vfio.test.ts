// VFIO of the simulated machine. The numbers are those of Linux 7.3 with QEMU's nvme and edu devices.
import t from 'tap';
import type { StructInput } from '../../bindings/uapi/struct.js';
import * as vfio from '../../bindings/uapi/vfio.js';
import { claim } from '../../src/pci/claim.js';
import { address, machine } from './support/sim-pci-machine.js';
import { CONFIG, counted, issue, NONBLOCK, opened } from './support/sim-vfio-calls.js';

t.test('nothing works before the device is bound', async t => {
  const { process } = machine();
  const kernel = process();
  const claimed = await claim(address.nvmeA, { kernel });
  const fd = kernel.open(claimed.node.path, 2);
  t.equal(issue(kernel, fd, vfio.VFIO_DEVICE_GET_INFO, { argsz: 24 }).result, -22);
  t.equal(kernel.pread(fd, new Uint8Array(4), CONFIG), -22);
  t.equal(kernel.mmap(4096, 1, 1, fd, 0), -22n);
  t.equal(kernel.ioctl(fd, 0x1234, 0), -22);

  const iommufd = kernel.open('/dev/iommu', 2);
  const bind = (values: StructInput<typeof vfio.vfio_device_bind_iommufd>, on = fd) =>
    issue(kernel, on, vfio.VFIO_DEVICE_BIND_IOMMUFD, { argsz: 24, ...values });
  t.equal(bind({ argsz: 15, iommufd }).result, -22);
  t.equal(bind({ iommufd: -1 }).result, -22);
  t.equal(bind({ iommufd: 99 }).result, -9);
  t.equal(bind({ iommufd: fd }).result, -77);
  t.equal(bind({ iommufd, flags: 2 }).result, -22);
  t.equal(bind({ iommufd, flags: 1 }).result, -14, 'a token that is nowhere');
  t.equal(bind({ iommufd, flags: 1, token_uuid_ptr: kernel.addressOf(new Uint8Array(16)) }).result, -22);
  const bound = bind({ iommufd });
  t.equal(bound.result, 0);
  t.equal(bound.values.out_devid, 1);
  t.equal(bind({ iommufd }).result, -22, 'twice');
  const second = kernel.open(claimed.node.path, 2);
  t.equal(bind({ iommufd }, second).result, -22, 'somebody else');
  t.equal(kernel.open('/dev/vfio/3', 2), -16, 'its group');
  t.equal(kernel.ioctl(fd, 0x1234, 0), -25);

  const attach = (pt_id: number, flags = 0, argsz = 16) =>
    issue(kernel, fd, vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { argsz, flags, pt_id, pasid: 1 }).result;
  t.equal(attach(999), -2);
  t.equal(attach(1), -22, 'the device itself');
  t.equal(attach(1, 2), -22);
  t.equal(attach(1, 1, 12), -22);
  t.equal(attach(1, 0, 11), -22);
  t.equal(issue(kernel, fd, vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT, { argsz: 8 }).result, 0);
  for (const each of [fd, second, iommufd]) kernel.close(each);
  claimed.release();
});

t.test('what a device says of itself', async t => {
  const { kernel, fd, device } = await opened(address.nvmeA);
  t.strictSame(issue(kernel, fd, vfio.VFIO_DEVICE_GET_INFO, { argsz: 24 }).values, {
    argsz: 24,
    flags: 3,
    num_regions: 9,
    num_irqs: 5,
    cap_offset: 0,
    pad: 0,
  });
  const region = (index: number) =>
    issue(kernel, fd, vfio.VFIO_DEVICE_GET_REGION_INFO, { argsz: 32, index }, 16);
  t.match(region(0).values, { flags: 3, size: 0x4000n, offset: 0n, cap_offset: 0 });
  t.match(region(1).values, { flags: 0, size: 0n, offset: 2n ** 40n });
  t.match(region(2).values, { flags: 7, size: 0x2000n, offset: 2n * 2n ** 40n });
  t.match(region(6).values, { flags: 0, size: 0n });
  t.match(region(7).values, { flags: 3, size: 4096n, offset: 7n * 2n ** 40n });
  t.equal(region(8).result, -22);
  t.equal(region(9).result, -22);
  const irq = (index: number) => {
    const { result, values } = issue(kernel, fd, vfio.VFIO_DEVICE_GET_IRQ_INFO, { argsz: 16, index });
    return result < 0 ? result : [values.flags, values.count];
  };
  t.strictSame([0, 1, 2, 3, 4, 5].map(irq), [[7, 1], [9, 0], [1, 65], [9, 1], [9, 1], -22]);
  device[Symbol.dispose]();
  const edu = await opened(address.edu);
  t.equal(edu.device.info.canReset, false);
  t.equal(edu.kernel.ioctl(edu.fd, vfio.VFIO_DEVICE_RESET.number, 0), -22);
  t.equal(edu.device.config.size, 256);
  t.equal(edu.kernel.pread(edu.fd, new Uint8Array(2), CONFIG + 255), -14);
});

t.test('configuration space', async t => {
  const { kernel, fd, device, readConfig, writeConfig, bus, nvmeA } = await opened(address.nvmeA);
  const bytes = new Uint8Array(4096);
  t.equal(kernel.pread(fd, bytes, CONFIG), 4096);
  const expected = new Uint8Array(4096);
  const put = (at: number, hex: string): void =>
    expected.set(Buffer.from(hex.replaceAll(' ', ''), 'hex'), at);
  put(0x00, '36 1b 10 00 03 01 10 00 02 02 08 01 00 00 00 00 04 00 50 fe');
  put(0x2c, 'f4 1a 00 11 00 00 00 00 40 00 00 00 00 00 00 00 0a 01');
  put(0x40, '11 80 40 00 00 20 00 00 00 30');
  put(0x60, '01 00 03 00 08');
  put(0x80, '10 60 92 00 00 80 00 10 00 00 00 00 11 04 00 00 00 00 11');
  put(0xa6, '30');
  // BAR 2, which QEMU's has not.
  expected.set(bytes.subarray(0x18, 0x1c), 0x18);
  t.equal(Buffer.from(bytes).toString('hex'), Buffer.from(expected).toString('hex'));
  t.strictSame(
    [...device.config.capabilities()].map(({ id, offset }) => [id, offset]),
    [
      [0x11, 0x40],
      [0x10, 0x80],
      [0x01, 0x60],
    ],
  );

  const written = (at: number, value = 0xffffffff): number => {
    const before = readConfig(at, 4);
    t.equal(writeConfig(at, 4, value), 4);
    const after = readConfig(at, 4);
    writeConfig(at, 4, before);
    return after;
  };
  t.equal(written(0x00), 0x00101b36);
  t.equal(written(0x0c), 0xff);
  t.equal(written(0x10), 0xffffc004);
  t.equal(written(0x14), 0xffffffff);
  t.equal(written(0x1c), 0);
  t.equal(written(0x30), 0);
  t.equal(written(0x3c), 0x1ff);
  t.equal(written(0x40), 0x408011, 'MSI-X is enabled by a request');
  t.equal(written(0x4c), 0xffffffff, 'what belongs to no capability');
  t.equal(written(0x64, 0xfffffffc), 8);
  t.equal(written(0xac), 0, 'an endpoint in the root complex has no link');
  t.equal(written(0xbc), 0xffffffff);
  const resets = nvmeA.resets;
  t.equal(written(0x88), 0x70e0);
  t.equal(nvmeA.resets, resets + 1, 'that reset it');
  t.equal(readConfig(0x04, 2), 0x103);
  t.equal(writeConfig(0x04, 2, 0xffff), 2);
  t.equal(readConfig(0x04, 2), 0x507);
  t.equal(bus.slot(address.nvmeA)?.command, 0x507);
  t.equal(writeConfig(0x04, 2, 0), 2);
  t.equal(readConfig(0x04, 2), 0);
  t.equal(kernel.pread(fd, new Uint8Array(8), CONFIG + 4092), -14);
  t.equal(kernel.pread(fd, new Uint8Array(1), CONFIG + 4096), -14);
});

t.test('registers are accessed in aligned pieces', async t => {
  const { kernel, fd, nvmeA, writeConfig } = await opened(address.nvmeA);
  const access = (offset: number, length: number): number[] | number => {
    nvmeA.accesses.length = 0;
    const result = kernel.pread(fd, new Uint8Array(length), offset);
    return result < 0 ? result : nvmeA.accesses.map(each => each.bytes);
  };
  t.strictSame(access(0, 8), [8]);
  t.strictSame(access(4, 8), [4, 4]);
  t.strictSame(access(1, 8), [1, 2, 4, 1]);
  t.strictSame(access(2, 16), [2, 4, 8, 2]);
  t.equal(access(0x4000, 1), -22, 'beyond the end');
  t.equal(kernel.pread(fd, new Uint8Array(8), 0x3ffc), 4, 'across the end');
  const table = new Uint8Array(24);
  t.equal(kernel.pread(fd, table, 0x1ffc), 24);
  t.strictSame([...table], [0, 0, 0, 0, ...Array(20).fill(0xff)], 'the MSI-X table cannot be seen');
  t.equal(kernel.pwrite(fd, table, 0x2000), 24);
  t.ok(
    nvmeA.registers.every(byte => byte === 0),
    'or written',
  );
  t.equal(kernel.pread(fd, table, 2 ** 40), -22, 'no BAR 1');
  t.equal(kernel.pwrite(fd, table, 6 * 2 ** 40), -22, 'no ROM');
  t.equal(kernel.pread(fd, table, 8 * 2 ** 40), -22, 'no VGA');
  t.equal(kernel.pread(fd, table, 9 * 2 ** 40), -22);
  t.equal(kernel.pread(fd, new Uint8Array(0), 9 * 2 ** 40), 0);
  writeConfig(4, 2, 0);
  t.equal(access(0, 4), -5, 'memory is not decoded');
  writeConfig(4, 2, 2);
  writeConfig(0x64, 2, 3);
  t.equal(access(0, 4), -5, 'asleep');
  writeConfig(0x64, 2, 0);
  t.strictSame(access(0, 4), [4]);
});

t.test('memory of a device', async t => {
  const { kernel, fd, device, deviceMemory, feature, writeConfig, nvmeA } = await opened(address.nvmeA);
  t.equal(kernel.mmap(0x2000, 3, 2, fd, 2 * 2 ** 40), -22n, 'privately');
  t.equal(kernel.mmap(0x4000, 3, 1, fd, 2 * 2 ** 40), -22n, 'too much');
  t.equal(kernel.mmap(0x1000, 3, 1, fd, 0), -22n, 'registers');
  const maps = [0, 0x1000].map(at => kernel.mmap(0x1000, 3, 1, fd, 2 * 2 ** 40 + at));
  for (const at of maps) t.equal(kernel.munmap(at, 0x1000), 0);
  const bar = device.bar(2);
  bar.write32(0x10, 0x12345678);
  t.equal(deviceMemory.bytes[0x13], 0x12);
  const back = new Uint8Array(4);
  t.equal(kernel.pread(fd, back, 2 * 2 ** 40 + 0x10), 4);
  t.strictSame([...back], [0x78, 0x56, 0x34, 0x12]);

  const GET = vfio.VFIO_DEVICE_FEATURE_GET | vfio.VFIO_DEVICE_FEATURE_DMA_BUF;
  const share = (index: number, ranges: readonly [number, number][], flags = 0): number =>
    feature(GET, [index, 0, flags, ranges.length, ...ranges.flatMap(([at, size]) => [at, 0, size, 0])]);
  t.equal(share(2, []), -22);
  t.equal(share(2, [[0, 0]]), -22);
  t.equal(share(2, [[1, 4096]]), -22);
  t.equal(share(2, [[0, 0x3000]]), -22);
  t.equal(share(1, [[0, 4096]]), -19);
  t.equal(share(7, [[0, 4096]]), -19);
  t.equal(share(2, [[0, 4096]], 1), -22);
  const shared = share(2, [[0x1000, 0x1000]]);
  t.ok(shared > 2);
  const file = kernel.file(shared) as unknown as { physicalRange(): unknown };
  t.match(file.physicalRange(), { length: 0x1000 });
  writeConfig(4, 2, 0);
  t.equal(file.physicalRange(), -19, 'it is revoked while memory is not decoded');
  writeConfig(4, 2, 2);
  t.match(file.physicalRange(), { length: 0x1000 });
  device[Symbol.dispose]();
  t.equal(nvmeA.resets, 2, 'no mapping keeps the device open');
  t.equal(file.physicalRange(), -19, 'and for good when the device is closed');
  kernel.close(shared);
});

t.test('open, reset and close', async t => {
  const on = machine();
  const { kernel, device, nvmeA, writeConfig, readConfig, claimed } = await opened(address.nvmeA, on);
  t.equal(nvmeA.resets, 1, 'opening resets it');
  t.equal(nvmeA.port.busMaster, false);
  writeConfig(4, 2, 6);
  writeConfig(0x3c, 1, 5);
  writeConfig(0x0c, 1, 8);
  writeConfig(0x10, 4, 0xffffffff);
  await device.reset();
  t.equal(nvmeA.resets, 2);
  t.equal(readConfig(4, 2), 6, 'the configuration is kept');
  t.equal(readConfig(0x0c, 1), 8);
  t.equal(readConfig(0x3c, 1), 5);
  t.equal(readConfig(0x10, 4), 0xffffc004);
  t.equal(nvmeA.port.busMaster, true);
  device[Symbol.dispose]();
  t.equal(nvmeA.resets, 3, 'closing resets it');
  t.equal(nvmeA.port.busMaster, false);
  t.equal(on.bus.slot(address.nvmeA)?.command, 0x103);
  t.equal(on.bus.slot(address.nvmeA)?.config.read(0x10, 4), 0xfe500004);
  claimed.release();
  t.equal(kernel.openFiles.size, 0);
});

t.test('hot reset', async t => {
  const a = await opened(address.nvmeA);
  t.throws(() => a.device.hotReset(), { code: 'ENODEV' });
  t.throws(() => a.device.hotResetDevices(), { code: 'ENODEV' });
  const { kernel, fd, device, nvmeB } = await opened(address.nvmeB);
  const { result, values } = issue(kernel, fd, vfio.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, { argsz: 12 });
  t.equal(result, -28);
  t.match(values, { count: 1, flags: 0 });
  t.strictSame(device.hotResetDevices(), [{ address: address.nvmeB, owner: device.id }]);
  const resets = nvmeB.resets;
  device.hotReset();
  t.equal(nvmeB.resets, resets + 1);
  t.throws(() => device.hotReset([3]), { code: 'EINVAL' });
});

t.test('features', async t => {
  const { kernel, fd, feature } = await opened(address.nvmeA);
  const {
    VFIO_DEVICE_FEATURE_GET: GET,
    VFIO_DEVICE_FEATURE_SET: SET,
    VFIO_DEVICE_FEATURE_PROBE: PROBE,
  } = vfio;
  const probes = (number: number) => [0, GET, SET, GET | SET].map(flags => feature(number | PROBE | flags));
  for (const number of [0, 1, 2, 6, 7, 8, 9, 10, 13, 14]) t.strictSame(probes(number), [-25, -25, -25, -25]);
  for (const number of [3, 4, 5]) t.strictSame(probes(number), [0, -22, 0, -22]);
  t.strictSame(probes(11), [0, 0, -22, -22]);
  t.strictSame(probes(12), [-22, -22, -22, -22]);
  t.equal(feature(3), -22);
  t.equal(feature(3 | GET | SET), -22);
  t.equal(feature(3 | (2 ** 19)), -22);
  t.equal(feature(3 | SET, [], 7), -22);

  t.equal(feature(3 | SET), 0);
  t.equal(feature(3 | SET), -22, 'already');
  t.equal(kernel.pread(fd, new Uint8Array(4), 0), 4, 'an access wakes it');
  t.equal(feature(5 | SET), 0);
  t.equal(feature(5 | SET), 0);
  const event = kernel.eventfd(0, NONBLOCK);
  t.equal(feature(4 | SET, [-1, 0]), -22);
  t.equal(feature(4 | SET, [event, 0]), 0);
  t.equal(kernel.pread(fd, new Uint8Array(4), 0), 4);
  t.equal(counted(kernel, event), 0, 'it was not asleep yet');
  await new Promise(resolve => setImmediate(() => setImmediate(resolve)));
  t.equal(kernel.pread(fd, new Uint8Array(4), 0), 4);
  t.equal(counted(kernel, event), 1, 'now it was');
});
