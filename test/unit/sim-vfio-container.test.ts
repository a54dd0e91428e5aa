// Groups and containers of the simulated machine: VFIO's older interface.
import t from 'tap';
import * as vfio from '../../bindings/uapi/vfio.js';
import { openDevice } from '../../src/open-device.js';
import { claim } from '../../src/pci/claim.js';
import type { SimulatedProcess } from '../../src/sim/process/process.js';
import { address, machine } from './support/sim-pci-machine.js';
import { CONFIG, issue } from './support/sim-vfio-calls.js';

const READ_WRITE = vfio.VFIO_DMA_MAP_FLAG_READ | vfio.VFIO_DMA_MAP_FLAG_WRITE;
const V1 = vfio.VFIO_TYPE1_IOMMU;
const V2 = vfio.VFIO_TYPE1v2_IOMMU;

function text(value: string): Uint8Array {
  return new TextEncoder().encode(`${value}\0`);
}

/** A group's file and a container's, and the calls on them. */
function legacy(kernel: SimulatedProcess, path: string) {
  const container = kernel.open('/dev/vfio/vfio', 2);
  const group = kernel.open(path, 2);
  return {
    container,
    group,
    status: () => issue(kernel, group, vfio.VFIO_GROUP_GET_STATUS, { argsz: 8 }).values.flags,
    setContainer(fd: number): number {
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setInt32(0, fd, true);
      return kernel.ioctl(group, vfio.VFIO_GROUP_SET_CONTAINER.number, bytes);
    },
    unsetContainer: () => kernel.ioctl(group, vfio.VFIO_GROUP_UNSET_CONTAINER.number, 0),
    device: (name: string) => kernel.ioctl(group, vfio.VFIO_GROUP_GET_DEVICE_FD.number, text(name)),
    setIommu: (type: number) => kernel.ioctl(container, vfio.VFIO_SET_IOMMU.number, type),
    extensions: () =>
      Array.from({ length: 11 }, (_, i) => kernel.ioctl(container, vfio.VFIO_CHECK_EXTENSION.number, i)),
    map: (vaddr: bigint, iova: bigint, size: bigint, flags = READ_WRITE, argsz = 32) =>
      issue(kernel, container, vfio.VFIO_IOMMU_MAP_DMA, { argsz, flags, vaddr, iova, size }).result,
    unmap(iova: bigint, size: bigint, flags = 0): bigint | number {
      const done = issue(kernel, container, vfio.VFIO_IOMMU_UNMAP_DMA, { argsz: 24, flags, iova, size });
      return done.result < 0 ? done.result : done.values.size;
    },
  };
}

async function translated(type = V2) {
  const on = machine('vtd', false);
  const kernel = on.process();
  const claimed = await claim(address.nvmeA, { kernel });
  const calls = legacy(kernel, claimed.node.path);
  t.equal(calls.setContainer(calls.container), 0);
  t.equal(calls.setIommu(type), 0);
  const memory = kernel.mmap(2 ** 16, 3, 0x22, -1, 0);
  return { ...on, ...calls, kernel, claimed, memory };
}

