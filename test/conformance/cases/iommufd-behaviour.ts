/**
 * What iommufd does beyond errors, and no selftest looks at: seen on the running kernel, and easy to get wrong.
 *
 * @module
 */
import { EBUSY, EFAULT, EINVAL, ENOENT, ENXIO, EOPNOTSUPP, ESPIPE } from '../../../bindings/uapi/errno.js';
import { F_ADD_SEALS, F_SEAL_WRITE } from '../../../bindings/uapi/fcntl.js';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_SET,
  IOMMU_VFIO_IOAS,
  IOMMU_VFIO_IOAS_SET,
  IOMMUFD_PAGE_RESP_SUCCESS,
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
  iommu_iova_range,
} from '../../../bindings/uapi/iommufd.js';
import {
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_TEST_OP_ACCESS_RW,
  IOMMU_TEST_OP_DIRTY,
  IOMMU_TEST_OP_TRIGGER_IOPF,
  IOMMU_VEVENTQ_TYPE_SELFTEST,
  iommu_hwpt_selftest,
  iommu_test_cmd_access_rw,
  iommu_test_cmd_dirty,
  iommu_test_cmd_trigger_iopf,
  iommu_viommu_selftest,
  MOCK_ACCESS_RW_SLOW_PATH,
  MOCK_ACCESS_RW_WRITE,
  MOCK_APERTURE_START,
  MOCK_PAGE_SIZE,
} from '../../../bindings/uapi/iommufd-test.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '../../../bindings/uapi/memfd.js';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../../bindings/uapi/mman.js';
import {
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_CC_IOMMU,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from '../../../bindings/uapi/vfio.js';
import type { Case } from '../support/case.js';
import { equal, holds, refused, succeeds } from '../support/expect.js';
import { mockMachine } from '../support/iommufd-cases.js';
import { anonymous, memfd, PAGE } from '../support/memory.js';
import { ViommuFixture } from '../support/viommu.js';

const APERTURE = BigInt(MOCK_APERTURE_START);
const page = (index: number): bigint => BigInt(index * PAGE);

/** Reads, or writes, at an IOVA as a driver in the kernel does. */
function access(iommu: ViommuFixture, accessFd: number, iova: bigint, bytes: Uint8Array, flags = 0): number {
  return iommu.test(IOMMU_TEST_OP_ACCESS_RW, iommu_test_cmd_access_rw, {
    id: accessFd,
    iova,
    length: BigInt(bytes.length),
    uptr: iommu.kernel.addressOf(bytes),
    flags,
  }).result;
}

/** The id is the smallest that is free; what fails takes none. */
function objectIds(iommu: ViommuFixture): void {
  const [a, b, c] = [iommu.allocIoas(), iommu.allocIoas(), iommu.allocIoas()];
  equal([a, b, c].join(), '1,2,3', 'ids of the first objects');
  iommu.destroy(b);
  equal(iommu.allocIoas(), b, 'an id that was given back');
  refused(iommu.tryAllocHwpt(99, a).result, ENOENT, 'a table for a device that is not there');
  equal(iommu.allocIoas(), 4, 'the id after a failure');
}

/** The id of a virtual device whose device has gone is not given out again. */
function tombstone(iommu: ViommuFixture): void {
  const ioasId = iommu.allocIoas();
  const { id, deviceId } = iommu.mockDevice(ioasId);
  const parent = iommu.allocHwpt(deviceId, ioasId, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT });
  const viommu = iommu.allocViommu(deviceId, parent);
  const vdevice = iommu.allocVdevice(viommu, deviceId, 1n);
  iommu.destroy(id);
  for (let i = 0; i < 4; i++) holds(iommu.allocIoas() !== vdevice, 'the id stays taken');
  iommu.destroy(viommu);
  iommu.destroy(parent);
}

