// The simulated iommufd, from devices up: who owns a group, which page table a device uses, page faults, and what mock
// devices do. What is expected is what Linux 7.3 does.
import t from 'tap';
import {
  EAGAIN,
  EBUSY,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  EOPNOTSUPP,
  EPERM,
  ESPIPE,
} from '../../bindings/uapi/errno.js';
import {
  IOMMU_DESTROY,
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_GET_HW_INFO,
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
  IOMMUFD_PAGE_RESP_INVALID,
  IOMMUFD_PAGE_RESP_SUCCESS,
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
} from '../../bindings/uapi/iommufd.js';
import {
  IOMMU_HW_INFO_SELFTEST_REGVAL,
  IOMMU_HW_INFO_TYPE_SELFTEST,
  IOMMU_TEST_CMD,
  IOMMU_TEST_OP_DIRTY,
  IOMMU_TEST_OP_MD_CHECK_MAP,
  IOMMU_TEST_OP_MOCK_DOMAIN,
  iommu_test_cmd_check_map,
  iommu_test_cmd_dirty,
  iommu_test_cmd_mock_domain,
  MOCK_APERTURE_START,
} from '../../bindings/uapi/iommufd-test.js';
import type { Struct, StructInput, StructValue } from '../../bindings/uapi/struct.js';
import { decodeList } from '../../bindings/uapi/struct.js';
import { IommuGroup, Protection } from '../../src/sim/iommu/domain.js';
import { reportFault } from '../../src/sim/iommu/page-fault.js';
import { IommufdDevice } from '../../src/sim/iommufd/device.js';
import { HwptPaging } from '../../src/sim/iommufd/hwpt.js';
import { IovaBitmap } from '../../src/sim/iommufd/iova-bitmap.js';
import { MockPageTable, PAGE_SIZES } from '../../src/sim/iommufd/mock/page-table.js';
import { PAGE } from '../../src/sim/machine/physical-memory.js';
import { TestDevice } from './support/sim-iommu-device.js';
import { Iommufd, machine, page, TestDomain } from './support/sim-iommufd.js';

const NO_PASID = -1;

function open() {
  const { newProcess, physical } = machine();
  return { iommufd: new Iommufd(newProcess()), newProcess, physical };
}

function bind(iommufd: Iommufd, device: TestDevice): IommufdDevice {
  const bound = IommufdDevice.bind(iommufd.context, device);
  if (typeof bound === 'number') throw new Error(`not bound: ${bound}`);
  return bound;
}

/** Makes a call of the request for tests, with one operation's struct. */
function testCall<S extends Struct>(
  iommufd: Iommufd,
  op: number,
  struct: S,
  input: StructInput<S>,
): { result: number; out: StructValue<S> } {
  const { bytes, view } = struct.allocate();
  struct.encode(view, { size: struct.size, op, ...input } as never);
  const result = iommufd.process.ioctl(iommufd.fd, IOMMU_TEST_CMD.number, bytes);
  return { result, out: struct.decode(view) as StructValue<S> };
}

t.test('a group has one owner', t => {
  const { iommufd, newProcess } = open();
  const other = new Iommufd(newProcess());
  const group = new IommuGroup(1);
  const [a, b] = [new TestDevice('a', group), new TestDevice('b', group)];
  const boundA = bind(iommufd, a);
  t.equal(a.domains.get(NO_PASID), a.blocked, 'nothing gets through before it is attached');
  t.equal(b.domains.get(NO_PASID), b.blocked, 'nor for another device of the group');
  t.equal(IommufdDevice.bind(other.context, b), -EPERM);
  t.ok(IommufdDevice.hasGroup(iommufd.context, group));
  t.notOk(IommufdDevice.hasGroup(other.context, group));
  const boundB = bind(iommufd, b);
  boundA.unbind();
  t.equal(IommufdDevice.bind(other.context, a), -EPERM, 'its other device is still bound');
  boundB.unbind();
  t.equal(group.owner, undefined);
  bind(other, a).unbind();
  t.end();
});

