/** Rows 79 to 82 of the errno table: an iommufd that poses as a container. @module */
import { EINVAL, ENODEV, ENOENT, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_VFIO_IOAS,
  IOMMU_VFIO_IOAS_GET,
  IOMMU_VFIO_IOAS_SET,
} from '../../../bindings/uapi/iommufd.js';
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_NOIOMMU_IOMMU,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from '../../../bindings/uapi/vfio.js';
import type { Case } from '../support/case.js';
import { iommufdRows } from '../support/errno-cases.js';
import { equal, refused } from '../support/expect.js';
import { PAGE } from '../support/memory.js';
import type { ViommuFixture } from '../support/viommu.js';

const pageSize = BigInt(PAGE);
/** Inside a mock device's aperture. */
const base = 1n << 25n;

const setType = ({ kernel, fd }: ViommuFixture, type: number): number =>
  kernel.ioctl(fd, VFIO_SET_IOMMU.number, type);

/** A container of the given type with a mock device. */
function container(iommu: ViommuFixture, type: number) {
  const ioas_id = iommu.allocIoas();
  const set = { op: IOMMU_VFIO_IOAS_SET, ioas_id };
  equal(iommu.call(IOMMU_VFIO_IOAS, set).result, 0, 'IOMMU_VFIO_IOAS_SET');
  const { id } = iommu.mockDevice(ioas_id);
  equal(setType(iommu, type), 0, 'VFIO_SET_IOMMU');
  return { id, ioas_id };
}

function map(iommu: ViommuFixture, pages: bigint): void {
  const values = { flags: VFIO_DMA_MAP_FLAG_READ, vaddr: iommu.buffer.address, iova: base };
  const size = pages * pageSize;
  equal(iommu.call(VFIO_IOMMU_MAP_DMA, { ...values, size }).result, 0, 'VFIO_IOMMU_MAP_DMA');
}

const unmap = (iommu: ViommuFixture, iova: bigint, size: bigint, flags = 0) =>
  iommu.call(VFIO_IOMMU_UNMAP_DMA, { iova, size, flags });

const types = [
  ['version 1', VFIO_TYPE1_IOMMU],
  ['version 2', VFIO_TYPE1v2_IOMMU],
] as const;

export const cases: readonly Case[] = iommufdRows([
  [
    79,
    'container requests without a compatible IOAS',
    iommu => {
      refused(iommu.call(VFIO_IOMMU_MAP_DMA, { flags: VFIO_DMA_MAP_FLAG_READ }).result, ENODEV, 'map');
      refused(unmap(iommu, 0n, pageSize).result, ENODEV, 'unmap');
      refused(iommu.call(VFIO_IOMMU_GET_INFO, {}).result, ENODEV, 'information');
      for (const [title, type] of types) refused(setType(iommu, type), ENODEV, title);
      refused(setType(iommu, VFIO_NOIOMMU_IOMMU), EINVAL, 'no IOMMU');
      refused(setType(iommu, 100), EINVAL, 'another type');
      const get = { op: IOMMU_VFIO_IOAS_GET };
      refused(iommu.call(IOMMU_VFIO_IOAS, get).result, ENODEV, 'which IOAS');
      refused(iommu.call(IOMMU_VFIO_IOAS, { op: 3 }).result, EOPNOTSUPP, 'an unknown operation');
      refused(iommu.call(IOMMU_VFIO_IOAS, { ...get, __reserved: 1 }).result, EOPNOTSUPP, '__reserved');
      const set = { op: IOMMU_VFIO_IOAS_SET, ioas_id: 0 };
      refused(iommu.call(IOMMU_VFIO_IOAS, set).result, ENOENT, 'set to no IOAS');
      // Sizes and flags are looked at before that.
      refused(iommu.call(VFIO_IOMMU_MAP_DMA, { argsz: 1 }).result, EINVAL, 'map of size 1');
      refused(
        iommu.call(VFIO_IOMMU_MAP_DMA, { flags: 0x8000_0000 }).result,
        EINVAL,
        'map with unknown flags',
      );
      refused(iommu.call(VFIO_IOMMU_UNMAP_DMA, { argsz: 1 }).result, EINVAL, 'unmap of size 1');
      refused(unmap(iommu, 0n, 0n, 0x8000_0000).result, EINVAL, 'unmap with unknown flags');
      refused(iommu.call(VFIO_IOMMU_GET_INFO, { argsz: 1 }).result, EINVAL, 'information of size 1');
    },
  ],
  [
    80,
    'container unmap of nothing',
    iommu => {
      for (const [title, type] of types) {
        const { id, ioas_id } = container(iommu, type);
        const { result, values } = unmap(iommu, base, pageSize);
        equal(result, 0, title);
        equal(values.size, 0n, `${title}: bytes unmapped`);
        refused(iommu.tryUnmap(ioas_id, base, PAGE).result, ENOENT, `${title}: iommufd's own`);
        iommu.destroy(id);
      }
    },
  ],
  [
    81,
    'container unmap of all, with a range',
    iommu => {
      for (const [title, type] of types) {
        const { id } = container(iommu, type);
        map(iommu, 1n);
        refused(unmap(iommu, base, 0n, VFIO_DMA_UNMAP_FLAG_ALL).result, EINVAL, `${title}: an IOVA`);
        refused(unmap(iommu, 0n, pageSize, VFIO_DMA_UNMAP_FLAG_ALL).result, EINVAL, `${title}: a size`);
        const { result, values } = unmap(iommu, 0n, 0n, VFIO_DMA_UNMAP_FLAG_ALL);
        equal(result, 0, `${title}: neither`);
        equal(values.size, pageSize, `${title}: bytes unmapped`);
        iommu.destroy(id);
      }
    },
  ],
  [
    82,
    'container unmap of a part of a mapping',
    iommu => {
      for (const [title, type] of types) {
        const { id, ioas_id } = container(iommu, type);
        const option = { option_id: IOMMU_OPTION_HUGE_PAGES, op: IOMMU_OPTION_OP_GET, object_id: ioas_id };
        const huge = iommu.call(IOMMU_OPTION, option).values.val64;
        equal(huge, type === VFIO_TYPE1_IOMMU ? 0n : 1n, `${title}: huge pages`);
        map(iommu, 3n);
        const { result, values } = unmap(iommu, base + pageSize, pageSize);
        if (type === VFIO_TYPE1_IOMMU) {
          equal(result, 0, `${title}: the page in the middle`);
          equal(values.size, pageSize, `${title}: bytes unmapped`);
          equal(iommu.unmap(ioas_id, base, PAGE), pageSize, 'the page before is a mapping of its own');
          equal(iommu.unmap(ioas_id, base + 2n * pageSize, PAGE), pageSize, 'and so is the one behind');
        } else {
          refused(result, ENOENT, `${title}: the page in the middle`);
          equal(values.size, 0n, `${title}: bytes unmapped`);
          equal(unmap(iommu, base, 3n * pageSize).values.size, 3n * pageSize, `${title}: all of it`);
        }
        iommu.destroy(id);
      }
    },
  ],
]);
