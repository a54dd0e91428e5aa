/**
 * The legacy interface: a container of IOMMU groups with one address space (type1 v2), for kernels without iommufd.
 *
 * Its mappings refer to this process's memory, so nothing of it can be kept or handed over.
 *
 * @module
 */
import { constants } from 'node:fs';
import { defaultKernel } from '../../bindings/kernel.js';
import type { Syscalls } from '../../bindings/syscalls.js';
import { decodeList } from '../../bindings/uapi/struct.js';
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iova_range,
} from '../../bindings/uapi/vfio.js';
import type { Iova, IovaRange } from '../address.js';
import { checkInteger, checkU64 } from '../check.js';
import { DeviceError, DeviceErrorCode, DisposedError, runAll } from '../errors.js';
import { check, ioctl, openFile, transact } from '../ioctl.js';
import { capabilityChain } from './capability-chain.js';

const DEV_VFIO = '/dev/vfio/vfio';
/** What kernels that do not report their ranges support at least. */
const DEFAULT_LAST_IOVA = (1n << 39n) - 1n;

/** A legacy VFIO container with its groups. */
export class Type1Container implements Disposable {
  readonly kernel: Syscalls;
  readonly #fd: number;
  readonly #groups = new Map<string, number>();
  #hasIommu = false;
  #closed = false;

  private constructor(kernel: Syscalls, fd: number) {
    this.kernel = kernel;
    this.#fd = fd;
  }

  /**
   * Opens `/dev/vfio/vfio`.
   *
   * @throws KernelError without VFIO or permission; DeviceError (UNSUPPORTED) when the kernel has no type1 v2.
   */
  static open(kernel: Syscalls = defaultKernel()): Type1Container {
    const fd = openFile(kernel, DEV_VFIO, constants.O_RDWR);
    const version = kernel.ioctl(fd, VFIO_GET_API_VERSION.number, 0);
    const type1 = kernel.ioctl(fd, VFIO_CHECK_EXTENSION.number, VFIO_TYPE1v2_IOMMU);
    if (version === VFIO_API_VERSION && type1 > 0) return new Type1Container(kernel, fd);
    kernel.close(fd);
    throw new DeviceError(
      DeviceErrorCode.Unsupported,
      DEV_VFIO,
      `no type1 v2 IOMMU (API version ${version}, type1 v2 ${type1})`,
      'Load the module vfio_iommu_type1',
    );
  }

