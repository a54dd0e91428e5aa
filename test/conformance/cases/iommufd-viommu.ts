/** The kernel's selftest iommu/iommufd.c: virtual IOMMUs, their devices, events and queues. @module */
import {
  EBUSY,
  EEXIST,
  EINVAL,
  EIO,
  ENOENT,
  ENXIO,
  EOPNOTSUPP,
  EOVERFLOW,
} from '../../../bindings/uapi/errno.js';
import {
  IOMMU_HW_QUEUE_TYPE_DEFAULT,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_FAULT_ID_VALID,
} from '../../../bindings/uapi/iommufd.js';
import {
  IOMMU_HW_QUEUE_TYPE_SELFTEST,
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_TEST_DEV_CACHE_DEFAULT,
  IOMMU_TEST_HW_QUEUE_MAX,
  IOMMU_TEST_INVALIDATE_FLAG_ALL,
  IOMMU_TEST_IOTLB_DEFAULT,
  IOMMU_TEST_OP_DEV_CHECK_CACHE,
  IOMMU_VEVENTQ_TYPE_SELFTEST,
  IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST,
  IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST_INVALID,
  iommu_hwpt_selftest,
  iommu_test_cmd_check_dev_cache,
  iommu_viommu_invalidate_selftest,
  iommu_viommu_selftest,
  MOCK_APERTURE_START,
  MOCK_DEV_CACHE_ID_MAX,
} from '../../../bindings/uapi/iommufd-test.js';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../../bindings/uapi/mman.js';
import { encodeList, type StructInput } from '../../../bindings/uapi/struct.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { equal, holds, outcome, refused } from '../support/expect.js';
import type { MockDevice, Pointed } from '../support/iommufd.js';
import { fixtureCases, mockMachine } from '../support/iommufd-cases.js';
import { PAGE } from '../support/memory.js';
import { ViommuFixture } from '../support/viommu.js';

const U64_MAX = 0xffff_ffff_ffff_ffffn;
const MAX_EVENTS = 2 ** 19;
const CACHE_FULL = IOMMU_TEST_DEV_CACHE_DEFAULT;

/** An IOAS and, with a virtual IOMMU: a device, the nesting parent, a virtual IOMMU and a nested table on it. */
class Viommu extends ViommuFixture {
  readonly ioasId: number;
  /** Ids of what is there with a virtual IOMMU; 0 without, which is no object's id. */
  readonly device: MockDevice = { id: 0, hwptId: 0, deviceId: 0 };
  readonly parentId: number = 0;
  readonly viommuId: number = 0;
  readonly nestedId: number = 0;
  /** For nested page tables. */
  readonly data: Pointed;

  constructor(host: ConformanceHost, viommu: boolean) {
    super(host);
    this.data = this.pointStruct(iommu_hwpt_selftest, { iotlb: IOMMU_TEST_IOTLB_DEFAULT });
    this.ioasId = this.allocIoas();
    this.limitMemory();
    if (!viommu) return;
    this.device = this.mockDevice(this.ioasId);
    const { deviceId } = this.device;
    this.parentId = this.allocHwpt(deviceId, this.ioasId, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT });
    this.viommuId = this.allocViommu(deviceId, this.parentId);
    this.nestedId = this.allocHwpt(deviceId, this.viommuId, this.nested());
  }

  nested(flags = 0, faultId = 0) {
    return { flags, faultId, dataType: IOMMU_HWPT_DATA_SELFTEST, data: this.data };
  }

  /** What the caches of the device hold. */
  checkCaches(expected: readonly number[]): void {
    for (const [cache_id, cache] of expected.entries()) {
      const values = { id: this.device.deviceId, cache_id, cache };
      const { result } = this.test(IOMMU_TEST_OP_DEV_CHECK_CACHE, iommu_test_cmd_check_dev_cache, values);
      equal(result, 0, `DEV_CHECK_CACHE ${cache_id}`);
    }
  }
}

