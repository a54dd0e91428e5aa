/** The kernel's selftest iommu/iommufd.c: which pages a device has written to, on a mock device. @module */
import { EINVAL, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_GET_HW_INFO,
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_SET,
} from '../../../bindings/uapi/iommufd.js';
import {
  IOMMU_HW_INFO_TYPE_SELFTEST,
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_TEST_OP_DIRTY,
  iommu_hwpt_selftest,
  iommu_test_cmd_dirty,
  iommu_test_hw_info,
  MOCK_APERTURE_START,
  MOCK_FLAGS_DEVICE_NO_DIRTY,
  MOCK_FLAGS_DEVICE_PASID,
  MOCK_HUGE_PAGE_SIZE,
  MOCK_IOMMUPT_DEFAULT,
  MOCK_IOMMUPT_HUGE,
  MOCK_PAGE_SIZE,
} from '../../../bindings/uapi/iommufd-test.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { equal, refused, sameBytes } from '../support/expect.js';
import { withHugePages } from '../support/huge-pages.js';
import { IommufdFixture, type MockDevice } from '../support/iommufd.js';
import { fixtureCases } from '../support/iommufd-cases.js';
import { anonymous, anonymousHuge, HUGE_PAGE, type Memory, PAGE } from '../support/memory.js';
import { PasidAttachments } from '../support/pasid.js';

interface Variant {
  /** In bytes: a multiple of the page size. */
  readonly size: number;
  readonly hugePages: boolean;
}

const KIB = 1024;
const MIB = 1024 * KIB;

const variants: Record<string, Variant> = {
  domain_dirty8k: { size: 8 * KIB, hugePages: false },
  domain_dirty16k: { size: 16 * KIB, hugePages: false },
  domain_dirty64k: { size: 64 * KIB, hugePages: false },
  domain_dirty128k: { size: 128 * KIB, hugePages: false },
  domain_dirty320k: { size: 320 * KIB, hugePages: false },
  domain_dirty64M: { size: 64 * MIB, hugePages: false },
  domain_dirty64M_huge: { size: 64 * MIB, hugePages: true },
  domain_dirty128M: { size: 128 * MIB, hugePages: false },
  domain_dirty128M_huge: { size: 128 * MIB, hugePages: true },
};

/** What a bitmap has around it, and where nothing is dirty in it: it must be left as it is. */
const UNTOUCHED = 0xa4;

/** An IOAS with a mock device. */
class DirtyTracking extends IommufdFixture {
  readonly ioasId: number;
  readonly device: MockDevice;
  readonly variant: Variant;

  constructor(host: ConformanceHost, variant: Variant) {
    super(host);
    this.variant = variant;
    this.ioasId = this.allocIoas();
    if (!variant.hugePages) {
      // Then every page is an entry of its own, of two mock pages, and dirty as a whole.
      const option = { option_id: IOMMU_OPTION_HUGE_PAGES, op: IOMMU_OPTION_OP_SET, val64: 0n };
      equal(this.call(IOMMU_OPTION, { ...option, object_id: this.ioasId }).result, 0, 'IOMMU_OPTION');
    }
    this.device = this.mockDevice(this.ioasId);
  }

  setTracking(hwptId: number, enabled: boolean): void {
    const flags = enabled ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0;
    const { result } = this.call(IOMMU_HWPT_SET_DIRTY_TRACKING, { flags, hwpt_id: hwptId });
    equal(result, 0, 'IOMMU_HWPT_SET_DIRTY_TRACKING');
  }
}