t.test('what cannot be bound', t => {
  const { iommufd } = open();
  const device = new TestDevice('a', new IommuGroup(1));
  device.cacheCoherent = false;
  device.isolatedMsi = false;
  t.equal(IommufdDevice.bind(iommufd.context, device), -EINVAL);
  device.cacheCoherent = true;
  t.equal(IommufdDevice.bind(iommufd.context, device), -EPERM);
  t.equal(iommufd.context.groups.size, 0);
  t.ok(iommufd.context.empty);
  t.end();
});

t.test('a bound device keeps the context alive, and user mode cannot destroy it', t => {
  const { iommufd } = open();
  const device = new TestDevice('a', new IommuGroup(1));
  const bound = bind(iommufd, device);
  t.equal(iommufd.result(IOMMU_DESTROY, { id: bound.id }), -EBUSY);
  const { context } = iommufd;
  iommufd.process.close(iommufd.fd);
  t.equal(context.file.references, 1);
  bound.unbind();
  t.equal(context.file.references, 0);
  t.end();
});

t.test('an address space gets a page table with the first device, and loses it with the last', t => {
  const { iommufd } = open();
  const [a, b] = [new TestDevice('a', new IommuGroup(1)), new TestDevice('b', new IommuGroup(2))];
  const [boundA, boundB] = [bind(iommufd, a), bind(iommufd, b)];
  const ioasId = iommufd.newIoas();
  const first = boundA.attach(NO_PASID, ioasId);
  t.equal(first.result, 0);
  t.same(boundB.attach(NO_PASID, ioasId), first, 'a second device uses the same');
  t.equal(boundA.attach(NO_PASID, ioasId).result, -EBUSY);
  t.equal(iommufd.result(IOMMU_DESTROY, { id: first.ptId }), -EBUSY);
  boundA.detach(NO_PASID);
  t.equal(a.domains.get(NO_PASID), a.blocked);
  t.ok(iommufd.context.get(first.ptId));
  boundB.detach(NO_PASID);
  t.notOk(iommufd.context.get(first.ptId));
  boundB.detach(NO_PASID);
  t.equal(boundA.attach(NO_PASID, 999).result, -ENOENT);
  t.equal(boundA.attach(NO_PASID, boundB.id).result, -EINVAL);
  boundA.unbind();
  boundB.unbind();
  t.equal(iommufd.result(IOMMU_DESTROY, { id: ioasId }), 0);
  t.end();
});

t.test('a device that the table does not suit gets another', t => {
  const { iommufd } = open();
  const [a, b] = [new TestDevice('a', new IommuGroup(1)), new TestDevice('b', new IommuGroup(2))];
  const [boundA, boundB] = [bind(iommufd, a), bind(iommufd, b)];
  const ioasId = iommufd.newIoas();
  const { ptId } = boundA.attach(NO_PASID, ioasId);
  const taken = a.domains.get(NO_PASID);
  b.refuse = domain => (domain === taken ? -EINVAL : 0);
  const second = boundB.attach(NO_PASID, ioasId);
  t.equal(second.result, 0);
  t.not(second.ptId, ptId);
  boundB.detach(NO_PASID);
  b.refuse = domain => (domain.kind === 'paging' ? -ENOMEM : 0);
  t.equal(boundB.attach(NO_PASID, ioasId).result, -ENOMEM, 'any other refusal counts');
  b.refuse = domain => (domain.kind === 'paging' ? -EINVAL : 0);
  t.equal(boundB.attach(NO_PASID, ioasId).result, -EINVAL);
  t.equal(iommufd.ioas(ioasId).hwpts.length, 1, 'what was made in vain is gone');
  boundA.detach(NO_PASID);
  boundA.unbind();
  boundB.unbind();
  t.end();
});