  /** The open file. @throws DisposedError */
  get fd(): number {
    if (this.#closed) throw new DisposedError('Type1Container');
    return this.#fd;
  }

  /** True until it is disposed. */
  get open(): boolean {
    return !this.#closed;
  }

  /**
   * Opens a device of a group, which joins the container at its first device.
   *
   * @param groupPath `/dev/vfio/<group>`
   * @param device PCI address
   * @returns the device's descriptor
   * @throws KernelError: EBUSY when another process holds the group, EPERM without interrupt remapping; DeviceError
   * (BUSY) when the group is not viable: a device of it is with another driver.
   */
  openDevice(groupPath: string, device: string): number {
    const group = this.#groups.get(groupPath) ?? this.#join(groupPath, device);
    const name = new TextEncoder().encode(`${device}\0`);
    return ioctl(this.kernel, group, VFIO_GROUP_GET_DEVICE_FD, name, { device });
  }

  #join(path: string, device: string): number {
    const { kernel } = this;
    const group = openFile(kernel, path, constants.O_RDWR);
    try {
      const { flags } = transact(kernel, group, VFIO_GROUP_GET_STATUS, {});
      if (!(flags & VFIO_GROUP_FLAGS_VIABLE)) {
        throw new DeviceError(
          DeviceErrorCode.Busy,
          device,
          `its group (${path}) is not viable`,
          'Every device of the group must be with vfio-pci or without driver; "iommufd devices" shows who has them',
        );
      }
      if (flags & VFIO_GROUP_FLAGS_CONTAINER_SET) {
        throw new DeviceError(DeviceErrorCode.Busy, device, `its group (${path}) is in another container`);
      }
      const container = new Uint8Array(4);
      new DataView(container.buffer).setInt32(0, this.fd, true);
      ioctl(kernel, group, VFIO_GROUP_SET_CONTAINER, container, { group: path });
      if (!this.#hasIommu) ioctl(kernel, this.fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU, { type: 'type1v2' });
      this.#hasIommu = true;
    } catch (error) {
      kernel.close(group);
      throw error;
    }
    this.#groups.set(path, group);
    return group;
  }

  /**
   * Maps memory of this process for the devices of the container.
   *
   * @param address a multiple of 4096, as `length` and `iova`
   * @throws KernelError: EEXIST on overlap, EINVAL when misaligned or outside {@link iovaRanges}, ENOMEM over the
   * locked-memory limit.
   */
  map(
    address: bigint,
    length: bigint | number,
    iova: Iova,
    access: { readable?: boolean; writeable?: boolean } = {},
  ) {
    const { readable = true, writeable = true } = access;
    if (!readable && !writeable) throw new RangeError('a mapping must be readable or writeable or both');
    transact(this.kernel, this.fd, VFIO_IOMMU_MAP_DMA, {
      flags: (readable ? VFIO_DMA_MAP_FLAG_READ : 0) | (writeable ? VFIO_DMA_MAP_FLAG_WRITE : 0),
      vaddr: checkU64('address', address),
      iova: checkU64('iova', iova),
      size: checkU64('length', length),
    });
  }

  /** Removes the mappings within the range. @returns the bytes unmapped */
  unmap(iova: Iova, length: bigint | number): bigint {
    const values = { iova: checkU64('iova', iova), size: checkU64('length', length) };
    return transact(this.kernel, this.fd, VFIO_IOMMU_UNMAP_DMA, values).size;
  }

  /** The IOVAs that may be mapped, and the alignment that mappings must have, in bytes. */
  iovaRanges(): { ranges: IovaRange[]; alignment: bigint } {
    let { bytes, view } = vfio_iommu_type1_info.allocate();
    for (;;) {
      vfio_iommu_type1_info.encode(view, { argsz: bytes.byteLength });
      ioctl(this.kernel, this.fd, VFIO_IOMMU_GET_INFO, bytes);
      const needed = vfio_iommu_type1_info.get(view, 'argsz');
      if (needed <= bytes.byteLength) break;
      ({ bytes, view } = vfio_iommu_type1_info.allocate(
        checkInteger('argsz', needed) - vfio_iommu_type1_info.size,
      ));
    }
    const info = vfio_iommu_type1_info.decode(view);
    const alignment = info.iova_pgsizes & -info.iova_pgsizes;
    if (info.flags & VFIO_IOMMU_INFO_CAPS) {
      for (const { id, offset } of capabilityChain(view, info.cap_offset)) {
        if (id !== VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) continue;
        const cap = vfio_iommu_type1_info_cap_iova_range;
        const count = cap.get(view, 'nr_iovas', offset);
        const ranges = decodeList(view, vfio_iova_range, count, offset + cap.fields.iova_ranges.offset);
        return {
          ranges: ranges.map(range => ({ first: range.start as Iova, last: range.end as Iova })),
          alignment,
        };
      }
    }
    return { ranges: [{ first: 0n as Iova, last: DEFAULT_LAST_IOVA as Iova }], alignment };
  }

  /** Closes the container and its groups; every mapping goes. Devices must be closed before. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    runAll([
      ...[...this.#groups].map(
        ([path, fd]) =>
          () =>
            check(this.kernel.close(fd), 'close', { path }),
      ),
      () => check(this.kernel.close(this.#fd), 'close', { path: DEV_VFIO }),
    ]);
  }
}
