/**
 * Keeps the kernel from resetting a device. It does so whenever the device is opened or closed through VFIO, with the
 * first that works of the methods that sysfs lists in `reset_method`; with none listed, it leaves the device alone.
 *
 * @module
 */
import { defaultKernel } from '../../bindings/kernel.js';
import type { Syscalls } from '../../bindings/syscalls.js';
import { ENOENT } from '../../bindings/uapi/errno.js';
import { DeviceError, DeviceErrorCode, undo } from '../errors.js';
import { type PciAddress, pciAddress } from './address.js';
import { devicePath, readAttribute, requireDevice, writeSysfs } from './sysfs.js';

const ATTRIBUTE = 'reset_method';
/** Stands for the methods that the kernel finds by itself. */
export const DEFAULT_RESET_METHODS = 'default';
const ROOT_HINT = 'Changing how a device is reset needs root';

export interface SuspendResetsOptions {
  kernel?: Syscalls;
  /**
   * What {@link SuspendedResets.restore} sets, where that is not what is set now: methods with a space between, or
   * {@link DEFAULT_RESET_METHODS}.
   */
  restoreTo?: string | undefined;
}

/** Resets of a device that the kernel does not do until {@link restore}. */
export class SuspendedResets implements Disposable {
  readonly address: PciAddress;
  /** The methods that were set before, in order of preference, a space between two; empty for none. */
  readonly previous: string;
  readonly #kernel: Syscalls;
  readonly #restoreTo: string;
  #restored = false;

  /** @internal Use {@link suspendResets}. */
  constructor(kernel: Syscalls, address: PciAddress, previous: string, restoreTo: string) {
    this.#kernel = kernel;
    this.address = address;
    this.previous = previous;
    this.#restoreTo = restoreTo;
  }

  /**
   * Lets the kernel reset the device again. Idempotent; a device that has left the machine needs nothing.
   *
   * @throws KernelError when sysfs refuses.
   */
  restore(): void {
    this.#set(this.#restoreTo);
  }

  /** Sets what was set before, as if nothing had been. Idempotent, as {@link restore} is, and instead of it. @throws alike */
  cancel(): void {
    this.#set(this.previous);
  }

  #set(methods: string): void {
    if (this.#restored) return;
    const path = `${devicePath(this.address)}/${ATTRIBUTE}`;
    if (methods !== '' && this.#kernel.access(path, 0) !== -ENOENT) {
      const hint = `Until then the kernel does not reset the device. Write "${methods}" there, as root`;
      writeSysfs(this.#kernel, path, `${methods}\n`, hint);
    }
    this.#restored = true;
  }

  [Symbol.dispose](): void {
    this.restore();
  }
}

/**
 * Keeps the kernel from resetting this one device. Where it cannot reset the device anyway, nothing changes.
 *
 * @throws RangeError when `address` is not a PCI address; KernelError when there is no such device, without root, or when
 * the kernel does not have the methods to be restored (EINVAL); DeviceError (UNSUPPORTED) when resets cannot be switched
 * off. Nothing has changed then.
 */
export function suspendResets(address: string, options: SuspendResetsOptions = {}): SuspendedResets {
  const kernel = options.kernel ?? defaultKernel();
  const device = pciAddress(address);
  requireDevice(kernel, device);
  const path = `${devicePath(device)}/${ATTRIBUTE}`;
  const previous = readAttribute(kernel, device, ATTRIBUTE);
  if (previous === undefined) {
    // Both attributes are there only for devices that can be reset; "reset" is the older one.
    if (hasAttribute(kernel, device, 'reset')) throw unsupported(device, 'this kernel has no reset_method');
    return new SuspendedResets(kernel, device, '', '');
  }
  const { restoreTo = previous } = options;
  const suspended = new SuspendedResets(kernel, device, previous, restoreTo);
  const isOther = restoreTo !== previous && restoreTo !== '' && restoreTo !== DEFAULT_RESET_METHODS;
  // While nothing else has happened: a kernel that does not have them says so.
  if (isOther) writeSysfs(kernel, path, `${restoreTo}\n`, `This kernel does not reset it by "${restoreTo}"`);
  else if (previous === '') return suspended;
  let written = isOther;
  try {
    writeSysfs(kernel, path, '\n', ROOT_HINT);
    written = true;
    const left = readAttribute(kernel, device, ATTRIBUTE);
    if (left !== '') throw unsupported(device, `reset_method still says ${JSON.stringify(left)}`);
  } catch (error) {
    undo(error, written ? [() => suspended.cancel()] : []);
  }
  return suspended;
}

const hasAttribute = (kernel: Syscalls, device: PciAddress, name: string): boolean =>
  kernel.access(`${devicePath(device)}/${name}`, 0) === 0;

function unsupported(device: PciAddress, reason: string): DeviceError {
  return new DeviceError(
    DeviceErrorCode.Unsupported,
    device,
    `cannot be kept from being reset: ${reason}`,
    'Linux 5.15 or later is needed',
  );
}
