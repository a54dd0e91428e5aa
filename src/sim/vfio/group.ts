/** `/dev/vfio/GROUP`: the devices that an IOMMU cannot tell apart (drivers/vfio/group.c). @module */
import { EBADF, EBADFD, EBUSY, EFAULT, EINVAL, ENODEV, ENOTTY, EPERM } from '../../../bindings/uapi/errno.js';
import {
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  vfio_group_status,
} from '../../../bindings/uapi/vfio.js';
import type { IommuGroup } from '../iommu/domain.js';
import type { IommufdContext } from '../iommufd/context.js';
import { IommufdFile } from '../iommufd/file.js';
import { compatIoasId, createCompatIoas, setNoIommu } from '../iommufd/vfio-compat.js';
import { OpenFile } from '../process/open-file.js';
import { Capability, type SimulatedProcess } from '../process/process.js';
import { UserArgument } from '../process/user-argument.js';
import { readArgument, readIntegers, readString, writeArgument } from './argument.js';
import { type Container, ContainerFile } from './container.js';
import type { VfioDevice } from './device.js';
import { DeviceFile } from './device-file.js';

export class VfioGroup {
  /** Number in `/dev/vfio` and `/sys/kernel/iommu_groups`. */
  readonly id: number;
  readonly iommuGroup: IommuGroup;
  /** It stands for the absence of an IOMMU. */
  readonly noiommu: boolean;
  /** Devices that can be opened. */
  readonly devices = new Set<VfioDevice>();
  /** Devices that were opened by a file of their own, which excludes the group's. */
  cdevUsers = 0;
  #file: GroupFile | undefined;
  #container: Container | undefined;
  /** Open files of devices, which keep the container. */
  #containerUsers = 0;
  #iommufd: IommufdContext | undefined;

  constructor(id: number, iommuGroup: IommuGroup, noiommu: boolean) {
    this.id = id;
    this.iommuGroup = iommuGroup;
    this.noiommu = noiommu;
  }

  /** The name of its file. */
  get name(): string {
    return `${this.noiommu ? 'noiommu-' : ''}${this.id}`;
  }

  get opened(): boolean {
    return this.#file !== undefined;
  }

  get iommufd(): IommufdContext | undefined {
    return this.#iommufd;
  }

  open(process: SimulatedProcess): GroupFile | number {
    if (this.noiommu && !process.capabilities.has(Capability.SysRawio)) return -EPERM;
    if (this.cdevUsers > 0 || this.#file !== undefined) return -EBUSY;
    this.#file = new GroupFile(this);
    return this.#file;
  }

  /** @internal Its file is closed. */
  closed(): void {
    this.#file = undefined;
    this.leaveContainer();
  }

  /** Its last device goes, or its file: nothing is left of what it was in. */
  leaveContainer(): void {
    this.#container?.detach(this);
    this.#container = undefined;
    this.#iommufd?.file.put();
    this.#iommufd = undefined;
  }

  get #hasIommu(): boolean {
    return this.#container !== undefined || this.#iommufd !== undefined;
  }

  ioctl(process: SimulatedProcess, request: number, user: UserArgument): number {
    switch (request) {
      case VFIO_GROUP_GET_DEVICE_FD.number:
        return this.#getDevice(process, user);
      case VFIO_GROUP_GET_STATUS.number:
        return this.#getStatus(user);
      case VFIO_GROUP_SET_CONTAINER.number:
        return this.#setContainer(process, user);
      case VFIO_GROUP_UNSET_CONTAINER.number:
        return this.#unsetContainer();
      default:
        return -ENOTTY;
    }
  }

  #getStatus(user: UserArgument): number {
    const status = readArgument(user, vfio_group_status);
    if (typeof status === 'number') return status;
    if (this.devices.size === 0) return -ENODEV;
    status.flags = 0;
    if (this.#hasIommu) status.flags = VFIO_GROUP_FLAGS_CONTAINER_SET | VFIO_GROUP_FLAGS_VIABLE;
    else if (this.iommuGroup.owner === undefined) status.flags = VFIO_GROUP_FLAGS_VIABLE;
    return writeArgument(user, vfio_group_status, status);
  }

  #setContainer(process: SimulatedProcess, user: UserArgument): number {
    const fds = readIntegers(user, 0, 1);
    if (typeof fds === 'number') return -EFAULT;
    const file = process.file(fds[0] as number);
    if (file === undefined) return -EBADF;
    if (this.#hasIommu) return -EINVAL;
    if (this.devices.size === 0) return -ENODEV;
    if (file instanceof ContainerFile) {
      const result = file.container.attach(process, this);
      if (result === 0) this.#container = file.container;
      return result;
    }
    if (!(file instanceof IommufdFile)) return -EBADFD;
    const { context } = file;
    const result = this.noiommu ? setNoIommu(context) : createCompatIoas(context);
    if (result < 0) return result;
    file.get();
    this.#iommufd = context;
    return 0;
  }

  #unsetContainer(): number {
    if (!this.#hasIommu) return -EINVAL;
    if (this.#container !== undefined && this.#containerUsers > 0) return -EBUSY;
    this.leaveContainer();
    return 0;
  }

  #getDevice(process: SimulatedProcess, user: UserArgument): number {
    const name = readString(user);
    if (typeof name === 'number') return name;
    for (const device of this.devices) {
      const match = device.matches(name);
      if (match < 0) return match;
      if (match === 0) continue;
      const file = DeviceFile.ofGroup(process, device, this);
      return typeof file === 'number' ? file : process.install(file);
    }
    return -ENODEV;
  }

  /** What the group must be in before a device of it can be opened. @returns 0, or minus the errno */
  prepareOpen(process: SimulatedProcess, device: VfioDevice): number {
    if (!this.#hasIommu) return -EINVAL;
    if (this.#iommufd === undefined || !this.noiommu || device.openCount > 0) return 0;
    const allowed = process.capabilities.has(Capability.SysRawio) && compatIoasId(this.#iommufd) < 0;
    return allowed ? 0 : -EPERM;
  }

  /** A device of it is opened through its container. @returns 0, or minus the errno */
  useContainer(process: SimulatedProcess): number {
    if (this.#container?.hasDriver !== true) return -EINVAL;
    if (this.noiommu && !process.capabilities.has(Capability.SysRawio)) return -EPERM;
    this.#file?.get();
    this.#containerUsers++;
    return 0;
  }

  unuseContainer(): void {
    this.#containerUsers--;
    this.#file?.put();
  }
}

export class GroupFile extends OpenFile {
  override readonly name: string;
  readonly group: VfioGroup;

  constructor(group: VfioGroup) {
    super();
    this.name = `/dev/vfio/${group.name}`;
    this.group = group;
  }

  override ioctl(process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    return this.group.ioctl(process, request, new UserArgument(process, argument));
  }

  protected override release(): void {
    this.group.closed();
  }
}