/** Devices in an IOAS share the page table that was made for the first, and it goes with the last. */
function automaticTables(iommu: ViommuFixture): void {
  const ioasId = iommu.allocIoas();
  const first = iommu.mockDevice(ioasId);
  const second = iommu.mockDevice(ioasId);
  equal(second.hwptId, first.hwptId, 'table of the second device');
  const own = iommu.allocHwpt(first.deviceId, ioasId);
  iommu.replace(first.id, own);
  refused(iommu.tryDestroy(first.hwptId), EBUSY, 'destroying a table that the second still has');
  iommu.replace(second.id, own);
  refused(iommu.tryDestroy(first.hwptId), ENOENT, 'destroying a table that went by itself');
  const third = iommu.mockDevice(ioasId);
  holds(third.hwptId !== own, 'a table that was asked for is not for everybody');
}

/** Addresses are the lowest that are free, aligned as far as the length is, and as the memory is in its page. */
function iovaChoice(iommu: ViommuFixture): void {
  const ioasId = iommu.allocIoas();
  iommu.mockDevice(ioasId);
  const { address } = iommu.buffer;
  equal(iommu.map(ioasId, address, PAGE), APERTURE, 'first page');
  equal(iommu.map(ioasId, address, PAGE), APERTURE + page(1), 'second page');
  equal(iommu.map(ioasId, address, 16 * PAGE), APERTURE + page(16), '16 pages');
  equal(iommu.map(ioasId, address, 3 * PAGE), APERTURE + page(4), '3 pages');
  const half = BigInt(PAGE / 2);
  equal(iommu.map(ioasId, address + half, PAGE / 2), APERTURE + page(2) + half, 'the second half of a page');
  const failed = iommu.tryMap(ioasId, page(1), PAGE);
  refused(failed.result, EFAULT, 'memory that is not there');
  equal(failed.iova, 0n, 'nothing is answered for what failed');
}

/** Allowed ranges are where addresses are chosen; whoever names one may go anywhere. */
function allowedRanges(iommu: ViommuFixture): void {
  const ioasId = iommu.allocIoas();
  const range = iommu.pointStruct(iommu_iova_range, { start: page(256), last: page(257) - 1n });
  const allow = { ioas_id: ioasId, num_iovas: 1, allowed_iovas: range.address };
  equal(iommu.call(IOMMU_IOAS_ALLOW_IOVAS, allow).result, 0, 'IOMMU_IOAS_ALLOW_IOVAS');
  equal(iommu.map(ioasId, iommu.buffer.address, PAGE), page(256), 'where it is allowed');
  iommu.map(ioasId, iommu.buffer.address, PAGE, page(1024));
}

/** What is mapped for a device stays with it although the file gets shorter, and is no part of the file any more. */
function truncatedFile(iommu: ViommuFixture): void {
  const { kernel } = iommu;
  const ioasId = iommu.allocIoas();
  iommu.mockDevice(ioasId);
  const accessFd = iommu.createAccess(ioasId, 0);
  using file = memfd(iommu, 4 * PAGE);
  file.bytes.fill(0x11);
  iommu.mapFile(ioasId, file.fd, 0, 4 * PAGE, APERTURE);
  const bytes = new Uint8Array(8);
  const expectAt = (iova: bigint, value: number, message: string): void => {
    equal(access(iommu, accessFd, iova, bytes), 0, message);
    equal(bytes[0], value, message);
  };
  equal(kernel.ftruncate(file.fd, PAGE), 0, 'a shorter file');
  expectAt(APERTURE + page(2), 0x11, 'what was in the file');
  equal(kernel.ftruncate(file.fd, 4 * PAGE), 0, 'a longer file');
  equal(kernel.pwrite(file.fd, new Uint8Array(PAGE).fill(0x22), 2 * PAGE), PAGE, 'pwrite');
  expectAt(APERTURE + page(2), 0x11, 'the old page');
  equal(kernel.pwrite(file.fd, Uint8Array.of(0x33), 0), 1, 'pwrite');
  expectAt(APERTURE, 0x33, 'a page that was in the file all the time');
  const again = iommu.mapFile(ioasId, file.fd, 0, 4 * PAGE);
  expectAt(again + page(2), 0x22, 'the new page');
  iommu.destroyAccess(accessFd);
}

