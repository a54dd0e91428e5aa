/**
 * Takes a PCI device from its driver for VFIO, and gives it back.
 *
 * Only `driver_override` is used, which concerns this one device. `new_id` would make vfio-pci take every device
 * with the same ids.
 *
 * @module
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { defaultKernel } from '../../bindings/kernel.js';
import type { Syscalls } from '../../bindings/syscalls.js';
import { EACCES, EPERM } from '../../bindings/uapi/errno.js';
import { checkInteger } from '../check.js';
import { DeviceError, DeviceErrorCode, KernelError, undo } from '../errors.js';
import { type PciAddress, pciAddress } from './address.js';
import { findMounts } from './mounts.js';
import { devicePath, readAttribute, readLinkName, requireDevice, writeSysfs } from './sysfs.js';
import { findVfioNode, type VfioNode } from './vfio-node.js';

const DRIVERS = '/sys/bus/pci/drivers';
const PROBE = '/sys/bus/pci/drivers_probe';
const VFIO_PCI = 'vfio-pci';
const READ_WRITE = 6;
/** udev sets permissions a moment after the node appears; there is no event to wait for without it. */
const NODE_POLL_MS = 5;
/** How long the kernel may take to remove a device that nothing holds any more, in ms. */
const REMOVAL_MS = 250;

export interface ClaimOptions {
  kernel?: Syscalls;
  /** How long to wait for the VFIO node to appear and become accessible, in ms; 5000 by default. */
  timeout?: number;
  /** Take the device although file systems on it are mounted. */
  force?: boolean;
}

/** A device in VFIO's hands. Disposing returns it to the driver that had it. */
export class Claim implements Disposable {
  readonly kernel: Syscalls;
  readonly address: PciAddress;
  /** The driver that had the device before; `'vfio-pci'` when it was claimed already. */
  readonly previousDriver: string | undefined;
  readonly node: VfioNode;
  /** What `driver_override` said before; `undefined` when it was claimed already. */
  readonly previousOverride: string | undefined;
  #released = false;
  #users = 0;

  /** @internal */
  constructor(
    kernel: Syscalls,
    address: PciAddress,
    node: VfioNode,
    previousDriver: string | undefined,
    previousOverride: string | undefined,
  ) {
    this.kernel = kernel;
    this.address = address;
    this.node = node;
    this.previousDriver = previousDriver;
    this.previousOverride = previousOverride;
  }

  get released(): boolean {
    return this.#released;
  }

  /**
   * Notes that the device is open, so that {@link release} does not run into the kernel, which blocks an unbind
   * until every open file of the device is closed. Disposing the result undoes it.
   */
  use(): Disposable {
    this.#users++;
    let used = true;
    return {
      [Symbol.dispose]: () => {
        if (used) this.#users--;
        used = false;
      },
    };
  }

