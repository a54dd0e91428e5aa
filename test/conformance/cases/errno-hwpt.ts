/** Rows 57 to 73 of the errno table: page tables, their faults, and PASIDs. @module */
import { EBUSY, EFAULT, EINVAL, ENOENT, EOPNOTSUPP, ESPIPE } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_GET_HW_INFO,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_PGFAULT_PERM_READ,
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
} from '../../../bindings/uapi/iommufd.js';
import {
  IOMMU_HW_INFO_TYPE_SELFTEST,
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_HWPT_INVALIDATE_DATA_SELFTEST,
  IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID,
  IOMMU_TEST_IOTLB_DEFAULT,
  IOMMU_TEST_OP_TRIGGER_IOPF,
  iommu_hwpt_invalidate_selftest,
  iommu_hwpt_selftest,
  iommu_test_cmd_trigger_iopf,
  MOCK_FLAGS_DEVICE_NO_DIRTY,
  MOCK_FLAGS_DEVICE_PASID,
  MOCK_NESTED_DOMAIN_IOTLB_ID_MAX,
} from '../../../bindings/uapi/iommufd-test.js';
import { encodeList, type StructInput } from '../../../bindings/uapi/struct.js';
import type { Case } from '../support/case.js';
import { iommufdRows } from '../support/errno-cases.js';
import { equal, refused } from '../support/expect.js';
import type { HwptOptions, Pointed } from '../support/iommufd.js';
import { PAGE } from '../support/memory.js';
import { PasidAttachments } from '../support/pasid.js';
import type { ViommuFixture } from '../support/viommu.js';

const PARENT = { flags: IOMMU_HWPT_ALLOC_NEST_PARENT };
const MAX_ENTRIES = 2 ** 19;

/** A mock device in an IOAS. */
function device(iommu: ViommuFixture) {
  const ioas = iommu.allocIoas();
  return { ioas, ...iommu.mockDevice(ioas) };
}

const nestedData = (iommu: ViommuFixture): Pointed =>
  iommu.pointStruct(iommu_hwpt_selftest, { iotlb: IOMMU_TEST_IOTLB_DEFAULT });

/** A fault of `device` on page 0. */
function fault(iommu: ViommuFixture, dev_id: number): number {
  const values = { dev_id, grpid: 1, perm: IOMMU_PGFAULT_PERM_READ };
  return iommu.test(IOMMU_TEST_OP_TRIGGER_IOPF, iommu_test_cmd_trigger_iopf, values).result;
}

/** A device whose faults arrive in a queue. */
function faulting(iommu: ViommuFixture) {
  const { ioas, id, deviceId } = device(iommu);
  const queue = iommu.allocFaultQueue();
  const parent = iommu.allocHwpt(deviceId, ioas, PARENT);
  const hwpt = iommu.allocHwpt(deviceId, parent, {
    flags: IOMMU_HWPT_FAULT_ID_VALID,
    faultId: queue.id,
    dataType: IOMMU_HWPT_DATA_SELFTEST,
    data: nestedData(iommu),
  });
  iommu.replace(id, hwpt);
  return {
    deviceId,
    queue: queue.fd,
    remove: (): void => {
      iommu.destroy(id);
      iommu.destroy(hwpt);
      iommu.destroy(parent);
      iommu.kernel.close(queue.fd);
      iommu.destroy(queue.id);
    },
  };
}