/** What is mapped for a device stays although the process unmaps it; access by address does not find it any more. */
function unmappedMemory(iommu: ViommuFixture): void {
  const ioasId = iommu.allocIoas();
  iommu.mockDevice(ioasId);
  using memory = anonymous(iommu, 2 * PAGE);
  memory.bytes.fill(0x55);
  iommu.map(ioasId, memory.address, 2 * PAGE, APERTURE);
  const accessFd = iommu.createAccess(ioasId, 0);
  equal(iommu.kernel.munmap(memory.address, 2 * PAGE), 0, 'munmap');
  const bytes = new Uint8Array(8);
  refused(access(iommu, accessFd, APERTURE, bytes), EFAULT, 'by address');
  const border = APERTURE + page(1) - 4n;
  equal(access(iommu, accessFd, border, bytes, MOCK_ACCESS_RW_SLOW_PATH), 0, 'by what is pinned');
  equal(bytes[0], 0x55, 'what was in the memory');
  const write = MOCK_ACCESS_RW_SLOW_PATH | MOCK_ACCESS_RW_WRITE;
  equal(access(iommu, accessFd, border, bytes.fill(0x66), write), 0, 'writing by what is pinned');
  equal(access(iommu, accessFd, border, bytes.fill(0), MOCK_ACCESS_RW_SLOW_PATH), 0, 'by what is pinned');
  equal(bytes[7], 0x66, 'what was written');
  iommu.destroyAccess(accessFd);
}

/** Memory comes in whole pages: a file's last one goes on beyond the file's end, for devices as well. */
function fileTail(iommu: ViommuFixture): void {
  const { kernel } = iommu;
  const ioasId = iommu.allocIoas();
  iommu.mockDevice(ioasId);
  const fd = succeeds(kernel.memfdCreate('short', MFD_CLOEXEC), 'memfd_create');
  equal(kernel.ftruncate(fd, 100), 0, 'ftruncate');
  refused(iommu.tryMapFile(ioasId, fd, 0, PAGE).result, EINVAL, 'more than the file');
  const address = kernel.mmap(2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  holds(address > 0n, 'mmap');
  refused(iommu.tryMap(ioasId, address, 2 * PAGE).result, EFAULT, 'a page beyond the file');
  const iova = iommu.map(ioasId, address, PAGE);
  const accessFd = iommu.createAccess(ioasId, 0);
  equal(access(iommu, accessFd, iova + 96n, new Uint8Array(8).fill(7), MOCK_ACCESS_RW_WRITE), 0, 'write');
  const seen = new Uint8Array(PAGE);
  equal(kernel.pread(fd, seen, 0), 100, 'bytes of the file');
  equal(seen[99], 7, 'what was written within the file');
  equal(kernel.ftruncate(fd, PAGE), 0, 'a longer file');
  equal(kernel.pread(fd, seen, 0), PAGE, 'bytes of the file');
  equal(seen[101], 7, 'what was written beyond its end');
  iommu.destroyAccess(accessFd);
  kernel.close(fd);
  equal(kernel.munmap(address, 2 * PAGE), 0, 'munmap');
}

/** A file cannot be sealed against writing while a device may write to it. */
function sealWhilePinned(iommu: ViommuFixture): void {
  const { kernel } = iommu;
  const ioasId = iommu.allocIoas();
  iommu.mockDevice(ioasId);
  const fd = succeeds(kernel.memfdCreate('sealed', MFD_CLOEXEC | MFD_ALLOW_SEALING), 'memfd_create');
  equal(kernel.ftruncate(fd, PAGE), 0, 'ftruncate');
  const iova = iommu.mapFile(ioasId, fd, 0, PAGE);
  refused(kernel.fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY, 'sealing what is mapped for a device');
  iommu.unmap(ioasId, iova, PAGE);
  equal(kernel.fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0, 'sealing it after that');
  kernel.close(fd);
}

/** Page faults as they are read and answered. */
function faultQueue(iommu: ViommuFixture): void {
  const { kernel } = iommu;
  const ioasId = iommu.allocIoas();
  const { id, deviceId } = iommu.mockDevice(ioasId);
  const parent = iommu.allocHwpt(deviceId, ioasId, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT });
  const queue = iommu.allocFaultQueue();
  const hwptId = iommu.allocHwpt(deviceId, parent, {
    flags: IOMMU_HWPT_FAULT_ID_VALID,
    faultId: queue.id,
    dataType: IOMMU_HWPT_DATA_SELFTEST,
    data: iommu.pointStruct(iommu_hwpt_selftest, {}),
  });
  iommu.replace(id, hwptId);
  const { size } = iommu_hwpt_pgfault;
  const bytes = new Uint8Array(new ArrayBuffer(2 * size));
  const view = new DataView(bytes.buffer);
  const trigger = (grpid: number, pasid = 0): void => {
    const values = { dev_id: deviceId, pasid, grpid, perm: 1, addr: 0x1234n };
    equal(iommu.test(IOMMU_TEST_OP_TRIGGER_IOPF, iommu_test_cmd_trigger_iopf, values).result, 0, 'a fault');
  };
  const read = (length: number): number => kernel.read(queue.fd, bytes.subarray(0, length));
  const answer = (cookie: number, code: number = IOMMUFD_PAGE_RESP_SUCCESS): number => {
    const response = iommu_hwpt_page_response.allocate();
    iommu_hwpt_page_response.encode(response.view, { cookie, code });
    return kernel.write(queue.fd, response.bytes);
  };

  equal(read(size), 0, 'bytes of no fault');
  trigger(1);
  trigger(2, 7);
  refused(read(size - 1), ESPIPE, 'a read of less than a fault');
  refused(read(0), EINVAL, 'a read of nothing, with a fault');
  equal(read(2 * size), 2 * size, 'bytes of both');
  const [first, second] = [iommu_hwpt_pgfault.decode(view), iommu_hwpt_pgfault.decode(view, size)];
  equal([first.cookie, first.flags, first.pasid, first.grpid].join(), '1,2,0,1', 'the first');
  equal([second.cookie, second.flags, second.pasid, second.grpid].join(), '2,3,7,2', 'the second');
  equal(first.dev_id, deviceId, 'device');
  equal(read(size), 0, 'bytes once they are read');
  refused(answer(1, 2), EINVAL, 'an unknown answer');
  equal(answer(1), iommu_hwpt_page_response.size, 'bytes of an answer');
  refused(answer(1), EINVAL, 'an answer twice');
  trigger(3);
  equal(read(size), size, 'bytes of another');
  equal(iommu_hwpt_pgfault.get(view, 'cookie'), 1, 'a cookie that is free again');

  // Without the table there is nobody to answer.
  iommu.replace(id, ioasId);
  refused(answer(2), EINVAL, 'an answer after the table was taken away');
  iommu.destroy(hwptId);
  refused(iommu.tryDestroy(queue.id), EBUSY, 'destroying a queue whose descriptor is open');
  kernel.close(queue.fd);
  iommu.destroy(queue.id);
}

