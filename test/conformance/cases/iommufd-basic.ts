/** FIXTURE(iommufd): a descriptor with nothing behind it. @module */
import { E2BIG, EFAULT, EINVAL, ENODEV, ENOENT, ENOTTY } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_DESTROY,
  IOMMU_GET_HW_INFO,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_UNMAP,
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VFIO_IOAS,
  IOMMU_VFIO_IOAS_CLEAR,
  IOMMU_VFIO_IOAS_GET,
  IOMMU_VFIO_IOAS_SET,
  IOMMU_VIOMMU_ALLOC,
  IOMMUFD_CMD_BASE,
  IOMMUFD_TYPE,
  iommu_destroy,
} from '../../../bindings/uapi/iommufd.js';
import { MOCK_APERTURE_START } from '../../../bindings/uapi/iommufd-test.js';
import type { Request } from '../../../bindings/uapi/request.js';
import type { Struct } from '../../../bindings/uapi/struct.js';
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from '../../../bindings/uapi/vfio.js';
import type { Case } from '../support/case.js';
import { equal, refused } from '../support/expect.js';
import { IommufdFixture } from '../support/iommufd.js';
import { fixtureCases } from '../support/iommufd-cases.js';
import { PAGE } from '../support/memory.js';

/** A bit that no flags field of these requests knows. */
const UNKNOWN_FLAG = 2 ** 31;

/** The requests whose length is checked. */
const sized: readonly Request<Struct>[] = [
  IOMMU_DESTROY,
  IOMMU_GET_HW_INFO,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_UNMAP,
  IOMMU_OPTION,
  IOMMU_VFIO_IOAS,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_VIOMMU_ALLOC,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_IOAS_CHANGE_PROCESS,
];

/** Issues `request` with a zeroed struct of the given size, and what follows the struct in memory. */
function ofSize(
  { kernel, fd }: IommufdFixture,
  request: Request<Struct>,
  size: number,
  next: number,
): number {
  const { bytes, view } = request.argument.allocate(8);
  view.setUint32(0, size, true);
  view.setUint8(request.argument.size, next);
  return kernel.ioctl(fd, request.number, bytes);
}

