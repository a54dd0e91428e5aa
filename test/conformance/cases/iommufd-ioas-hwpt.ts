/** FIXTURE(iommufd_ioas): hardware page tables, nested ones above all, and what the hardware says of itself. @module */
import { EBUSY, EFAULT, EINVAL, ENOENT, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_GET_HW_INFO,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE,
  IOMMU_HW_INFO_TYPE_DEFAULT,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_FAULT_ID_VALID,
} from '../../../bindings/uapi/iommufd.js';
import {
  IOMMU_HW_INFO_SELFTEST_REGVAL,
  IOMMU_HW_INFO_TYPE_SELFTEST,
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_HWPT_INVALIDATE_DATA_SELFTEST,
  IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID,
  IOMMU_TEST_INVALIDATE_FLAG_ALL,
  IOMMU_TEST_IOTLB_DEFAULT,
  iommu_hwpt_invalidate_selftest,
  iommu_hwpt_selftest,
  iommu_test_hw_info,
  MOCK_NESTED_DOMAIN_IOTLB_ID_MAX,
  MOCK_PASID_WIDTH,
} from '../../../bindings/uapi/iommufd-test.js';
import { encodeList } from '../../../bindings/uapi/struct.js';
import { equal, holds, refused } from '../support/expect.js';
import type { Pointed } from '../support/iommufd.js';
import type { IoasFixture, IoasTests } from '../support/iommufd-ioas.js';
import { PAGE } from '../support/memory.js';

/** The most entries of one invalidation. */
const ENTRY_NUM_MAX = 2 ** 19;
const U32_MAX = 2 ** 32 - 1;
/** A flag of invalidation that the mock driver does not know, among others. */
const BAD_FLAGS = U32_MAX;
const ENTRY = iommu_hwpt_invalidate_selftest.size;
/** What a nested page table starts out with in its translation cache. */
const full = [0, 0, 0, 0].map(() => IOMMU_TEST_IOTLB_DEFAULT);

/** Ends of fields in bytes: the shortest data that has them. */
const endOf = ({ offset, size }: { offset: number; size: number }): number => offset + size;

/** Data of a nested page table for the mock driver. */
function nestedData(f: IoasFixture) {
  const data = f.pointStruct(iommu_hwpt_selftest, { iotlb: IOMMU_TEST_IOTLB_DEFAULT });
  return { data, dataType: IOMMU_HWPT_DATA_SELFTEST };
}

function withoutDevice(f: IoasFixture): void {
  const nested = nestedData(f);
  refused(f.tryAllocHwpt(0, f.ioas).result, ENOENT, 'a page table for no device');
  refused(f.tryAllocHwpt(0, 0, nested).result, ENOENT, 'a nested one for no device');
  refused(f.tryAllocHwpt(0, 0, nested).result, ENOENT, 'another nested one for no device');
  refused(f.tryReplace(0, 0), ENOENT, 'no device moved');
  refused(f.tryReplace(0, 0), ENOENT, 'no device moved again');
}

/** Invalidations of the nested page table `id`; the entries lie in `entries`, room for two. */
class Invalidation {
  readonly #f: IoasFixture;
  readonly #id: number;
  readonly #entries: Pointed;

  constructor(f: IoasFixture, id: number, entries: Pointed) {
    this.#f = f;
    this.#id = id;
    this.#entries = entries;
  }

