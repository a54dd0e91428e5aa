/** Opens the test VM's NVMe controllers. @module */
import { claim, type Device, openDevice } from 'iommufd';
import { NvmeController, type NvmeOptions } from 'iommufd/nvme';
import { isNoiommu } from './profile.js';

/** Runs `body` with a controller that is brought up before and shut down, closed and released after. */
export async function withNvme<T>(
  address: string,
  body: (controller: NvmeController, device: Device) => Promise<T>,
  options: NvmeOptions = {},
): Promise<T> {
  using claimed = await claim(address);
  using device = openDevice(claimed, { noiommu: isNoiommu });
  await using controller = await NvmeController.open(device, options);
  return await body(controller, device);
}