t.test('a group and its container', async t => {
  const on = machine('vtd', false);
  const kernel = on.process();
  const claimed = await claim(address.nvmeA, { kernel });
  t.strictSame(claimed.node, { kind: 'group', path: '/dev/vfio/3', noiommu: false });
  t.strictSame(kernel.readDirectory('/dev/vfio'), ['3', 'vfio']);
  const calls = legacy(kernel, '/dev/vfio/3');
  const { container, group, setContainer, setIommu, status, device, extensions } = calls;
  t.equal(kernel.open('/dev/vfio/3', 2), -16, 'once at a time');
  t.equal(kernel.ioctl(container, vfio.VFIO_GET_API_VERSION.number, 0), 0);
  t.strictSame(extensions(), [0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0]);
  t.equal(setIommu(V2), -22, 'there is no group');
  t.equal(kernel.ioctl(container, 0x3b70, new Uint8Array(64)), -22);
  t.equal(status(), vfio.VFIO_GROUP_FLAGS_VIABLE);
  t.equal(device(address.nvmeA), -22);
  t.equal(calls.unsetContainer(), -22);
  t.equal(setContainer(999), -9);
  t.equal(setContainer(group), -77);
  t.equal(setContainer(container), 0);
  t.equal(setContainer(container), -22);
  t.equal(status(), vfio.VFIO_GROUP_FLAGS_VIABLE | vfio.VFIO_GROUP_FLAGS_CONTAINER_SET);
  t.equal(device(address.nvmeA), -22, 'no IOMMU has been chosen');
  t.equal(setIommu(99), -19);
  t.equal(setIommu(vfio.VFIO_NOIOMMU_IOMMU), -19);
  t.equal(setIommu(V2), 0);
  t.equal(setIommu(V2), -22);
  t.strictSame(extensions(), [0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1]);
  for (const name of ['0000:00:99.0', '', address.edu, `${address.nvmeA}x`]) t.equal(device(name), -19, name);
  for (const name of [' foo', ' vf_token=1', ' vf_token=bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3']) {
    t.equal(device(`${address.nvmeA}${name}`), -22, name);
  }
  const first = device(address.nvmeA);
  const second = device(`${address.nvmeA} `);
  t.ok(first > 2 && second > 2, 'a group opens a device more than once');
  t.equal(issue(kernel, first, vfio.VFIO_DEVICE_BIND_IOMMUFD, { argsz: 24 }).result, -25);
  t.equal(issue(kernel, first, vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { argsz: 16 }).result, -25);
  t.equal(kernel.pread(second, new Uint8Array(4), CONFIG), 4);
  t.equal(calls.unsetContainer(), -16);
  t.equal(on.nvmeA.resets, 1);
  kernel.close(first);
  t.equal(on.nvmeA.resets, 1, 'not the last');
  kernel.close(container);
  kernel.close(group);
  t.equal(kernel.pread(second, new Uint8Array(4), CONFIG), 4, 'the device keeps both');
  t.equal(kernel.open('/dev/vfio/3', 2), -16);
  kernel.close(second);
  t.equal(on.nvmeA.resets, 2);
  const again = kernel.open('/dev/vfio/3', 2);
  t.ok(again > 2);
  kernel.close(again);
  claimed.release();
});

t.test('what a container says of itself', async t => {
  const { kernel, container, memory, map } = await translated();
  const info = (argsz: number) => issue(kernel, container, vfio.VFIO_IOMMU_GET_INFO, { argsz }, 100);
  t.equal(info(15).result, -22);
  t.match(info(24).values, { argsz: 0x78, flags: 3, iova_pgsizes: 0x40201000n, cap_offset: 0 });
  map(memory, 0n, 4096n);
  const { bytes, values } = info(0x78);
  t.equal(values.cap_offset, 24);
  t.equal(
    Buffer.from(bytes.subarray(24, 0x78)).toString('hex'),
    [
      '02000100 38000000 00000000 00000000 0010000000000000 0000001000000000',
      '03000100 48000000 feff0000 00000000',
      '01000100 00000000 02000000 00000000 0000000000000000 ffffdffe00000000 0000f0fe00000000 ffffffff7f000000',
    ]
      .join('')
      .replaceAll(' ', ''),
  );
});

