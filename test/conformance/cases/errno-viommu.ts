/** Rows 74 to 78 of the errno table: virtual IOMMUs, their devices, events and queues. @module */
import { EBUSY, EEXIST, EINVAL, EIO, ENOENT, EOPNOTSUPP, EOVERFLOW } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_HW_QUEUE_TYPE_DEFAULT,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  IOMMU_VEVENTQ_TYPE_DEFAULT,
  IOMMU_VIOMMU_ALLOC,
  iommufd_vevent_header,
} from '../../../bindings/uapi/iommufd.js';
import {
  IOMMU_HW_QUEUE_TYPE_SELFTEST,
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_TEST_HW_QUEUE_MAX,
  IOMMU_TEST_IOTLB_DEFAULT,
  IOMMU_VEVENTQ_TYPE_SELFTEST,
  IOMMU_VIOMMU_TYPE_SELFTEST,
  iommu_hwpt_selftest,
  iommu_viommu_event_selftest,
} from '../../../bindings/uapi/iommufd-test.js';
import type { Case } from '../support/case.js';
import { iommufdRows, type Row } from '../support/errno-cases.js';
import { equal, holds, refused } from '../support/expect.js';
import { PAGE } from '../support/memory.js';
import type { ViommuFixture } from '../support/viommu.js';

const U64_MAX = 2n ** 64n - 1n;
const MAX_DEPTH = 2 ** 19;
const HEADER = iommufd_vevent_header.size;
const EVENT = HEADER + iommu_viommu_event_selftest.size;

/** A device, a nesting parent, a virtual IOMMU on it, and a table on that. */
interface Made {
  readonly ioas: number;
  readonly mockId: number;
  readonly deviceId: number;
  readonly parent: number;
  readonly viommu: number;
  readonly nested: number;
}

/** A row that starts with a virtual IOMMU; what it makes on top it destroys. */
const row = (
  number: number,
  title: string,
  body: (iommu: ViommuFixture, made: Made) => void,
): Row<(iommu: ViommuFixture) => void> => [
  number,
  title,
  iommu => {
    const ioas = iommu.allocIoas();
    const { id: mockId, deviceId } = iommu.mockDevice(ioas);
    const parent = iommu.allocHwpt(deviceId, ioas, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT });
    const viommu = iommu.allocViommu(deviceId, parent);
    const data = iommu.pointStruct(iommu_hwpt_selftest, { iotlb: IOMMU_TEST_IOTLB_DEFAULT });
    const nested = iommu.allocHwpt(deviceId, viommu, { dataType: IOMMU_HWPT_DATA_SELFTEST, data });
    body(iommu, { ioas, mockId, deviceId, parent, viommu, nested });
    for (const each of [nested, viommu, parent, mockId]) iommu.destroy(each);
  },
];

