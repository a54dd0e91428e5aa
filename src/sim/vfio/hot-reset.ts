/** Resets of a whole slot, which here holds one device at most: the one behind a root port. @module */
import { EBADF, EINVAL, ENODEV, ENOSPC } from '../../../bindings/uapi/errno.js';
import {
  VFIO_PCI_DEVID_NOT_OWNED,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
  vfio_pci_dependent_device,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
} from '../../../bindings/uapi/vfio.js';
import type { SimulatedProcess } from '../process/process.js';
import type { UserArgument } from '../process/user-argument.js';
import { readArgument, readIntegers, writeArgument } from './argument.js';
import type { PciCore } from './core.js';
import type { VfioDevice } from './device.js';
import { GroupFile } from './group.js';

/** Domain, bus, and device with function, out of `0000:01:00.0`. */
function numbers(address: string): { segment: number; bus: number; devfn: number } {
  const [segment, bus, device, part] = address.split(/[:.]/).map(text => Number.parseInt(text, 16));
  return { segment: segment ?? 0, bus: bus ?? 0, devfn: ((device ?? 0) << 3) | (part ?? 0) };
}

export function hotResetInfo(device: VfioDevice, user: UserArgument): number {
  const info = readArgument(user, vfio_pci_hot_reset_info);
  if (typeof info === 'number') return info;
  info.flags = 0;
  if (device.slot.port === undefined) return -ENODEV;
  info.count = 1;
  const room = info.argsz - vfio_pci_hot_reset_info.size;
  if (room < vfio_pci_dependent_device.size) {
    const written = writeArgument(user, vfio_pci_hot_reset_info, info);
    return written < 0 ? written : -ENOSPC;
  }
  let id = device.group.id;
  if (device.cdevOpened) {
    info.flags = VFIO_PCI_HOT_RESET_FLAG_DEV_ID | VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
    id = device.iommufd?.id ?? VFIO_PCI_DEVID_NOT_OWNED;
  }
  const { bytes, view } = vfio_pci_dependent_device.allocate();
  vfio_pci_dependent_device.encode(view, { group_id: id, ...numbers(device.slot.address) });
  const written = user.write(vfio_pci_hot_reset_info.size, bytes);
  return written < 0 ? written : writeArgument(user, vfio_pci_hot_reset_info, info);
}

export function hotReset(
  device: VfioDevice,
  core: PciCore,
  process: SimulatedProcess,
  user: UserArgument,
): number {
  const request = readArgument(user, vfio_pci_hot_reset);
  if (typeof request === 'number') return request;
  const { flags, count } = request;
  if (flags !== 0) return -EINVAL;
  // A device's own file proves who owns it; a group proves it with its descriptors.
  if ((count !== 0) === device.cdevOpened) return -EINVAL;
  if (device.slot.port === undefined) return -ENODEV;
  if (count > 1) return -EINVAL;
  if (count === 1) {
    const fds = readIntegers(user, vfio_pci_hot_reset.size, 1);
    if (typeof fds === 'number') return fds;
    const file = process.file(fds[0] as number);
    if (file === undefined) return -EBADF;
    if (!(file instanceof GroupFile) || file.group !== device.group) return -EINVAL;
  }
  return core.resetSlot();
}
