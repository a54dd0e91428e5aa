/**
 * Which device is at an address, found out without opening it: opening may reset it.
 *
 * @module
 */
import { defaultKernel } from '../../bindings/kernel.js';
import type { Syscalls } from '../../bindings/syscalls.js';
import { hex } from '../hex.js';
import { by } from '../order.js';
import { type PciAddress, pciAddress } from './address.js';
import { readConfigFile } from './config-file.js';
import { type PciBar, readPciDevice } from './devices.js';

/** What is the same of a base address register wherever its registers lie. */
export interface BarShape {
  /** 0 to 5. */
  readonly index: number;
  /** In bytes, a power of two. */
  readonly size: bigint;
  readonly kind: 'memory32' | 'memory64' | 'io';
  readonly prefetchable: boolean;
}

/** What a device is known by. */
export interface PciIdentity {
  readonly address: PciAddress;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly subsystemVendorId: number;
  readonly subsystemDeviceId: number;
  /** Base class, subclass and programming interface. */
  readonly classCode: number;
  /** Device Serial Number (PCI Express Base Specification 6.0, 7.9.3), where it has one. */
  readonly serial?: bigint;
  /** In any order. */
  readonly bars?: readonly BarShape[];
}

/** Something in which a device differs from what was expected. */
export interface IdentityDifference {
  readonly property: string;
  readonly expected: string;
  readonly found: string;
}

const shapeOf = ({ index, size, kind, is64Bit, prefetchable }: PciBar): BarShape => ({
  index,
  size: BigInt(size),
  kind: kind === 'io' ? 'io' : is64Bit ? 'memory64' : 'memory32',
  prefetchable,
});

/**
 * What the device at `address` is.
 *
 * @throws RangeError when `address` is not a PCI address; KernelError (ENOENT) when there is no such device, (EACCES) for
 * anyone but root.
 */
export function readIdentity(address: string, kernel: Syscalls = defaultKernel()): PciIdentity {
  const device = readPciDevice(pciAddress(address), kernel);
  const serial = readConfigFile(kernel, device.address)?.serial;
  return {
    address: device.address,
    vendorId: device.vendorId,
    deviceId: device.deviceId,
    subsystemVendorId: device.subsystemVendorId,
    subsystemDeviceId: device.subsystemDeviceId,
    classCode: device.classCode,
    bars: device.bars.map(shapeOf),
    ...(serial !== undefined && { serial }),
  };
}

const numbers = ['vendorId', 'deviceId', 'subsystemVendorId', 'subsystemDeviceId', 'classCode'] as const;

const serialText = (serial: bigint | undefined): string => (serial === undefined ? 'none' : hex(serial));

const barText = ({ index, size, kind, prefetchable }: BarShape): string =>
  `${index}: ${size} bytes of ${kind}${prefetchable ? ', prefetchable' : ''}`;
const barsText = (bars: readonly BarShape[] = []): string =>
  [...bars]
    .sort(by(({ index }) => index))
    .map(barText)
    .join('; ') || 'none';

/**
 * In what `found` is not `expected`; empty for the same device. Serial number and BARs are compared where they are
 * expected; the address always is.
 */
export function compareIdentity(expected: PciIdentity, found: PciIdentity): IdentityDifference[] {
  const texts: [property: string, expected: string, found: string][] = [
    ['address', expected.address, found.address],
    ...numbers.map(name => [name, hex(expected[name]), hex(found[name])] as [string, string, string]),
  ];
  if (expected.serial !== undefined) {
    texts.push(['serial', serialText(expected.serial), serialText(found.serial)]);
  }
  if (expected.bars !== undefined) texts.push(['bars', barsText(expected.bars), barsText(found.bars)]);
  return texts
    .filter(([, one, other]) => one !== other)
    .map(([property, expected, found]) => ({ property, expected, found }));
}