export const cases: readonly Case[] = iommufdRows([
  row(74, 'VIOMMU_ALLOC of what it cannot be', (iommu, { ioas, deviceId, parent, nested }) => {
    const plain = iommu.allocHwpt(deviceId, ioas);
    refused(iommu.tryAllocViommu(deviceId, 0).result, ENOENT, 'no page table');
    refused(iommu.tryAllocViommu(deviceId, ioas).result, ENOENT, 'an IOAS');
    refused(iommu.tryAllocViommu(deviceId, nested).result, ENOENT, 'a nested table');
    refused(iommu.tryAllocViommu(deviceId, plain).result, EINVAL, 'a table that is no parent');
    refused(iommu.tryAllocViommu(deviceId, parent, { type: 1 }).result, EOPNOTSUPP, 'another type');
    refused(iommu.tryAllocViommu(deviceId, parent, { type: 0 }).result, EOPNOTSUPP, 'the default type');
    refused(iommu.tryAllocViommu(0, parent).result, ENOENT, 'no device');
    const values = { type: IOMMU_VIOMMU_TYPE_SELFTEST, dev_id: deviceId, hwpt_id: parent };
    refused(iommu.call(IOMMU_VIOMMU_ALLOC, { ...values, flags: 1 }).result, EOPNOTSUPP, 'flags');
    // Nobody looks at the reserved bytes of this one.
    const reserved = iommu.call(IOMMU_VIOMMU_ALLOC, { ...values, __reserved: 1 });
    equal(reserved.result, 0, '__reserved');
    iommu.destroy(reserved.values.out_viommu_id);
    iommu.destroy(plain);
  }),

  row(75, 'attaching to a table of a virtual IOMMU without a virtual device', (iommu, made) => {
    const { ioas, mockId, deviceId, viommu, nested } = made;
    refused(iommu.tryReplace(mockId, nested), ENOENT, 'without');
    const vdevice = iommu.allocVdevice(viommu, deviceId, 1n);
    iommu.replace(mockId, nested);
    refused(iommu.tryDestroy(nested), EBUSY, 'destroying it');
    iommu.replace(mockId, ioas);
    iommu.destroy(vdevice);
  }),

  row(76, 'VDEVICE_ALLOC twice', (iommu, { ioas, deviceId, viommu }) => {
    const vdevice = iommu.allocVdevice(viommu, deviceId, 1n);
    refused(iommu.tryAllocVdevice(viommu, deviceId, 1n).result, EEXIST, 'the same');
    refused(iommu.tryAllocVdevice(viommu, deviceId, 2n).result, EEXIST, 'the same device by another id');
    const other = iommu.mockDevice(ioas);
    refused(
      iommu.tryAllocVdevice(viommu, other.deviceId, 1n).result,
      EEXIST,
      'another device by the same id',
    );
    refused(iommu.tryAllocVdevice(0, deviceId, 3n).result, ENOENT, 'on no virtual IOMMU');
    refused(iommu.tryAllocVdevice(viommu, 0, 3n).result, ENOENT, 'of no device');
    refused(iommu.tryDestroy(viommu), EBUSY, 'destroying the virtual IOMMU');
    iommu.destroy(other.id);
    iommu.destroy(vdevice);
  }),

  row(77, 'VEVENTQ_ALLOC, and reading its events', (iommu, { ioas, mockId, deviceId, viommu, nested }) => {
    const { kernel } = iommu;
    const type = IOMMU_VEVENTQ_TYPE_SELFTEST;
    const attempt = (given: number, depth: number): number =>
      iommu.tryAllocVeventq(viommu, given, depth).result;
    refused(attempt(type, 0), EINVAL, 'depth 0');
    refused(attempt(type, MAX_DEPTH + 1), EINVAL, 'depth 2^19 + 1');
    refused(attempt(IOMMU_VEVENTQ_TYPE_DEFAULT, 1), EOPNOTSUPP, 'the default type');
    refused(iommu.tryAllocVeventq(0, type, 1).result, ENOENT, 'on no virtual IOMMU');
    const values = { viommu_id: viommu, type, veventq_depth: 1 };
    refused(iommu.call(IOMMU_VEVENTQ_ALLOC, { ...values, flags: 1 }).result, EOPNOTSUPP, 'flags');
    refused(iommu.call(IOMMU_VEVENTQ_ALLOC, { ...values, __reserved: 1 }).result, EOPNOTSUPP, '__reserved');
    const queue = iommu.allocVeventq(viommu, type, 1);
    refused(attempt(type, 1), EEXIST, 'a second of the type');

    const buffer = new Uint8Array(new ArrayBuffer(4 * EVENT));
    const read = (bytes: number): number => kernel.read(queue.fd, buffer.subarray(0, bytes));
    refused(read(0), EINVAL, 'reading nothing, no event');
    refused(read(HEADER - 1), EINVAL, 'reading less than a header, no event');
    equal(read(HEADER), 0, 'reading a header, no event');
    refused(kernel.write(queue.fd, buffer), EINVAL, 'writing');
    const vdevice = iommu.allocVdevice(viommu, deviceId, 0x77n);
    iommu.replace(mockId, nested);
    iommu.triggerVevents(deviceId, 3);
    refused(read(HEADER), EINVAL, 'reading a header, with an event');
    // Where one had room, the other two are lost, and that is the second thing to read.
    equal(read(buffer.length), EVENT + HEADER, 'bytes of an event, and of a header alone');
    const view = new DataView(buffer.buffer);
    equal(iommufd_vevent_header.decode(view, 0).flags, 0, 'the event');
    const lost = iommufd_vevent_header.decode(view, EVENT);
    holds((lost.flags & IOMMU_VEVENTQ_FLAG_LOST_EVENTS) !== 0, 'the loss');
    iommu.replace(mockId, ioas);
    iommu.destroy(vdevice);
    kernel.close(queue.fd);
    iommu.destroy(queue.id);
  }),

  row(78, 'HW_QUEUE_ALLOC', (iommu, { ioas, viommu }) => {
    const type = IOMMU_HW_QUEUE_TYPE_SELFTEST;
    const attempt = (index: number, iova: bigint, length: number, given = type): number =>
      iommu.tryAllocHwQueue(viommu, given, index, iova, length).result;
    const iova = iommu.map(ioas, iommu.buffer.address, PAGE);
    const next = iova + BigInt(PAGE);
    refused(attempt(0, iova, PAGE, IOMMU_HW_QUEUE_TYPE_DEFAULT), EOPNOTSUPP, 'the default type');
    refused(attempt(0, iova, PAGE, 1), EOPNOTSUPP, 'another type');
    refused(attempt(0, iova, 0), EINVAL, 'length 0');
    refused(attempt(0, U64_MAX, PAGE), EOVERFLOW, 'over the end of the addresses');
    refused(attempt(0, next, PAGE), ENOENT, 'where nothing is mapped');
    refused(attempt(1, iova, PAGE), EIO, 'the second first');
    refused(attempt(IOMMU_TEST_HW_QUEUE_MAX, iova, PAGE), EINVAL, 'one too many');
    const values = { viommu_id: viommu, type, nesting_parent_iova: iova, length: BigInt(PAGE) };
    refused(iommu.call(IOMMU_HW_QUEUE_ALLOC, { ...values, flags: 1 }).result, EOPNOTSUPP, 'flags');
    refused(
      iommu.call(IOMMU_HW_QUEUE_ALLOC, { ...values, viommu_id: 0 }).result,
      ENOENT,
      'on no virtual IOMMU',
    );
    const first = iommu.allocHwQueue(viommu, type, 0, iova, PAGE);
    refused(attempt(0, iova, PAGE), EEXIST, 'the same');
    const second = iommu.allocHwQueue(viommu, type, 1, iova, PAGE);
    refused(iommu.tryDestroy(first), EBUSY, 'destroying the first before the second');
    iommu.destroy(second);
    iommu.destroy(first);
    iommu.unmap(ioas, iova, PAGE);
  }),
]);
