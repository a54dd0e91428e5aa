/** The optional features of a device (VFIO_DEVICE_FEATURE), of which plain PCI devices have few. @module */
import { EINVAL, ENOTTY } from '../../../bindings/uapi/errno.js';
import {
  VFIO_DEVICE_FEATURE_DMA_BUF,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
  VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
  vfio_device_feature_dma_buf,
  vfio_device_low_power_entry_with_wakeup,
} from '../../../bindings/uapi/vfio.js';
import type { SimulatedProcess } from '../process/process.js';
import { type UserArgument, viewOf } from '../process/user-argument.js';
import { eventFd, readArgument } from './argument.js';
import type { PciCore } from './core.js';
import { exportMemory } from './device-memory.js';

const GET_OR_SET = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;
const HEADER = vfio_device_feature.size;

interface Feature {
  /** What can be done: one of get and set. */
  readonly operation: number;
  /** The least bytes of data. */
  readonly minimum: number;
  run(core: PciCore, process: SimulatedProcess, user: UserArgument): number;
}

const features: ReadonlyMap<number, Feature> = new Map<number, Feature>([
  [
    VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
    { operation: VFIO_DEVICE_FEATURE_SET, minimum: 0, run: core => core.enterLowPower(undefined) },
  ],
  [
    VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
    {
      operation: VFIO_DEVICE_FEATURE_SET,
      minimum: vfio_device_low_power_entry_with_wakeup.size,
      run(core, process, user) {
        const bytes = user.read(HEADER, vfio_device_low_power_entry_with_wakeup.size);
        if (typeof bytes === 'number') return bytes;
        const { wakeup_eventfd } = vfio_device_low_power_entry_with_wakeup.decode(viewOf(bytes));
        if (wakeup_eventfd < 0) return -EINVAL;
        const file = eventFd(process, wakeup_eventfd);
        return typeof file === 'number' ? file : core.enterLowPower(file);
      },
    },
  ],
  [
    VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
    {
      operation: VFIO_DEVICE_FEATURE_SET,
      minimum: 0,
      run(core) {
        core.exitLowPower();
        return 0;
      },
    },
  ],
  [
    VFIO_DEVICE_FEATURE_DMA_BUF,
    {
      operation: VFIO_DEVICE_FEATURE_GET,
      minimum: vfio_device_feature_dma_buf.size,
      run: (core, process, user) => exportMemory(core, process, user, HEADER),
    },
  ],
]);

export function deviceFeature(core: PciCore, process: SimulatedProcess, user: UserArgument): number {
  const header = readArgument(user, vfio_device_feature);
  if (typeof header === 'number') return header;
  const { argsz, flags } = header;
  if (flags & ~(VFIO_DEVICE_FEATURE_MASK | GET_OR_SET | VFIO_DEVICE_FEATURE_PROBE)) return -EINVAL;
  if (!(flags & VFIO_DEVICE_FEATURE_PROBE) && (flags & GET_OR_SET) === GET_OR_SET) return -EINVAL;
  const number = flags & VFIO_DEVICE_FEATURE_MASK;
  const feature = features.get(number);
  // This one asks first whether the device can be migrated at all.
  if (feature === undefined) return number === VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 ? -EINVAL : -ENOTTY;
  if (flags & GET_OR_SET & ~feature.operation) return -EINVAL;
  if (flags & VFIO_DEVICE_FEATURE_PROBE) return 0;
  if (!(flags & GET_OR_SET) || argsz - HEADER < feature.minimum) return -EINVAL;
  return feature.run(core, process, user);
}
