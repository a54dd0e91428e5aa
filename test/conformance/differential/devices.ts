/** Real devices of the test machines, in vfio-pci's hands. @module */
import type { Syscalls } from '../../../bindings/syscalls.js';
import { address } from '../../vm/topology.js';

const devices: Readonly<Record<string, string>> = { edu: address.edu, nvme: address.nvmeA };

/** Gives vfio-pci the devices that sequences open. */
export function claimDevices(kernel: Syscalls): void {
  for (const pci of Object.values(devices)) {
    const at = `/sys/bus/pci/devices/${pci}`;
    write(kernel, `${at}/driver_override`, 'vfio-pci');
    if (kernel.readLink(`${at}/driver`) !== -2) write(kernel, `${at}/driver/unbind`, pci);
    write(kernel, '/sys/bus/pci/drivers_probe', pci);
  }
}

function write(kernel: Syscalls, path: string, text: string): void {
  const result = kernel.writeText(path, text);
  if (result < 0) throw new Error(`${path}: errno ${-result}`);
}

/**
 * The path that a sequence means: `@edu` is the device's own node, `@edu:group` that of its group, and whatever else is
 * itself.
 */
export function devicePath(kernel: Syscalls, path: string): string {
  const match = /^@(\w+)(:group)?$/.exec(path);
  if (match === null) return path;
  const pci = devices[match[1] ?? ''];
  if (pci === undefined) throw new Error(`no device is called ${match[1]}`);
  const at = `/sys/bus/pci/devices/${pci}`;
  if (match[2] === undefined) {
    const names = kernel.readDirectory(`${at}/vfio-dev`);
    if (typeof names === 'number') return '/dev/vfio/devices/none';
    return `/dev/vfio/devices/${names[0]}`;
  }
  const group = kernel.readLink(`${at}/iommu_group`);
  if (typeof group === 'number') return '/dev/vfio/none';
  const number = group.slice(group.lastIndexOf('/') + 1);
  const name = kernel.readText(`${at}/iommu_group/name`);
  return `/dev/vfio/${typeof name === 'string' && name.startsWith('vfio-noiommu') ? 'noiommu-' : ''}${number}`;
}
