/** Virtual IOMMUs of mock devices: their devices, event queues and hardware queues. @module */
import {
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  IOMMU_VIOMMU_ALLOC,
  iommufd_vevent_header,
} from '../../../bindings/uapi/iommufd.js';
import {
  IOMMU_TEST_OP_TRIGGER_VEVENT,
  IOMMU_VIOMMU_TYPE_SELFTEST,
  iommu_test_cmd_trigger_vevent,
  iommu_viommu_event_selftest,
} from '../../../bindings/uapi/iommufd-test.js';
import { equal, holds } from './expect.js';
import { IommufdFixture, type Pointed } from './iommufd.js';
import { readable } from './readable.js';

/** What IOMMU_VIOMMU_ALLOC takes beyond device and nesting parent. */
export interface ViommuOptions {
  readonly type?: number;
  readonly data?: Pointed;
}

/** A reader of one event queue, which remembers where in the sequence it is. */
export interface EventReader {
  /**
   * Reads up to `count` events of the device `virtualId`.
   *
   * @returns whether all that there were are there, or some were lost
   */
  read(count: number, virtualId: number): Promise<'complete' | 'lost'>;
}

const EVENT_BYTES = iommufd_vevent_header.size + iommu_viommu_event_selftest.size;

export class ViommuFixture extends IommufdFixture {
  tryAllocViommu(
    deviceId: number,
    parentId: number,
    { type = IOMMU_VIOMMU_TYPE_SELFTEST, data }: ViommuOptions = {},
  ): { result: number; id: number } {
    const { result, values } = this.call(IOMMU_VIOMMU_ALLOC, {
      type,
      dev_id: deviceId,
      hwpt_id: parentId,
      data_len: data?.bytes.length ?? 0,
      data_uptr: data?.address ?? 0n,
    });
    return { result, id: values.out_viommu_id };
  }

  allocViommu(deviceId: number, parentId: number, options: ViommuOptions = {}): number {
    const { result, id } = this.tryAllocViommu(deviceId, parentId, options);
    equal(result, 0, 'IOMMU_VIOMMU_ALLOC');
    return id;
  }

  tryAllocVdevice(viommuId: number, deviceId: number, virtualId: bigint): { result: number; id: number } {
    const { result, values } = this.call(IOMMU_VDEVICE_ALLOC, {
      viommu_id: viommuId,
      dev_id: deviceId,
      virt_id: virtualId,
    });
    return { result, id: values.out_vdevice_id };
  }

  allocVdevice(viommuId: number, deviceId: number, virtualId: bigint): number {
    const { result, id } = this.tryAllocVdevice(viommuId, deviceId, virtualId);
    equal(result, 0, 'IOMMU_VDEVICE_ALLOC');
    return id;
  }

  /** `depth` in events. */
  tryAllocVeventq(viommuId: number, type: number, depth: number): { result: number; id: number; fd: number } {
    const { result, values } = this.call(IOMMU_VEVENTQ_ALLOC, {
      viommu_id: viommuId,
      type,
      veventq_depth: depth,
    });
    return { result, id: values.out_veventq_id, fd: values.out_veventq_fd };
  }

  allocVeventq(viommuId: number, type: number, depth: number): { id: number; fd: number } {
    const { result, id, fd } = this.tryAllocVeventq(viommuId, type, depth);
    equal(result, 0, 'IOMMU_VEVENTQ_ALLOC');
    return { id, fd };
  }

  /** `length` in bytes. */
  tryAllocHwQueue(
    viommuId: number,
    type: number,
    index: number,
    iova: bigint,
    length: number,
  ): { result: number; id: number } {
    const { result, values } = this.call(IOMMU_HW_QUEUE_ALLOC, {
      viommu_id: viommuId,
      type,
      index,
      nesting_parent_iova: iova,
      length: BigInt(length),
    });
    return { result, id: values.out_hw_queue_id };
  }

  allocHwQueue(viommuId: number, type: number, index: number, iova: bigint, length: number): number {
    const { result, id } = this.tryAllocHwQueue(viommuId, type, index, iova, length);
    equal(result, 0, 'IOMMU_HW_QUEUE_ALLOC');
    return id;
  }

  /** Makes `count` events of the virtual device behind a mock device. */
  triggerVevents(deviceId: number, count: number): void {
    for (let i = 0; i < count; i++) {
      const values = { dev_id: deviceId };
      const { result } = this.test(IOMMU_TEST_OP_TRIGGER_VEVENT, iommu_test_cmd_trigger_vevent, values);
      equal(result, 0, 'TRIGGER_VEVENT');
    }
  }

  eventReader(fd: number): EventReader {
    let previous = -1;
    return {
      read: async (count, virtualId) => {
        await readable(this, fd);
        const bytes = new Uint8Array(new ArrayBuffer(count * EVENT_BYTES));
        const view = new DataView(bytes.buffer);
        const length = this.kernel.read(fd, bytes);
        holds(length > 0, 'events can be read');
        for (let at = 0; at < length; at += EVENT_BYTES) {
          const { flags, sequence } = iommufd_vevent_header.decode(view, at);
          const gap = (sequence - previous) >>> 0;
          previous = sequence;
          if (flags & IOMMU_VEVENTQ_FLAG_LOST_EVENTS || gap > 1) return 'lost';
          const event = iommu_viommu_event_selftest.decode(view, at + iommufd_vevent_header.size);
          equal(event.virt_id, virtualId, 'virtual id of the event');
        }
        equal(length, bytes.length, 'bytes of the events');
        return 'complete';
      },
    };
  }
}
