/**
 * `node --import iommufd/simulate program.mjs`: the program finds itself on a simulated machine, with an NVMe controller
 * at 0000:00:04.0 and QEMU's edu device at 0000:00:05.0, and needs neither root nor devices. `IOMMUFD_SIMULATE` says
 * which machine: `vtd` unless told, `vtd-scalable`, `vtd-first-stage`, `amd`, `noiommu` or `legacy`.
 *
 * @module
 */
import { useKernel } from '../../bindings/kernel.js';
import { EduModel } from '../sim/devices/edu.js';
import { NvmeModel } from '../sim/devices/nvme/index.js';
import { SimulatedHost } from '../sim/host.js';
import { MachineProfile } from '../sim/iommu/hardware.js';

const name = process.env.IOMMUFD_SIMULATE || MachineProfile.Vtd;
const profile = Object.values(MachineProfile).find(each => each === name);
if (profile === undefined) {
  const names = Object.values(MachineProfile).join(', ');
  throw new RangeError(`IOMMUFD_SIMULATE must be one of ${names}, got ${JSON.stringify(name)}`);
}
const host = new SimulatedHost({
  profile,
  devices: [
    { address: '0000:00:04.0', function: new NvmeModel() },
    { address: '0000:00:05.0', function: new EduModel() },
  ],
});
useKernel(host.process());
