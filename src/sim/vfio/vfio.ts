/** vfio-pci and the files that it offers its devices by: what takes a device in and what lets it go. @module */
import { EBUSY, EINVAL } from '../../../bindings/uapi/errno.js';
import type { IommuGroup } from '../iommu/domain.js';
import type { PciSlot } from '../pci/slot.js';
import type { Directory } from '../process/file-tree.js';
import { ContainerFile } from './container.js';
import { VfioDevice } from './device.js';
import { DeviceFile } from './device-file.js';
import { VfioGroup } from './group.js';

/** How long the kernel waits before it asks again for a device that is to go, in ms. */
const ASK_AGAIN_MS = 10_000;

export interface VfioOptions {
  /** Root of the file tree, in which `/dev/vfio` is kept up to date. */
  readonly root: Directory;
  /** Devices have files of their own, for iommufd. Without them a device that has no IOMMU cannot be used at all. */
  readonly cdev: boolean;
}

/** What the rest of the machine shows of a device that vfio-pci has. */
export interface Registration {
  /** `vfio0`, or `noiommu-vfio0`. */
  readonly name: string;
  readonly index: number;
  /** The IOMMU group that was made for a device without one; undefined when it has a real one. */
  readonly noiommuGroup: number | undefined;
}

export class Vfio {
  /** enable_unsafe_noiommu_mode. */
  noiommuAllowed = false;
  readonly #root: Directory;
  readonly #cdev: boolean;
  readonly #devices = new Map<PciSlot, VfioDevice>();
  readonly #groups = new Map<IommuGroup, VfioGroup>();

  constructor({ root, cdev }: VfioOptions) {
    this.#root = root;
    this.#cdev = cdev;
    const open = () => new ContainerFile(() => this.noiommuAllowed);
    root.directory('/dev/vfio').set('vfio', { kind: 'device', open });
  }

  /** The device in a slot, if vfio-pci has it. */
  device(slot: PciSlot): VfioDevice | undefined {
    return this.#devices.get(slot);
  }

  /** Takes a device in. @returns minus EINVAL for one without an IOMMU while that is not allowed */
  register(slot: PciSlot): Registration | number {
    const { noiommu } = slot.iommu;
    if (noiommu && !this.noiommuAllowed) return -EINVAL;
    if (!noiommu && !slot.iommu.cacheCoherent) return -EINVAL;
    const index = lowestFree(this.#devices.values(), device => device.index);
    const group = this.#takeGroup(slot);
    const device = new VfioDevice(index, slot, group, this.#cdev);
    group.devices.add(device);
    this.#devices.set(slot, device);
    if (this.#cdev) {
      this.#root.directory('/dev/vfio/devices').set(device.name, {
        kind: 'device',
        open: process => DeviceFile.ofDevice(process, device),
      });
    }
    return { name: device.name, index, noiommuGroup: noiommu ? group.id : undefined };
  }

  #takeGroup(slot: PciSlot): VfioGroup {
    const { group: iommuGroup, noiommu } = slot.iommu;
    const found = this.#groups.get(iommuGroup);
    if (found !== undefined) return found;
    // A machine without an IOMMU has no other groups.
    const id = noiommu ? lowestFree(this.#groups.values(), group => group.id) : iommuGroup.id;
    const group = new VfioGroup(id, iommuGroup, noiommu);
    this.#groups.set(iommuGroup, group);
    this.#root.directory('/dev/vfio').set(group.name, {
      kind: 'device',
      open: process => group.open(process),
    });
    return group;
  }

  /**
   * Lets a device go because its driver is unbound. The kernel waits here until nobody has the device open; a
   * simulated call cannot wait, so that it is refused.
   *
   * @returns 0, or minus EBUSY
   */
  unregister(slot: PciSlot): number {
    const device = this.#devices.get(slot);
    if (device === undefined) return 0;
    if (device.busy) return -EBUSY;
    this.#hide(device);
    this.#remove(device);
    return 0;
  }

  /**
   * Lets a device go because it leaves the machine: nobody can open it any more, who has it open is asked to close it,
   * and then `then` is called.
   */
  whenReleased(slot: PciSlot, then: () => void): void {
    const device = this.#devices.get(slot);
    if (device === undefined) {
      then();
      return;
    }
    this.#hide(device);
    const ask = (): void => device.core?.interrupts.requestRelease();
    const again = setInterval(ask, ASK_AGAIN_MS);
    again.unref();
    device.whenUnused(() => {
      clearInterval(again);
      this.#remove(device);
      then();
    });
    if (device.busy) ask();
  }

  /** Takes away what it can be opened by. */
  #hide(device: VfioDevice): void {
    device.group.devices.delete(device);
    if (!this.#cdev) return;
    const directory = this.#root.directory('/dev/vfio/devices');
    directory.delete(device.name);
    if (directory.names().length === 0) this.#root.directory('/dev/vfio').delete('devices');
  }

  #remove(device: VfioDevice): void {
    const { group } = device;
    this.#devices.delete(device.slot);
    if ([...this.#devices.values()].some(other => other.group === group)) return;
    group.leaveContainer();
    this.#groups.delete(group.iommuGroup);
    this.#root.directory('/dev/vfio').delete(group.name);
  }
}

function lowestFree<T>(taken: Iterable<T>, number: (value: T) => number): number {
  const numbers = new Set([...taken].map(number));
  let free = 0;
  while (numbers.has(free)) free++;
  return free;
}