/** A loss is told once, where it happened, by a header that has no event. */
function eventQueue(iommu: ViommuFixture): void {
  const ioasId = iommu.allocIoas();
  const { id, deviceId } = iommu.mockDevice(ioasId);
  const parent = iommu.allocHwpt(deviceId, ioasId, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT });
  const viommu = iommu.allocViommu(deviceId, parent);
  const queue = iommu.allocVeventq(viommu, IOMMU_VEVENTQ_TYPE_SELFTEST, 2);
  iommu.allocVdevice(viommu, deviceId, 0x99n);
  const nested = iommu.allocHwpt(deviceId, viommu, {
    dataType: IOMMU_HWPT_DATA_SELFTEST,
    data: iommu.pointStruct(iommu_hwpt_selftest, {}),
  });
  iommu.replace(id, nested);
  const bytes = new Uint8Array(128);
  const read = (length: number): string => {
    const count = succeeds(iommu.kernel.read(queue.fd, bytes.subarray(0, length)), 'read');
    return Buffer.from(bytes.subarray(0, count)).toString('hex');
  };
  const event = (sequence: number): string => `000000000${sequence.toString(16)}00000099000000`;
  const lost = (sequence: number): string => `010000000${sequence.toString(16)}000000`;

  equal(read(128), '', 'no event');
  iommu.triggerVevents(deviceId, 1);
  equal(read(13), event(0), 'room for one and a bit');
  iommu.triggerVevents(deviceId, 4);
  equal(read(128), event(1) + event(2) + lost(4), 'two events and a loss of two');
  iommu.triggerVevents(deviceId, 5);
  equal(read(12), event(5), 'the first of them');
  // There is room again, and the mark of the loss makes way for what comes after it.
  iommu.triggerVevents(deviceId, 1);
  equal(read(128), event(6) + event(0xa), 'the second, and one after the loss');
  equal(read(128), '', 'nothing more');
  iommu.kernel.close(queue.fd);
}