t.test('all devices of a group change together', t => {
  const { iommufd } = open();
  const group = new IommuGroup(1);
  const [a, b] = [new TestDevice('a', group), new TestDevice('b', group)];
  b.reservedRegions = [{ first: 0x1000n, last: 0x1fffn, kind: 'reserved' }];
  const [boundA, boundB] = [bind(iommufd, a), bind(iommufd, b)];
  const [one, two] = [iommufd.newIoas(), iommufd.newIoas()];
  const firstId = boundA.attach(NO_PASID, one).ptId;
  t.equal(iommufd.table(one).reserved.length, 0, 'a device that is not attached has nothing reserved');
  t.equal(a.domains.get(NO_PASID), b.domains.get(NO_PASID));
  t.equal(boundB.attach(NO_PASID, two).result, -EINVAL, 'there is one page table for all');
  t.equal(boundB.replace(NO_PASID, two).result, -EINVAL, 'what is not attached cannot be replaced');
  t.equal(boundB.attach(NO_PASID, one).result, 0);
  t.equal(iommufd.table(one).reserved.length, 1);

  // The second device refuses: the first goes back.
  const before = a.domains.get(NO_PASID);
  b.refuse = domain => (domain === before ? 0 : -ENOMEM);
  t.equal(boundA.replace(NO_PASID, two).result, -ENOMEM);
  t.equal(a.domains.get(NO_PASID), before);
  t.equal(iommufd.table(two).reserved.length, 0);
  t.equal(iommufd.ioas(two).hwpts.length, 0);

  b.refuse = () => 0;
  const moved = boundA.replace(NO_PASID, two);
  t.equal(moved.result, 0);
  t.equal(b.domains.get(NO_PASID), a.domains.get(NO_PASID));
  t.equal(iommufd.table(one).reserved.length, 0);
  t.equal(iommufd.table(two).reserved.length, 1);
  t.notOk(iommufd.context.get(firstId), 'nobody uses the first any more');
  t.same(boundB.replace(NO_PASID, moved.ptId), { result: 0, ptId: moved.ptId }, 'to where it is');
  boundA.detach(NO_PASID);
  t.not(a.domains.get(NO_PASID), a.blocked, 'the group stays as long as one device is attached');
  boundB.detach(NO_PASID);
  t.equal(a.domains.get(NO_PASID), a.blocked);
  t.equal(iommufd.table(two).reserved.length, 0);
  boundA.unbind();
  boundB.unbind();
  t.end();
});

t.test('reserved IOVAs that are mapped keep a device out', t => {
  const { iommufd } = open();
  const device = new TestDevice('a', new IommuGroup(1));
  device.reservedRegions = [
    { first: 0n, last: 0xfffn, kind: 'direct-relaxable' },
    { first: 0x2000n, last: 0x2fffn, kind: 'msi' },
  ];
  const bound = bind(iommufd, device);
  const ioas_id = iommufd.newIoas();
  const map = { ioas_id, flags: 7, user_va: iommufd.memory(1), length: page };
  t.equal(iommufd.result(IOMMU_IOAS_MAP, { ...map, iova: 0x2000n }), 0);
  t.equal(bound.attach(NO_PASID, ioas_id).result < 0, true);
  t.equal(iommufd.ioas(ioas_id).hwpts.length, 0);
  t.equal(iommufd.table(ioas_id).reserved.length, 0);
  bound.unbind();
  t.end();
});

t.test('PASIDs', t => {
  const { iommufd } = open();
  const device = new TestDevice('a', new IommuGroup(1));
  device.maxPasids = 16;
  const bound = bind(iommufd, device);
  const ioasId = iommufd.newIoas();
  const alloc = (flags: number) =>
    iommufd.call(IOMMU_HWPT_ALLOC, { flags, dev_id: bound.id, pt_id: ioasId }).out.out_hwpt_id;
  const plain = alloc(0);
  const compatible = alloc(IOMMU_HWPT_ALLOC_PASID);
  t.equal(bound.attach(5, plain).result, -EINVAL, 'a table that was not made for it');
  t.equal(bound.attach(16, compatible).result, -EINVAL, 'more than there are');
  t.equal(bound.attach(5, compatible).result, 0);
  t.equal(bound.attach(NO_PASID, plain).result, -EINVAL, 'beside PASIDs');
  t.equal(bound.attach(NO_PASID, compatible).result, 0);
  t.equal(device.domains.get(5), device.domains.get(NO_PASID));
  t.equal(bound.replace(6, compatible).result, -EINVAL);
  bound.detach(5);
  t.equal(device.domains.get(5), device.blocked);
  t.equal(bound.replace(NO_PASID, plain).result, 0);
  t.equal(bound.attach(5, compatible).result, -EINVAL);
  bound.detach(NO_PASID);
  bound.unbind();
  t.end();
});