function enforceDirty(iommu: DirtyTracking): void {
  const flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
  const hwptId = iommu.allocHwpt(iommu.device.deviceId, iommu.ioasId, { flags });
  const capable = iommu.mockDevice(hwptId);
  const { result } = iommu.tryMockDeviceFlags(hwptId, MOCK_FLAGS_DEVICE_NO_DIRTY);
  refused(result, EINVAL, 'a device without dirty tracking on a table that has it');
  iommu.destroy(capable.id);
  iommu.destroy(hwptId);

  const other = iommu.allocIoas();
  const incapable = iommu.mockDeviceFlags(other, MOCK_FLAGS_DEVICE_NO_DIRTY);
  refused(iommu.tryAllocHwpt(incapable.deviceId, other, { flags }).result, EOPNOTSUPP, 'such a table for it');
  iommu.destroy(incapable.id);
}

function setDirtyTracking(iommu: DirtyTracking): void {
  const flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
  const hwptId = iommu.allocHwpt(iommu.device.deviceId, iommu.ioasId, { flags });
  const { id } = iommu.mockDevice(hwptId);
  iommu.setTracking(hwptId, true);
  iommu.setTracking(hwptId, false);
  iommu.destroy(id);
  iommu.destroy(hwptId);
}

function pasidSetDirtyTracking(iommu: DirtyTracking): void {
  const pasid = 100;
  const flags = IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
  const hwptId = iommu.allocHwpt(iommu.device.deviceId, iommu.ioasId, { flags });
  const capable = iommu.mockDeviceFlags(hwptId, MOCK_FLAGS_DEVICE_PASID);
  const attachments = new PasidAttachments(iommu, capable.id);
  attachments.attach(pasid, hwptId);
  iommu.setTracking(hwptId, true);
  iommu.setTracking(hwptId, false);
  attachments.detach(pasid);
  iommu.destroy(capable.id);

  const noDirty = MOCK_FLAGS_DEVICE_PASID | MOCK_FLAGS_DEVICE_NO_DIRTY;
  const incapable = iommu.mockDeviceFlags(iommu.allocIoas(), noDirty);
  const { id } = incapable;
  refused(new PasidAttachments(iommu, id).tryAttach(pasid, hwptId), EINVAL, 'without dirty tracking');
  iommu.destroy(id);
  iommu.destroy(hwptId);
}

function deviceDirtyCapability(iommu: DirtyTracking): void {
  const hwptId = iommu.allocHwpt(iommu.device.deviceId, iommu.ioasId);
  const { id } = iommu.mockDevice(hwptId);
  const { result, values } = iommu.call(IOMMU_GET_HW_INFO, { dev_id: iommu.device.deviceId });
  equal(result, 0, 'IOMMU_GET_HW_INFO');
  equal(values.out_data_type, IOMMU_HW_INFO_TYPE_SELFTEST, 'type of the information');
  equal(values.data_len, iommu_test_hw_info.size, 'length of the information');
  equal(
    values.out_capabilities & IOMMU_HW_CAP_DIRTY_TRACKING,
    IOMMU_HW_CAP_DIRTY_TRACKING,
    'dirty tracking among the capabilities',
  );
  iommu.destroy(id);
  iommu.destroy(hwptId);
}

/** A bitmap of `bits` bits in which the first `length` of every `period` are set. */
function pattern(bits: number, period: number, length: number): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(bits / 8));
  for (let bit = 0; bit < bits; bit++) {
    if (bit % period < length) bytes[bit >>> 3] = (bytes[bit >>> 3] as number) | (1 << (bit & 7));
  }
  return bytes;
}