  set(...entries: readonly { flags?: number; iotlb_id?: number }[]): this {
    encodeList(this.#entries.view, iommu_hwpt_invalidate_selftest, entries);
    return this;
  }

  /** Refuses with `errno` after `handled` entries. */
  refused(
    errno: number,
    what: string,
    {
      count = 1,
      handled = 0,
      length = ENTRY,
      type = IOMMU_HWPT_INVALIDATE_DATA_SELFTEST,
      pointer = true,
    } = {},
  ): void {
    const entries = pointer ? this.#entries : undefined;
    const answer = this.#f.tryInvalidate(this.#id, entries, type, length, count);
    refused(answer.result, errno, what);
    equal(answer.handled, handled, `${what}: entries handled`);
  }

  succeeds(count: number, what: string): void {
    const type = IOMMU_HWPT_INVALIDATE_DATA_SELFTEST;
    const answer = this.#f.tryInvalidate(this.#id, this.#entries, type, ENTRY, count);
    equal(answer.result, 0, what);
    equal(answer.handled, count, `${what}: entries handled`);
  }
}

function invalidate(f: IoasFixture, parent: number, first: number, second: number): void {
  const entries = f.point(2 * ENTRY);
  new Invalidation(f, parent, entries).refused(EINVAL, 'a parent has nothing to invalidate');

  const inv = new Invalidation(f, first, entries);
  inv.succeeds(0, 'no entries, to try the type');
  inv.refused(EINVAL, 'unknown type', { type: IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID });
  inv.refused(EINVAL, 'entries too long', { length: ENTRY + 1 });
  inv.refused(EINVAL, 'entries too short', { length: 1 });
  inv.refused(EINVAL, 'entries longer than a page', { length: PAGE + 1 });
  inv.refused(EINVAL, 'too many entries', { count: ENTRY_NUM_MAX + 1 });
  inv.set({ flags: BAD_FLAGS }).refused(EOPNOTSUPP, 'unknown flags');
  inv.set({}).refused(EINVAL, 'no pointer', { pointer: false });
  inv.refused(EINVAL, 'entries of no length', { length: 0 });
  const beyond = MOCK_NESTED_DOMAIN_IOTLB_ID_MAX + 1;
  inv.set({ iotlb_id: beyond }).refused(EINVAL, 'an entry that the cache does not have');

  const two = { count: 2, handled: 1 };
  inv.set({ iotlb_id: 0 }, { iotlb_id: 1, flags: BAD_FLAGS });
  inv.refused(EOPNOTSUPP, 'unknown flags in the second', two);
  f.checkIotlb(first, [0, ...full.slice(1)]);
  inv.set({ iotlb_id: 0 }, { iotlb_id: beyond }).refused(EINVAL, 'no such entry in the second', two);
  f.checkIotlb(first, [0, ...full.slice(1)]);

  inv.set({ iotlb_id: 1 }).succeeds(1, 'the second entry');
  f.checkIotlb(first, [0, 0, ...full.slice(2)]);
  inv.set({ iotlb_id: 2 }, { iotlb_id: 3 }).succeeds(2, 'the third and the fourth');
  f.checkIotlb(first, [0, 0, 0, 0]);

  const other = new Invalidation(f, second, entries);
  other.set({ flags: IOMMU_TEST_INVALIDATE_FLAG_ALL }).succeeds(1, 'all at once');
  f.checkIotlb(second, [0, 0, 0, 0]);
}

/**
 * Asks what the mock driver says of itself, with `length` bytes of `data`, and checks all of it.
 *
 * @returns the result, and the width of a PASID
 */
function hwInfo(
  f: IoasFixture,
  deviceId: number,
  type: number,
  data: Pointed | undefined,
  length: number,
): { result: number; pasidBits: number } {
  data?.bytes.fill(0xff);
  const { result, values } = f.call(IOMMU_GET_HW_INFO, {
    flags: type === IOMMU_HW_INFO_TYPE_DEFAULT ? 0 : IOMMU_HW_INFO_FLAG_INPUT_TYPE,
    dev_id: deviceId,
    data_len: length,
    in_data_type: type,
    data_uptr: data?.address ?? 0n,
  });
  const pasidBits = values.out_max_pasid_log2;
  if (result < 0) return { result, pasidBits };
  equal(values.out_data_type, IOMMU_HW_INFO_TYPE_SELFTEST, 'type of the data');
  equal(values.data_len, iommu_test_hw_info.size, 'length of what the kernel has');
  if (data !== undefined) {
    const { flags, test_reg } = iommu_test_hw_info.fields;
    const beyond = data.bytes.subarray(iommu_test_hw_info.size, length);
    holds(
      beyond.every(byte => byte === 0),
      'what is beyond the data is zero',
    );
    holds(
      data.bytes.subarray(length).every(byte => byte === 0xff),
      'nothing else is written',
    );
    const info = iommu_test_hw_info.decode(data.view);
    if (length >= endOf(test_reg)) equal(info.test_reg, IOMMU_HW_INFO_SELFTEST_REGVAL, 'test_reg');
    if (length >= endOf(flags)) equal(info.flags, 0, 'flags');
  }
  return { result, pasidBits };
}

export const hwptTests: IoasTests = {
  alloc_hwpt_nested(f) {
    if (f.device === undefined) return withoutDevice(f);
    const { id: mock, deviceId } = f.device;
    const parentFlag = { flags: IOMMU_HWPT_ALLOC_NEST_PARENT };
    refused(f.tryAllocHwpt(f.ioas, deviceId).result, ENOENT, 'an IOAS is no device');
    refused(f.tryAllocHwpt(deviceId, deviceId).result, EINVAL, 'a device is no page table');
    const parentWithFaults = { flags: IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_FAULT_ID_VALID };
    refused(f.tryAllocHwpt(deviceId, f.ioas, parentWithFaults).result, EOPNOTSUPP, 'a parent with faults');
    const parent = f.allocHwpt(deviceId, f.ioas, parentFlag);
    const noParent = f.allocHwpt(deviceId, f.ioas);

    const nested = nestedData(f);
    const refuse = (pt: number, options: object, errno: number, what: string): void =>
      refused(f.tryAllocHwpt(deviceId, pt, { ...nested, ...options }).result, errno, what);
    refuse(parent, { dataType: IOMMU_HWPT_DATA_NONE }, EINVAL, 'no type of data');
    refuse(parent, { dataType: IOMMU_HWPT_DATA_SELFTEST + 1 }, EOPNOTSUPP, 'an unknown type of data');
    const short = endOf(iommu_hwpt_selftest.fields.iotlb) - 1;
    refuse(parent, { dataLength: short }, EINVAL, 'data too short');
    refuse(parent, { data: undefined, dataLength: nested.data.bytes.length }, EFAULT, 'no pointer');
    refuse(parent, parentFlag, EOPNOTSUPP, 'a nested parent');
    refuse(noParent, {}, EINVAL, 'on what is no parent');

    const faults = f.allocFaultQueue();
    const first = f.allocHwpt(deviceId, parent, nested);
    const second = f.allocHwpt(deviceId, parent, nested);
    const withFaults = { ...nested, flags: IOMMU_HWPT_FAULT_ID_VALID };
    refuse(parent, { ...withFaults, faultId: U32_MAX }, ENOENT, 'no such fault queue');
    const faulting = f.allocHwpt(deviceId, parent, { ...withFaults, faultId: faults.id });
    f.checkIotlb(first, full);
    f.checkIotlb(second, full);
    refuse(first, {}, EINVAL, 'nested on nested');
    refused(f.tryDestroy(parent), EBUSY, 'a parent with children');

    invalidate(f, parent, first, second);

    f.replace(mock, first);
    refused(f.tryDestroy(first), EBUSY, 'the first is attached');
    f.replace(mock, second);
    refused(f.tryDestroy(second), EBUSY, 'the second is attached');
    f.destroy(first);
    f.replace(mock, faulting);
    refused(f.tryDestroy(faulting), EBUSY, 'the one with faults is attached');
    equal(f.triggerFault(deviceId, faults.fd), 0, 'a page fault');
    f.replace(mock, parent);
    f.destroy(second);
    f.destroy(faulting);
    f.replace(mock, f.ioas);
    f.destroy(parent);
    f.destroy(noParent);
    equal(f.kernel.close(faults.fd), 0, 'close of the fault queue');
    f.destroy(faults.id);
  },

  get_hw_info(f) {
    const exact = f.point(iommu_test_hw_info.size);
    const larger = f.point(iommu_test_hw_info.size + 8);
    const ask = (id: number, type: number, data: Pointed | undefined, length = data?.bytes.length ?? 0) =>
      hwInfo(f, id, type, data, length);
    const any = IOMMU_HW_INFO_TYPE_DEFAULT;
    if (f.device === undefined) {
      refused(ask(0, any, exact).result, ENOENT, 'no device');
      refused(ask(0, any, larger).result, ENOENT, 'no device');
      return;
    }
    const { deviceId } = f.device;
    equal(ask(deviceId, any, undefined).result, 0, 'no buffer');
    equal(ask(deviceId, any, exact).result, 0, 'a buffer that fits');
    refused(ask(deviceId, IOMMU_HW_INFO_TYPE_SELFTEST + 1, exact).result, EOPNOTSUPP, 'another type');
    equal(ask(deviceId, IOMMU_HW_INFO_TYPE_SELFTEST, exact).result, 0, 'the right type');
    equal(ask(deviceId, any, larger).result, 0, 'a larger buffer');
    equal(ask(deviceId, any, exact, endOf(iommu_test_hw_info.fields.flags)).result, 0, 'a smaller buffer');
    const plain = ask(deviceId, any, undefined);
    equal(plain.result, 0, 'for PASIDs');
    equal(plain.pasidBits, 0, 'bits of a PASID');
    if (f.pasidDevice === undefined) return;
    const capable = ask(f.pasidDevice.deviceId, any, undefined);
    equal(capable.result, 0, 'of the device with PASIDs');
    equal(capable.pasidBits, MOCK_PASID_WIDTH, 'bits of a PASID');
  },
};