t.test('a device without an IOMMU', t => {
  const { iommufd } = open();
  const device = new TestDevice('a', new IommuGroup(1));
  Object.assign(device, { noiommu: true, cacheCoherent: false, isolatedMsi: false, driver: 'noiommu' });
  const bound = bind(iommufd, device);
  t.equal(device.group.owner, undefined);
  t.equal(iommufd.result(IOMMU_GET_HW_INFO, { dev_id: bound.id }), -EOPNOTSUPP);
  const ioas_id = iommufd.newIoas();
  const { result, ptId } = bound.attach(NO_PASID, ioas_id);
  t.equal(result, 0);
  t.equal(device.domains.size, 0, 'there is nothing that translates');
  const map = iommufd.result(IOMMU_IOAS_MAP, {
    ioas_id,
    flags: 7,
    user_va: iommufd.memory(1),
    length: page,
    iova: 0n,
  });
  t.equal(map, 0);
  const hwpt = iommufd.context.get(ptId);
  t.ok(hwpt instanceof HwptPaging && hwpt.domain.translate(0n) !== undefined, 'but books are kept');
  const nested = { dev_id: bound.id, pt_id: ptId, data_type: 1, data_len: 8 };
  t.equal(iommufd.result(IOMMU_HWPT_ALLOC, nested), -EOPNOTSUPP);
  bound.detach(NO_PASID);
  bound.unbind();
  t.end();
});

t.test('coherent DMA is enforced where the IOMMU can, before anything is mapped', t => {
  const { iommufd } = open();
  const device = new TestDevice('a', new IommuGroup(1));
  device.enforcesCacheCoherency = true;
  const bound = bind(iommufd, device);
  const ioas_id = iommufd.newIoas();
  t.equal(bound.attach(NO_PASID, ioas_id).result, -EINVAL, 'a domain that cannot');
  device.makeDomain = () => Object.assign(new TestDomain(), { enforceCacheCoherency: () => true });
  t.equal(bound.attach(NO_PASID, ioas_id).result, 0);
  t.equal(iommufd.ioas(ioas_id).hwpts[0]?.enforcesCacheCoherency, true);
  bound.detach(NO_PASID);
  bound.unbind();
  t.end();
});

t.test('what hardware says of itself', t => {
  const { iommufd } = open();
  const { process } = iommufd;
  const ioasId = iommufd.newIoas();
  const { out } = testCall(iommufd, IOMMU_TEST_OP_MOCK_DOMAIN, iommu_test_cmd_mock_domain, { id: ioasId });
  const room = new Uint8Array(new ArrayBuffer(16)).fill(0xff);
  const data_uptr = process.addressOf(room);
  const info = (input: StructInput<typeof IOMMU_GET_HW_INFO.argument>) =>
    iommufd.call(IOMMU_GET_HW_INFO, { dev_id: out.out_idev_id, data_uptr, ...input });
  const all = info({ data_len: 16 });
  t.equal(all.result, 0);
  t.equal(all.out.data_len, 8);
  t.equal(all.out.out_data_type, IOMMU_HW_INFO_TYPE_SELFTEST);
  t.equal(all.out.out_capabilities & IOMMU_HW_CAP_DIRTY_TRACKING, IOMMU_HW_CAP_DIRTY_TRACKING);
  t.equal(new DataView(room.buffer).getUint32(4, true), IOMMU_HW_INFO_SELFTEST_REGVAL);
  t.same([...room.subarray(8)], Array(8).fill(0), 'the rest is cleared');
  room.fill(0xff);
  t.equal(info({ data_len: 4 }).out.data_len, 8);
  t.same([...room.subarray(4, 8)], [255, 255, 255, 255], 'no more than there is room for');
  t.equal(info({ data_len: 8, data_uptr: 0n }).result, -EFAULT);
  t.equal(info({ data_len: 0, data_uptr: 0n }).result, 0);
  t.equal(info({ flags: 2 }).result, -EOPNOTSUPP);
  t.equal(info({ flags: IOMMU_HW_INFO_FLAG_INPUT_TYPE, in_data_type: 1 }).result, -EOPNOTSUPP);
  t.equal(info({ __reserved: [0, 0, 1] }).result, -EOPNOTSUPP);
  t.equal(info({ dev_id: ioasId }).result, -ENOENT);
  t.end();
});

