/** The request of a kernel built with CONFIG_IOMMUFD_TEST. @module */
import { EOPNOTSUPP } from '../../../../bindings/uapi/errno.js';
import * as test from '../../../../bindings/uapi/iommufd-test.js';
import { command } from '../user-command.js';
import { copyAccess, createAccess, destroyAccessPages, pinAccessPages, replaceAccessIoas } from './access.js';
import {
  addReserved,
  checkDeviceCache,
  checkIotlb,
  checkMap,
  checkRefs,
  makeDirty,
  setMemoryLimit,
  triggerEvent,
  triggerFault,
} from './checks.js';
import { getDmaBuf, revokeDmaBuf } from './dma-buf.js';
import {
  attachMockPasid,
  checkMockPasid,
  detachMockPasid,
  mockDomain,
  replaceMockDomain,
  replaceMockPasid,
} from './selftest-device.js';
import type { TestCommand } from './test-command.js';

const operations: Readonly<Record<number, (command: TestCommand) => number>> = {
  [test.IOMMU_TEST_OP_ADD_RESERVED]: addReserved,
  [test.IOMMU_TEST_OP_MOCK_DOMAIN]: mockDomain,
  [test.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS]: mockDomain,
  [test.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE]: replaceMockDomain,
  [test.IOMMU_TEST_OP_MD_CHECK_MAP]: checkMap,
  [test.IOMMU_TEST_OP_MD_CHECK_REFS]: checkRefs,
  [test.IOMMU_TEST_OP_MD_CHECK_IOTLB]: checkIotlb,
  [test.IOMMU_TEST_OP_DEV_CHECK_CACHE]: checkDeviceCache,
  [test.IOMMU_TEST_OP_CREATE_ACCESS]: createAccess,
  [test.IOMMU_TEST_OP_ACCESS_REPLACE_IOAS]: replaceAccessIoas,
  [test.IOMMU_TEST_OP_ACCESS_PAGES]: pinAccessPages,
  [test.IOMMU_TEST_OP_ACCESS_RW]: copyAccess,
  [test.IOMMU_TEST_OP_DESTROY_ACCESS_PAGES]: destroyAccessPages,
  [test.IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT]: setMemoryLimit,
  [test.IOMMU_TEST_OP_DIRTY]: makeDirty,
  [test.IOMMU_TEST_OP_TRIGGER_IOPF]: triggerFault,
  [test.IOMMU_TEST_OP_TRIGGER_VEVENT]: triggerEvent,
  [test.IOMMU_TEST_OP_PASID_ATTACH]: attachMockPasid,
  [test.IOMMU_TEST_OP_PASID_REPLACE]: replaceMockPasid,
  [test.IOMMU_TEST_OP_PASID_DETACH]: detachMockPasid,
  [test.IOMMU_TEST_OP_PASID_CHECK_HWPT]: checkMockPasid,
  [test.IOMMU_TEST_OP_DMABUF_GET]: getDmaBuf,
  [test.IOMMU_TEST_OP_DMABUF_REVOKE]: revokeDmaBuf,
};

export const iommufdTest = command(test.IOMMU_TEST_CMD, request => {
  const operation = operations[request.values.op];
  return operation === undefined ? -EOPNOTSUPP : operation(request);
});