/** What is dirty, and when it is forgotten. */
function dirtyTracking(iommu: ViommuFixture): void {
  const ioasId = iommu.allocIoas();
  const option = { option_id: IOMMU_OPTION_HUGE_PAGES, op: IOMMU_OPTION_OP_SET, val64: 0n };
  equal(iommu.call(IOMMU_OPTION, { ...option, object_id: ioasId }).result, 0, 'IOMMU_OPTION');
  const { deviceId } = iommu.mockDevice(ioasId);
  iommu.map(ioasId, iommu.buffer.address, 8 * PAGE, APERTURE);
  const hwptId = iommu.allocHwpt(deviceId, ioasId, { flags: IOMMU_HWPT_ALLOC_DIRTY_TRACKING });
  const plain = iommu.allocHwpt(deviceId, ioasId);
  const bitmap = iommu.point(8);
  const range = { iova: APERTURE, length: BigInt(8 * PAGE), page_size: BigInt(MOCK_PAGE_SIZE) };
  const track = (id: number, flags: number): number =>
    iommu.call(IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id: id, flags }).result;
  const write = (bits: number): number => {
    bitmap.view.setUint32(0, bits, true);
    const values = { id: hwptId, ...range, uptr: bitmap.address };
    return iommu.test(IOMMU_TEST_OP_DIRTY, iommu_test_cmd_dirty, values).result;
  };
  const read = (given: Partial<typeof range> = {}, data = bitmap.address): number => {
    bitmap.view.setUint32(0, 0, true);
    const values = { hwpt_id: hwptId, ...range, ...given, data };
    equal(iommu.call(IOMMU_HWPT_GET_DIRTY_BITMAP, values).result, 0, 'IOMMU_HWPT_GET_DIRTY_BITMAP');
    return bitmap.view.getUint32(0, true);
  };

  refused(track(plain, IOMMU_HWPT_DIRTY_TRACKING_ENABLE), EOPNOTSUPP, 'a table that cannot track');
  equal(track(hwptId, 0), 0, 'switching off what is off');
  equal(read(), 0, 'dirty while it is off');
  equal(track(hwptId, IOMMU_HWPT_DIRTY_TRACKING_ENABLE), 0, 'switching on');
  equal(track(hwptId, IOMMU_HWPT_DIRTY_TRACKING_ENABLE), 0, 'switching on twice');
  equal(read({}, page(1)), 0, 'nothing is dirty, and nobody looks for the bitmap');
  equal(write(0b100001), 0, 'DIRTY');
  equal(read(), 0b110011, 'a page is dirty as a whole');
  equal(write(0b100001), 0, 'DIRTY');
  equal(read({ page_size: BigInt(2 * PAGE) }), 0b11, 'bits for two pages each');
  equal(write(0b1111), 0, 'DIRTY');
  equal(read({ iova: APERTURE + page(1), length: page(1) }), 0b11, 'a part of it');
  equal(read(), 0b11, 'the rest');
  equal(write(1), 0, 'DIRTY');
  equal(track(hwptId, 0), 0, 'switching off');
  equal(read(), 0b11, 'dirty before it was switched off');
  equal(track(hwptId, IOMMU_HWPT_DIRTY_TRACKING_ENABLE), 0, 'switching on');
  equal(write(1), 0, 'DIRTY');
  equal(track(hwptId, 0), 0, 'switching off');
  equal(track(hwptId, IOMMU_HWPT_DIRTY_TRACKING_ENABLE), 0, 'switching on again');
  equal(read(), 0, 'what was dirty before it was switched on');
  equal(write(1), 0, 'DIRTY');
  iommu.unmap(ioasId, APERTURE, 8 * PAGE);
  iommu.map(ioasId, iommu.buffer.address, 8 * PAGE, APERTURE);
  equal(read(), 0, 'what was dirty before it was unmapped');
}

