/** The requests that iommufd itself knows, by number. @module */
import { IOMMU_DESTROY } from '../../../bindings/uapi/iommufd.js';
import { ioasChangeProcess } from './change-process.js';
import { getHardwareInfo } from './device.js';
import { getDirtyBitmap, setDirtyTracking } from './dirty.js';
import { allocateFaultQueue } from './fault-queue.js';
import { allocateHwQueue } from './hw-queue.js';
import { allocateHwpt, invalidateHwpt } from './hwpt-commands.js';
import {
  ioasAlloc,
  ioasAllowIovas,
  ioasCopy,
  ioasIovaRanges,
  ioasMap,
  ioasMapFile,
  ioasNoiommuGetPa,
  ioasUnmap,
} from './ioas-commands.js';
import { iommufdTest } from './mock/commands.js';
import { option } from './options.js';
import { type Command, command } from './user-command.js';
import { allocateVdevice } from './vdevice.js';
import { allocateVeventQueue } from './veventq.js';
import { vfioIoas } from './vfio-compat.js';
import { allocateViommu } from './viommu.js';

const destroy = command(IOMMU_DESTROY, ({ values, context }) => context.remove(values.id));

/** One line for each request. */
const all: readonly Command[] = [
  destroy,
  allocateFaultQueue,
  allocateHwpt,
  allocateHwQueue,
  allocateVdevice,
  allocateVeventQueue,
  allocateViommu,
  getDirtyBitmap,
  getHardwareInfo,
  invalidateHwpt,
  ioasAlloc,
  ioasAllowIovas,
  ioasChangeProcess,
  ioasCopy,
  ioasIovaRanges,
  ioasMap,
  ioasMapFile,
  ioasNoiommuGetPa,
  ioasUnmap,
  iommufdTest,
  option,
  setDirtyTracking,
  vfioIoas,
];

export const commands: ReadonlyMap<number, Command> = new Map(all.map(each => [each.request.number, each]));
