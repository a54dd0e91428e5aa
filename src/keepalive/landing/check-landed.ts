/** Whether a device has landed where it must, found out before it is opened. @module */
import { defaultKernel } from '../../../bindings/kernel.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { DeviceError, DeviceErrorCode } from '../../errors.js';
import { compareIdentity, readIdentity } from '../../pci/identity.js';
import { DEFAULT_RESET_METHODS, type SuspendedResets, suspendResets } from '../../pci/reset-method.js';
import { readAttribute, readLinkName } from '../../pci/sysfs.js';
import type { SavedDevice } from '../state/saved-state.js';

const VFIO_PCI = 'vfio-pci';

/** @throws DeviceError (UNSUPPORTED); KernelError when there is no device at its address, or without root */
function checkSame(saved: SavedDevice, kernel: Syscalls): void {
  const differences = compareIdentity(saved, readIdentity(saved.address, kernel));
  if (differences.length === 0) return;
  const list = differences.map(({ property, expected, found }) => `${property} ${found}, not ${expected}`);
  throw new DeviceError(
    DeviceErrorCode.Unsupported,
    saved.address,
    `is not the device that was saved: ${list.join('; ')}`,
    'Look for it at another address, or start it cold',
  );
}

/** How the kernel might reset it before it was kept: the landing script has emptied that, and it is in the state. */
function previousMethods(saved: SavedDevice, kernel: Syscalls): string | undefined {
  if (saved.resetMethods !== undefined) return saved.resetMethods;
  return readAttribute(kernel, saved.address, 'reset_method') === '' ? DEFAULT_RESET_METHODS : undefined;
}

/**
 * Checks a device of which nothing was kept, wherever it has landed, and lets the kernel reset it again, as it does when
 * the device is opened.
 *
 * @throws DeviceError (UNSUPPORTED) when it is not the device that was saved; KernelError when there is no device at its
 * address, or without root
 */
export function checkCold(saved: SavedDevice, kernel: Syscalls = defaultKernel()): void {
  checkSame(saved, kernel);
  suspendResets(saved.address, { kernel, restoreTo: previousMethods(saved, kernel) }).restore();
}

/**
 * Checks a device after a kexec and keeps it from being reset, so that it can be opened. The device itself is not
 * touched.
 *
 * @returns what lets the kernel reset the device again
 * @throws DeviceError (BUSY) when another driver has it, which has brought it into its own order, (UNSUPPORTED) when it is
 * not the device that was saved, or cannot be kept from being reset; KernelError when there is no device at its address,
 * or without root
 */
export function checkLanded(saved: SavedDevice, kernel: Syscalls = defaultKernel()): SuspendedResets {
  const { address } = saved;
  checkSame(saved, kernel);
  const driver = readLinkName(kernel, address, 'driver');
  if (driver !== undefined && driver !== VFIO_PCI) {
    throw new DeviceError(
      DeviceErrorCode.Busy,
      address,
      `has landed with the driver ${driver}, and nothing is left of what was kept`,
      'Start it cold; "iommufd land" tells what keeps other drivers away',
    );
  }
  return suspendResets(address, { kernel, restoreTo: previousMethods(saved, kernel) });
}
