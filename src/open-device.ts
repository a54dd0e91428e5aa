/** Opens a claimed device with an address space of its own or a given one: the usual first step of a driver. @module */
import { constants } from 'node:fs';
import { defaultKernel } from '../bindings/kernel.js';
import type { Syscalls } from '../bindings/syscalls.js';
import { DeviceError, DeviceErrorCode, undo } from './errors.js';
import { openFile } from './ioctl.js';
import { Ioas } from './iommufd/ioas.js';
import { Iommufd } from './iommufd/iommufd.js';
import { pciAddress } from './pci/address.js';
import { Claim } from './pci/claim.js';
import { requireDevice } from './pci/sysfs.js';
import { findVfioNode } from './pci/vfio-node.js';
import { bindDevice, Device } from './vfio/device.js';
import { Type1Container } from './vfio/type1-container.js';

export interface OpenDeviceOptions {
  /** The kernel to ask; that of the claim by default. */
  kernel?: Syscalls;
  /**
   * The address space to attach it to, which several devices can share; a new one by default. Give a
   * {@link Type1Container} only for the legacy interface.
   */
  space?: Ioas | Type1Container;
  /**
   * Accept a device without IOMMU. Such a device can read and write all of memory: a wrong address in the driver, or
   * hostile firmware, can take the machine down. False by default.
   */
  noiommu?: boolean;
}

/**
 * Opens a device that vfio-pci owns and attaches it to an address space. iommufd is used where the kernel has it,
 * the legacy group interface elsewhere; the device behaves the same.
 *
 * @param target the claim, or the PCI address of a device that vfio-pci owns already
 * @throws DeviceError: NO_IOMMU when there is no IOMMU and `noiommu` was not given, UNSUPPORTED when vfio-pci does not
 * own it; KernelError: EBUSY or EPERM when another owner has it.
 */
export function openDevice(target: Claim | string, options: OpenDeviceOptions = {}): Device {
  const claim = target instanceof Claim ? target : undefined;
  const kernel = options.kernel ?? claim?.kernel ?? defaultKernel();
  const address = claim ? claim.address : pciAddress(target as string);
  requireDevice(kernel, address);
  const node = findVfioNode(kernel, address);
  if (!node) {
    throw new DeviceError(
      DeviceErrorCode.Unsupported,
      address,
      'is not with vfio-pci',
      claim?.released ? 'The claim was released' : 'Take it with claim() first',
    );
  }
  if (node.noiommu && !options.noiommu) {
    throw new DeviceError(
      DeviceErrorCode.NoIommu,
      address,
      'has no IOMMU in front of it, so nothing limits what it can read and write',
      'Pass { noiommu: true } to accept that',
    );
  }
  const opening: Opening = {
    kernel,
    path: node.path,
    name: address,
    noiommu: node.noiommu,
    given: options.space,
    owned: claim ? [claim.use()] : [],
  };
  try {
    const device = node.kind === 'cdev' ? openCdev(opening) : openGroup(opening);
    if (claim) noteClaim(device, claim);
    return device;
  } catch (error) {
    undo(
      error,
      opening.owned.map(entry => () => entry[Symbol.dispose]()),
    );
  }
}

const claims = new WeakMap<Device, Claim>();

/** The claim that a device was opened from. */
export function claimOf(device: Device): Claim | undefined {
  return claims.get(device);
}

/** @internal Notes it. */
export function noteClaim(device: Device, claim: Claim): void {
  claims.set(device, claim);
}

/** A device on its way to being open. */
interface Opening {
  readonly kernel: Syscalls;
  /** Of the VFIO node. */
  readonly path: string;
  /** PCI address. */
  readonly name: string;
  readonly noiommu: boolean;
  /** The caller's address space. */
  readonly given: Ioas | Type1Container | undefined;
  /** To be released with the device, or when it cannot be opened. */
  readonly owned: Disposable[];
}

function openCdev({ kernel, path, name, noiommu, given, owned }: Opening): Device {
  if (given instanceof Type1Container) {
    throw new TypeError('space must be an Ioas: the kernel offers this device through iommufd');
  }
  const iommufd = given?.iommufd ?? Iommufd.open(kernel);
  if (!given) owned.unshift(iommufd);
  const space = given ?? iommufd.allocIoas();
  const fd = openFile(kernel, path, constants.O_RDWR);
  let id: number;
  try {
    id = bindDevice(kernel, fd, iommufd, name);
  } catch (error) {
    kernel.close(fd);
    throw error;
  }
  const device = new Device({ kernel, fd, name, noiommu, space, binding: { iommufd, id }, owned });
  try {
    device.attach(space);
  } catch (error) {
    // The device is closed first; the caller then disposes of the rest again, which does no harm.
    device[Symbol.dispose]();
    throw error;
  }
  return device;
}

function openGroup({ kernel, path, name, noiommu, given, owned }: Opening): Device {
  if (given instanceof Ioas) {
    throw new TypeError(
      'space must be a Type1Container: the kernel offers this device through its group only',
    );
  }
  if (noiommu) {
    throw new DeviceError(
      DeviceErrorCode.Unsupported,
      name,
      'the legacy interface offers no physical addresses for a device without IOMMU',
      'This needs a kernel with iommufd noiommu mode (Linux 7.3 or later)',
    );
  }
  const space = given ?? Type1Container.open(kernel);
  if (!given) owned.unshift(space);
  const fd = space.openDevice(path, name);
  return new Device({ kernel, fd, name, noiommu, space, binding: undefined, owned });
}
