/** The open file of a device: its own (a cdev), or one that its group gave out. @module */
import { EBADF, EBADFD, EBUSY, EFAULT, EINVAL, ENOTTY, EPERM } from '../../../bindings/uapi/errno.js';
import { MAP_SHARED } from '../../../bindings/uapi/mman.js';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_ATTACH_PASID,
  VFIO_DEVICE_BIND_FLAG_TOKEN,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_PASID,
  VFIO_PCI_BAR5_REGION_INDEX,
  vfio_device_bind_iommufd,
} from '../../../bindings/uapi/vfio.js';
import { NO_PASID } from '../iommu/group-attach.js';
import { IommufdFile } from '../iommufd/file.js';
import { PAGE } from '../machine/physical-memory.js';
import { type Mappable, OpenFile } from '../process/open-file.js';
import { Capability, type SimulatedProcess } from '../process/process.js';
import { UserArgument, viewOf } from '../process/user-argument.js';
import { copyStruct, readSize } from '../process/user-struct.js';
import { readArgument, writeArgument } from './argument.js';
import type { PciCore } from './core.js';
import type { VfioDevice } from './device.js';
import { deviceRequest } from './device-request.js';
import type { VfioGroup } from './group.js';
import { accessRegion } from './region-access.js';
import { regionOf } from './region-offset.js';

/** Of the nodes in `/dev/vfio/devices`. */
const FIRST_DEVICE_INODE = 0x100;
const UUID_BYTES = 16;

export class DeviceFile extends OpenFile {
  override readonly name: string;
  override readonly inode: number;
  readonly #device: VfioDevice;
  readonly #group: VfioGroup | undefined;
  /** The device can be used: it is bound, or came from a group. */
  #granted = false;
  #iommufd: IommufdFile | undefined;
  /** Where the next read or write begins, in bytes. */
  #position = 0;

  private constructor(device: VfioDevice, name: string, group: VfioGroup | undefined) {
    super();
    this.name = name;
    this.inode = FIRST_DEVICE_INODE + device.index;
    this.#device = device;
    this.#group = group;
    device.get();
  }

  /** Opens the device's own file. @returns minus EPERM without the privilege to use it without an IOMMU */
  static ofDevice(process: SimulatedProcess, device: VfioDevice): DeviceFile | number {
    if (device.slot.iommu.noiommu && !process.capabilities.has(Capability.SysRawio)) return -EPERM;
    return new DeviceFile(device, `/dev/vfio/devices/${device.name}`, undefined);
  }

  /** Opens a device of a group. @returns minus the errno */
  static ofGroup(process: SimulatedProcess, device: VfioDevice, group: VfioGroup): DeviceFile | number {
    const prepared = group.prepareOpen(process, device);
    if (prepared < 0) return prepared;
    const opened = device.open(process, group.iommufd, true);
    if (opened < 0) return opened;
    const file = new DeviceFile(device, 'anon_inode:[vfio-device]', group);
    file.#granted = true;
    return file;
  }

  protected override release(): void {
    const device = this.#device;
    if (this.#granted) {
      device.close();
      this.#iommufd?.put();
      if (this.#group === undefined) {
        device.cdevOpened = false;
        device.group.cdevUsers--;
      }
    }
    device.put();
  }