t.test('page tables that user mode asks for', t => {
  const { iommufd } = open();
  const device = new TestDevice('a', new IommuGroup(1));
  const bound = bind(iommufd, device);
  const ioasId = iommufd.newIoas();
  const alloc = (input: StructInput<typeof IOMMU_HWPT_ALLOC.argument>) =>
    iommufd.result(IOMMU_HWPT_ALLOC, { dev_id: bound.id, pt_id: ioasId, ...input });
  t.equal(alloc({ __reserved: 1 }), -EOPNOTSUPP);
  t.equal(alloc({ data_len: 4 }), -EINVAL);
  t.equal(alloc({ data_type: 1 }), -EINVAL);
  t.equal(alloc({ dev_id: 99 }), -ENOENT);
  t.equal(alloc({ pt_id: 99 }), -EINVAL);
  t.equal(alloc({ pt_id: bound.id }), -EINVAL);
  t.equal(alloc({ flags: 1 << 7 }), -EOPNOTSUPP);
  t.equal(alloc({ flags: IOMMU_HWPT_ALLOC_DIRTY_TRACKING }), -EOPNOTSUPP, 'the device cannot');
  t.equal(alloc({ flags: IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_NEST_PARENT }), -EOPNOTSUPP);
  t.equal(alloc({ flags: IOMMU_HWPT_FAULT_ID_VALID, fault_id: 99 }), -ENOENT);
  t.equal(iommufd.ioas(ioasId).hwpts.length, 0);
  const parent = iommufd.call(IOMMU_HWPT_ALLOC, {
    dev_id: bound.id,
    pt_id: ioasId,
    flags: IOMMU_HWPT_ALLOC_NEST_PARENT,
  });
  t.equal(parent.result, 0);
  const { out_hwpt_id: pt_id } = parent.out;
  t.equal(alloc({ pt_id, data_type: 0 }), -EOPNOTSUPP, 'a nested table needs data');
  const nested = iommufd.call(IOMMU_HWPT_ALLOC, { dev_id: bound.id, pt_id, data_type: 1, data_len: 8 });
  t.equal(nested.result, 0);
  t.equal(iommufd.result(IOMMU_DESTROY, { id: pt_id }), -EBUSY);
  t.equal(iommufd.result(IOMMU_DESTROY, { id: nested.out.out_hwpt_id }), 0);
  t.equal(bound.attach(NO_PASID, pt_id).ptId, pt_id);
  t.equal(iommufd.result(IOMMU_DESTROY, { id: pt_id }), -EBUSY);
  bound.detach(NO_PASID);
  t.ok(iommufd.context.get(pt_id), 'what was asked for stays');
  t.equal(iommufd.result(IOMMU_DESTROY, { id: pt_id }), 0);
  bound.unbind();
  t.end();
});