t.test('mapping and unmapping', async t => {
  const { kernel, memory, map, unmap, physical, nvmeA, claimed, container, group } = await translated();
  t.equal(map(memory, 0x10000n, 0x4000n), 0);
  t.equal(physical.pinnedPages, 4);
  t.equal(kernel.lockedPages, 4);
  t.equal(map(memory, 0x12000n, 0x4000n), -17);
  t.equal(map(memory, 0x20000n, 0x1000n, 0), -22);
  t.equal(map(memory, 0x20000n, 0x1000n, 8), -22);
  t.equal(map(memory + 1n, 0x20000n, 0x1000n), -22);
  t.equal(map(memory, 0x20001n, 0x1000n), -22);
  t.equal(map(memory, 0x20000n, 0x1001n), -22);
  t.equal(map(memory, 0x20000n, 0n), -22);
  t.equal(map(memory, 0x20000n, 0x1000n, READ_WRITE, 31), -22);
  t.equal(map(0x1000n, 0x20000n, 0x1000n), -14);
  t.equal(map(memory, 0xfee00000n, 0x1000n), -22, 'where interrupts go');
  t.equal(map(memory, 1n << 39n, 0x1000n), -22, 'beyond what the IOMMU has');
  t.equal(map(memory, 2n ** 64n - 4096n, 0x2000n), -75);
  t.equal(map(2n ** 64n - 4096n, 0x20000n, 0x2000n), -75);
  t.equal(map(memory, 0x10000n, 0x4000n, vfio.VFIO_DMA_MAP_FLAG_VADDR), -22);

  const device = kernel.ioctl(group, vfio.VFIO_GROUP_GET_DEVICE_FD.number, text(address.nvmeA));
  const bytes = new Uint8Array(4);
  t.equal(nvmeA.port.read(0x10000n, bytes), false, 'no bus mastering');
  kernel.pwrite(device, Uint8Array.of(6, 0), CONFIG + 4);
  new Uint8Array(kernel.view(memory, 2 ** 16)).set([1, 2, 3, 4], 0x1000);
  t.equal(nvmeA.port.read(0x11000n, bytes), true);
  t.strictSame([...bytes], [1, 2, 3, 4]);
  t.equal(nvmeA.port.write(0x20000n, bytes), false, 'nothing is mapped there');

  t.equal(unmap(0x10000n, 0x1000n), -22, 'a part');
  t.equal(unmap(0x11000n, 0x1000n), -22);
  t.equal(unmap(0x10001n, 0x1000n), -22);
  t.equal(unmap(0x10000n, 0n), -22);
  t.equal(unmap(0n, 0x1000n, 8), -22);
  t.equal(unmap(2n ** 64n - 4096n, 0x2000n), -75);
  t.equal(unmap(0n, 0x20000n), 0x4000n);
  t.equal(unmap(0n, 0x20000n), 0n);
  t.equal(nvmeA.port.read(0x11000n, bytes), false);
  t.equal(physical.pinnedPages, 0);
  t.equal(map(memory, 0n, 0x1000n), 0);
  t.equal(unmap(0x1000n, 0n, vfio.VFIO_DMA_UNMAP_FLAG_ALL), -22);
  t.equal(unmap(0n, 0n, vfio.VFIO_DMA_UNMAP_FLAG_ALL), 0x1000n);

  t.equal(map(memory, 0n, 0x2000n), 0);
  for (const fd of [device, group, container]) kernel.close(fd);
  t.equal(physical.pinnedPages, 0, 'with the last group all mappings go');
  t.equal(kernel.lockedPages, 0);
  claimed.release();
});

t.test('the first version', async t => {
  const { memory, map, unmap } = await translated(V1);
  t.equal(map(memory, 0x10000n, 0x4000n), 0);
  t.equal(unmap(0x11000n, 0x1000n), 0n, 'not from the middle');
  t.equal(unmap(0x10000n, 0x1000n), 0x4000n, 'all of it from its beginning');
});

t.test('memory that may not be locked', async t => {
  const { kernel, memory, map } = await translated();
  kernel.memlockLimit = 2 * 4096;
  t.equal(map(memory, 0n, 0x3000n), 0, 'with CAP_IPC_LOCK there is no limit');
  kernel.capabilities.delete('CAP_IPC_LOCK');
  t.equal(map(memory, 0x10000n, 0x1000n), -12);
  kernel.memlockLimit = 5 * 4096;
  t.equal(map(memory, 0x10000n, 0x2000n), 0);
  t.equal(kernel.lockedPages, 5);
  t.equal(map(memory, 0x20000n, 0x1000n), -12);
  t.equal(kernel.lockedPages, 5);
});

t.test('another address for the same memory', async t => {
  const { kernel, memory, map, unmap, process } = await translated();
  t.equal(map(memory, 0n, 0x2000n), 0);
  t.equal(unmap(0n, 0x2000n, vfio.VFIO_DMA_UNMAP_FLAG_VADDR), 0x2000n);
  t.equal(unmap(0n, 0x2000n, vfio.VFIO_DMA_UNMAP_FLAG_VADDR), -22, 'twice');
  t.equal(map(memory, 0n, 0x1000n, vfio.VFIO_DMA_MAP_FLAG_VADDR), -22);
  t.equal(map(memory, 0x8000n, 0x1000n, vfio.VFIO_DMA_MAP_FLAG_VADDR), -2);
  t.equal(map(memory, 0n, 0x2000n, vfio.VFIO_DMA_MAP_FLAG_VADDR), 0);
  t.equal(map(memory, 0n, 0x2000n, vfio.VFIO_DMA_MAP_FLAG_VADDR), -22);
  const other = process();
  unmap(0n, 0x2000n, vfio.VFIO_DMA_UNMAP_FLAG_VADDR);
  const container = [...kernel.openFiles].find(([, file]) => file.name === '/dev/vfio/vfio')?.[0] as number;
  const fd = kernel.share(container, other);
  const moved = {
    argsz: 32,
    flags: vfio.VFIO_DMA_MAP_FLAG_VADDR,
    vaddr: 0x7000n * 4096n,
    iova: 0n,
    size: 0x2000n,
  };
  t.equal(issue(other, fd, vfio.VFIO_IOMMU_MAP_DMA, moved).result, 0);
  t.equal(kernel.lockedPages, 0);
  t.equal(other.lockedPages, 2);
});

