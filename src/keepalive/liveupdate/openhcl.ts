/**
 * The way in which OpenHCL's own kernel keeps a device over its servicing: a request to the device's VFIO group. It is
 * asked for by trying, like everything that a kernel may or may not preserve.
 *
 * @module
 */
import { constants } from 'node:fs';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { VFIO_GROUP_SET_KEEP_ALIVE } from '../../../bindings/uapi/openhcl.js';
import { type PciAddress, pciAddress } from '../../pci/address.js';
import { readLinkName } from '../../pci/sysfs.js';

/**
 * Tells the kernel to leave a device alone when it is replaced.
 *
 * The group must be free to open: Linux does not open the group of a device whose own file is bound to an iommufd (EBUSY),
 * so that there this is always false.
 *
 * @param address of a device that vfio-pci has
 * @returns false when the kernel has no such thing, or not for this device; nothing has changed then
 */
export function keepAliveByGroup(kernel: Syscalls, address: PciAddress): boolean {
  const group = readLinkName(kernel, address, 'iommu_group');
  if (group === undefined) return false;
  const name = new TextEncoder().encode(`${pciAddress(address)}\0`);
  for (const path of [`/dev/vfio/noiommu-${group}`, `/dev/vfio/${group}`]) {
    const fd = kernel.open(path, constants.O_RDWR);
    if (fd < 0) continue;
    const result = kernel.ioctl(fd, VFIO_GROUP_SET_KEEP_ALIVE.number, name);
    kernel.close(fd);
    if (result >= 0) return true;
  }
  return false;
}
