/** The kernel's selftest iommu/iommufd.c: page tables for single PASIDs of a device. @module */
import { EBUSY, EINVAL, ENOMEM } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_VIOMMU_ALLOC,
} from '../../../bindings/uapi/iommufd.js';
import {
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_TEST_IOTLB_DEFAULT,
  IOMMU_TEST_PASID_RESERVED,
  IOMMU_VIOMMU_TYPE_SELFTEST,
  iommu_hwpt_selftest,
  MOCK_FLAGS_DEVICE_PASID,
} from '../../../bindings/uapi/iommufd-test.js';
import type { Case } from '../support/case.js';
import { equal, refused } from '../support/expect.js';
import { IommufdFixture } from '../support/iommufd.js';
import { fixtureCases } from '../support/iommufd-cases.js';
import { PasidAttachments } from '../support/pasid.js';

/** Whether there is no device without PASIDs besides the one that has them, by variant. */
const variants: Record<string, boolean> = { no_pasid: false, has_pasid: true };

function pasidAttach(iommu: IommufdFixture, pasidCapable: boolean): void {
  const ioasId = iommu.allocIoas();
  const { id, deviceId } = iommu.mockDeviceFlags(ioasId, MOCK_FLAGS_DEVICE_PASID);
  const incapable = pasidCapable ? undefined : iommu.mockDeviceFlags(ioasId, 0);
  const device = new PasidAttachments(iommu, id);
  let pasid = 100;

  equal(device.tryDetach(pasid), 0, 'detaching what is not attached');

  // Nested tables on a common parent, one with page faults and one on a virtual IOMMU among them.
  const data = iommu.pointStruct(iommu_hwpt_selftest, { iotlb: IOMMU_TEST_IOTLB_DEFAULT });
  const nested = { flags: IOMMU_HWPT_ALLOC_PASID, dataType: IOMMU_HWPT_DATA_SELFTEST, data };
  const parent = iommu.allocHwpt(deviceId, ioasId, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT });
  const nestedA = iommu.allocHwpt(deviceId, parent, nested);
  const nestedB = iommu.allocHwpt(deviceId, parent, nested);
  const faults = iommu.allocFaultQueue();
  const faulting = iommu.allocHwpt(deviceId, parent, {
    ...nested,
    flags: IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID,
    faultId: faults.id,
  });
  const viommu = iommu.call(IOMMU_VIOMMU_ALLOC, {
    type: IOMMU_VIOMMU_TYPE_SELFTEST,
    dev_id: deviceId,
    hwpt_id: parent,
  });
  equal(viommu.result, 0, 'IOMMU_VIOMMU_ALLOC');
  iommu.allocHwpt(deviceId, viommu.values.out_viommu_id, nested);
  const compatible = iommu.allocHwpt(deviceId, ioasId, { flags: IOMMU_HWPT_ALLOC_PASID });

  // Once a device uses PASIDs, its own table must be one that goes with them, and the other way around.
  iommu.replace(id, parent);
  refused(device.tryAttach(pasid, compatible), EINVAL, 'a PASID, while the device has a table without');
  iommu.replace(id, compatible);
  device.attach(pasid, nestedA);
  refused(iommu.tryReplace(id, parent), EINVAL, 'a table without PASIDs, while one is attached');
  device.detach(pasid);

  if (incapable !== undefined) {
    iommu.replace(incapable.id, nestedA);
    iommu.replace(incapable.id, ioasId);
    const other = new PasidAttachments(iommu, incapable.id);
    refused(other.tryAttach(pasid, parent), EINVAL, 'a PASID of a device without');
    refused(other.tryAttach(pasid, compatible), EINVAL, 'the same with a table that could');
  }

  refused(device.tryAttach(pasid, parent), EINVAL, 'a table without PASIDs');
  device.check(pasid, 0);
  refused(device.tryAttach(pasid, ioasId), EINVAL, 'an IOAS');
  device.check(pasid, 0);
  device.attach(pasid, compatible);
  refused(device.tryAttach(pasid, nestedA), EBUSY, 'attaching over another table');
  device.check(pasid, compatible);
  device.detach(pasid);
  device.attach(pasid, nestedA);
  refused(device.tryAttach(pasid, nestedA), EBUSY, 'attaching the same once more');
  device.detach(pasid);

  pasid = 200;
  refused(device.tryReplace(pasid, compatible), EINVAL, 'replacing what is not attached');
  device.attach(pasid, compatible);
  refused(device.tryReplace(pasid, ioasId), EINVAL, 'replacing by an IOAS');
  device.check(pasid, compatible);
  device.replace(pasid, nestedA);
  device.replace(pasid, nestedB);
  device.detach(pasid);

  // Here the mock driver itself refuses, on purpose.
  pasid = IOMMU_TEST_PASID_RESERVED;
  device.attach(pasid, compatible);
  refused(device.tryReplace(pasid, nestedA), ENOMEM, 'a replacement that the driver fails');
  device.check(pasid, compatible);
  device.detach(pasid);

  pasid = 2048;
  device.attach(pasid, faulting);
  equal(iommu.triggerFault(deviceId, faults.fd, pasid), 0, 'a page fault with a PASID');
  device.replace(pasid, compatible);
  device.detach(pasid);

  iommu.destroy(faulting);
  equal(iommu.kernel.close(faults.fd), 0, 'close of the fault queue');
  iommu.destroy(faults.id);
  iommu.replace(id, ioasId);
}

export const cases: readonly Case[] = Object.entries(variants).flatMap(([name, pasidCapable]) =>
  fixtureCases(
    'iommufd_device_pasid',
    host => new IommufdFixture(host),
    { pasid_attach: iommu => pasidAttach(iommu, pasidCapable) },
    name,
  ),
);
