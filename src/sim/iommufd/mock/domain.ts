/** The domains of mock devices. @module */
import { EINVAL, EOPNOTSUPP } from '../../../../bindings/uapi/errno.js';
import { IOMMU_HWPT_ALLOC_DIRTY_TRACKING } from '../../../../bindings/uapi/iommufd.js';
import {
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_HWPT_INVALIDATE_DATA_SELFTEST,
  IOMMU_TEST_INVALIDATE_FLAG_ALL,
  iommu_hwpt_invalidate_selftest,
  iommu_hwpt_selftest,
  MOCK_APERTURE_LAST,
  MOCK_APERTURE_START,
  MOCK_HUGE_PAGE_SIZE,
  MOCK_IOMMUPT_DEFAULT,
  MOCK_IOMMUPT_HUGE,
  MOCK_NESTED_DOMAIN_IOTLB_ID_MAX,
  MOCK_NESTED_DOMAIN_IOTLB_NUM,
} from '../../../../bindings/uapi/iommufd-test.js';
import type {
  DirtyTracking,
  FaultHandler,
  NestedDomain,
  PagingDomain,
  UserArray,
  UserData,
} from '../../iommu/domain.js';
import { readEntry, readStruct } from '../../iommu/user-data.js';
import { PAGE } from '../../machine/physical-memory.js';
import { ADDRESS_BITS, MockPageTable, PAGE_SIZES } from './page-table.js';

export const MOCK_DRIVER = 'mock';

class MockDirtyTracking implements DirtyTracking {
  readonly #table: MockPageTable;
  enabled = false;

  constructor(table: MockPageTable) {
    this.#table = table;
  }

  enable(enabled: boolean): number {
    this.enabled = enabled;
    return 0;
  }

  read(iova: bigint, length: bigint, keep: boolean, mark: (iova: bigint, length: bigint) => void): number {
    return this.#table.readDirty(iova, length, keep, mark);
  }
}

export class MockDomain implements PagingDomain {
  readonly kind = 'paging';
  readonly driver = MOCK_DRIVER;
  readonly pageSizes: bigint;
  readonly aperture: { readonly first: bigint; readonly last: bigint };
  readonly dirty: DirtyTracking | undefined;
  faultHandler: FaultHandler | undefined;
  readonly #table = new MockPageTable();

  private constructor(huge: boolean, dirtyTracking: boolean) {
    // PAGE is there because iommufd wants it; user mode is to map huge pages only.
    this.pageSizes = huge ? BigInt(MOCK_HUGE_PAGE_SIZE | PAGE) : PAGE_SIZES;
    this.aperture = huge
      ? { first: 0n, last: (1n << BigInt(ADDRESS_BITS)) - 1n }
      : { first: BigInt(MOCK_APERTURE_START), last: BigInt(MOCK_APERTURE_LAST) };
    this.dirty = dirtyTracking ? new MockDirtyTracking(this.#table) : undefined;
  }

  /** @returns minus EINVAL for a struct of the wrong size, EOPNOTSUPP for a page table that there is not */
  static allocate(flags: number, data: UserData | undefined): MockDomain | number {
    let type = MOCK_IOMMUPT_DEFAULT;
    if (data !== undefined) {
      const found = readStruct(data, IOMMU_HWPT_DATA_SELFTEST, iommu_hwpt_selftest, 'iotlb');
      if (typeof found === 'number') return found;
      type = found.pagetable_type;
    }
    if (type !== MOCK_IOMMUPT_DEFAULT && type !== MOCK_IOMMUPT_HUGE) return -EOPNOTSUPP;
    return new MockDomain(type === MOCK_IOMMUPT_HUGE, (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0);
  }

  map(iova: bigint, address: bigint, length: bigint, protection: number): number {
    return this.#table.map(iova, address, length, protection, this.pageSizes);
  }

  unmap(iova: bigint, length: bigint): bigint {
    return this.#table.unmap(iova, length);
  }

  translate(iova: bigint): bigint | undefined {
    return this.#table.translate(iova);
  }

  /** As if the device had written there. */
  setDirty(iova: bigint): void {
    this.#table.setDirty(iova);
  }

  free(): void {}
}

export class MockNestedDomain implements NestedDomain {
  readonly kind = 'nested';
  readonly iotlb: number[];
  /** The virtual IOMMU that it was made for. */
  readonly viommu: object | undefined;
  faultHandler: FaultHandler | undefined;

  private constructor(iotlb: number, viommu: object | undefined) {
    this.iotlb = Array.from({ length: MOCK_NESTED_DOMAIN_IOTLB_NUM }, () => iotlb);
    this.viommu = viommu;
  }

  static allocate(data: UserData, viommu?: object): MockNestedDomain | number {
    if (data.type !== IOMMU_HWPT_DATA_SELFTEST) return -EOPNOTSUPP;
    const found = readStruct(data, IOMMU_HWPT_DATA_SELFTEST, iommu_hwpt_selftest, 'iotlb');
    return typeof found === 'number' ? found : new MockNestedDomain(found.iotlb, viommu);
  }

  invalidate(array: UserArray): { result: number; handled: number } {
    if (array.type !== IOMMU_HWPT_INVALIDATE_DATA_SELFTEST) return { result: -EINVAL, handled: 0 };
    for (let index = 0; index < array.entries; index++) {
      const result = this.#invalidateOne(array, index);
      if (result < 0) return { result, handled: index };
    }
    return { result: 0, handled: array.entries };
  }

  #invalidateOne(array: UserArray, index: number): number {
    const type = IOMMU_HWPT_INVALIDATE_DATA_SELFTEST;
    const found = readEntry(array, index, type, iommu_hwpt_invalidate_selftest, 'iotlb_id');
    if (typeof found === 'number') return found;
    if (found.flags & ~IOMMU_TEST_INVALIDATE_FLAG_ALL) return -EOPNOTSUPP;
    if (found.iotlb_id > MOCK_NESTED_DOMAIN_IOTLB_ID_MAX) return -EINVAL;
    if (found.flags & IOMMU_TEST_INVALIDATE_FLAG_ALL) this.iotlb.fill(0);
    else this.iotlb[found.iotlb_id] = 0;
    return 0;
  }

  free(): void {}
}