  get #core(): PciCore | undefined {
    return this.#granted ? this.#device.core : undefined;
  }

  override ioctl(process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    const user = new UserArgument(process, argument);
    if (request === VFIO_DEVICE_BIND_IOMMUFD.number) {
      return this.#device.cdev ? this.#bind(process, user) : -ENOTTY;
    }
    const core = this.#core;
    if (core === undefined) return -EINVAL;
    core.wake();
    try {
      if (this.#group === undefined) {
        if (request === VFIO_DEVICE_ATTACH_IOMMUFD_PT.number) return this.#attach(user);
        if (request === VFIO_DEVICE_DETACH_IOMMUFD_PT.number) return this.#detach(user);
      }
      return deviceRequest(this.#device, core, process, request, user);
    } finally {
      core.idle();
    }
  }

  // Binding

  #bind(process: SimulatedProcess, user: UserArgument): number {
    const size = readSize(user);
    if (size < 0) return size;
    if (size < VFIO_DEVICE_BIND_IOMMUFD.minimumSize) return -EINVAL;
    const bytes = copyStruct(user, vfio_device_bind_iommufd.size, size);
    if (typeof bytes === 'number') return bytes;
    const bind = vfio_device_bind_iommufd.decode(viewOf(bytes));
    if (bind.iommufd < 0 || bind.flags & ~VFIO_DEVICE_BIND_FLAG_TOKEN) return -EINVAL;
    if (this.#group !== undefined) return -EINVAL;
    const device = this.#device;
    if (device.group.opened) return -EBUSY;
    if (this.#granted) return -EINVAL;
    if (bind.flags & VFIO_DEVICE_BIND_FLAG_TOKEN) {
      const token = process.memory.read(bind.token_uuid_ptr, UUID_BYTES);
      // It is neither a physical nor a virtual function, so that a token is a mistake.
      return typeof token === 'number' ? -EFAULT : -EINVAL;
    }
    const file = process.file(bind.iommufd);
    if (file === undefined) return -EBADF;
    if (!(file instanceof IommufdFile)) return -EBADFD;
    const result = device.open(process, file.context, false);
    if (result < 0) return result;
    const id = new Uint8Array(4);
    viewOf(id).setUint32(0, device.iommufd?.id ?? 0, true);
    const written = user.write(vfio_device_bind_iommufd.fields.out_devid.offset, id);
    if (written < 0) {
      device.close();
      return written;
    }
    this.#iommufd = file.get();
    device.group.cdevUsers++;
    device.cdevOpened = true;
    this.#granted = true;
    return 0;
  }

  #attach(user: UserArgument): number {
    const request = VFIO_DEVICE_ATTACH_IOMMUFD_PT;
    const attach = readArgument(user, request.argument, request.minimumSize);
    if (typeof attach === 'number') return attach;
    if (attach.flags & ~VFIO_DEVICE_ATTACH_PASID) return -EINVAL;
    const pasid = readPasid(user, attach, VFIO_DEVICE_ATTACH_PASID, request.argument.fields.pasid.offset);
    if (pasid < NO_PASID) return pasid;
    const { result, ptId } = this.#device.attach(pasid, attach.pt_id);
    if (result < 0) return result;
    const written = writeArgument(user, request.argument, { ...attach, pt_id: ptId }, request.minimumSize);
    if (written < 0) this.#device.detach(NO_PASID);
    return written;
  }

  #detach(user: UserArgument): number {
    const request = VFIO_DEVICE_DETACH_IOMMUFD_PT;
    const detach = readArgument(user, request.argument, request.minimumSize);
    if (typeof detach === 'number') return detach;
    if (detach.flags & ~VFIO_DEVICE_DETACH_PASID) return -EINVAL;
    const pasid = readPasid(user, detach, VFIO_DEVICE_DETACH_PASID, request.argument.fields.pasid.offset);
    if (pasid < NO_PASID) return pasid;
    this.#device.detach(pasid);
    return 0;
  }

  // Regions

  override read(_process: SimulatedProcess, buffer: Uint8Array): number {
    return this.#advance(this.#access(buffer, this.#position, false));
  }

  override write(_process: SimulatedProcess, buffer: Uint8Array): number {
    return this.#advance(this.#access(buffer, this.#position, true));
  }

  #advance(result: number): number {
    if (result > 0) this.#position += result;
    return result;
  }

  override pread(_process: SimulatedProcess, buffer: Uint8Array, offset: number): number {
    return this.#access(buffer, offset, false);
  }

  override pwrite(_process: SimulatedProcess, buffer: Uint8Array, offset: number): number {
    return this.#access(buffer, offset, true);
  }

  #access(buffer: Uint8Array, offset: number, write: boolean): number {
    const core = this.#core;
    if (core === undefined) return -EINVAL;
    core.wake();
    const result = accessRegion(core, buffer, offset, write);
    core.idle();
    return result;
  }

  override mmap(
    _process: SimulatedProcess,
    length: number,
    _protection: number,
    flags: number,
    offset: number,
  ): Mappable | number {
    const core = this.#core;
    if (core === undefined || !(flags & MAP_SHARED)) return -EINVAL;
    const place = regionOf(offset);
    const bar = place.index <= VFIO_PCI_BAR5_REGION_INDEX ? core.slot.bar(place.index) : undefined;
    if (bar?.memory === undefined) return -EINVAL;
    if (place.offset + length > Math.ceil(bar.size / PAGE) * PAGE) return -EINVAL;
    return { memory: bar.memory.get(), offset: place.offset };
  }
}

/**
 * The PASID of a request, which follows if a flag says so.
 *
 * @returns NO_PASID without the flag; less than that is minus the errno
 */
function readPasid(
  user: UserArgument,
  { argsz, flags }: { readonly argsz: number; readonly flags: number },
  flag: number,
  offset: number,
): number {
  if (!(flags & flag)) return NO_PASID;
  if (argsz < offset + 4) return -EINVAL;
  const bytes = user.read(offset, 4);
  return typeof bytes === 'number' ? bytes : viewOf(bytes).getUint32(0, true);
}