function negativeTests(iommu: Viommu): void {
  const { deviceId } = iommu.device;
  if (iommu.viommuId === 0) {
    refused(iommu.tryAllocViommu(deviceId, iommu.parentId).result, ENOENT, 'no device');
    return;
  }
  refused(iommu.tryAllocViommu(deviceId, 0).result, ENOENT, 'no page table');
  const plain = iommu.allocHwpt(deviceId, iommu.ioasId);
  refused(iommu.tryAllocViommu(deviceId, plain).result, EINVAL, 'a table that is no nesting parent');
  iommu.destroy(plain);
  const unknown = iommu.tryAllocViommu(deviceId, iommu.parentId, { type: 0xdead });
  refused(unknown.result, EOPNOTSUPP, 'a type that the driver does not know');
  refused(iommu.tryDestroy(iommu.parentId), EBUSY, 'destroying the parent of a virtual IOMMU');
  refused(iommu.tryDestroy(iommu.viommuId), EBUSY, 'destroying a virtual IOMMU that has a table');
}

function allocNestedFaulting(iommu: Viommu): void {
  const { id, deviceId } = iommu.device;
  const { viommuId } = iommu;
  const faults = iommu.allocFaultQueue();
  const valid = IOMMU_HWPT_FAULT_ID_VALID;
  const missing = iommu.tryAllocHwpt(deviceId, viommuId, iommu.nested(valid, 0xffff_ffff));
  refused(missing.result, ENOENT, 'a fault queue that is not there');
  const unknown = iommu.tryAllocHwpt(deviceId, viommuId, iommu.nested((valid | (1 << 31)) >>> 0, faults.id));
  refused(unknown.result, EOPNOTSUPP, 'an unknown flag');
  const hwptId = iommu.allocHwpt(deviceId, viommuId, iommu.nested(valid, faults.id));

  refused(iommu.tryReplace(id, hwptId), ENOENT, 'a table on a virtual IOMMU that does not have the device');
  iommu.allocVdevice(viommuId, deviceId, 0x99n);
  iommu.replace(id, hwptId);
  refused(iommu.tryDestroy(hwptId), EBUSY, 'destroying a table in use');
  equal(iommu.triggerFault(deviceId, faults.fd), 0, 'a page fault');

  iommu.replace(id, iommu.ioasId);
  iommu.destroy(hwptId);
  equal(iommu.kernel.close(faults.fd), 0, 'close of the fault queue');
  iommu.destroy(faults.id);
}

function allocWithData(iommu: Viommu): void {
  const { kernel } = iommu;
  const data = iommu.pointStruct(iommu_viommu_selftest, { in_data: 0xbeef });
  const viommuId = iommu.allocViommu(iommu.device.deviceId, iommu.parentId, { data });
  const { out_data, out_mmap_offset, out_mmap_length } = iommu_viommu_selftest.decode(data.view);
  equal(out_data, 0xbeef, 'data that comes back');

  const offset = Number(out_mmap_offset);
  const length = Number(out_mmap_length);
  const map = (bytes: number, at: number): bigint =>
    kernel.mmap(bytes, PROT_READ | PROT_WRITE, MAP_SHARED, iommu.fd, at);
  refused(Number(map(length, offset + PAGE)), ENXIO, 'mmap a page further on');
  refused(Number(map(length, offset + 2 * PAGE)), ENXIO, 'mmap two pages further on');
  refused(Number(map(length / 2, offset)), ENXIO, 'mmap of half of it');
  refused(Number(map(length * 2, offset)), ENXIO, 'mmap of twice as much');

  const address = map(length, offset);
  holds(address > 0n, () => `mmap: ${outcome(Number(address))}`);
  const seen = new DataView(kernel.view(address, length)).getUint32(0, true);
  equal(seen, 0xbeef, 'what is in the page');
  refused(iommu.tryDestroy(viommuId), EBUSY, 'destroying what is mapped');
  equal(kernel.munmap(address, length), 0, 'munmap');
}

