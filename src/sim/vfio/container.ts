/** `/dev/vfio/vfio`: an IOMMU's worth of mappings for groups of devices (drivers/vfio/container.c). @module */
import { EINVAL, ENODEV, ENOTTY, EPERM } from '../../../bindings/uapi/errno.js';
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_GET_API_VERSION,
  VFIO_NOIOMMU_IOMMU,
  VFIO_SET_IOMMU,
} from '../../../bindings/uapi/vfio.js';
import { claimOwner, releaseOwner } from '../iommu/group-attach.js';
import { OpenFile } from '../process/open-file.js';
import { Capability, type SimulatedProcess } from '../process/process.js';
import { UserArgument } from '../process/user-argument.js';
import type { VfioGroup } from './group.js';
import { checkType1Extension, openType1 } from './type1.js';

/** What a container uses to translate, once it has been chosen. */
export interface ContainerDriver {
  checkExtension(extension: number): number;
  ioctl(process: SimulatedProcess, request: number, argument: UserArgument): number;
  /** @returns 0, or minus the errno */
  attachGroup(group: VfioGroup): number;
  detachGroup(group: VfioGroup): void;
  release(): void;
}

/** No translation: nothing to map and nothing to attach. */
class NoIommuDriver implements ContainerDriver {
  readonly #container: Container;

  constructor(container: Container) {
    this.#container = container;
  }

  checkExtension(extension: number): number {
    return this.#container.noiommuAllowed() && extension === VFIO_NOIOMMU_IOMMU ? 1 : 0;
  }

  ioctl(): number {
    return -ENOTTY;
  }

  attachGroup(): number {
    return 0;
  }

  detachGroup(): void {}

  release(): void {}
}

export class Container {
  /** enable_unsafe_noiommu_mode. */
  readonly noiommuAllowed: () => boolean;
  readonly #groups: VfioGroup[] = [];
  #driver: ContainerDriver | undefined;
  #noiommu = false;

  constructor(noiommuAllowed: () => boolean) {
    this.noiommuAllowed = noiommuAllowed;
  }

  get hasDriver(): boolean {
    return this.#driver !== undefined;
  }

  /** @returns 0, or minus EPERM for a group that somebody else has, or does not go with the others */
  attach(process: SimulatedProcess, group: VfioGroup): number {
    if (group.noiommu && !process.capabilities.has(Capability.SysRawio)) return -EPERM;
    if (this.#groups.length > 0 && this.#noiommu !== group.noiommu) return -EPERM;
    if (!group.noiommu) {
      if (group.iommuGroup.owner !== undefined) return -EPERM;
      const claimed = claimOwner(group.iommuGroup, group);
      if (claimed < 0) return claimed;
    }
    const attached = this.#driver?.attachGroup(group) ?? 0;
    if (attached < 0) {
      if (!group.noiommu) releaseOwner(group.iommuGroup);
      return attached;
    }
    this.#noiommu = group.noiommu;
    this.#groups.push(group);
    return 0;
  }

  detach(group: VfioGroup): void {
    this.#driver?.detachGroup(group);
    if (!group.noiommu) releaseOwner(group.iommuGroup);
    this.#groups.splice(this.#groups.indexOf(group), 1);
    if (this.#groups.length > 0) return;
    this.#driver?.release();
    this.#driver = undefined;
  }

  ioctl(process: SimulatedProcess, request: number, argument: UserArgument): number {
    switch (request) {
      case VFIO_GET_API_VERSION.number:
        return VFIO_API_VERSION;
      case VFIO_CHECK_EXTENSION.number:
        return this.#checkExtension(argument.value);
      case VFIO_SET_IOMMU.number:
        return this.#setIommu(process, argument.value);
      default:
        return this.#driver?.ioctl(process, request, argument) ?? -EINVAL;
    }
  }

  #checkExtension(extension: number): number {
    if (this.#driver !== undefined) return this.#driver.checkExtension(extension);
    const any = this.#groups.length === 0;
    const type1 = any || !this.#noiommu ? checkType1Extension(undefined, extension) : 0;
    if (type1 > 0) return type1;
    return any || this.#noiommu ? new NoIommuDriver(this).checkExtension(extension) : 0;
  }

  #setIommu(process: SimulatedProcess, type: number): number {
    if (this.#groups.length === 0 || this.#driver !== undefined) return -EINVAL;
    const driver = this.#open(process, type);
    if (typeof driver === 'number') return driver;
    for (const [index, group] of this.#groups.entries()) {
      const result = driver.attachGroup(group);
      if (result === 0) continue;
      for (const back of this.#groups.slice(0, index).reverse()) driver.detachGroup(back);
      driver.release();
      return result;
    }
    this.#driver = driver;
    return 0;
  }

  #open(process: SimulatedProcess, type: number): ContainerDriver | number {
    if (!this.#noiommu) return checkType1Extension(undefined, type) > 0 ? openType1(type) : -ENODEV;
    const driver = new NoIommuDriver(this);
    if (driver.checkExtension(type) <= 0) return -ENODEV;
    return process.capabilities.has(Capability.SysRawio) ? driver : -EPERM;
  }
}

export class ContainerFile extends OpenFile {
  override readonly name = '/dev/vfio/vfio';
  readonly container: Container;

  constructor(noiommuAllowed: () => boolean) {
    super();
    this.container = new Container(noiommuAllowed);
  }

  override ioctl(process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    return this.container.ioctl(process, request, new UserArgument(process, argument));
  }

  /** Groups that are in it keep it. */
  protected override release(): void {}
}
