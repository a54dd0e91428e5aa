/** `iommufd devices`: what a program could drive, and who drives it now. @module */
import { KernelError } from '../errors.js';
import { listPciDevices, type PciDevice } from '../pci/devices.js';
import type { DevicesCommand } from './arguments.js';
import { colours } from './colours.js';
import { toJson } from './json.js';
import { className, isBridge } from './pci-class.js';
import { note, print } from './streams.js';
import { table } from './table.js';
import { formatHex } from './units.js';

const HEADING = ['ADDRESS', 'CLASS', 'ID', 'DRIVER', 'GROUP', 'VFIO'];

function groupText(device: PciDevice): string {
  if (device.noiommu) return 'noiommu';
  return device.iommuGroup === undefined ? 'none' : String(device.iommuGroup);
}

function idText(device: PciDevice): string {
  return [device.vendorId, device.deviceId].map(id => id.toString(16).padStart(4, '0')).join(':');
}

/** The table, as text. */
export function devicesTable(devices: readonly PciDevice[], heading?: (text: string) => string): string {
  const rows = devices.map(device => [
    device.address,
    className(device.classCode),
    idText(device),
    device.driver ?? '-',
    groupText(device),
    device.vfio?.path ?? '-',
  ]);
  return table([HEADING, ...rows], heading);
}

/** What `--json` shows of a device: identifiers and addresses as `0x` strings, the rest as it is. */
export function deviceJson(device: PciDevice): unknown {
  return {
    address: device.address,
    className: className(device.classCode),
    classCode: formatHex(device.classCode, 6),
    vendorId: formatHex(device.vendorId, 4),
    deviceId: formatHex(device.deviceId, 4),
    subsystemVendorId: formatHex(device.subsystemVendorId, 4),
    subsystemDeviceId: formatHex(device.subsystemDeviceId, 4),
    revision: formatHex(device.revision, 2),
    driver: device.driver ?? null,
    iommuGroup: device.iommuGroup ?? null,
    noiommu: device.noiommu,
    numaNode: device.numaNode ?? null,
    vfio: device.vfio ?? null,
    bars: device.bars.map(bar => ({
      index: bar.index,
      kind: bar.kind,
      address: formatHex(bar.address, 1),
      size: BigInt(bar.size),
      prefetchable: bar.prefetchable,
      is64Bit: bar.is64Bit,
    })),
  };
}

/** Every device, or `undefined` on a machine (or in a container) that shows no PCI bus. */
function list(): PciDevice[] | undefined {
  try {
    return listPciDevices();
  } catch (error) {
    if (error instanceof KernelError && error.code === 'ENOENT' && error.syscall === 'readdir') {
      return undefined;
    }
    throw error;
  }
}

export async function runDevices(command: DevicesCommand): Promise<void> {
  const everything = list();
  const all = everything ?? [];
  const shown = command.all ? all : all.filter(device => !isBridge(device.classCode));
  const hidden = all.length - shown.length;
  if (command.json) {
    await print(toJson(shown.map(deviceJson)));
  } else if (shown.length > 0) {
    await print(devicesTable(shown, colours(process.stdout).bold));
  } else {
    note(
      everything
        ? 'there are no PCI devices to show'
        : 'there is no PCI bus to be seen here: no /sys/bus/pci/devices (is sysfs mounted on /sys?)',
    );
  }
  if (hidden > 0 && !command.json) {
    note(`${hidden} ${hidden === 1 ? 'bridge is' : 'bridges are'} not shown; --all shows everything`);
  }
}