t.test('the log of what was written', async t => {
  const { kernel, container, memory, map, unmap } = await translated();
  const bitmap = new Uint8Array(64);
  const data = kernel.addressOf(bitmap);
  const log = (flags: number) =>
    issue(kernel, container, vfio.VFIO_IOMMU_DIRTY_PAGES, { argsz: 8, flags }).result;
  const get = (iova: bigint, size: bigint, pgsize = 4096n, bytes = 64n): number => {
    const { bytes: argument, view } = vfio.vfio_iommu_type1_dirty_bitmap.allocate(40);
    vfio.vfio_iommu_type1_dirty_bitmap.encode(view, { argsz: 48, flags: 4 });
    const range = { iova, size, bitmap: { pgsize, size: bytes, data } };
    vfio.vfio_iommu_type1_dirty_bitmap_get.encode(view, range, 8);
    return kernel.ioctl(container, vfio.VFIO_IOMMU_DIRTY_PAGES.number, argument);
  };
  t.equal(get(0n, 0x10000n), -22, 'it has not begun');
  t.equal(log(1), 0);
  t.equal(log(1), 0);
  for (const flags of [0, 3, 8]) t.equal(log(flags), -22);
  t.equal(map(memory, 0n, 0x10000n), 0);
  t.equal(map(memory, 0x10000n, 0x2000n, vfio.VFIO_DMA_MAP_FLAG_READ), 0);
  t.equal(get(0n, 0x12000n), 0);
  t.strictSame([...bitmap.subarray(0, 4)], [0xff, 0xff, 3, 0]);
  t.equal(get(0n, 0x1000n), -22, 'a part of a mapping');
  t.equal(get(0n, 0x10000n, 4096n, 7n), -22);
  t.equal(get(0n, 0x10000n, 8192n), -22);
  t.equal(get(1n, 0x10000n), -22);
  t.equal(get(0x100000n, 0x1000n), 0);
  bitmap.fill(0);
  const { bytes, view } = vfio.vfio_iommu_type1_dma_unmap.allocate(24);
  vfio.vfio_iommu_type1_dma_unmap.encode(view, { argsz: 48, flags: 1, iova: 0n, size: 0x10000n });
  vfio.vfio_bitmap.encode(view, { pgsize: 4096n, size: 8n, data }, 24);
  t.equal(kernel.ioctl(container, vfio.VFIO_IOMMU_UNMAP_DMA.number, bytes), 0);
  t.strictSame([...bitmap.subarray(0, 3)], [0xff, 0xff, 0]);
  t.equal(log(2), 0);
  t.equal(unmap(0n, 0n, vfio.VFIO_DMA_UNMAP_FLAG_ALL), 0x2000n);
});

t.test('several groups in one container', async t => {
  const on = machine('vtd', false);
  const kernel = on.process();
  const claims = [await claim(address.nvmeA, { kernel }), await claim(address.edu, { kernel })];
  const a = legacy(kernel, '/dev/vfio/3');
  const b = legacy(kernel, '/dev/vfio/4');
  t.equal(a.setContainer(a.container), 0);
  t.equal(a.setIommu(V2), 0);
  const memory = kernel.mmap(4096, 3, 0x22, -1, 0);
  t.equal(a.map(memory, 0n, 4096n), 0);
  t.equal(b.setContainer(a.container), 0);
  const device = b.device(address.edu);
  kernel.pwrite(device, Uint8Array.of(6, 0), CONFIG + 4);
  t.equal(on.edu.port.write(0n, Uint8Array.of(7)), true, 'it sees what is mapped already');
  t.equal(new Uint8Array(kernel.view(memory, 4096))[0], 7);
  t.equal(a.unsetContainer(), 0);
  t.equal(on.edu.port.read(0n, new Uint8Array(1)), true, 'and still does when the first group is gone');
  kernel.close(device);
  t.equal(b.unsetContainer(), 0);
  t.equal(on.physical.pinnedPages, 0);
  for (const fd of kernel.openFiles.keys()) kernel.close(fd);
  for (const each of claims) each.release();
});

