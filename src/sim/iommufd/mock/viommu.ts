/** The virtual IOMMUs of the mock IOMMU. @module */
import { EEXIST, EFAULT, EINVAL, EIO, EOPNOTSUPP } from '../../../../bindings/uapi/errno.js';
import { IOMMU_HWPT_ALLOC_PASID } from '../../../../bindings/uapi/iommufd.js';
import {
  IOMMU_HW_QUEUE_TYPE_SELFTEST,
  IOMMU_TEST_HW_QUEUE_MAX,
  IOMMU_TEST_INVALIDATE_FLAG_ALL,
  IOMMU_VEVENTQ_TYPE_SELFTEST,
  IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST,
  IOMMU_VIOMMU_TYPE_SELFTEST,
  iommu_viommu_event_selftest,
  iommu_viommu_invalidate_selftest,
  iommu_viommu_selftest,
  MOCK_DEV_CACHE_ID_MAX,
} from '../../../../bindings/uapi/iommufd-test.js';
import type { StructValue } from '../../../../bindings/uapi/struct.js';
import type {
  HardwareQueueCore,
  NestedDomain,
  PagingDomain,
  UserArray,
  UserData,
  ViommuCore,
  ViommuDriver,
  ViommuOperations,
} from '../../iommu/domain.js';
import { readEntries, readStruct } from '../../iommu/user-data.js';
import { MemoryObject } from '../../machine/memory-object.js';
import { PAGE, type PhysicalMemory } from '../../machine/physical-memory.js';
import type { MockDevice } from './device.js';
import { MockNestedDomain } from './domain.js';

/** In bytes; what user mode may map of a virtual IOMMU. */
const OFFERED = 2 * PAGE;

/** All mock devices are behind the same IOMMU. */
const mockIommu = { name: 'iommufd_selftest_iommu' };

/** The driver of the mock IOMMU, on a machine with the given memory. */
export function mockViommus(physical: PhysicalMemory): ViommuDriver {
  return {
    iommu: mockIommu,
    supports: type => type === IOMMU_VIOMMU_TYPE_SELFTEST,
    create: (core, parent, data) => MockViommu.create(core, parent, data, physical),
  };
}

export class MockViommu implements ViommuOperations {
  readonly core: ViommuCore;
  readonly #parent: PagingDomain;
  readonly #queues: (HardwareQueueCore | undefined)[] = [];
  #withdraw: (() => void) | undefined;

  private constructor(core: ViommuCore, parent: PagingDomain) {
    this.core = core;
    this.#parent = parent;
  }

  static create(
    core: ViommuCore,
    parent: PagingDomain,
    data: UserData | undefined,
    physical: PhysicalMemory,
  ): MockViommu | number {
    const viommu = new MockViommu(core, parent);
    if (data === undefined) return viommu;
    const given = readStruct(data, IOMMU_VIOMMU_TYPE_SELFTEST, iommu_viommu_selftest, 'out_data');
    if (typeof given === 'number') return given;
    const result = viommu.#loopBack(data, given.in_data, physical);
    if (result === 0) return viommu;
    viommu.destroy();
    return result;
  }

  /** Says what came in through memory that can be mapped, and in the struct. */
  #loopBack(data: UserData, value: number, physical: PhysicalMemory): number {
    const memory = new MemoryObject(physical, 'mock virtual IOMMU', OFFERED);
    new DataView(memory.buffer).setUint32(0, value, true);
    const { offset, withdraw } = this.core.offer(memory);
    this.#withdraw = withdraw;
    const { bytes, view } = iommu_viommu_selftest.allocate();
    iommu_viommu_selftest.encode(view, {
      in_data: value,
      out_data: value,
      out_mmap_offset: BigInt(offset),
      out_mmap_length: BigInt(OFFERED),
    });
    return data.write(0, bytes.subarray(0, data.length));
  }

  destroy(): void {
    this.#withdraw?.();
  }

  allocateNested(flags: number, data: UserData): NestedDomain | number {
    if (flags & ~IOMMU_HWPT_ALLOC_PASID) return -EOPNOTSUPP;
    return MockNestedDomain.allocate(data, this);
  }

  invalidate(array: UserArray): { result: number; handled: number } {
    // An empty array is a question whether the type is known.
    if (array.entries === 0 && array.type === IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST) {
      return { result: 0, handled: 0 };
    }
    const entries = readEntries(
      array,
      IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST,
      iommu_viommu_invalidate_selftest,
    );
    if (typeof entries === 'number') return { result: entries, handled: 0 };
    for (const [handled, entry] of entries.entries()) {
      const result = this.#invalidateOne(entry);
      if (result < 0) return { result, handled };
    }
    return { result: 0, handled: entries.length };
  }

  #invalidateOne(entry: StructValue<typeof iommu_viommu_invalidate_selftest>): number {
    if (entry.flags & ~IOMMU_TEST_INVALIDATE_FLAG_ALL) return -EOPNOTSUPP;
    if (entry.cache_id > MOCK_DEV_CACHE_ID_MAX) return -EINVAL;
    // Only mock devices are behind the mock IOMMU.
    const device = this.core.device(BigInt(entry.vdev_id)) as MockDevice | undefined;
    if (device === undefined) return -EINVAL;
    if (entry.flags & IOMMU_TEST_INVALIDATE_FLAG_ALL) device.cache.fill(0);
    else device.cache[entry.cache_id] = 0;
    return 0;
  }

  /** An event of a device with that id. @returns 0, or minus EOPNOTSUPP */
  event(virtualId: bigint): number {
    const { bytes, view } = iommu_viommu_event_selftest.allocate();
    iommu_viommu_event_selftest.encode(view, { virt_id: Number(BigInt.asUintN(32, virtualId)) });
    return this.core.report(IOMMU_VEVENTQ_TYPE_SELFTEST, bytes);
  }

  readonly hardwareQueues = {
    supports: (type: number): boolean => type === IOMMU_HW_QUEUE_TYPE_SELFTEST,
    create: (queue: HardwareQueueCore, index: number, address: bigint): (() => void) | number =>
      this.#startQueue(queue, index, address),
  };

  /**
   * Queues are started in order, and stopped in the reverse order. The mock driver of Linux 7.3 never notes a queue's
   * index: whichever is stopped, it is the first place that becomes free.
   */
  #startQueue(queue: HardwareQueueCore, index: number, address: bigint): (() => void) | number {
    if (index >= IOMMU_TEST_HW_QUEUE_MAX) return -EINVAL;
    if (this.#queues[index] !== undefined) return -EEXIST;
    const previous = index === 0 ? undefined : this.#queues[index - 1];
    if (index > 0 && previous === undefined) return -EIO;
    if (this.#parent.translate(queue.iova) !== address) return -EFAULT;
    const letGo = previous === undefined ? undefined : queue.dependOn(previous);
    this.#queues[index] = queue;
    return () => {
      this.#queues[0] = undefined;
      letGo?.();
    };
  }
}