t.test('page faults are read in groups and answered by cookie', t => {
  const { iommufd } = open();
  const { process } = iommufd;
  const device = new TestDevice('a', new IommuGroup(1));
  device.maxPasids = 16;
  const bound = bind(iommufd, device);
  const queue = iommufd.call(IOMMU_FAULT_QUEUE_ALLOC, {}).out;
  const fd = queue.out_fault_fd;
  const pt_id = iommufd.newIoas();
  const { out } = iommufd.call(IOMMU_HWPT_ALLOC, {
    flags: IOMMU_HWPT_FAULT_ID_VALID,
    dev_id: bound.id,
    pt_id,
    fault_id: queue.out_fault_id,
  });
  const fault = (group: number, last: boolean, pasid = NO_PASID) =>
    reportFault(device, { group, last, pasid, permissions: 2, address: BigInt(group) << 12n });
  const read = (count: number) => {
    const bytes = new Uint8Array(new ArrayBuffer(count * iommu_hwpt_pgfault.size));
    const result = process.read(fd, bytes);
    const done = Math.max(result, 0) / iommu_hwpt_pgfault.size;
    return { result, faults: decodeList(new DataView(bytes.buffer), iommu_hwpt_pgfault, done) };
  };
  const answer = (cookie: number, code: number) => {
    const { bytes, view } = iommu_hwpt_page_response.allocate();
    iommu_hwpt_page_response.encode(view, { cookie, code });
    return process.write(fd, bytes);
  };
  t.equal(fault(1, true), -EINVAL, 'nobody takes it');
  t.equal(device.responses.pop()?.code, IOMMUFD_PAGE_RESP_INVALID);
  bound.attach(NO_PASID, out.out_hwpt_id);
  t.equal(read(1).result, 0, 'nothing there: not even EAGAIN');
  t.not(read(1).result, -EAGAIN);
  t.equal(process.file(fd)?.readable, false);
  fault(1, false);
  fault(2, false);
  t.equal(process.file(fd)?.readable, false, 'a group without its last fault');
  fault(1, true);
  fault(2, true);
  t.equal(process.file(fd)?.readable, true);
  t.equal(process.read(fd, new Uint8Array(41)), -ESPIPE);
  t.equal(read(1).result, -EINVAL, 'no room for the group');
  const { result, faults } = read(3);
  t.equal(result, 2 * iommu_hwpt_pgfault.size, 'only whole groups');
  t.match(faults, [
    { flags: 0, dev_id: bound.id, pasid: 0, grpid: 1, perm: 2, addr: 0x1000n, cookie: 1 },
    { flags: IOMMU_PGFAULT_FLAGS_LAST_PAGE, grpid: 1, cookie: 1 },
  ]);
  t.equal(read(2).faults[0]?.cookie, 2);
  t.equal(answer(7, IOMMUFD_PAGE_RESP_SUCCESS), -EINVAL);
  t.equal(answer(1, 7), -EINVAL);
  t.equal(answer(1, IOMMUFD_PAGE_RESP_SUCCESS), iommu_hwpt_page_response.size);
  t.equal(device.responses.pop()?.code, IOMMUFD_PAGE_RESP_SUCCESS);
  t.equal(answer(1, IOMMUFD_PAGE_RESP_SUCCESS), -EINVAL, 'once');
  fault(3, true);
  t.equal(read(1).faults[0]?.cookie, 1, 'the lowest cookie that is free');

  // One not read and two not answered: detaching refuses them all.
  fault(4, true);
  device.responses.length = 0;
  bound.detach(NO_PASID);
  t.same(
    device.responses.map(each => [each.fault.group, each.code]),
    [4, 3, 2].map(group => [group, IOMMUFD_PAGE_RESP_INVALID]),
  );
  t.equal(read(1).result, 0);
  t.equal(answer(2, IOMMUFD_PAGE_RESP_SUCCESS), -EINVAL);
  t.equal(
    iommufd.result(IOMMU_DESTROY, { id: queue.out_fault_id }),
    -EBUSY,
    'the table and the descriptor use it',
  );
  iommufd.result(IOMMU_DESTROY, { id: out.out_hwpt_id });
  t.equal(iommufd.result(IOMMU_DESTROY, { id: queue.out_fault_id }), -EBUSY);
  process.close(fd);
  t.equal(iommufd.result(IOMMU_DESTROY, { id: queue.out_fault_id }), 0);
  bound.unbind();
  t.end();
});

t.test('faults of a PASID say so', t => {
  const { iommufd } = open();
  const { process } = iommufd;
  const device = new TestDevice('a', new IommuGroup(1));
  device.maxPasids = 16;
  const bound = bind(iommufd, device);
  const queue = iommufd.call(IOMMU_FAULT_QUEUE_ALLOC, {}).out;
  const { out } = iommufd.call(IOMMU_HWPT_ALLOC, {
    flags: IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID,
    dev_id: bound.id,
    pt_id: iommufd.newIoas(),
    fault_id: queue.out_fault_id,
  });
  bound.attach(3, out.out_hwpt_id);
  reportFault(device, { group: 9, last: true, pasid: 3, permissions: 1, address: 0n });
  const { bytes, view } = iommu_hwpt_pgfault.allocate();
  t.equal(process.read(queue.out_fault_fd, bytes), iommu_hwpt_pgfault.size);
  t.match(iommu_hwpt_pgfault.decode(view), {
    flags: IOMMU_PGFAULT_FLAGS_LAST_PAGE | IOMMU_PGFAULT_FLAGS_PASID_VALID,
    pasid: 3,
  });
  bound.detach(3);
  bound.unbind();
  t.end();
});

