/**
 * A device behind each of the five ways to reach it through VFIO that the kernel's selftests go through, by raw system
 * calls.
 *
 * @module
 */
import type { Syscalls } from '../../../bindings/syscalls.js';
import { EAGAIN, EMSGSIZE } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  iommu_iova_range,
} from '../../../bindings/uapi/iommufd.js';
import type { Request } from '../../../bindings/uapi/request.js';
import {
  decodeList,
  type FieldInputs,
  type Fields,
  type FieldValues,
  type Struct,
  type StructValue,
} from '../../../bindings/uapi/struct.js';
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_info_cap_header,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iova_range,
  vfio_irq_set,
  type vfio_region_info,
} from '../../../bindings/uapi/vfio.js';
import { claim } from '../../../src/pci/claim.js';
import type { ConformanceHost } from './case.js';
import { holds, refused, succeeds } from './expect.js';
import { type Caller, call } from './ioctl.js';

const O_RDWR = 2;

/** A way to reach a device, under the name that the kernel's selftests have for it. */
export interface IommuMode {
  readonly name: string;
  /** The file that plays the container; `undefined` for a cdev and an iommufd. */
  readonly container?: string;
  /** What VFIO_SET_IOMMU takes. */
  readonly type?: number;
}

export const iommuModes: readonly IommuMode[] = [
  { name: 'vfio_type1_iommu', container: '/dev/vfio/vfio', type: VFIO_TYPE1_IOMMU },
  { name: 'vfio_type1v2_iommu', container: '/dev/vfio/vfio', type: VFIO_TYPE1v2_IOMMU },
  { name: 'iommufd_compat_type1', container: '/dev/iommu', type: VFIO_TYPE1_IOMMU },
  { name: 'iommufd_compat_type1v2', container: '/dev/iommu', type: VFIO_TYPE1v2_IOMMU },
  { name: 'iommufd' },
];

/** What a selftest uses that has no variants for the modes. */
export const defaultMode: IommuMode = { name: 'iommufd' };

/** Machines with an IOMMU and with iommufd. */
export const translatedProfiles: readonly string[] = ['vtd', 'vtd-scalable', 'vtd-first-stage', 'amd'];

/** Machines that have the mode. */
export const profilesOf = (mode: IommuMode): readonly string[] =>
  mode.container === '/dev/vfio/vfio' ? [...translatedProfiles, 'legacy'] : translatedProfiles;

/** Issues a request that must succeed. @returns the struct as the kernel left it */
export function demand<F extends Fields>(
  caller: Caller,
  fd: number,
  request: Request<Struct<F>>,
  values: FieldInputs<F>,
): FieldValues<F> {
  const answer = call(caller, fd, request, values);
  succeeds(answer.result, request.name);
  return answer.values;
}

export interface IovaRange {
  readonly start: bigint;
  readonly last: bigint;
}

/** The node of a device that vfio-pci is to have. It stays with vfio-pci: taking it back and forth costs seconds. */
export async function vfioNode(host: ConformanceHost, address: string): Promise<string> {
  return (await claim(address, { kernel: host.kernel, timeout: 20_000 })).node.path;
}

/** The I/O address space of a container, or of an iommufd. */
export class Iommu implements Disposable {
  readonly kernel: Syscalls;
  readonly mode: IommuMode;
  /** The container or the iommufd. */
  readonly fd: number;
  /** 0 for a container. */
  readonly ioasId: number = 0;

  constructor(kernel: Syscalls, mode: IommuMode) {
    this.kernel = kernel;
    this.mode = mode;
    this.fd = succeeds(kernel.open(mode.container ?? '/dev/iommu', O_RDWR), 'open');
    if (mode.container === undefined) {
      this.ioasId = demand({ kernel }, this.fd, IOMMU_IOAS_ALLOC, {}).out_ioas_id;
    } else if (kernel.ioctl(this.fd, VFIO_GET_API_VERSION.number, 0) !== VFIO_API_VERSION) {
      throw new Error(`${mode.container} speaks another version of VFIO`);
    }
  }

  /** @returns 0, or minus the errno */
  map(iova: bigint, address: bigint, size: bigint): number {
    if (this.mode.container !== undefined) {
      const flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
      return call(this, this.fd, VFIO_IOMMU_MAP_DMA, { flags, vaddr: address, iova, size }).result;
    }
    const flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
    const mapping = { flags, ioas_id: this.ioasId, user_va: address, iova, length: size };
    return call(this, this.fd, IOMMU_IOAS_MAP, mapping).result;
  }

  /** What the call returns, and the bytes that it says it has unmapped. */
  unmap(iova: bigint, size: bigint): { result: number; unmapped: bigint } {
    if (this.mode.container !== undefined) {
      const { result, values } = call(this, this.fd, VFIO_IOMMU_UNMAP_DMA, { iova, size });
      return { result, unmapped: values.size };
    }
    const range = { ioas_id: this.ioasId, iova, length: size };
    const { result, values } = call(this, this.fd, IOMMU_IOAS_UNMAP, range);
    return { result, unmapped: values.length };
  }