/** A page of a virtual IOMMU is only there as a whole, and cannot be mapped for a device. */
function viommuPage(iommu: ViommuFixture): void {
  const { kernel } = iommu;
  const ioasId = iommu.allocIoas();
  const { deviceId } = iommu.mockDevice(ioasId);
  const parent = iommu.allocHwpt(deviceId, ioasId, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT });
  const make = () => {
    const data = iommu.pointStruct(iommu_viommu_selftest, { in_data: 1 });
    const id = iommu.allocViommu(deviceId, parent, { data });
    return { id, ...iommu_viommu_selftest.decode(data.view) };
  };
  const first = make();
  const length = Number(first.out_mmap_length);
  equal(make().out_mmap_offset, first.out_mmap_offset + first.out_mmap_length, 'where the second one is');
  const offset = Number(first.out_mmap_offset);
  refused(Number(kernel.mmap(length, PROT_READ, MAP_SHARED, iommu.fd, 0)), ENXIO, 'mmap where nothing is');
  const address = kernel.mmap(length, PROT_READ | PROT_WRITE, MAP_SHARED, iommu.fd, offset);
  holds(address > 0n, 'mmap');
  refused(iommu.tryMap(ioasId, address, PAGE).result, EFAULT, 'mapping it for a device');
  equal(kernel.munmap(address, length), 0, 'munmap');
  iommu.destroy(first.id);
}

/** Once a container was of version 1, its mappings can be cut in pieces, whatever version it is later. */
function versionOneStays(iommu: ViommuFixture): void {
  const { kernel, fd } = iommu;
  const extension = (number: number): number => kernel.ioctl(fd, VFIO_CHECK_EXTENSION.number, number);
  const ioasId = iommu.allocIoas();
  equal(iommu.call(IOMMU_VFIO_IOAS, { op: IOMMU_VFIO_IOAS_SET, ioas_id: ioasId }).result, 0, 'set');
  equal(extension(VFIO_TYPE1_IOMMU), 1, 'version 1');
  equal(extension(VFIO_DMA_CC_IOMMU), 1, 'coherence, while there is no table without');
  iommu.mockDevice(ioasId);
  equal(extension(VFIO_DMA_CC_IOMMU), 0, 'coherence, which a mock device does not have enforced');
  for (const type of [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU]) {
    equal(kernel.ioctl(fd, VFIO_SET_IOMMU.number, type), 0, `VFIO_SET_IOMMU ${type}`);
  }
  const size = page(4);
  const map = { flags: VFIO_DMA_MAP_FLAG_READ, vaddr: iommu.buffer.address, iova: APERTURE, size };
  equal(iommu.call(VFIO_IOMMU_MAP_DMA, map).result, 0, 'VFIO_IOMMU_MAP_DMA');
  const unmap = (iova: bigint, length: bigint) => {
    const { result, values } = iommu.call(VFIO_IOMMU_UNMAP_DMA, { iova, size: length });
    equal(result, 0, 'VFIO_IOMMU_UNMAP_DMA');
    return values.size;
  };
  equal(unmap(APERTURE + page(1), page(1)), page(1), 'bytes of a page in the middle');
  equal(unmap(APERTURE - page(1), page(2)), page(1), 'bytes of the first page');
  equal(unmap(APERTURE, size), page(2), 'bytes of the rest');
}

const behaviours: Readonly<Record<string, (iommu: ViommuFixture) => void>> = {
  object_ids: objectIds,
  tombstone,
  automatic_tables: automaticTables,
  iova_choice: iovaChoice,
  allowed_ranges: allowedRanges,
  truncated_file: truncatedFile,
  unmapped_memory: unmappedMemory,
  file_tail: fileTail,
  seal_while_pinned: sealWhilePinned,
  fault_queue: faultQueue,
  event_queue: eventQueue,
  dirty_tracking: dirtyTracking,
  viommu_page: viommuPage,
  version_one_stays: versionOneStays,
};

export const cases: readonly Case[] = Object.entries(behaviours).map(([name, behaviour]) => ({
  source: 'kernel',
  fixture: 'iommufd',
  name,
  profiles: mockMachine,
  run(_t, host) {
    using iommu = new ViommuFixture(host);
    behaviour(iommu);
  },
}));
