/** FIXTURE(iommufd_ioas): what can be mapped, copied and unmapped, and what cannot. @module */
import { EADDRINUSE, EEXIST, EINVAL, ENOENT } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_SET,
} from '../../../bindings/uapi/iommufd.js';
import { MOCK_APERTURE_START, MOCK_PAGE_SIZE } from '../../../bindings/uapi/iommufd-test.js';
import { equal, refused } from '../support/expect.js';
import { BUFFER_SIZE } from '../support/iommufd.js';
import type { IoasFixture, IoasTests } from '../support/iommufd-ioas.js';
import { PAGE } from '../support/memory.js';

const U64_MAX = 2n ** 64n - 1n;
const APERTURE = BigInt(MOCK_APERTURE_START);
const pages = (count: number): bigint => BigInt(count * PAGE);

/** Copies within and between address spaces, to a fixed place. */
function tryCopy(
  f: IoasFixture,
  values: { dst_ioas_id: number; dst_iova: bigint; src_iova: bigint; length: bigint },
): number {
  const flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE;
  return f.call(IOMMU_IOAS_COPY, { ...values, flags, src_ioas_id: f.ioas }).result;
}

export const areaTests: IoasTests = {
  area(f) {
    for (let page = 0; page < 10; page++) {
      refused(f.tryUnmap(f.ioas, pages(page), PAGE).result, ENOENT, 'unmap of nothing');
    }
    for (let page = 0; page < 10; page++) f.map(f.ioas, f.buffer.address, PAGE, f.base + pages(page));
    for (let page = 0; page < 10; page++) f.unmap(f.ioas, f.base + pages(page), PAGE);

    f.map(f.ioas, f.buffer.address, 2 * PAGE, f.base + pages(16));
    refused(f.tryUnmap(f.ioas, f.base + pages(16), PAGE).result, ENOENT, 'unmap of the first half');
    refused(f.tryUnmap(f.ioas, f.base + pages(17), PAGE).result, ENOENT, 'unmap of the second half');

    const overlapping: readonly (readonly [page: number, count: number])[] = [
      [16, 2],
      [16, 1],
      [17, 1],
      [15, 2],
      [15, 3],
    ];
    for (const [page, count] of overlapping) {
      const { result } = f.tryMap(f.ioas, f.buffer.address, count * PAGE, f.base + pages(page));
      refused(result, EEXIST, `map of ${count} pages over page ${page}`);
    }
    f.unmap(f.ioas, 0n, U64_MAX);
    f.unmap(f.ioas, 0n, U64_MAX);
  },

  unmap_fully_contained_areas(f) {
    const base = f.base + pages(4);
    for (let area = 0; area < 4; area++) {
      f.map(f.ioas, f.buffer.address, 8 * PAGE, base + pages(16 * area));
    }
    refused(f.tryUnmap(f.ioas, base - pages(4), 8 * PAGE).result, ENOENT, 'half of the first');
    const secondHalf = base + pages(3 * 16 + 4);
    refused(f.tryUnmap(f.ioas, secondHalf, 8 * PAGE).result, ENOENT, 'half of the last');
    const unmapped = f.unmap(f.ioas, base - pages(4), pages(3 * 16 + 8 + 4));
    equal(unmapped, pages(32), 'all that was mapped');
  },

  copy_area(f) {
    f.map(f.ioas, f.buffer.address, PAGE, f.base);
    const copy = { src_iova: f.base, length: pages(1) };
    equal(tryCopy(f, { ...copy, dst_ioas_id: f.ioas, dst_iova: f.base + pages(1) }), 0, 'within an IOAS');
    equal(tryCopy(f, { ...copy, dst_ioas_id: f.allocIoas(), dst_iova: 0n }), 0, 'to another IOAS');
  },

  ioas_iova_alloc(f) {
    for (let length = 1; length < 2 * PAGE; length++) {
      const { result, iova } = f.tryMap(f.ioas, f.buffer.address, length);
      if (f.device !== undefined && length % MOCK_PAGE_SIZE !== 0) {
        refused(result, EINVAL, () => `map of ${length} bytes`);
      } else {
        equal(result, 0, () => `map of ${length} bytes`);
        f.unmap(f.ioas, iova, length);
      }
    }
  },

  ioas_align_change(f) {
    // With a device that has something mapped the alignment cannot be raised.
    if (f.device !== undefined) return;
    const setHugePages = (val64: bigint): number => {
      const option = {
        option_id: IOMMU_OPTION_HUGE_PAGES,
        op: IOMMU_OPTION_OP_SET,
        object_id: f.ioas,
        val64,
      };
      return f.call(IOMMU_OPTION, option).result;
    };
    const { address } = f.buffer;
    f.map(f.ioas, address, PAGE, APERTURE);
    equal(setHugePages(0n), 0, 'everything is aligned to a page');
    const misaligned = address + BigInt(MOCK_PAGE_SIZE);
    const next = APERTURE + pages(1);
    refused(f.tryMap(f.ioas, misaligned, PAGE, next).result, EINVAL, 'half a page off');
    equal(setHugePages(0n), 0, 'still aligned');

    equal(setHugePages(1n), 0, 'any alignment');
    f.map(f.ioas, misaligned, PAGE, next);
    refused(setHugePages(0n), EADDRINUSE, 'something is not aligned');
    f.unmap(f.ioas, next, PAGE);
    f.unmap(f.ioas, APERTURE, PAGE);
  },

  copy_sweep(f) {
    const target = f.allocIoas();
    const length = BigInt(MOCK_PAGE_SIZE);
    // Without a device a mapping may end anywhere.
    const last = APERTURE + BigInt(BUFFER_SIZE) - (f.device === undefined ? 2n : 1n);
    f.map(f.ioas, f.buffer.address, last - APERTURE + 1n, APERTURE);
    for (let iova = APERTURE - pages(1); iova <= last; iova += 511n) {
      const result = tryCopy(f, { dst_ioas_id: target, dst_iova: APERTURE, src_iova: iova, length });
      if (iova < APERTURE || iova + length - 1n > last) {
        refused(result, ENOENT, () => `copy from 0x${iova.toString(16)}`);
      } else {
        equal(result, 0, () => `copy from 0x${iova.toString(16)}`);
        f.unmap(target, APERTURE, length);
      }
    }
    f.destroy(target);
  },
};
