/** Virtual IOMMUs: the counterpart of `struct iommufd_viommu`. @module */
import { EINVAL, ENOENT, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import { IOMMU_VIOMMU_ALLOC, IOMMU_VIOMMU_TYPE_DEFAULT } from '../../../bindings/uapi/iommufd.js';
import type { IommuDevice, ViommuCore, ViommuOperations } from '../iommu/domain.js';
import type { MemoryObject } from '../machine/memory-object.js';
import { PAGE } from '../machine/physical-memory.js';
import type { IommufdContext, MapOffset } from './context.js';
import { getDevice } from './device.js';
import { getHwptPaging, type HwptPaging } from './hwpt.js';
import { IommufdObject, ObjectType } from './objects.js';
import { command } from './user-command.js';
import { userData } from './user-structs.js';
import type { VdeviceObject } from './vdevice.js';
import type { VeventQueue } from './veventq.js';

export class ViommuObject extends IommufdObject implements ViommuCore {
  override readonly type = ObjectType.Viommu;
  readonly context: IommufdContext;
  /** The nesting parent. */
  readonly parent: HwptPaging;
  /** The IOMMU that it is a part of. */
  readonly iommu: object;
  /** What the driver does for it; nothing while it is being made. */
  operations: ViommuOperations = {};
  /** Devices by the ids that they have here. */
  readonly vdevices = new Map<bigint, VdeviceObject>();
  readonly eventQueues: VeventQueue[] = [];

  constructor(parent: HwptPaging, iommu: object) {
    super();
    this.context = parent.context;
    this.parent = parent;
    this.iommu = iommu;
    parent.users++;
  }

  device(virtualId: bigint): IommuDevice | undefined {
    return this.vdevices.get(virtualId)?.device.device;
  }

  virtualId(device: IommuDevice): bigint | undefined {
    for (const [id, vdevice] of this.vdevices) if (vdevice.device.device === device) return id;
    return undefined;
  }

  report(type: number, event: Uint8Array): number {
    const queue = this.eventQueues.find(each => each.eventType === type);
    if (queue === undefined) return -EOPNOTSUPP;
    queue.report(event);
    return 0;
  }

  offer(memory: MemoryObject): { offset: number; withdraw(): void } {
    const { mapOffsets } = this.context;
    // The first page stays free, so that no offset is 0.
    let offset = PAGE;
    for (const taken of [...mapOffsets].sort((a, b) => a.offset - b.offset)) {
      if (offset + memory.size <= taken.offset) break;
      offset = taken.offset + taken.length;
    }
    const entry: MapOffset = { owner: this, offset, length: memory.size, memory };
    mapOffsets.add(entry);
    return {
      offset,
      withdraw() {
        mapOffsets.delete(entry);
        memory.put();
      },
    };
  }

  override destroy(): void {
    this.operations.destroy?.();
    this.parent.users--;
  }
}

/** @returns minus ENOENT */
export function getViommu(context: IommufdContext, id: number): ViommuObject | number {
  const found = context.get(id, ObjectType.Viommu);
  return found instanceof ViommuObject ? found : -ENOENT;
}

export const allocateViommu = command(IOMMU_VIOMMU_ALLOC, request => {
  const { values, context, process } = request;
  if (values.flags !== 0 || values.type === IOMMU_VIOMMU_TYPE_DEFAULT) return -EOPNOTSUPP;
  const device = getDevice(context, values.dev_id);
  if (typeof device === 'number') return device;
  const driver = device.device.viommus;
  if (device.iommu === undefined || driver?.supports(values.type) !== true) return -EOPNOTSUPP;
  const parent = getHwptPaging(context, values.hwpt_id);
  if (typeof parent === 'number') return parent;
  if (!parent.nestParent) return -EINVAL;
  const viommu = context.reserve(new ViommuObject(parent, device.iommu));
  request.newObject = viommu;
  const data =
    values.data_len > 0 ? userData(process, values.type, values.data_uptr, values.data_len) : undefined;
  const operations = driver.create(viommu, parent.domain, data);
  if (typeof operations === 'number') return operations;
  viommu.operations = operations;
  values.out_viommu_id = viommu.id;
  return request.respond();
});
