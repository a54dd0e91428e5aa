/** The requests that a device answers once it is open (vfio_pci_core_ioctl). @module */
import { ENOTTY } from '../../../bindings/uapi/errno.js';
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_IOEVENTFD,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
} from '../../../bindings/uapi/vfio.js';
import type { SimulatedProcess } from '../process/process.js';
import type { UserArgument } from '../process/user-argument.js';
import type { PciCore } from './core.js';
import type { VfioDevice } from './device.js';
import { deviceInfo, irqInfo, regionInfo, setIrqs } from './device-info.js';
import { deviceFeature } from './feature.js';
import { hotReset, hotResetInfo } from './hot-reset.js';

export function deviceRequest(
  device: VfioDevice,
  core: PciCore,
  process: SimulatedProcess,
  request: number,
  user: UserArgument,
): number {
  switch (request) {
    case VFIO_DEVICE_GET_INFO.number:
      return deviceInfo(core, user);
    case VFIO_DEVICE_GET_REGION_INFO.number:
      return regionInfo(core, user);
    case VFIO_DEVICE_GET_IRQ_INFO.number:
      return irqInfo(core, user);
    case VFIO_DEVICE_SET_IRQS.number:
      return setIrqs(core, process, user);
    case VFIO_DEVICE_RESET.number:
      return core.reset();
    case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.number:
      return hotResetInfo(device, user);
    case VFIO_DEVICE_PCI_HOT_RESET.number:
      return hotReset(device, core, process, user);
    case VFIO_DEVICE_IOEVENTFD.number:
      return core.ioEventFds.set(process, user);
    case VFIO_DEVICE_FEATURE.number:
      return deviceFeature(core, process, user);
    default:
      return -ENOTTY;
  }
}