export const cases: readonly Case[] = iommufdRows([
  [
    57,
    'HWPT_ALLOC for what is no device',
    iommu => {
      const { ioas, id, hwptId } = device(iommu);
      for (const each of [0, ioas, hwptId, id, 0xffff_ffff]) {
        refused(iommu.tryAllocHwpt(each, ioas).result, ENOENT, `object ${each}`);
      }
      iommu.destroy(id);
    },
  ],
  [
    58,
    'HWPT_ALLOC on what is no page table',
    iommu => {
      const { id, deviceId } = device(iommu);
      for (const each of [deviceId, id, 0, 0xffff_ffff]) {
        refused(iommu.tryAllocHwpt(deviceId, each).result, EINVAL, `object ${each}`);
      }
      iommu.destroy(id);
    },
  ],
  [
    59,
    'HWPT_ALLOC with flags that do not go together, or are unknown',
    iommu => {
      const { ioas, id, deviceId } = device(iommu);
      const queue = iommu.allocFaultQueue();
      const both = IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_FAULT_ID_VALID;
      const attempt = (flags: number): number =>
        iommu.tryAllocHwpt(deviceId, ioas, { flags, faultId: queue.id }).result;
      refused(attempt(both), EOPNOTSUPP, 'a parent with faults');
      refused(attempt(1 << 4), EOPNOTSUPP, 'flag 16');
      refused(attempt(0x8000_0000), EOPNOTSUPP, 'flag 2^31');
      const values = { dev_id: deviceId, pt_id: ioas, __reserved: 1 };
      refused(iommu.call(IOMMU_HWPT_ALLOC, values).result, EOPNOTSUPP, '__reserved');
      iommu.kernel.close(queue.fd);
      iommu.destroy(id);
    },
  ],
  [
    60,
    'HWPT_ALLOC nested',
    iommu => {
      const { ioas, id, hwptId, deviceId } = device(iommu);
      const parent = iommu.allocHwpt(deviceId, ioas, PARENT);
      const plain = iommu.allocHwpt(deviceId, ioas);
      const data = nestedData(iommu);
      const good = { dataType: IOMMU_HWPT_DATA_SELFTEST, data };
      const attempt = (ptId: number, options: HwptOptions): number =>
        iommu.tryAllocHwpt(deviceId, ptId, options).result;
      refused(attempt(parent, { data }), EINVAL, 'data of no type');
      refused(attempt(parent, { dataType: IOMMU_HWPT_DATA_SELFTEST }), EINVAL, 'a type without data');
      refused(attempt(parent, {}), EOPNOTSUPP, 'neither');
      refused(attempt(parent, { ...good, dataType: 1 }), EOPNOTSUPP, 'another type');
      refused(attempt(parent, { ...good, dataLength: 1 }), EINVAL, 'too little data');
      const nowhere = { dataType: IOMMU_HWPT_DATA_SELFTEST, dataLength: iommu_hwpt_selftest.size };
      refused(attempt(parent, nowhere), EFAULT, 'data at address 0');
      refused(attempt(plain, good), EINVAL, 'on a table that is no parent');
      refused(attempt(hwptId, good), EINVAL, 'on a table made at attach');
      refused(attempt(parent, { ...good, ...PARENT }), EOPNOTSUPP, 'as a parent');
      const nested = iommu.allocHwpt(deviceId, parent, good);
      refused(attempt(nested, good), EINVAL, 'on a nested table');
      for (const each of [nested, parent, plain, id]) iommu.destroy(each);
    },
  ],
  [
    61,
    'HWPT_ALLOC with a fault queue that is not there',
    iommu => {
      const { ioas, id, deviceId } = device(iommu);
      for (const faultId of [0, ioas, 0xffff_ffff]) {
        const options = { flags: IOMMU_HWPT_FAULT_ID_VALID, faultId };
        refused(iommu.tryAllocHwpt(deviceId, ioas, options).result, ENOENT, `object ${faultId}`);
      }
      iommu.destroy(id);
    },
  ],
  [
    62,
    'HWPT_ALLOC with dirty tracking for a device without',
    iommu => {
      const ioas = iommu.allocIoas();
      const { id, deviceId } = iommu.mockDeviceFlags(ioas, MOCK_FLAGS_DEVICE_NO_DIRTY);
      const flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
      refused(iommu.tryAllocHwpt(deviceId, ioas, { flags }).result, EOPNOTSUPP, 'dirty tracking');
      iommu.destroy(id);
    },
  ],
  [
    63,
    'attaching a device without dirty tracking to a table with',
    iommu => {
      const { ioas, id, deviceId } = device(iommu);
      const hwpt = iommu.allocHwpt(deviceId, ioas, { flags: IOMMU_HWPT_ALLOC_DIRTY_TRACKING });
      refused(iommu.tryMockDeviceFlags(hwpt, MOCK_FLAGS_DEVICE_NO_DIRTY).result, EINVAL, 'attach');
      iommu.destroy(hwpt);
      iommu.destroy(id);
    },
  ],
  [
    64,
    'HWPT_INVALIDATE of what it cannot be',
    iommu => {
      const { ioas, id, deviceId } = device(iommu);
      const parent = iommu.allocHwpt(deviceId, ioas, PARENT);
      const nested = iommu.allocHwpt(deviceId, parent, {
        dataType: IOMMU_HWPT_DATA_SELFTEST,
        data: nestedData(iommu),
      });
      const entries = iommu.point(2 * PAGE);
      const { size } = iommu_hwpt_invalidate_selftest;
      const known = IOMMU_HWPT_INVALIDATE_DATA_SELFTEST;
      const fails = (
        why: string,
        { hwpt = nested, type = known, length = size, count = 1, at = entries as Pointed | undefined },
        errno = EINVAL,
      ): void => {
        const { result, handled } = iommu.tryInvalidate(hwpt, at, type, length, count);
        refused(result, errno, why);
        equal(handled, 0, `${why}: entries done`);
      };
      fails('a parent', { hwpt: parent });
      fails('another type', { type: IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID });
      fails('entries too short', { length: 1 });
      fails('entries of no length', { length: 0 });
      fails('entries longer than a page', { length: PAGE + 1 });
      fails('too many entries', { count: MAX_ENTRIES + 1 });
      // Not `undefined`, which would stand for the default.
      const nowhere = iommu.tryInvalidate(nested, undefined, known, size, 1);
      refused(nowhere.result, EINVAL, 'entries at address 0');
      equal(nowhere.handled, 0, 'entries at address 0: entries done');
      const list: StructInput<typeof iommu_hwpt_invalidate_selftest>[] = [
        { iotlb_id: MOCK_NESTED_DOMAIN_IOTLB_ID_MAX + 1 },
      ];
      encodeList(entries.view, iommu_hwpt_invalidate_selftest, list);
      fails('an entry of no table', {});
      fails('no object', { hwpt: 0 }, ENOENT);
      entries.bytes.fill(0);
      entries.bytes[size] = 1;
      fails('entries longer than known, with something in the tail', { length: size + 1 }, EINVAL);
      equal(iommu.tryInvalidate(nested, undefined, known, 0, 0).result, 0, 'nothing');
      for (const each of [nested, parent, id]) iommu.destroy(each);
    },
  ],
  [
    65,
    'HWPT_INVALIDATE with unknown flags',
    iommu => {
      const { ioas, id, deviceId } = device(iommu);
      const parent = iommu.allocHwpt(deviceId, ioas, PARENT);
      const nested = iommu.allocHwpt(deviceId, parent, {
        dataType: IOMMU_HWPT_DATA_SELFTEST,
        data: nestedData(iommu),
      });
      const { size } = iommu_hwpt_invalidate_selftest;
      const entries = iommu.point(2 * size);
      const known = IOMMU_HWPT_INVALIDATE_DATA_SELFTEST;
      encodeList(entries.view, iommu_hwpt_invalidate_selftest, [{ flags: 0xffff_ffff }, {}]);
      const first = iommu.tryInvalidate(nested, entries, known, size, 2);
      refused(first.result, EOPNOTSUPP, 'of the first entry');
      equal(first.handled, 0, 'entries done');
      encodeList(entries.view, iommu_hwpt_invalidate_selftest, [{}, { flags: 0xffff_ffff }]);
      const second = iommu.tryInvalidate(nested, entries, known, size, 2);
      refused(second.result, EOPNOTSUPP, 'of the second entry');
      equal(second.handled, 1, 'entries done');
      const reserved = { hwpt_id: nested, data_type: known, entry_num: 1, __reserved: 1 };
      const answer = iommu.call(IOMMU_HWPT_INVALIDATE, reserved);
      refused(answer.result, EOPNOTSUPP, '__reserved');
      equal(answer.values.entry_num, 0, 'entries done');
      for (const each of [nested, parent, id]) iommu.destroy(each);
    },
  ],
  [
    66,
    'GET_HW_INFO of another type',
    iommu => {
      const { id, deviceId } = device(iommu);
      const ask = (in_data_type: number, flags: number = IOMMU_HW_INFO_FLAG_INPUT_TYPE) =>
        iommu.call(IOMMU_GET_HW_INFO, { dev_id: deviceId, flags, in_data_type });
      refused(ask(1).result, EOPNOTSUPP, 'VT-d');
      refused(ask(0, 2).result, EOPNOTSUPP, 'an unknown flag');
      equal(ask(IOMMU_HW_INFO_TYPE_SELFTEST).result, 0, 'its own');
      const ignored = ask(1, 0);
      equal(ignored.result, 0, 'a type that is not asked for');
      equal(ignored.values.out_data_type, IOMMU_HW_INFO_TYPE_SELFTEST, 'what it is');
      const reserved = { dev_id: deviceId, __reserved: [0, 0, 1] };
      refused(iommu.call(IOMMU_GET_HW_INFO, reserved).result, EOPNOTSUPP, '__reserved');
      iommu.destroy(id);
    },
  ],
  [
    67,
    'GET_HW_INFO of what is no device',
    iommu => {
      const { ioas, id, hwptId } = device(iommu);
      for (const dev_id of [0, ioas, hwptId, id, 0xffff_ffff]) {
        refused(iommu.call(IOMMU_GET_HW_INFO, { dev_id }).result, ENOENT, `object ${dev_id}`);
      }
      iommu.destroy(id);
    },
  ],
  [
    68,
    'reading faults into the wrong size',
    iommu => {
      const { kernel } = iommu;
      const { deviceId, queue, remove } = faulting(iommu);
      const { size } = iommu_hwpt_pgfault;
      const read = (bytes: number): number => kernel.read(queue, new Uint8Array(new ArrayBuffer(bytes)));
      refused(read(size - 1), ESPIPE, 'less than a fault');
      refused(read(size + 1), ESPIPE, 'more than a fault');
      equal(read(size), 0, 'no fault is there');
      equal(read(0), 0, 'nothing, of nothing');
      equal(fault(iommu, deviceId), 0, 'a fault');
      refused(read(0), EINVAL, 'nothing, where there is a fault');
      equal(read(2 * size), size, 'the fault');
      remove();
    },
  ],
  [
    69,
    'answering faults that are not there',
    iommu => {
      const { kernel } = iommu;
      const { deviceId, queue, remove } = faulting(iommu);
      const { size } = iommu_hwpt_page_response;
      const answer = (cookie: number, code: number, bytes = size): number => {
        const response = iommu_hwpt_page_response.allocate(8);
        iommu_hwpt_page_response.encode(response.view, { cookie, code });
        return kernel.write(queue, response.bytes.subarray(0, bytes));
      };
      refused(answer(1, 0), EINVAL, 'an unknown cookie');
      refused(answer(0, 0), EINVAL, 'cookie 0');
      refused(answer(1, 0, size - 1), ESPIPE, 'less than an answer');
      equal(answer(1, 0, 0), 0, 'nothing');
      equal(fault(iommu, deviceId), 0, 'a fault');
      const record = iommu_hwpt_pgfault.allocate();
      equal(kernel.read(queue, record.bytes), iommu_hwpt_pgfault.size, 'the fault');
      const { cookie, dev_id } = iommu_hwpt_pgfault.decode(record.view);
      equal(dev_id, deviceId, 'whose it is');
      refused(answer(cookie, 2), EINVAL, 'an unknown code');
      equal(answer(cookie, 0), size, 'an answer');
      refused(answer(cookie, 0), EINVAL, 'answered already');
      remove();
    },
  ],
  [
    70,
    'PASID attach of what does not go with PASIDs',
    iommu => {
      const ioas = iommu.allocIoas();
      const mock = iommu.mockDeviceFlags(ioas, MOCK_FLAGS_DEVICE_PASID);
      const pasids = new PasidAttachments(iommu, mock.id);
      const plain = iommu.allocHwpt(mock.deviceId, ioas);
      const capable = iommu.allocHwpt(mock.deviceId, ioas, { flags: IOMMU_HWPT_ALLOC_PASID });
      refused(pasids.tryAttach(100, plain), EINVAL, 'a table without PASIDs');
      refused(pasids.tryAttach(100, ioas), EINVAL, 'an IOAS');
      refused(pasids.tryAttach(100, capable), EINVAL, 'while the device itself has a table without');
      refused(pasids.tryAttach(100, 0), ENOENT, 'nothing');
      iommu.replace(mock.id, capable);
      pasids.attach(100, capable);
      pasids.detach(100);
      iommu.replace(mock.id, ioas);
      const without = iommu.mockDevice(ioas);
      // The mock driver makes such a table for any device.
      const useless = iommu.allocHwpt(without.deviceId, ioas, { flags: IOMMU_HWPT_ALLOC_PASID });
      iommu.destroy(useless);
      refused(new PasidAttachments(iommu, without.id).tryAttach(100, capable), EINVAL, 'a device without');
      for (const each of [plain, capable, mock.id, without.id]) iommu.destroy(each);
    },
  ],
  ...(
    [
      [
        71,
        'PASID attach twice',
        (pasids, hwpts) => {
          pasids.attach(200, hwpts[0]);
          refused(pasids.tryAttach(200, hwpts[1]), EBUSY, 'another table');
          refused(pasids.tryAttach(200, hwpts[0]), EBUSY, 'the same table');
          pasids.detach(200);
        },
      ],
      [
        72,
        'PASID replace of nothing, or by an IOAS',
        (pasids, hwpts, ioas) => {
          refused(pasids.tryReplace(200, hwpts[0]), EINVAL, 'nothing attached');
          pasids.attach(200, hwpts[0]);
          refused(pasids.tryReplace(200, ioas), EINVAL, 'by an IOAS');
          pasids.replace(200, hwpts[1]);
          pasids.detach(200);
        },
      ],
      [
        73,
        'PASID detach of nothing',
        (pasids, hwpts) => {
          equal(pasids.tryDetach(200), 0, 'nothing attached');
          pasids.attach(200, hwpts[0]);
          pasids.detach(200);
          equal(pasids.tryDetach(200), 0, 'once more');
        },
      ],
    ] satisfies readonly [
      number,
      string,
      (pasids: PasidAttachments, hwpts: readonly [number, number], ioas: number) => void,
    ][]
  ).map(
    ([number, title, body]) =>
      [
        number,
        title,
        (iommu: ViommuFixture): void => {
          const ioas = iommu.allocIoas();
          const mock = iommu.mockDeviceFlags(ioas, MOCK_FLAGS_DEVICE_PASID);
          const alloc = (): number => iommu.allocHwpt(mock.deviceId, ioas, { flags: IOMMU_HWPT_ALLOC_PASID });
          const hwpts = [alloc(), alloc()] as const;
          const own = alloc();
          iommu.replace(mock.id, own);
          body(new PasidAttachments(iommu, mock.id), hwpts, ioas);
          for (const each of [mock.id, own, ...hwpts]) iommu.destroy(each);
        },
      ] as const,
  ),
]);
