/** Rows 1 to 10 of the errno table: sizes, requests and objects. @module */
import { E2BIG, EBUSY, EFAULT, EINVAL, ENOENT, ENOTTY, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_DESTROY,
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_GET_HW_INFO,
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_NOIOMMU_GET_PA,
  IOMMU_IOAS_UNMAP,
  IOMMU_OPTION,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VFIO_IOAS,
  IOMMU_VIOMMU_ALLOC,
  iommu_fault_alloc,
} from '../../../bindings/uapi/iommufd.js';
import { IOMMU_HWPT_DATA_SELFTEST, IOMMU_TEST_CMD } from '../../../bindings/uapi/iommufd-test.js';
import type { Request } from '../../../bindings/uapi/request.js';
import type { Struct } from '../../../bindings/uapi/struct.js';
import type { Case } from '../support/case.js';
import { iommufdRows } from '../support/errno-cases.js';
import { equal, refused } from '../support/expect.js';
import type { ViommuFixture } from '../support/viommu.js';

const requests: readonly Request<Struct>[] = [
  IOMMU_DESTROY,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_UNMAP,
  IOMMU_OPTION,
  IOMMU_VFIO_IOAS,
  IOMMU_HWPT_ALLOC,
  IOMMU_GET_HW_INFO,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_VIOMMU_ALLOC,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_IOAS_NOIOMMU_GET_PA,
  IOMMU_TEST_CMD,
];

/** Bytes that a struct of the future might have at its end. */
const TAIL = 16;

/** Issues a request with a zeroed struct of `size` bytes, but for `last` in the last one. */
function issue(iommu: ViommuFixture, request: Request<Struct>, size: number, last = 0): number {
  const { bytes, view } = request.argument.allocate(TAIL);
  view.setUint32(0, size, true);
  if (last !== 0) bytes[size - 1] = last;
  const result = iommu.kernel.ioctl(iommu.fd, request.number, bytes);
  if (request === IOMMU_FAULT_QUEUE_ALLOC && result === 0) {
    iommu.kernel.close(iommu_fault_alloc.get(view, 'out_fault_fd'));
  }
  return result;
}

/** Issues a request with the struct at address 0. */
const issueNull = (iommu: ViommuFixture, number: number): number => iommu.kernel.ioctl(iommu.fd, number, 0);

export const cases: readonly Case[] = iommufdRows([
  [
    1,
    'size below the minimum',
    iommu => {
      for (const request of requests) {
        for (const size of [0, 4, request.minimumSize - 1]) {
          refused(issue(iommu, request, size), EINVAL, `${request.name} of ${size} bytes`);
        }
      }
    },
  ],
  [
    2,
    'longer than known, with something in the tail',
    iommu => {
      for (const request of requests) {
        const { size } = request.argument;
        for (const more of [1, 8, TAIL]) {
          refused(issue(iommu, request, size + more, 1), E2BIG, `${request.name} of ${size + more} bytes`);
        }
      }
    },
  ],
  [
    3,
    'longer than known, with nothing in the tail',
    iommu => {
      for (const request of requests) {
        const { size } = request.argument;
        const exact = issue(iommu, request, size);
        equal(issue(iommu, request, size + TAIL), exact, `${request.name} of ${size + TAIL} bytes`);
      }
    },
  ],
  [
    4,
    'unknown request',
    iommu => {
      const argument = new Uint8Array(new ArrayBuffer(64));
      argument[0] = 64;
      for (const number of [0x3b7f, 0x3b96, 0x3b9f, 0x3ba1, 0x3bff, 0x3a80, 0xba00]) {
        const result = iommu.kernel.ioctl(iommu.fd, number, argument);
        refused(result, ENOTTY, `request 0x${number.toString(16)}`);
      }
      refused(issueNull(iommu, 0x3b7f), ENOTTY, 'before the known ones, without a struct');
      refused(issueNull(iommu, 0x3b96), EFAULT, 'among the known ones, without a struct');
    },
  ],
  [
    5,
    'no struct',
    iommu => {
      for (const request of requests) refused(issueNull(iommu, request.number), EFAULT, request.name);
    },
  ],
  [
    6,
    'destroying what is not there',
    iommu => {
      refused(iommu.tryDestroy(0), ENOENT, '0');
      refused(iommu.tryDestroy(1), ENOENT, '1, before anything is');
      refused(iommu.tryDestroy(0xffff_ffff), ENOENT, '2^32 - 1');
      const ioas = iommu.allocIoas();
      iommu.destroy(ioas);
      refused(iommu.tryDestroy(ioas), ENOENT, 'destroyed');
    },
  ],
  [
    7,
    'destroying an IOAS that a device is attached to',
    iommu => {
      const ioas = iommu.allocIoas();
      const { id } = iommu.mockDevice(ioas);
      refused(iommu.tryDestroy(ioas), EBUSY, 'attached');
      iommu.destroy(id);
      iommu.destroy(ioas);
    },
  ],
  [
    8,
    'destroying a page table that a device is attached to',
    iommu => {
      const ioas = iommu.allocIoas();
      const { id, hwptId, deviceId } = iommu.mockDevice(ioas);
      refused(iommu.tryDestroy(hwptId), EBUSY, 'the one made at attach');
      const hwpt = iommu.allocHwpt(deviceId, ioas);
      iommu.replace(id, hwpt);
      refused(iommu.tryDestroy(hwpt), EBUSY, 'one made before');
      refused(iommu.tryDestroy(hwptId), ENOENT, 'the one made at attach has gone');
      iommu.replace(id, ioas);
      iommu.destroy(hwpt);
      iommu.destroy(id);
    },
  ],
  [
    9,
    'destroying a nesting parent with children',
    iommu => {
      const ioas = iommu.allocIoas();
      const { id, deviceId } = iommu.mockDevice(ioas);
      const parent = iommu.allocHwpt(deviceId, ioas, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT });
      const options = { dataType: IOMMU_HWPT_DATA_SELFTEST, data: iommu.point(8) };
      const child = iommu.allocHwpt(deviceId, parent, options);
      refused(iommu.tryDestroy(parent), EBUSY, 'with a child');
      iommu.destroy(child);
      iommu.destroy(parent);
      iommu.destroy(id);
    },
  ],
  [
    10,
    'IOAS_ALLOC with flags',
    iommu => {
      refused(iommu.call(IOMMU_IOAS_ALLOC, { flags: 1 }).result, EOPNOTSUPP, 'flags 1');
      refused(iommu.call(IOMMU_IOAS_ALLOC, { flags: 0x8000_0000 }).result, EOPNOTSUPP, 'flags 2^31');
    },
  ],
]);
