/** A saved device, and its driver, as text. @module */
import type { SavedBar, SavedDevice, SavedDriver } from '../../keepalive/state/saved-state.js';
import { CapabilityId, type PciCapability } from '../../vfio/config-space.js';
import { kindNames } from '../../vfio/interrupts.js';
import { className } from '../pci-class.js';
import { printable } from '../printable.js';
import { fields } from '../table.js';
import { formatCount, formatHex, formatSize } from '../units.js';

const UNKNOWN = 'not known';

const { PowerManagement, Msi, VendorSpecific, PciExpress, Msix } = CapabilityId;
const capabilityNames: Readonly<Record<number, string>> = {
  [PowerManagement]: 'power management',
  [Msi]: 'MSI',
  [VendorSpecific]: 'vendor-specific',
  [PciExpress]: 'PCI Express',
  [Msix]: 'MSI-X',
};
/** PCI Code and ID Assignment Specification, Extended Capability IDs. */
const extendedNames: Readonly<Record<number, string>> = {
  1: 'error reporting',
  3: 'serial number',
  11: 'vendor-specific',
  13: 'access control',
  14: 'routing ids',
  16: 'SR-IOV',
  27: 'PASID',
};

const barKinds: Readonly<Record<SavedBar['kind'], string>> = {
  io: 'of I/O',
  memory32: 'of memory, 32 bits',
  memory64: 'of memory, 64 bits',
};

const idPair = (vendor: number, device: number): string =>
  [vendor, device].map(id => id.toString(16).padStart(4, '0')).join(':');

/** Such as `16 KiB of memory, 64 bits, prefetchable`. */
export function barText({ size, kind, prefetchable }: SavedBar): string {
  return `${formatSize(size)} ${barKinds[kind]}${prefetchable ? ', prefetchable' : ''}`;
}

/** As lspci has it. */
function serialText(serial: bigint): string {
  return serial
    .toString(16)
    .padStart(16, '0')
    .replace(/(?!^)(?=(?:..)+$)/g, '-');
}

function capabilityText({ id, extended, offset, version }: PciCapability): string {
  const number = formatHex(id, extended ? 4 : 2);
  const name = (extended ? extendedNames : capabilityNames)[id];
  return `${name ? `${name} (${number})` : number} at ${formatHex(offset, 2)}${extended ? `, version ${version}` : ''}`;
}

function spaceText(space: SavedDevice['addressSpace']): string {
  if (!space) return 'none';
  const hwpt = space.hwpt === undefined ? '' : `, HWPT ${space.hwpt}`;
  return `iommufd ${space.iommufd}, IOAS ${space.ioas}${hwpt}`;
}

function driverText(driver: SavedDriver | undefined): string {
  if (!driver) return 'none has left anything';
  const { compatible, properties, children } = driver;
  const parts = [
    formatCount(properties.size, 'property', 'properties'),
    formatCount(children.length, 'node'),
  ];
  return `${printable(compatible)}: ${parts.join(', ')}`;
}

/** `name` and each of `lines` below one another. */
function entries(name: string, lines: readonly string[] | undefined): [string, string][] {
  if (!lines) return [[name, UNKNOWN]];
  if (lines.length === 0) return [[name, 'none']];
  return lines.map((line, index) => [index === 0 ? name : '', line]);
}

/** All that is known of a device. */
export function deviceText(
  device: SavedDevice,
  driver: SavedDriver | undefined,
  bold: (text: string) => string,
): string {
  const { address, vendorId, deviceId, subsystemVendorId, subsystemDeviceId, classCode } = device;
  const { serial, bars, capabilities, resetMethods, interrupts } = device;
  const head = bold(`${address}  ${className(classCode)} ${idPair(vendorId, deviceId)}`);
  return `${head}\n${fields([
    ['subsystem', idPair(subsystemVendorId, subsystemDeviceId)],
    ['serial number', serial === undefined ? 'none, or not known' : serialText(serial)],
    ['opened through', device.interface === 'cdev' ? 'its own file' : 'its group'],
    ['confined by', device.translation === 'none' ? 'nothing (no IOMMU)' : 'IOMMU'],
    ['address space', spaceText(device.addressSpace)],
    ['driver', driverText(driver)],
    ...entries(
      'interrupts',
      interrupts?.map(({ kind, count }) => `${kindNames[kind]}: ${count}`),
    ),
    ['reset methods', resetMethods === '' ? 'none' : (resetMethods ?? UNKNOWN)],
    ...entries(
      'BARs',
      bars?.map(bar => `${bar.index}: ${barText(bar)}`),
    ),
    ...entries('capabilities', capabilities?.map(capabilityText)),
  ])}`;
}
