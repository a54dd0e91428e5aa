/** Devices as a virtual IOMMU knows them: the counterpart of `struct iommufd_vdevice`. @module */
import { EEXIST, EINVAL, ENOENT } from '../../../bindings/uapi/errno.js';
import { IOMMU_VDEVICE_ALLOC } from '../../../bindings/uapi/iommufd.js';
import { getDevice, type IommufdDevice } from './device.js';
import { IommufdObject, ObjectType } from './objects.js';
import { command } from './user-command.js';
import { getViommu, type ViommuObject } from './viommu.js';

export class VdeviceObject extends IommufdObject {
  override readonly type = ObjectType.Vdevice;
  readonly device: IommufdDevice;
  readonly viommu: ViommuObject;
  readonly virtualId: bigint;
  #remove: (() => void) | undefined;

  constructor(device: IommufdDevice, viommu: ViommuObject, virtualId: bigint) {
    super();
    this.device = device;
    this.viommu = viommu;
    this.virtualId = virtualId;
    viommu.users++;
    device.vdevice = this;
    // The device goes only when this has gone, and sees to it that it does.
    device.users++;
    device.waits++;
  }

  /** Makes it known under its id. @returns 0, or minus EEXIST, or as the driver says */
  register(): number {
    const { vdevices, operations } = this.viommu;
    if (vdevices.has(this.virtualId)) return -EEXIST;
    const added = operations.addDevice?.(this.device.device, this.virtualId);
    if (added !== undefined && added.result < 0) return added.result;
    this.#remove = () => added?.remove?.();
    vdevices.set(this.virtualId, this);
    return 0;
  }

  override destroy(): void {
    this.#remove?.();
    if (this.viommu.vdevices.get(this.virtualId) === this) this.viommu.vdevices.delete(this.virtualId);
    this.viommu.users--;
    this.device.vdevice = undefined;
    this.device.users--;
    this.device.waits--;
  }
}

export const allocateVdevice = command(IOMMU_VDEVICE_ALLOC, request => {
  const { values, context } = request;
  const viommu = getViommu(context, values.viommu_id);
  if (typeof viommu === 'number') return viommu;
  const device = getDevice(context, values.dev_id);
  if (typeof device === 'number') return device;
  if (device.iommu === undefined || viommu.iommu !== device.iommu) return -EINVAL;
  if (device.destroying) return -ENOENT;
  if (device.vdevice !== undefined) return -EEXIST;
  const vdevice = context.reserve(new VdeviceObject(device, viommu, values.virt_id));
  request.newObject = vdevice;
  const result = vdevice.register();
  if (result < 0) return result;
  values.out_vdevice_id = vdevice.id;
  return request.respond();
});