  unmapAll(): { result: number; unmapped: bigint } {
    if (this.mode.container === undefined) return this.unmap(0n, 2n ** 64n - 1n);
    const { result, values } = call(this, this.fd, VFIO_IOMMU_UNMAP_DMA, {
      flags: VFIO_DMA_UNMAP_FLAG_ALL,
    });
    return { result, unmapped: values.size };
  }

  /** The IOVAs that may be mapped, in ascending order. */
  ranges(): IovaRange[] {
    const ranges = this.mode.container === undefined ? this.#iommufdRanges() : this.#containerRanges();
    holds(ranges.length > 0, 'no IOVA may be mapped');
    return ranges.sort((a, b) => (a.start < b.start ? -1 : 1));
  }

  #iommufdRanges(): IovaRange[] {
    const asked = call(this, this.fd, IOMMU_IOAS_IOVA_RANGES, { ioas_id: this.ioasId });
    refused(asked.result, EMSGSIZE, 'IOMMU_IOAS_IOVA_RANGES without room');
    const count = asked.values.num_iovas;
    const buffer = new Uint8Array(new ArrayBuffer(count * iommu_iova_range.size));
    demand(this, this.fd, IOMMU_IOAS_IOVA_RANGES, {
      ioas_id: this.ioasId,
      num_iovas: count,
      allowed_iovas: this.kernel.addressOf(buffer),
    });
    return decodeList(new DataView(buffer.buffer), iommu_iova_range, count);
  }

  #containerRanges(): IovaRange[] {
    const { argsz } = demand(this, this.fd, VFIO_IOMMU_GET_INFO, {});
    const { bytes, view } = vfio_iommu_type1_info.allocate(argsz - vfio_iommu_type1_info.size);
    vfio_iommu_type1_info.encode(view, { argsz });
    succeeds(this.kernel.ioctl(this.fd, VFIO_IOMMU_GET_INFO.number, bytes), 'VFIO_IOMMU_GET_INFO');
    const info = vfio_iommu_type1_info.decode(view);
    if (!(info.flags & VFIO_IOMMU_INFO_CAPS)) throw new Error('the container tells no capabilities');
    for (let at = info.cap_offset; at !== 0; ) {
      const header = vfio_info_cap_header.decode(view, at);
      if (header.id === VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
        const { nr_iovas } = vfio_iommu_type1_info_cap_iova_range.decode(view, at);
        const first = at + vfio_iommu_type1_info_cap_iova_range.fields.iova_ranges.offset;
        const list = decodeList(view, vfio_iova_range, nr_iovas, first);
        return list.map(({ start, end }) => ({ start, last: end }));
      }
      at = header.next;
    }
    throw new Error('the container does not tell its IOVA ranges');
  }

  [Symbol.dispose](): void {
    this.kernel.close(this.fd);
  }
}

const aligned = (iova: bigint, size: bigint): bigint => (iova + size - 1n) & -size;

/** Hands out IOVAs, each aligned to its size, which is a power of two, and none twice. */
export class IovaAllocator {
  readonly #ranges: readonly IovaRange[];
  #index = 0;
  #next = 0n;

  constructor(iommu: Iommu) {
    this.#ranges = iommu.ranges();
  }

  allocate(size: bigint): bigint {
    for (; this.#index < this.#ranges.length; this.#index++) {
      const { start, last } = this.#ranges[this.#index] as IovaRange;
      let iova = aligned(start, size);
      if (iova < this.#next) iova = aligned(this.#next, size);
      if (iova + size - 1n > last) continue;
      this.#next = iova + size;
      return iova;
    }
    throw new Error('no IOVAs are left');
  }
}

/** An open device: bound and attached to an iommufd, or taken out of its group. */
export class VfioDevice implements Disposable {
  readonly kernel: Syscalls;
  readonly fd: number;
  readonly #group: number | undefined;
  readonly #config: number;

  /** @param group closed with the device */
  constructor(kernel: Syscalls, fd: number, group?: number) {
    this.kernel = kernel;
    this.fd = fd;
    this.#group = group;
    this.#config = Number(this.region(VFIO_PCI_CONFIG_REGION_INDEX).offset);
  }

  static async open(host: ConformanceHost, address: string, iommu: Iommu): Promise<VfioDevice> {
    const { kernel } = host;
    const node = await vfioNode(host, address);
    if (iommu.mode.container !== undefined) {
      const group = openGroup(kernel, groupPath(kernel, address), iommu);
      return new VfioDevice(kernel, succeeds(deviceFromGroup(kernel, group, address), 'open'), group);
    }
    const fd = succeeds(kernel.open(node, O_RDWR), 'open');
    demand({ kernel }, fd, VFIO_DEVICE_BIND_IOMMUFD, { iommufd: iommu.fd });
    demand({ kernel }, fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id: iommu.ioasId });
    return new VfioDevice(kernel, fd);
  }

