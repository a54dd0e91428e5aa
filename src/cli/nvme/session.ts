/** Takes an NVMe controller for the time of one command, and gives it back however that ends. @module */

import { NvmeController } from '../../drivers/nvme/index.js';
import { DeviceError, DeviceErrorCode } from '../../errors.js';
import { openDevice } from '../../open-device.js';
import { claim } from '../../pci/claim.js';
import { type PciDevice, readPciDevice } from '../../pci/devices.js';
import type { Target } from '../arguments.js';
import { className, isNvme } from '../pci-class.js';

/** What a command works with. */
export interface Session {
  readonly controller: NvmeController;
  /** As it was before it was taken. */
  readonly found: PciDevice;
}

/** Whatever can be told beforehand is, so that a device is not taken from its driver for nothing. */
function checkDevice(device: PciDevice, target: Target): void {
  if (!isNvme(device.classCode)) {
    throw new DeviceError(
      DeviceErrorCode.Unsupported,
      device.address,
      `is no NVMe controller; its class is ${className(device.classCode)}`,
    );
  }
  if (!target.noiommu && (device.noiommu || device.iommuGroup === undefined)) {
    throw new DeviceError(
      DeviceErrorCode.NoIommu,
      device.address,
      'has no IOMMU in front of it, so nothing limits what it can read and write',
      'Pass --noiommu to accept that',
    );
  }
}

/** @param signal checked between the steps; `work` minds it itself */
export async function withController<T>(
  target: Target,
  signal: AbortSignal,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const { address, noiommu, force, timeout } = target;
  const found = readPciDevice(address);
  checkDevice(found, target);
  using claimed = await claim(address, { force, ...(timeout !== undefined && { timeout }) });
  signal.throwIfAborted();
  using device = openDevice(claimed, { noiommu });
  await using controller = await NvmeController.open(device, {
    ...(timeout !== undefined && { commandTimeout: timeout }),
  });
  signal.throwIfAborted();
  return await work({ controller, found });
}