t.test('iommufd as a container', async t => {
  const on = machine();
  const kernel = on.process();
  const claimed = await claim(address.nvmeA, { kernel });
  const iommufd = kernel.open('/dev/iommu', 2);
  const { group, container, setContainer, device, status, unsetContainer } = legacy(kernel, '/dev/vfio/3');
  kernel.close(container);
  t.equal(setContainer(iommufd), 0);
  t.equal(status(), 3);
  t.equal(kernel.ioctl(iommufd, vfio.VFIO_SET_IOMMU.number, V2), 0);
  const fd = device(address.nvmeA);
  t.ok(fd > 2);
  const memory = kernel.mmap(4096, 3, 0x22, -1, 0);
  const map = { argsz: 32, flags: READ_WRITE, vaddr: memory, iova: 0x1000n, size: 4096n };
  t.equal(issue(kernel, iommufd, vfio.VFIO_IOMMU_MAP_DMA, map).result, 0);
  kernel.pwrite(fd, Uint8Array.of(6, 0), CONFIG + 4);
  t.equal(on.nvmeA.port.write(0x1000n, Uint8Array.of(7)), true);
  const cdev = kernel.open(claimed.node.path, 2);
  t.equal(issue(kernel, cdev, vfio.VFIO_DEVICE_BIND_IOMMUFD, { argsz: 24, iommufd }).result, -16);
  for (const each of [cdev, fd]) kernel.close(each);
  t.equal(unsetContainer(), 0);
  for (const each of [group, iommufd]) kernel.close(each);
  t.equal(on.physical.pinnedPages, 0);
  claimed.release();
});

t.test('a container without an IOMMU', async t => {
  const on = machine('noiommu', false);
  const kernel = on.process();
  kernel.writeText('/sys/module/vfio/parameters/enable_unsafe_noiommu_mode', 'Y\n');
  const claimed = await claim(address.nvmeA, { kernel });
  t.strictSame(claimed.node, { kind: 'group', path: '/dev/vfio/noiommu-0', noiommu: true });
  const { container, group, setContainer, setIommu, extensions, device, map } = legacy(
    kernel,
    claimed.node.path,
  );
  t.equal(setContainer(container), 0);
  t.strictSame(extensions(), [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
  t.equal(setIommu(V2), -19);
  kernel.capabilities.delete('CAP_SYS_RAWIO');
  t.equal(setIommu(vfio.VFIO_NOIOMMU_IOMMU), -1);
  kernel.capabilities.add('CAP_SYS_RAWIO');
  t.equal(setIommu(vfio.VFIO_NOIOMMU_IOMMU), 0);
  t.equal(map(0x1000n, 0n, 4096n), -25);
  const fd = device(address.nvmeA);
  kernel.pwrite(fd, Uint8Array.of(6, 0), CONFIG + 4);
  t.equal(on.nvmeA.port.write(0x1000n, Uint8Array.of(7)), true);
  t.strictSame(on.physical.strayWrites, [{ address: 0x1000n, length: 1 }]);
  for (const each of [fd, group, container]) kernel.close(each);
  claimed.release();
});

t.test('the legacy interface through the library', async t => {
  const on = machine('vtd', false);
  const kernel = on.process();
  const claimed = await claim(address.nvmeB, { kernel });
  const device = openDevice(claimed);
  t.equal(device.config.vendorId, 0x1b36);
  t.strictSame(device.hotResetDevices(), [{ address: address.nvmeB, owner: 9 }]);
  t.throws(() => device.hotReset(), { code: 'EINVAL' });
  device[Symbol.dispose]();
  claimed.release();
  t.equal(kernel.openFiles.size, 0);
});