async function vdeviceAlloc(iommu: Viommu): Promise<void> {
  const { viommuId, nestedId, kernel } = iommu;
  const { id, deviceId } = iommu.device;
  if (iommu.viommuId === 0) {
    refused(iommu.tryAllocVdevice(viommuId, deviceId, 0x99n).result, ENOENT, 'no virtual IOMMU');
    return;
  }
  refused(iommu.tryReplace(id, nestedId), ENOENT, 'a table on a virtual IOMMU without the device');

  const type = IOMMU_VEVENTQ_TYPE_SELFTEST;
  refused(iommu.tryAllocVeventq(viommuId, type, 0).result, EINVAL, 'a queue for no event');
  refused(iommu.tryAllocVeventq(viommuId, type, MAX_EVENTS + 1).result, EINVAL, 'a queue too deep');
  const deep = iommu.allocVeventq(viommuId, type, MAX_EVENTS);
  equal(kernel.close(deep.fd), 0, 'close of the event queue');
  iommu.destroy(deep.id);

  const queue = iommu.allocVeventq(viommuId, type, 2);
  refused(iommu.tryAllocVeventq(viommuId, type, 2).result, EEXIST, 'a second queue of a type');
  const header = 8;
  refused(kernel.read(queue.fd, new Uint8Array(0)), EINVAL, 'a read of nothing, no event');
  refused(kernel.read(queue.fd, new Uint8Array(header - 1)), EINVAL, 'a read of less than a header');

  const first = iommu.allocVdevice(viommuId, deviceId, 0x99n);
  iommu.replace(id, nestedId);
  iommu.triggerVevents(deviceId, 1);
  refused(kernel.read(queue.fd, new Uint8Array(0)), EINVAL, 'a read of nothing, one event');
  refused(kernel.read(queue.fd, new Uint8Array(header)), EINVAL, 'a read of a header without its event');
  const events = iommu.eventReader(queue.fd);
  equal(await events.read(1, 0x99), 'complete', 'events');
  refused(iommu.tryAllocVdevice(viommuId, deviceId, 0x99n).result, EEXIST, 'a device twice');
  iommu.replace(id, iommu.ioasId);
  iommu.destroy(first);

  const second = iommu.allocVdevice(viommuId, deviceId, 0x88n);
  iommu.replace(id, nestedId);
  iommu.triggerVevents(deviceId, 3);
  equal(await events.read(3, 0x88), 'lost', 'three events where two have room');
  iommu.triggerVevents(deviceId, 1);
  equal(await events.read(1, 0x88), 'complete', 'events after the loss was told');
  equal(kernel.close(queue.fd), 0, 'close of the event queue');
  iommu.replace(id, iommu.ioasId);
  iommu.destroy(second);
  iommu.destroy(queue.id);
}

function vdeviceCache(iommu: Viommu): void {
  const { viommuId } = iommu;
  const { deviceId } = iommu.device;
  const size = iommu_viommu_invalidate_selftest.size;
  const entries = iommu.point(2 * size);
  const vdevice = iommu.allocVdevice(viommuId, deviceId, 0x99n);
  iommu.checkCaches([CACHE_FULL, CACHE_FULL, CACHE_FULL, CACHE_FULL]);

  type Entry = StructInput<typeof iommu_viommu_invalidate_selftest>;
  const known = IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST;
  const put = (...given: Entry[]): void => {
    const complete = given.map(each => ({ vdev_id: 0x99, ...each }));
    encodeList(entries.view, iommu_viommu_invalidate_selftest, complete);
  };
  const invalidate = (...given: Entry[]): void => {
    put(...given);
    const { result, handled } = iommu.tryInvalidate(viommuId, entries, known, size, given.length);
    equal(result, 0, 'IOMMU_HWPT_INVALIDATE');
    equal(handled, given.length, 'entries handled');
  };
  /** One entry, or the first of several, is what makes it fail; `handled` before it are done. */
  const fails = (
    errno: number,
    why: string,
    given: Entry[],
    { length = size, type = known, at = entries as Pointed | null, done = 0 } = {},
  ): void => {
    put(...given);
    const { result, handled } = iommu.tryInvalidate(viommuId, at ?? undefined, type, length, given.length);
    refused(result, errno, why);
    equal(handled, done, `entries handled: ${why}`);
  };

  invalidate();
  const none: Entry = { vdev_id: 0 };
  fails(EINVAL, 'unknown type', [none], { type: IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST_INVALID });
  fails(EINVAL, 'entries too long, with something beyond', [none], { length: size + 1 });
  fails(EINVAL, 'entries too short', [none], { length: 1 });
  fails(EOPNOTSUPP, 'unknown flags', [{ flags: 0xffff_ffff }]);
  fails(EINVAL, 'entries at address 0', [{}], { at: null });
  fails(EINVAL, 'entries of no length', [{}], { length: 0 });
  fails(EINVAL, 'a cache too many', [{ cache_id: MOCK_DEV_CACHE_ID_MAX + 1 }]);
  fails(EINVAL, 'a device that is not there', [{ vdev_id: 0x9 }]);

  fails(EOPNOTSUPP, 'flags of the second', [{}, { flags: 0xffff_ffff, cache_id: 1 }], { done: 1 });
  iommu.checkCaches([0, CACHE_FULL, CACHE_FULL, CACHE_FULL]);
  fails(EINVAL, 'cache of the second', [{}, { cache_id: MOCK_DEV_CACHE_ID_MAX + 1 }], { done: 1 });
  iommu.checkCaches([0, CACHE_FULL, CACHE_FULL, CACHE_FULL]);
  invalidate({ cache_id: 1 });
  iommu.checkCaches([0, 0, CACHE_FULL, CACHE_FULL]);
  invalidate({ cache_id: 2 }, { cache_id: 3 });
  iommu.checkCaches([0, 0, 0, 0]);
  invalidate({ flags: IOMMU_TEST_INVALIDATE_FLAG_ALL });
  iommu.checkCaches([0, 0, 0, 0]);
  iommu.destroy(vdevice);
}

