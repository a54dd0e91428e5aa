/** The requests about page tables. @module */
import { EFAULT, EINVAL, ENOENT, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HWPT_INVALIDATE,
} from '../../../bindings/uapi/iommufd.js';
import type { UserArray } from '../iommu/domain.js';
import { PAGE } from '../machine/physical-memory.js';
import { getDevice, type IommufdDevice } from './device.js';
import { FaultQueue } from './fault-queue.js';
import { type Hwpt, HwptNested, HwptPaging } from './hwpt.js';
import { IoasObject } from './ioas-object.js';
import { ObjectType } from './objects.js';
import { command, type UserCommand } from './user-command.js';
import { userData } from './user-structs.js';
import { ViommuObject } from './viommu.js';

type Allocation = UserCommand<typeof IOMMU_HWPT_ALLOC.argument>;

/** The page table for the object `pt_id`, whatever that is. @returns minus the errno */
function allocate(request: Allocation, device: IommufdDevice): Hwpt | number {
  const { values, context } = request;
  const { flags, data_type, data_uptr, data_len } = values;
  const target = context.get(values.pt_id);
  const data = userData(request.process, data_type, data_uptr, data_len);
  if (target instanceof IoasObject) {
    return HwptPaging.allocate(device, target, flags, data_len > 0 ? data : undefined, undefined);
  }
  if (target instanceof HwptPaging) return HwptNested.allocate(device, target, flags, data);
  if (!(target instanceof ViommuObject)) return -EINVAL;
  if (device.iommu === undefined || target.iommu !== device.iommu) return -EINVAL;
  return HwptNested.allocateFor(target, flags, data);
}

export const allocateHwpt = command(IOMMU_HWPT_ALLOC, request => {
  const { values, context } = request;
  if (values.__reserved !== 0) return -EOPNOTSUPP;
  if ((values.data_type === IOMMU_HWPT_DATA_NONE) !== (values.data_len === 0)) return -EINVAL;
  const device = getDevice(context, values.dev_id);
  if (typeof device === 'number') return device;
  const hwpt = allocate(request, device);
  if (typeof hwpt === 'number') return hwpt;
  request.newObject = hwpt;
  if (values.flags & IOMMU_HWPT_FAULT_ID_VALID) {
    const fault = context.get(values.fault_id, ObjectType.Fault);
    if (!(fault instanceof FaultQueue)) return -ENOENT;
    hwpt.reportTo(fault);
  }
  values.out_hwpt_id = hwpt.id;
  return request.respond();
});

/** No call has more to do. */
const MAX_INVALIDATIONS = 2 ** 19;

function invalidate(request: UserCommand<typeof IOMMU_HWPT_INVALIDATE.argument>): {
  result: number;
  handled: number;
} {
  const { values, context, process } = request;
  const { entry_num: entries, entry_len: entryLength, data_uptr: address } = values;
  const refuse = (errno: number) => ({ result: -errno, handled: 0 });
  if (values.__reserved !== 0) return refuse(EOPNOTSUPP);
  const strange = address === 0n || entryLength === 0 || entryLength > PAGE || entries > MAX_INVALIDATIONS;
  if (entries > 0 && strange) return refuse(EINVAL);
  const target = context.get(values.hwpt_id);
  if (target === undefined) return refuse(ENOENT);
  const array: UserArray = {
    type: values.data_type,
    entryLength,
    entries,
    read: index => process.copyIn(address + BigInt(index) * BigInt(entryLength), entryLength),
  };
  if (target instanceof HwptNested) return target.domain.invalidate?.(array) ?? refuse(EOPNOTSUPP);
  if (target instanceof ViommuObject) return target.operations.invalidate?.(array) ?? refuse(EOPNOTSUPP);
  return refuse(EINVAL);
}

export const invalidateHwpt = command(IOMMU_HWPT_INVALIDATE, request => {
  const { result, handled } = invalidate(request);
  request.values.entry_num = handled;
  return request.respond() < 0 ? -EFAULT : result;
});
