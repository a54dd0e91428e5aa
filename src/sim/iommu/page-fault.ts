/** Page faults of devices on their way to whoever answers them. @module */
import { EINVAL } from '../../../bindings/uapi/errno.js';
import { IOMMUFD_PAGE_RESP_INVALID } from '../../../bindings/uapi/iommufd.js';
import type { AttachHandle, IommuDevice, PageFault } from './domain.js';
import { NO_PASID } from './group-attach.js';

/** Faults that wait for the last one of their group. */
const waiting = new WeakMap<IommuDevice, PageFault[]>();

/** The attachment whose domain takes the fault. */
function find(device: IommuDevice, fault: PageFault): AttachHandle | undefined {
  const { handles } = device.group;
  let handle = handles.get(fault.pasid);
  if (handle === undefined && fault.pasid !== NO_PASID && device.userPasidTable === true) {
    handle = handles.get(NO_PASID);
    if (handle?.domain.kind !== 'nested') return undefined;
  }
  return handle?.domain.faultHandler === undefined ? undefined : handle;
}

/**
 * A device has asked for a page (iommu_report_device_fault). Faults of a group are handed over together, when the last
 * one has come; where nobody takes them the device is told so.
 *
 * @returns 0, or minus EINVAL when there is nobody to take it
 */
export function reportFault(device: IommuDevice, fault: PageFault): number {
  const handle = find(device, fault);
  if (handle?.domain.faultHandler === undefined) {
    device.pageResponse?.(fault, IOMMUFD_PAGE_RESP_INVALID);
    return -EINVAL;
  }
  const earlier = waiting.get(device) ?? [];
  if (!fault.last) {
    waiting.set(device, [...earlier, fault]);
    return 0;
  }
  waiting.set(
    device,
    earlier.filter(each => each.group !== fault.group),
  );
  const group = [...earlier.filter(each => each.group === fault.group), fault];
  handle.domain.faultHandler(handle, group, code => device.pageResponse?.(fault, code));
  return 0;
}
