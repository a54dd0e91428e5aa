/** A model of a legacy VFIO container with its groups: mappings by IOVA, and the ranges it reports. @module */
import type { SyscallResult } from '../../../bindings/syscalls.js';
import { EEXIST, EINVAL, ENOTTY } from '../../../bindings/uapi/errno.js';
import { encodeList } from '../../../bindings/uapi/struct.js';
import * as uapi from '../../../bindings/uapi/vfio.js';
import { DelegatingKernel } from './delegating-kernel.js';

const names = new Map<number, string>(
  [
    uapi.VFIO_GET_API_VERSION,
    uapi.VFIO_CHECK_EXTENSION,
    uapi.VFIO_SET_IOMMU,
    uapi.VFIO_GROUP_GET_STATUS,
    uapi.VFIO_GROUP_SET_CONTAINER,
    uapi.VFIO_GROUP_GET_DEVICE_FD,
    uapi.VFIO_IOMMU_GET_INFO,
    uapi.VFIO_IOMMU_MAP_DMA,
    uapi.VFIO_IOMMU_UNMAP_DMA,
  ].map(request => [request.number, request.name]),
);

export class FakeContainer extends DelegatingKernel {
  apiVersion = uapi.VFIO_API_VERSION;
  type1v2 = 1;
  /** The ranges it reports; `undefined` for a kernel that reports none. */
  ranges: { start: bigint; end: bigint }[] | undefined = [
    { start: 0n, end: 0xfedf_ffffn },
    { start: 0xfef0_0000n, end: 2n ** 64n - 1n },
  ];
  /** The answer to VFIO_GROUP_GET_STATUS. */
  groupFlags = uapi.VFIO_GROUP_FLAGS_VIABLE;
  /** Every mapping, by IOVA. */
  readonly mappings = new Map<bigint, { vaddr: bigint; size: bigint; flags: number }>();
  /** The arguments of VFIO_GROUP_GET_DEVICE_FD, as text. */
  readonly devices: string[] = [];
  readonly #files = new Set<number>();

  protected override openFile(path: string, flags: number): SyscallResult {
    if (!path.startsWith('/dev/vfio/')) return super.openFile(path, flags);
    const fd = this.real.memfdCreate('fake-vfio', 1);
    this.#files.add(fd);
    return fd;
  }

  override close(fd: number): SyscallResult {
    this.#files.delete(fd);
    return super.close(fd);
  }

  protected override requestName(fd: number, request: number): string {
    return (this.#files.has(fd) && names.get(request)) || super.requestName(fd, request);
  }

  protected override answer(fd: number, request: number, argument: Uint8Array | number): SyscallResult {
    if (!this.#files.has(fd)) return super.answer(fd, request, argument);
    if (typeof argument === 'number') {
      switch (request) {
        case uapi.VFIO_GET_API_VERSION.number:
          return this.apiVersion;
        case uapi.VFIO_CHECK_EXTENSION.number:
          return argument === uapi.VFIO_TYPE1v2_IOMMU ? this.type1v2 : 0;
        case uapi.VFIO_SET_IOMMU.number:
          return argument === uapi.VFIO_TYPE1v2_IOMMU ? 0 : -EINVAL;
        default:
          return -ENOTTY;
      }
    }
    const view = new DataView(argument.buffer, argument.byteOffset, argument.byteLength);
    switch (request) {
      case uapi.VFIO_GROUP_GET_STATUS.number:
        uapi.vfio_group_status.set(view, 'flags', this.groupFlags);
        return 0;
      case uapi.VFIO_GROUP_SET_CONTAINER.number:
        return this.#files.has(view.getInt32(0, true)) ? 0 : -EINVAL;
      case uapi.VFIO_GROUP_GET_DEVICE_FD.number:
        this.devices.push(new TextDecoder().decode(argument));
        return this.real.memfdCreate('fake-vfio-device', 1);
      case uapi.VFIO_IOMMU_GET_INFO.number:
        return this.#info(view);
      case uapi.VFIO_IOMMU_MAP_DMA.number:
        return this.#map(view);
      case uapi.VFIO_IOMMU_UNMAP_DMA.number: {
        const { iova, size } = uapi.vfio_iommu_type1_dma_unmap.decode(view);
        const found = this.mappings.get(iova)?.size === size && this.mappings.delete(iova);
        uapi.vfio_iommu_type1_dma_unmap.set(view, 'size', found ? size : 0n);
        return 0;
      }
      default:
        return -ENOTTY;
    }
  }

  /** Answers in `argsz` what it takes; the capability only where it fits. */
  #info(view: DataView): SyscallResult {
    const info = uapi.vfio_iommu_type1_info;
    const cap = uapi.vfio_iommu_type1_info_cap_iova_range;
    const room = info.get(view, 'argsz');
    const { ranges } = this;
    info.set(view, 'iova_pgsizes', 0x4020_1000n);
    info.set(view, 'flags', uapi.VFIO_IOMMU_INFO_PGSIZES | (ranges ? uapi.VFIO_IOMMU_INFO_CAPS : 0));
    if (!ranges) return 0;
    const needed = info.size + cap.size + ranges.length * uapi.vfio_iova_range.size;
    info.set(view, 'argsz', needed);
    if (room < needed) return 0;
    info.set(view, 'cap_offset', info.size);
    const header = { id: uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, version: 1, next: 0 };
    cap.encode(view, { header, nr_iovas: ranges.length }, info.size);
    encodeList(view, uapi.vfio_iova_range, ranges, info.size + cap.fields.iova_ranges.offset);
    return 0;
  }

  #map(view: DataView): SyscallResult {
    const { flags, vaddr, iova, size } = uapi.vfio_iommu_type1_dma_map.decode(view);
    if (size === 0n || (iova | size | vaddr) % 4096n) return -EINVAL;
    const inside = ({ start, end }: { start: bigint; end: bigint }): boolean =>
      iova >= start && iova + size - 1n <= end;
    if (this.ranges && !this.ranges.some(inside)) return -EINVAL;
    for (const [at, other] of this.mappings) {
      if (iova < at + other.size && at < iova + size) return -EEXIST;
    }
    this.mappings.set(iova, { vaddr, size, flags });
    return 0;
  }
}
