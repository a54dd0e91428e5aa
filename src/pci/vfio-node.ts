/**
 * Finds the file through which VFIO offers a PCI device.
 *
 * With the character-device interface sysfs has a directory `vfio-dev` that names it: `vfioN`, or `noiommu-vfioN`
 * for a device without IOMMU. Without that interface the device's IOMMU group has a file instead.
 *
 * @module
 */
import type { Syscalls } from '../../bindings/syscalls.js';
import { ENOENT } from '../../bindings/uapi/errno.js';
import { KernelError } from '../errors.js';
import type { PciAddress } from './address.js';
import { devicePath, readLinkName } from './sysfs.js';

export interface VfioNode {
  /** `'cdev'`: the device itself, for iommufd. `'group'`: its group, for the legacy interface. */
  readonly kind: 'cdev' | 'group';
  /** `/dev/vfio/devices/vfio0`, `/dev/vfio/12`, `/dev/vfio/noiommu-0` … */
  readonly path: string;
  /** True when no IOMMU stands between the device and memory. */
  readonly noiommu: boolean;
}

/** The VFIO file of a device, or `undefined` when vfio-pci does not own the device. */
export function findVfioNode(kernel: Syscalls, address: PciAddress): VfioNode | undefined {
  if (readLinkName(kernel, address, 'driver') !== 'vfio-pci') return undefined;
  const directory = `${devicePath(address)}/vfio-dev`;
  const names = kernel.readDirectory(directory);
  if (typeof names === 'number' && names !== -ENOENT) {
    throw new KernelError(-names, { syscall: 'readdir', path: directory });
  }
  const cdev = typeof names === 'number' ? undefined : names.find(name => /^(noiommu-)?vfio\d+$/.test(name));
  // The directory is there on kernels without the character devices, too: only the device number tells them apart.
  if (cdev !== undefined && kernel.access(`${directory}/${cdev}/dev`, 0) === 0) {
    return { kind: 'cdev', path: `/dev/vfio/devices/${cdev}`, noiommu: cdev.startsWith('noiommu-') };
  }
  const group = readLinkName(kernel, address, 'iommu_group');
  if (group === undefined) return undefined;
  const noiommu = kernel.readText(`/sys/kernel/iommu_groups/${group}/name`);
  const isNoiommu = typeof noiommu === 'string' && noiommu.trim() === 'vfio-noiommu';
  return { kind: 'group', path: `/dev/vfio/${isNoiommu ? 'noiommu-' : ''}${group}`, noiommu: isNoiommu };
}
