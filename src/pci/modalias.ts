/** Which drivers a PCI device matches, as the kernel writes it down for modprobe (scripts/mod/file2alias.c). @module */
import type { PciIdentity } from './identity.js';

const digits = (value: number, count: number): string =>
  value.toString(16).toUpperCase().padStart(count, '0');

/** What a device is, such as `pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02`; sysfs has it as `modalias`. */
export function modaliasOf(device: Omit<PciIdentity, 'address' | 'serial' | 'bars'>): string {
  const { vendorId, deviceId, subsystemVendorId, subsystemDeviceId, classCode } = device;
  return [
    `pci:v${digits(vendorId, 8)}d${digits(deviceId, 8)}`,
    `sv${digits(subsystemVendorId, 8)}sd${digits(subsystemDeviceId, 8)}`,
    `bc${digits(classCode >> 16, 2)}sc${digits((classCode >> 8) & 0xff, 2)}i${digits(classCode & 0xff, 2)}`,
  ].join('');
}

/** Whether a driver's alias, such as `pci:v*d*sv*sd*bc01sc08i02*`, is for a device. */
export function matchesAlias(alias: string, modalias: string): boolean {
  const pattern = alias
    .replace(/[.+^${}()|\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${pattern}$`).test(modalias);
}