t.test('bits of a bitmap', t => {
  const { iommufd } = open();
  const { process } = iommufd;
  const address = iommufd.memory(2);
  const bytes = () => process.memory.read(address, 2 * PAGE) as Uint8Array;
  const bitmap = (at: bigint, pages: bigint) =>
    new IovaBitmap(process, { iova: 0x10_0000n, length: pages * page, pageSize: page, address: at });
  bitmap(address, 16n).set(0x10_3000n, page * 3n);
  t.same([...bytes().subarray(0, 2)], [0b0011_1000, 0]);
  bytes().fill(0);
  bitmap(address + 3n, 64n).set(0x10_0000n, page * 64n);
  t.same([...bytes().subarray(2, 12)], [0, 255, 255, 255, 255, 255, 255, 255, 255, 0], 'at any address');
  bytes().fill(0);
  bitmap(address, 16n).set(0xf_f000n, page * 4n);
  t.notOk(bytes().includes(1), 'what begins before the bitmap is not in it');
  bitmap(address, 4n).set(0x10_2000n, page * 4n);
  t.equal(bytes()[0], 0b0011_1100, 'what ends after it overflows into what is pinned');
  bytes().fill(0);
  const across = bitmap(address + BigInt(PAGE) - 1n, 16n);
  across.set(0x10_0000n, page * 16n);
  t.same([...bytes().subarray(PAGE - 2, PAGE + 2)], [0, 255, 255, 0]);
  bitmap(0x1234n, 16n).set(0x10_0000n, page);
  t.pass('nobody hears of a bitmap that is not there');
  t.end();
});

t.test('the page table of mock domains', t => {
  const table = new MockPageTable();
  const rw = Protection.Read | Protection.Write;
  const MiB = 2n ** 20n;
  t.equal(table.map(MiB, 4n * MiB, MiB + 2048n, rw, PAGE_SIZES), 0);
  t.equal(table.translate(MiB + 5n), 4n * MiB + 5n);
  t.equal(table.translate(2n * MiB), 5n * MiB);
  t.equal(table.translate(2n * MiB + 2048n), undefined);
  t.equal(table.map(2n * MiB - 2048n, 0n, 4096n, rw, PAGE_SIZES), -98, 'EADDRINUSE');
  t.equal(table.unmap(MiB + 2048n, 2048n), 0n, 'the middle of a page');
  t.equal(table.unmap(MiB, 2048n), MiB, 'a page goes as a whole');
  t.equal(table.unmap(MiB, 2n * MiB), 0n, 'up to the first hole');
  t.equal(table.unmap(2n * MiB, MiB), 2048n);

  // The largest pages that both addresses allow.
  t.equal(table.map(2n * MiB, MiB + 8192n, MiB, rw, PAGE_SIZES), 0);
  t.equal(table.unmap(2n * MiB, 2048n), 8192n);
  t.equal(table.unmap(2n * MiB + 8192n, MiB), MiB - 8192n);
  t.equal(table.map(0n, 0n, 2048n, rw, 0x10_1000n), -6, 'ENXIO: none is small enough');
  t.equal(table.map(0n, 0n, 2048n, 0, PAGE_SIZES), -EINVAL);

  t.equal(table.map(0n, 0n, 8192n, rw, PAGE_SIZES), 0);
  t.equal(table.setDirty(6000n), 0);
  t.equal(table.setDirty(8192n), -ENOENT);
  const marks: [bigint, bigint][] = [];
  table.readDirty(2048n, 2048n, true, (iova, length) => marks.push([iova, length]));
  table.readDirty(0n, 16384n, false, (iova, length) => marks.push([iova, length]));
  table.readDirty(0n, 16384n, false, (iova, length) => marks.push([iova, length]));
  t.same(marks, [
    [0n, 8192n],
    [0n, 8192n],
  ]);
  t.end();
});