function hwQueue(iommu: Viommu): void {
  const { viommuId, ioasId } = iommu;
  const nowhere = BigInt(MOCK_APERTURE_START);
  const type = IOMMU_HW_QUEUE_TYPE_SELFTEST;
  const attempt = (index: number, iova: bigint, length: number, queueType = type): number =>
    iommu.tryAllocHwQueue(viommuId, queueType, index, iova, length).result;

  refused(attempt(0, nowhere, PAGE, IOMMU_HW_QUEUE_TYPE_DEFAULT), EOPNOTSUPP, 'the default type');
  refused(attempt(0, nowhere, 0), EINVAL, 'a queue of no length');
  refused(attempt(0, U64_MAX, PAGE), EOVERFLOW, 'a queue over the end of the addresses');
  refused(attempt(0, nowhere, PAGE), ENOENT, 'a queue where nothing is mapped');

  const iova = iommu.map(ioasId, iommu.buffer.address, PAGE);
  const other = iommu.map(ioasId, iommu.buffer.address + BigInt(PAGE), PAGE);
  refused(attempt(1, iova, PAGE), EIO, 'the second queue before the first');
  refused(attempt(IOMMU_TEST_HW_QUEUE_MAX, iova, PAGE), EINVAL, 'a queue too many');

  const first = iommu.allocHwQueue(viommuId, type, 0, iova, PAGE);
  refused(attempt(0, iova, PAGE), EEXIST, 'a queue twice');
  refused(iommu.tryUnmap(ioasId, iova, PAGE).result, EBUSY, 'unmapping a queue');
  iommu.unmap(ioasId, other, PAGE);

  const second = iommu.allocHwQueue(viommuId, type, 1, iova + BigInt(PAGE / 2), PAGE / 2);
  refused(iommu.tryDestroy(first), EBUSY, 'destroying a queue that another depends on');
  iommu.destroy(second);
  iommu.destroy(first);
  iommu.unmap(ioasId, iova, PAGE);
}

function vdeviceTombstone(iommu: Viommu): void {
  const vdevice = iommu.allocVdevice(iommu.viommuId, iommu.device.deviceId, 0x99n);
  iommu.destroy(iommu.device.id);
  refused(iommu.tryDestroy(vdevice), ENOENT, 'destroying a virtual device whose device is gone');
}

const always: Record<string, (iommu: Viommu) => void | Promise<void>> = {
  viommu_auto_destroy() {},
  viommu_negative_tests: negativeTests,
  vdevice_alloc: vdeviceAlloc,
};

const withViommu: Record<string, (iommu: Viommu) => void | Promise<void>> = {
  viommu_alloc_nested_iopf: allocNestedFaulting,
  viommu_alloc_with_data: allocWithData,
  vdevice_cache: vdeviceCache,
  hw_queue: hwQueue,
  vdevice_tombstone: vdeviceTombstone,
};

const fixture = 'iommufd_viommu';

export const cases: readonly Case[] = [
  ...fixtureCases(fixture, host => new Viommu(host, false), always, 'no_viommu'),
  ...Object.keys(withViommu).map(name => ({
    source: 'iommu/iommufd.c',
    fixture,
    name,
    variant: 'no_viommu',
    profiles: mockMachine,
    notApplicable: 'the selftest skips it: it needs a virtual IOMMU, which this variant is without',
  })),
  ...fixtureCases(fixture, host => new Viommu(host, true), { ...always, ...withViommu }, 'mock_viommu'),
];