/** Makes every other entry of a page table dirty, and reads it twice into a bitmap `offset` bytes into `memory`. */
function checkBitmap(
  iommu: DirtyTracking,
  hwptId: number,
  { address, bytes }: Memory,
  offset: number,
  flags: number,
): void {
  const { size, hugePages } = iommu.variant;
  const bits = size / MOCK_PAGE_SIZE;
  const entry = (hugePages ? MOCK_HUGE_PAGE_SIZE : PAGE) / MOCK_PAGE_SIZE;
  const firsts = pattern(bits, 2 * entry, 1);
  const dirty = pattern(bits, 2 * entry, entry);
  const bitmap = bytes.subarray(offset, offset + dirty.length);
  const range = {
    iova: BigInt(MOCK_APERTURE_START),
    length: BigInt(size),
    page_size: BigInt(MOCK_PAGE_SIZE),
  };
  const pointer = address + BigInt(offset);
  bytes.fill(UNTOUCHED);
  const around = bytes.slice();

  bitmap.set(firsts);
  const made = { id: hwptId, ...range, uptr: pointer };
  const { result, values } = iommu.test(IOMMU_TEST_OP_DIRTY, iommu_test_cmd_dirty, made);
  equal(result, 0, 'DIRTY');
  equal(values.out_nr_dirty, BigInt(Math.max(Math.floor(bits / (2 * entry)), 1)), 'pages made dirty');

  for (const expected of [dirty, flags ? dirty : new Uint8Array(dirty.length)]) {
    bitmap.fill(0);
    const wanted = { hwpt_id: hwptId, flags, ...range, data: pointer };
    equal(iommu.call(IOMMU_HWPT_GET_DIRTY_BITMAP, wanted).result, 0, 'IOMMU_HWPT_GET_DIRTY_BITMAP');
    sameBytes(bitmap, expected, () => `bitmap at offset ${offset}`);
  }
  bitmap.fill(UNTOUCHED);
  sameBytes(bytes, around, 'memory around the bitmap');

  // Beyond the selftest: what is clean leaves bits as they are, so that one bitmap can add up several reads.
  if (flags) return;
  const again = { hwpt_id: hwptId, flags, ...range, data: pointer };
  equal(iommu.call(IOMMU_HWPT_GET_DIRTY_BITMAP, again).result, 0, 'IOMMU_HWPT_GET_DIRTY_BITMAP');
  sameBytes(bytes, around, 'bits that were set before');
}

function dirtyBitmap(iommu: DirtyTracking, readFlags: number): void {
  const { size, hugePages } = iommu.variant;
  using _hugePages = withHugePages(iommu, hugePages ? size / HUGE_PAGE : 0);
  using memory = hugePages ? anonymousHuge(iommu, size) : anonymous(iommu, size, HUGE_PAGE);
  // A page more than the bitmap, so that it can begin anywhere in one.
  const bitmapBytes = Math.ceil(size / MOCK_PAGE_SIZE / 8);
  using bitmap = anonymous(iommu, Math.ceil(bitmapBytes / PAGE) * PAGE + PAGE);

  iommu.map(iommu.ioasId, memory.address, size, BigInt(MOCK_APERTURE_START));
  const hwptId = iommu.allocHwpt(iommu.device.deviceId, iommu.ioasId, {
    flags: IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
    dataType: IOMMU_HWPT_DATA_SELFTEST,
    data: iommu.pointStruct(iommu_hwpt_selftest, {
      pagetable_type: hugePages ? MOCK_IOMMUPT_HUGE : MOCK_IOMMUPT_DEFAULT,
    }),
  });
  iommu.setTracking(hwptId, true);
  // Aligned to a page; to half of one; to nothing, and over a page's end.
  for (const offset of [0, MOCK_PAGE_SIZE, 0xff1]) {
    checkBitmap(iommu, hwptId, bitmap, offset, readFlags);
  }
  iommu.destroy(hwptId);
}

export const cases: readonly Case[] = Object.entries(variants).flatMap(([name, variant]) =>
  fixtureCases(
    'iommufd_dirty_tracking',
    host => new DirtyTracking(host, variant),
    {
      enforce_dirty: enforceDirty,
      set_dirty_tracking: setDirtyTracking,
      pasid_set_dirty_tracking: pasidSetDirtyTracking,
      device_dirty_capability: deviceDirtyCapability,
      get_dirty_bitmap: iommu => dirtyBitmap(iommu, 0),
      get_dirty_bitmap_no_clear: iommu => dirtyBitmap(iommu, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR),
    },
    name,
  ),
);