t.test('what a mock device writes', t => {
  const { iommufd } = open();
  const { process } = iommufd;
  const ioas_id = iommufd.newIoas();
  const mock = testCall(iommufd, IOMMU_TEST_OP_MOCK_DOMAIN, iommu_test_cmd_mock_domain, { id: ioas_id }).out;
  const { out } = iommufd.call(IOMMU_HWPT_ALLOC, {
    flags: IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
    dev_id: mock.out_idev_id,
    pt_id: ioas_id,
  });
  const id = out.out_hwpt_id;
  const iova = BigInt(MOCK_APERTURE_START);
  const user_va = iommufd.memory(4);
  iommufd.result(IOMMU_IOAS_MAP, { ioas_id, flags: 7, user_va, length: page * 4n, iova });
  const check = { id, iova, length: page * 4n, uptr: user_va };
  t.equal(testCall(iommufd, IOMMU_TEST_OP_MD_CHECK_MAP, iommu_test_cmd_check_map, check).result, 0);
  const wrong = { ...check, uptr: user_va + 2048n };
  t.equal(testCall(iommufd, IOMMU_TEST_OP_MD_CHECK_MAP, iommu_test_cmd_check_map, wrong).result, -EINVAL);
  const bits = new Uint8Array(new ArrayBuffer(8)).fill(0);
  bits[0] = 0b0100;
  const dirty = { id, iova, length: page * 4n, page_size: page, uptr: process.addressOf(bits) };
  t.equal(testCall(iommufd, IOMMU_TEST_OP_DIRTY, iommu_test_cmd_dirty, dirty).result, -EINVAL, 'not enabled');
  t.equal(iommufd.result(IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id: id, flags: 2 }), -EOPNOTSUPP);
  t.equal(
    iommufd.result(IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id: mock.out_hwpt_id, flags: 1 }),
    -EOPNOTSUPP,
  );
  t.equal(iommufd.result(IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id: id, flags: 1 }), 0);
  const made = testCall(iommufd, IOMMU_TEST_OP_DIRTY, iommu_test_cmd_dirty, dirty);
  t.equal(made.result, 0);
  t.equal(made.out.out_nr_dirty, 1n);
  bits.fill(0);
  const read = { hwpt_id: id, iova, length: page * 4n, page_size: page, data: process.addressOf(bits) };
  t.equal(iommufd.result(IOMMU_HWPT_GET_DIRTY_BITMAP, { ...read, flags: 1 }), 0);
  t.equal(bits[0], 0b0100);
  bits.fill(0);
  t.equal(iommufd.result(IOMMU_HWPT_GET_DIRTY_BITMAP, read), 0);
  t.equal(bits[0], 0b0100, 'it was kept');
  bits.fill(0);
  t.equal(iommufd.result(IOMMU_HWPT_GET_DIRTY_BITMAP, read), 0);
  t.equal(bits[0], 0, 'and then forgotten');
  t.equal(iommufd.result(IOMMU_HWPT_GET_DIRTY_BITMAP, { ...read, flags: 2 }), -EOPNOTSUPP);
  t.equal(iommufd.result(IOMMU_HWPT_GET_DIRTY_BITMAP, { ...read, page_size: 0n }), -EINVAL);
  t.equal(iommufd.result(IOMMU_HWPT_GET_DIRTY_BITMAP, { ...read, length: 0n }), -EINVAL);
  t.equal(iommufd.result(IOMMU_HWPT_GET_DIRTY_BITMAP, { ...read, page_size: 8n * page }), -EINVAL);
  t.equal(
    iommufd.result(IOMMU_HWPT_GET_DIRTY_BITMAP, { ...read, iova: iova - page }),
    0,
    'a hole is passed over',
  );
  t.end();
});

t.test('the aperture of a mock domain is what can be mapped', t => {
  const { iommufd } = open();
  const ioas_id = iommufd.newIoas();
  testCall(iommufd, IOMMU_TEST_OP_MOCK_DOMAIN, iommu_test_cmd_mock_domain, { id: ioas_id });
  const ranges = new Uint8Array(new ArrayBuffer(64));
  const { result, out } = iommufd.call(IOMMU_IOAS_IOVA_RANGES, {
    ioas_id,
    num_iovas: 4,
    allowed_iovas: iommufd.process.addressOf(ranges),
  });
  t.equal(result, 0);
  t.equal(out.num_iovas, 1);
  t.equal(out.out_iova_alignment, 2048n);
  t.equal(new DataView(ranges.buffer).getBigUint64(0, true), BigInt(MOCK_APERTURE_START));
  t.end();
});