  /**
   * Gives the device back to the driver that had it. Idempotent. A device that was with vfio-pci already stays
   * there.
   *
   * @throws DeviceError (BUSY) while a `Device` opened from this claim is not closed; KernelError when sysfs refuses.
   */
  release(): void {
    if (this.#released) return;
    if (this.#users > 0) {
      throw new DeviceError(
        DeviceErrorCode.Busy,
        this.address,
        'cannot be released while it is open',
        'Dispose the Device first',
      );
    }
    if (this.previousDriver !== VFIO_PCI) {
      restoreDriver(this.kernel, this.address, this.previousDriver, this.previousOverride);
    }
    this.#released = true;
  }

  /** @internal Whoever has the device from now on gives it back. */
  relinquish(): void {
    this.#released = true;
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/**
 * Takes the device at `address` from whichever driver has it, for VFIO, and waits until its VFIO node can be opened.
 * On failure the device is back with its driver.
 *
 * @throws RangeError when `address` is not a PCI address; KernelError when there is no such device, vfio-pci is not
 * loaded, or permission is missing; DeviceError (BUSY) when file systems on the device are mounted, (UNSUPPORTED)
 * when vfio-pci does not accept it, (TIMEOUT) when no node appears.
 */
export async function claim(address: string, options: ClaimOptions = {}): Promise<Claim> {
  const kernel = options.kernel ?? defaultKernel();
  const timeout = checkInteger('timeout', options.timeout ?? 5000);
  const device = pciAddress(address);
  requireDevice(kernel, device);
  const previousDriver = readLinkName(kernel, device, 'driver');
  if (previousDriver === VFIO_PCI) {
    return new Claim(kernel, device, await waitForNode(kernel, device, timeout), VFIO_PCI, undefined);
  }

  const driver = `${DRIVERS}/${VFIO_PCI}`;
  const found = kernel.access(driver, 0);
  if (found < 0) throw new KernelError(-found, { syscall: 'access', path: driver });
  if (!options.force) refuseMounted(kernel, device);

  const previousOverride = readAttribute(kernel, device, 'driver_override');
  const override = `${devicePath(device)}/driver_override`;
  writeSysfs(kernel, override, VFIO_PCI);
  try {
    if (previousDriver !== undefined) writeSysfs(kernel, `${devicePath(device)}/driver/unbind`, device);
    probe(kernel, device);
    if (readLinkName(kernel, device, 'driver') !== VFIO_PCI) throw refused(kernel, device);
    const node = await waitForNode(kernel, device, timeout);
    return new Claim(kernel, device, node, previousDriver, previousOverride);
  } catch (error) {
    undo(error, [() => restoreDriver(kernel, device, previousDriver, previousOverride)]);
  }
}

/** The probe's own error is reported by whether a driver is bound afterwards, which is what matters. */
function probe(kernel: Syscalls, device: PciAddress): void {
  const result = kernel.writeText(PROBE, device);
  if (result === -EACCES || result === -EPERM)
    throw new KernelError(-result, { syscall: 'write', path: PROBE });
}

function refused(kernel: Syscalls, device: PciAddress): DeviceError {
  const group = readLinkName(kernel, device, 'iommu_group');
  const hint =
    group === undefined
      ? 'No IOMMU stands in front of it. Either enable the IOMMU (BIOS; intel_iommu=on), or accept unrestricted ' +
        'DMA: echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode'
      : 'The kernel log (dmesg) says why';
  return new DeviceError(DeviceErrorCode.Unsupported, device, 'vfio-pci does not accept the device', hint);
}

function refuseMounted(kernel: Syscalls, device: PciAddress): void {
  const mounts = findMounts(kernel, device);
  if (mounts.length === 0) return;
  throw new DeviceError(
    DeviceErrorCode.Busy,
    device,
    `holds mounted file systems: ${mounts.join(', ')}`,
    'Unmount them first',
  );
}

function restoreDriver(
  kernel: Syscalls,
  device: PciAddress,
  driver: string | undefined,
  override: string | undefined,
): void {
  const original = override === undefined || override === '(null)' ? '\n' : override;
  try {
    giveBack(kernel, device, driver, original);
  } catch (error) {
    // Missing permission is no sign of a removal, which would be waited for.
    const denied = error instanceof KernelError && (error.errno === EACCES || error.errno === EPERM);
    if (denied || !isLeaving(kernel, device)) throw error;
  }
}

function giveBack(kernel: Syscalls, device: PciAddress, driver: string | undefined, override: string): void {
  const path = devicePath(device);
  try {
    const bound = readLinkName(kernel, device, 'driver');
    if (bound === driver) return;
    if (bound !== undefined) writeSysfs(kernel, `${path}/driver/unbind`, device);
    if (driver !== undefined) {
      // Named explicitly: with no override the kernel would bind the first driver that matches, perhaps another.
      writeSysfs(kernel, `${path}/driver_override`, driver);
      probe(kernel, device);
    }
  } finally {
    writeSysfs(kernel, `${path}/driver_override`, override);
  }
  const now = readLinkName(kernel, device, 'driver');
  if (now === driver) return;
  throw new DeviceError(
    DeviceErrorCode.Unsupported,
    device,
    `could not be given back to ${driver ?? 'no driver'}; ${now ?? 'no driver'} has it`,
    'The kernel log (dmesg) says why',
  );
}

/**
 * True when the device is gone, or goes within a moment: a removal that waited for the device to be closed takes its
 * course while the device is given back, and there is nothing left to give.
 */
function isLeaving(kernel: Syscalls, device: PciAddress): boolean {
  const never = new Int32Array(new SharedArrayBuffer(4));
  for (let waited = 0; waited < REMOVAL_MS; waited += NODE_POLL_MS) {
    if (kernel.access(devicePath(device), 0) < 0) return true;
    Atomics.wait(never, 0, 0, NODE_POLL_MS);
  }
  return false;
}

async function waitForNode(kernel: Syscalls, device: PciAddress, timeout: number): Promise<VfioNode> {
  const deadline = Date.now() + timeout;
  for (;;) {
    const node = findVfioNode(kernel, device);
    const access = node ? kernel.access(node.path, READ_WRITE) : undefined;
    if (node && access === 0) return node;
    if (Date.now() >= deadline) {
      if (node && access !== undefined)
        throw new KernelError(-access, { syscall: 'access', path: node.path });
      throw new DeviceError(
        DeviceErrorCode.Timeout,
        device,
        `no VFIO node appeared within ${timeout} ms`,
        'Is devtmpfs mounted on /dev?',
      );
    }
    await sleep(NODE_POLL_MS);
  }
}
