/** Mock devices, and the mock IOMMU before them: what a kernel built with CONFIG_IOMMUFD_TEST makes for its tests. @module */
import { EINVAL, ENOENT, ENOMEM, EOPNOTSUPP } from '../../../../bindings/uapi/errno.js';
import {
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_HW_INFO_TYPE_DEFAULT,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_NONE,
} from '../../../../bindings/uapi/iommufd.js';
import {
  IOMMU_HW_INFO_SELFTEST_REGVAL,
  IOMMU_HW_INFO_TYPE_SELFTEST,
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_TEST_DEV_CACHE_DEFAULT,
  IOMMU_TEST_PASID_RESERVED,
  iommu_test_hw_info,
  MOCK_DEV_CACHE_NUM,
  MOCK_FLAGS_DEVICE_NO_DIRTY,
  MOCK_FLAGS_DEVICE_PASID,
  MOCK_PASID_WIDTH,
} from '../../../../bindings/uapi/iommufd-test.js';
import {
  type BlockedDomain,
  type Domain,
  type IommuDevice,
  IommuGroup,
  type NestedDomain,
  type PagingDomain,
  type UserData,
} from '../../iommu/domain.js';
import type { PhysicalMemory } from '../../machine/physical-memory.js';
import { MOCK_DRIVER, MockDomain, MockNestedDomain } from './domain.js';
import { MockViommu, mockViommus } from './viommu.js';

/** A device may have these `MOCK_FLAGS_DEVICE_*`. */
export const KNOWN_DEVICE_FLAGS = MOCK_FLAGS_DEVICE_NO_DIRTY | MOCK_FLAGS_DEVICE_PASID;

const PAGING_FLAGS = IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_PASID;

const blocked: BlockedDomain = { kind: 'blocked', free() {} };

/** Groups of mock devices are apart from those of real ones. */
let nextDevice = 0;
const FIRST_GROUP = 0x1000_0000;

export class MockDevice implements IommuDevice {
  readonly name: string;
  readonly driver = MOCK_DRIVER;
  readonly group: IommuGroup;
  readonly noiommu = false;
  readonly cacheCoherent = true;
  readonly dirtyTracking: boolean;
  readonly isolatedMsi = true;
  readonly maxPasids: number;
  readonly reservedRegions = [];
  readonly hardwareCapabilities = IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED;
  readonly blocked = blocked;
  readonly userPasidTable = true;
  readonly viommus;
  readonly cache: number[];
  /** The virtual IOMMU of the nested domain that it is attached to, and the id it has there. */
  viommu: MockViommu | undefined;
  virtualId = 0n;
  /** The next domain for the reserved PASID is refused. */
  #refuseReserved = false;

  constructor(flags: number, physical: PhysicalMemory) {
    const number = nextDevice++;
    this.name = `iommufd_mock${number}`;
    this.group = new IommuGroup(FIRST_GROUP + number);
    this.group.devices.add(this);
    this.dirtyTracking = (flags & MOCK_FLAGS_DEVICE_NO_DIRTY) === 0;
    this.maxPasids = 2 ** (flags & MOCK_FLAGS_DEVICE_PASID ? MOCK_PASID_WIDTH : 0);
    this.cache = Array.from({ length: MOCK_DEV_CACHE_NUM }, () => IOMMU_TEST_DEV_CACHE_DEFAULT);
    this.viommus = mockViommus(physical);
  }

  hardwareInfo(type: number): { type: number; bytes: Uint8Array } | number {
    if (type !== IOMMU_HW_INFO_TYPE_DEFAULT && type !== IOMMU_HW_INFO_TYPE_SELFTEST) return -EOPNOTSUPP;
    const { bytes, view } = iommu_test_hw_info.allocate();
    iommu_test_hw_info.encode(view, { test_reg: IOMMU_HW_INFO_SELFTEST_REGVAL });
    return { type: IOMMU_HW_INFO_TYPE_SELFTEST, bytes };
  }

  allocatePaging(flags: number, data: UserData | undefined): PagingDomain | number {
    if (flags & ~PAGING_FLAGS) return -EOPNOTSUPP;
    if (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING && !this.dirtyTracking) return -EOPNOTSUPP;
    const type = data?.type ?? IOMMU_HWPT_DATA_NONE;
    if (type !== IOMMU_HWPT_DATA_NONE && type !== IOMMU_HWPT_DATA_SELFTEST) return -EOPNOTSUPP;
    return MockDomain.allocate(flags, data);
  }

  allocateNested(_parent: PagingDomain, flags: number, data: UserData): NestedDomain | number {
    if (flags & ~IOMMU_HWPT_ALLOC_PASID) return -EOPNOTSUPP;
    return MockNestedDomain.allocate(data);
  }

  attach(domain: Domain): number {
    if (domain.kind === 'paging' && domain.dirty !== undefined && !this.dirtyTracking) return -EINVAL;
    let viommu: MockViommu | undefined;
    let virtualId = 0n;
    if (domain instanceof MockNestedDomain && domain.viommu instanceof MockViommu) {
      viommu = domain.viommu;
      const found = viommu.core.virtualId(this);
      if (found === undefined) return -ENOENT;
      virtualId = found;
    }
    if (viommu !== this.viommu) {
      this.viommu = viommu;
      this.virtualId = virtualId;
    }
    return 0;
  }

  attachPasid(domain: Domain, pasid: number): number {
    if (pasid !== IOMMU_TEST_PASID_RESERVED) return 0;
    // Every second domain is refused, so that a test can see what becomes of the one before.
    const refuse = domain.kind !== 'blocked' && this.#refuseReserved;
    this.#refuseReserved = domain.kind !== 'blocked' && !refuse;
    return refuse ? -ENOMEM : 0;
  }
}