  region(index: number): StructValue<typeof vfio_region_info> {
    return demand(this, this.fd, VFIO_DEVICE_GET_REGION_INFO, { index });
  }

  interruptCount(index: number): number {
    return demand(this, this.fd, VFIO_DEVICE_GET_IRQ_INFO, { index }).count;
  }

  /** @returns what the call returns */
  connect(index: number, start: number, eventfds: readonly number[]): number {
    return this.#setInterrupts(index, start, VFIO_IRQ_SET_DATA_EVENTFD, eventfds.length, eventfds);
  }

  disconnect(index: number): number {
    return this.#setInterrupts(index, 0, VFIO_IRQ_SET_DATA_NONE, 0);
  }

  trigger(index: number, vector: number): number {
    return this.#setInterrupts(index, vector, VFIO_IRQ_SET_DATA_NONE, 1);
  }

  #setInterrupts(index: number, start: number, data: number, count: number, fds: readonly number[] = []) {
    const { bytes, view } = vfio_irq_set.allocate(4 * fds.length);
    const flags = data | VFIO_IRQ_SET_ACTION_TRIGGER;
    vfio_irq_set.encode(view, { argsz: bytes.byteLength, flags, index, start, count });
    fds.forEach((fd, i) => void view.setInt32(vfio_irq_set.size + 4 * i, fd, true));
    return this.kernel.ioctl(this.fd, VFIO_DEVICE_SET_IRQS.number, bytes);
  }

  /** A register of configuration space, of 1, 2 or 4 bytes. */
  readConfig(offset: number, width: 1 | 2 | 4): number {
    const value = Buffer.alloc(width);
    const read = this.kernel.pread(this.fd, value, this.#config + offset);
    if (read !== width) throw new Error(`reading configuration space at ${offset} gave ${read}`);
    return value.readUIntLE(0, width);
  }

  writeConfig(offset: number, width: 1 | 2 | 4, value: number): void {
    const bytes = Buffer.alloc(width);
    bytes.writeUIntLE(value, 0, width);
    const written = this.kernel.pwrite(this.fd, bytes, this.#config + offset);
    if (written !== width) throw new Error(`writing configuration space at ${offset} gave ${written}`);
  }

  /** @returns 0, or minus the errno; EAGAIN, which says that somebody else has the lock, is tried again */
  async reset(): Promise<number> {
    for (let tries = 0; ; tries++) {
      const result = this.kernel.ioctl(this.fd, VFIO_DEVICE_RESET.number, 0);
      if (result !== -EAGAIN || tries === 20) return result;
      await new Promise(resolve => setTimeout(resolve, 10));
    }
  }

  [Symbol.dispose](): void {
    this.kernel.close(this.fd);
    if (this.#group !== undefined) this.kernel.close(this.#group);
  }
}

/** The file of a device's IOMMU group. */
export function groupPath(kernel: Syscalls, address: string): string {
  const target = kernel.readLink(`/sys/bus/pci/devices/${address}/iommu_group`);
  if (typeof target === 'number') throw new Error(`${address} is in no IOMMU group (${target})`);
  return `/dev/vfio/${target.slice(target.lastIndexOf('/') + 1)}`;
}

/** Opens a group, and puts it into the container. */
export function openGroup(kernel: Syscalls, path: string, iommu: Iommu): number {
  const { fd: container, mode } = iommu;
  const group = succeeds(kernel.open(path, O_RDWR), 'open');
  const { flags } = demand({ kernel }, group, VFIO_GROUP_GET_STATUS, {});
  if (!(flags & VFIO_GROUP_FLAGS_VIABLE)) throw new Error(`${path} is not viable`);
  const pointer = Buffer.alloc(4);
  pointer.writeInt32LE(container);
  const set = kernel.ioctl(group, VFIO_GROUP_SET_CONTAINER.number, pointer);
  succeeds(set, 'VFIO_GROUP_SET_CONTAINER');
  const type = mode.type as number;
  if (kernel.ioctl(container, VFIO_CHECK_EXTENSION.number, type) <= 0) {
    throw new Error(`the container does not support IOMMU type ${type}`);
  }
  // Refused when a group before this one has set it already.
  kernel.ioctl(container, VFIO_SET_IOMMU.number, type);
  return group;
}

/** @param token the UUID of the physical function, for a virtual one @returns a descriptor, or minus the errno */
export function deviceFromGroup(kernel: Syscalls, group: number, address: string, token?: string): number {
  const name = token === undefined ? address : `${address} vf_token=${token}`;
  return kernel.ioctl(group, VFIO_GROUP_GET_DEVICE_FD.number, Buffer.from(`${name}\0`));
}