export const cases: readonly Case[] = fixtureCases('iommufd', host => new IommufdFixture(host), {
  simple_close() {},

  cmd_fail(f) {
    refused(f.tryDestroy(0), ENOENT, 'an id of nothing');
    refused(f.kernel.ioctl(f.fd, IOMMU_DESTROY.number, 0), EFAULT, 'a null pointer');
    const { bytes } = iommu_destroy.allocate();
    const unknown = (IOMMUFD_TYPE << 8) | (IOMMUFD_CMD_BASE - 1);
    refused(f.kernel.ioctl(f.fd, unknown, bytes), ENOTTY, 'an unknown request');
  },

  cmd_length(f) {
    for (const request of sized) {
      const { name, minimumSize, argument } = request;
      refused(ofSize(f, request, minimumSize - 1, 0xff), EINVAL, `${name}, too short`);
      refused(ofSize(f, request, argument.size + 1, 0xff), E2BIG, `${name}, longer and not zero there`);
      const exact = ofSize(f, request, argument.size, 0xff);
      const longer = ofSize(f, request, argument.size + 1, 0);
      equal(longer, exact, `${name}, longer and zero there`);
    }
  },

  cmd_ex_fail(f) {
    const future = 8;
    const { bytes, view } = iommu_destroy.allocate(future);
    const destroy = (size: number, tail: bigint): number => {
      iommu_destroy.encode(view, { size, id: 0 });
      view.setBigUint64(iommu_destroy.size, tail, true);
      return f.kernel.ioctl(f.fd, IOMMU_DESTROY.number, bytes);
    };
    refused(destroy(iommu_destroy.size + future, 0n), ENOENT, 'longer, zero');
    refused(destroy(iommu_destroy.size + future, 1n), E2BIG, 'longer, not zero');
    refused(destroy(iommu_destroy.size, 1n), ENOENT, 'exact');
    refused(destroy(iommu_destroy.size - 1, 1n), EINVAL, 'short');
  },

  global_options(f) {
    const get = (option_id: number) =>
      f.call(IOMMU_OPTION, { option_id, op: IOMMU_OPTION_OP_GET, val64: 1n });
    const set = (option_id: number, val64: bigint): number =>
      f.call(IOMMU_OPTION, { option_id, op: IOMMU_OPTION_OP_SET, val64 }).result;
    const mode = (expected: bigint): void => {
      const { result, values } = get(IOMMU_OPTION_RLIMIT_MODE);
      equal(result, 0, 'get RLIMIT_MODE');
      equal(values.val64, expected, 'RLIMIT_MODE');
    };
    mode(0n);
    equal(set(IOMMU_OPTION_RLIMIT_MODE, 1n), 0, 'set RLIMIT_MODE to 1');
    refused(set(IOMMU_OPTION_RLIMIT_MODE, 2n), EINVAL, 'set RLIMIT_MODE to 2');
    mode(1n);
    equal(set(IOMMU_OPTION_RLIMIT_MODE, 0n), 0, 'set RLIMIT_MODE to 0');
    refused(get(IOMMU_OPTION_HUGE_PAGES).result, ENOENT, 'get HUGE_PAGES of nothing');
    refused(set(IOMMU_OPTION_HUGE_PAGES, 0n), ENOENT, 'set HUGE_PAGES of nothing');
  },

  simple_ioctls(f) {
    equal(f.kernel.ioctl(f.fd, VFIO_GET_API_VERSION.number, 0), VFIO_API_VERSION, 'VFIO_GET_API_VERSION');
    equal(f.kernel.ioctl(f.fd, VFIO_CHECK_EXTENSION.number, VFIO_TYPE1v2_IOMMU), 1, 'TYPE1v2 is there');
  },

  unmap_cmd(f) {
    const unmap = { iova: BigInt(MOCK_APERTURE_START), size: BigInt(PAGE) };
    refused(f.call(VFIO_IOMMU_UNMAP_DMA, { ...unmap, argsz: 1 }).result, EINVAL, 'argsz 1');
    refused(f.call(VFIO_IOMMU_UNMAP_DMA, { ...unmap, flags: UNKNOWN_FLAG }).result, EINVAL, 'unknown flag');
    refused(f.call(VFIO_IOMMU_UNMAP_DMA, unmap).result, ENODEV, 'no IOAS for VFIO');
  },

  map_cmd(f) {
    const map = { vaddr: f.buffer.address, iova: BigInt(MOCK_APERTURE_START), size: BigInt(PAGE) };
    refused(f.call(VFIO_IOMMU_MAP_DMA, { ...map, argsz: 1 }).result, EINVAL, 'argsz 1');
    refused(f.call(VFIO_IOMMU_MAP_DMA, { ...map, flags: UNKNOWN_FLAG }).result, EINVAL, 'unknown flag');
    const flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
    refused(f.call(VFIO_IOMMU_MAP_DMA, { ...map, flags }).result, ENODEV, 'no IOAS for VFIO');
  },

  info_cmd(f) {
    refused(f.call(VFIO_IOMMU_GET_INFO, { argsz: 1 }).result, EINVAL, 'argsz 1');
    refused(f.call(VFIO_IOMMU_GET_INFO, {}).result, ENODEV, 'no IOAS for VFIO');
  },

  set_iommu_cmd(f) {
    refused(f.kernel.ioctl(f.fd, VFIO_SET_IOMMU.number, VFIO_TYPE1v2_IOMMU), ENODEV, 'TYPE1v2');
    refused(f.kernel.ioctl(f.fd, VFIO_SET_IOMMU.number, VFIO_TYPE1_IOMMU), ENODEV, 'TYPE1');
  },

  vfio_ioas(f) {
    const get = () => f.call(IOMMU_VFIO_IOAS, { op: IOMMU_VFIO_IOAS_GET });
    const set = (ioas_id: number): number =>
      f.call(IOMMU_VFIO_IOAS, { op: IOMMU_VFIO_IOAS_SET, ioas_id }).result;
    refused(get().result, ENODEV, 'get where there is none');
    refused(set(0), ENOENT, 'set to nothing');
    const ioas = f.allocIoas();
    equal(set(ioas), 0, 'set');
    const { result, values } = get();
    equal(result, 0, 'get');
    equal(values.ioas_id, ioas, 'the same id');
    equal(f.call(IOMMU_VFIO_IOAS, { op: IOMMU_VFIO_IOAS_CLEAR }).result, 0, 'clear');
    refused(get().result, ENODEV, 'get after clear');
  },
});
