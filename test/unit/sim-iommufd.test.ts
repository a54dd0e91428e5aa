// The simulated iommufd, below devices: address spaces, what they answer, and whose memory is pinned and charged.
// What is expected is what Linux 7.3 does.
import t from 'tap';
import {
  E2BIG,
  EADDRINUSE,
  EBADF,
  EBUSY,
  EEXIST,
  EFAULT,
  EINVAL,
  EMSGSIZE,
  ENODEV,
  ENOENT,
  ENOMEM,
  ENOSPC,
  ENOTTY,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
} from '../../bindings/uapi/errno.js';
import {
  IOMMU_DESTROY,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_NOIOMMU_GET_PA,
  IOMMU_IOAS_UNMAP,
  IOMMU_OPTION,
} from '../../bindings/uapi/iommufd.js';
import { MFD_HUGETLB } from '../../bindings/uapi/memfd.js';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../bindings/uapi/mman.js';
import { IommufdAccess } from '../../src/sim/iommufd/access.js';
import { AccessFlag } from '../../src/sim/iommufd/pages.js';
import { PAGE } from '../../src/sim/machine/physical-memory.js';
import { Capability } from '../../src/sim/process/process.js';
import { Iommufd, machine, page, TestDmaBuf, TestDomain, U64_MAX } from './support/sim-iommufd.js';

const FIXED = 1;
const WRITE = 2;
const READ = 4;
const RW = READ | WRITE;

t.test('a struct may be older or newer than the kernel', t => {
  const { newProcess } = machine();
  const iommufd = new Iommufd(newProcess());
  const { process, fd } = iommufd;
  const call = (bytes: Uint8Array | number) => process.ioctl(fd, IOMMU_IOAS_ALLOC.number, bytes);
  const sized = (size: number, length = size) => {
    const bytes = new Uint8Array(length);
    new DataView(bytes.buffer).setUint32(0, size, true);
    return bytes;
  };
  t.equal(call(sized(4, 12)), -EINVAL);
  t.equal(call(sized(12)), 0);
  t.equal(call(sized(5000)), 0, 'a zero tail');
  const newer = sized(5000);
  newer[4999] = 1;
  t.equal(call(newer), -E2BIG);
  t.equal(call(sized(5000, 100)), -EFAULT, 'the tail is not there');
  t.equal(call(sized(12, 8)), -EFAULT);
  t.equal(call(0), -EFAULT);
  t.equal(call(0x1234_5000), -EFAULT);
  const address = iommufd.memory(1);
  process.memory.write(address, sized(12));
  t.equal(call(Number(address)), 0, 'a pointer as a number');
  t.equal((process.memory.read(address + 8n, 4) as Uint8Array)[0], 3, 'the answer is behind it');
  t.equal(process.ioctl(fd, 0x3ba1, sized(12)), -ENOTTY);
  t.equal(process.ioctl(fd, 0x3b96, sized(12)), -ENOTTY);
  t.equal(process.ioctl(fd, 0x3b96, 0), -EFAULT);
  t.equal(process.ioctl(fd, 0x3c81, sized(12)), -ENOTTY, 'of another type');
  t.end();
});

t.test('ids are the smallest that are free', t => {
  const { newProcess } = machine();
  const iommufd = new Iommufd(newProcess());
  t.same(
    [1, 2, 3].map(() => iommufd.newIoas()),
    [1, 2, 3],
  );
  t.equal(iommufd.result(IOMMU_DESTROY, { id: 2 }), 0);
  t.equal(iommufd.result(IOMMU_DESTROY, { id: 2 }), -ENOENT);
  t.equal(iommufd.result(IOMMU_DESTROY, { id: 0 }), -ENOENT);
  t.equal(iommufd.result(IOMMU_IOAS_ALLOC, { flags: 1 }), -EOPNOTSUPP);
  t.equal(iommufd.newIoas(), 2);
  t.equal(iommufd.newIoas(), 4);
  const [object] = iommufd.context.objects();
  if (object !== undefined) object.users++;
  t.equal(iommufd.result(IOMMU_DESTROY, { id: 1 }), -EBUSY);
  if (object !== undefined) object.users--;
  t.end();
});

t.test('where mappings can be', t => {
  const { newProcess } = machine();
  const iommufd = new Iommufd(newProcess());
  const ioas_id = iommufd.newIoas();
  const user_va = iommufd.memory(64);
  const map = (more: object) =>
    iommufd.result(IOMMU_IOAS_MAP, { ioas_id, flags: RW | FIXED, user_va, length: page, iova: 0n, ...more });
  t.equal(map({ flags: 8 | RW }), -EOPNOTSUPP);
  t.equal(map({ __reserved: 1 }), -EOPNOTSUPP);
  t.equal(map({ flags: FIXED }), -EINVAL);
  t.equal(map({ ioas_id: 99 }), -ENOENT);
  t.equal(map({ length: 0n }), -EINVAL);
  t.equal(map({ length: U64_MAX }), -EOVERFLOW);
  t.equal(map({ iova: U64_MAX }), -EOVERFLOW);
  t.equal(map({ iova: U64_MAX - 100n }), -EOVERFLOW);
  t.equal(map({ user_va: U64_MAX - 100n }), -EOVERFLOW);
  t.equal(map({ length: U64_MAX - 100n, user_va: 0n }), -EINVAL, 'longer than pages can be');
  t.equal(map({ iova: 16n * page, length: 4n * page }), 0);
  for (const [first, pages] of [
    [16n, 4n],
    [15n, 2n],
    [19n, 2n],
    [17n, 1n],
    [10n, 20n],
  ] as const) {
    t.equal(map({ iova: first * page, length: pages * page }), -EEXIST);
  }
  const unmap = (iova: bigint, length: bigint) => iommufd.call(IOMMU_IOAS_UNMAP, { ioas_id, iova, length });
  t.equal(unmap(0n, page).result, -ENOENT);
  t.equal(unmap(17n * page, page).result, -ENOENT);
  t.equal(unmap(0n, 0n).result, -EINVAL);
  t.equal(unmap(U64_MAX - 1n, page).result, -EOVERFLOW);
  t.equal(unmap(U64_MAX, page).result, -EOVERFLOW);
  t.equal(map({ iova: 30n * page, length: page }), 0);
  t.same(unmap(16n * page, 15n * page), {
    result: 0,
    out: { size: 24, ioas_id, iova: 16n * page, length: 5n * page },
  });
  t.same(unmap(0n, U64_MAX).result, 0);

  t.equal(map({ iova: page }), 0);
  t.equal(map({ iova: 3n * page, length: 2n * page }), 0);
  t.equal(unmap(page, 3n * page).result, -ENOENT, 'cut at the end');
  t.equal(map({ iova: page }), 0, 'what came before is gone all the same');
  t.equal(unmap(0n, U64_MAX).out.length, 3n * page);

  const huge = 2n ** 62n;
  t.equal(map({ iova: page, length: huge, user_va: 0n }), 0, 'nobody looks at memory without a domain');
  t.equal(unmap(0n, U64_MAX).out.length, huge);
  t.end();
});

t.test('IOVAs that the kernel chooses', t => {
  const { newProcess } = machine();
  const iommufd = new Iommufd(newProcess());
  const ioas_id = iommufd.newIoas();
  const { process } = iommufd;
  const map = (user_va: bigint, length: bigint) => {
    const { result, out } = iommufd.call(IOMMU_IOAS_MAP, { ioas_id, flags: RW, user_va, length });
    return result < 0 ? result : out.iova;
  };
  const M2 = 2n ** 21n;
  t.equal(map(0x10_0000_0000n, page), page, 'never the first page');
  t.equal(map(0x10_0000_0000n, page), 2n * page);
  t.equal(map(0x10_0000_0000n, 2n * page), 4n * page, 'aligned to its length');
  t.equal(map(0x10_0000_1000n, 4n * page), 6n * page, 'to no more than the memory is');
  t.equal(map(0x10_0000_0000n, 8n * M2), M2, 'to no more than a huge page');
  t.equal(map(0n, 3n * page), 12n * page, 'no memory at all is aligned to everything');
  t.equal(map(0x10_0000_0123n, 10n), 0x3123n, 'the offset within the page stays');
  t.equal(map(0n, U64_MAX / 2n), -EOVERFLOW);
  t.equal(map(0n, 2n ** 62n), 10n * M2 - M2, 'after everything else');

  const ranges = process.addressOf(new Uint8Array(new ArrayBuffer(PAGE)));
  const allow = (list: readonly (readonly [bigint, bigint])[], more = {}) => {
    const bytes = new BigUint64Array(list.flat());
    process.memory.write(ranges, new Uint8Array(bytes.buffer));
    const input = { ioas_id, num_iovas: list.length, allowed_iovas: ranges, ...more };
    return iommufd.result(IOMMU_IOAS_ALLOW_IOVAS, input);
  };
  t.equal(allow([[1n, 1n]]), -EINVAL);
  t.equal(
    allow([
      [1n, 10n],
      [10n, 20n],
    ]),
    -EINVAL,
  );
  t.equal(allow([[1n, 10n]], { __reserved: 1 }), -EOPNOTSUPP);
  t.equal(allow([[1n, 10n]], { ioas_id: 77 }), -ENOENT);
  t.equal(allow([[1n, 10n]], { allowed_iovas: 8n }), -EFAULT);
  t.equal(
    allow([
      [2n ** 63n, 2n ** 63n + 8191n],
      [2n ** 63n + 8192n, 2n ** 63n + 12287n],
    ]),
    0,
  );
  t.equal(map(0x10_0000_1000n, 3n * page), 2n ** 63n, 'ranges that touch are one');
  t.equal(map(0n, page), -ENOSPC);
  t.equal(allow([]), 0);
  t.end();
});

t.test('IOVAs that are reserved', t => {
  const { newProcess } = machine();
  const iommufd = new Iommufd(newProcess());
  const ioas_id = iommufd.newIoas();
  const table = iommufd.table(ioas_id);
  const owner = {};
  const { process } = iommufd;
  const room = process.addressOf(new Uint8Array(new ArrayBuffer(PAGE)));
  const ranges = (num_iovas: number) => {
    const { result, out } = iommufd.call(IOMMU_IOAS_IOVA_RANGES, { ioas_id, num_iovas, allowed_iovas: room });
    const bytes = process.memory.read(room, 48) as Uint8Array;
    return {
      result,
      count: out.num_iovas,
      alignment: out.out_iova_alignment,
      list: [...new BigUint64Array(bytes.slice().buffer)],
    };
  };
  t.match(ranges(3), { result: 0, count: 1, alignment: 1n, list: [0n, U64_MAX] });
  t.equal(table.reserveIova(page, 2n * page - 1n, owner), 0);
  t.equal(table.reserveIova(page, 3n * page - 1n, owner), 0, 'they may overlap');
  t.match(ranges(3), { result: 0, count: 2, list: [0n, page - 1n, 3n * page, U64_MAX] });
  t.match(ranges(1), { result: -EMSGSIZE, count: 2 });
  t.match(ranges(0), { result: -EMSGSIZE, count: 2 });
  t.equal(iommufd.result(IOMMU_IOAS_IOVA_RANGES, { ioas_id, __reserved: 1 }), -EOPNOTSUPP);
  t.equal(iommufd.result(IOMMU_IOAS_IOVA_RANGES, { ioas_id, num_iovas: 1, allowed_iovas: 5n }), -EFAULT);
  const user_va = iommufd.memory(1);
  const flags = RW | FIXED;
  t.equal(iommufd.result(IOMMU_IOAS_MAP, { ioas_id, flags, user_va, length: page, iova: page }), -EINVAL);
  const chosen = iommufd.call(IOMMU_IOAS_MAP, { ioas_id, flags: RW, user_va, length: page });
  t.equal(chosen.out.iova, 3n * page);
  t.equal(table.reserveIova(3n * page, 4n * page, owner), -EADDRINUSE, 'something is mapped');
  t.equal(table.setAllowIova([{ first: 0n, last: page }]), -EADDRINUSE);
  t.equal(table.setAllowIova([{ first: 10n * page, last: 11n * page }]), 0);
  t.equal(table.reserveIova(11n * page, 12n * page, owner), -EADDRINUSE, 'something must stay usable');
  table.removeReservedIova(owner);
  t.match(ranges(3), { result: 0, count: 1 });
  t.end();
});

t.test('a domain has everything, and memory is pinned once', t => {
  const { newProcess, physical } = machine();
  const iommufd = new Iommufd(newProcess());
  const { process } = iommufd;
  const ioas_id = iommufd.newIoas();
  const other = iommufd.newIoas();
  const user_va = iommufd.memory(4);
  const flags = RW | FIXED;
  t.equal(iommufd.result(IOMMU_IOAS_MAP, { ioas_id, flags, user_va, length: 4n * page, iova: page }), 0);
  t.equal(physical.pinnedPages, 0, 'nothing is pinned without a domain');
  const first = new TestDomain();
  const second = new TestDomain();
  t.equal(iommufd.table(ioas_id).addDomain(first), 0);
  t.equal(iommufd.table(ioas_id).addDomain(first), -EEXIST);
  t.equal(physical.pinnedPages, 4);
  t.equal(process.pinnedPages, 4, 'VmPin');
  t.equal(first.mapped, 4n * page);
  t.equal(iommufd.table(ioas_id).iovaAlignment, page);
  t.equal(iommufd.table(ioas_id).addDomain(second), 0);
  const copy = { dst_ioas_id: other, src_ioas_id: ioas_id, flags, length: 2n * page, src_iova: 2n * page };
  t.equal(iommufd.result(IOMMU_IOAS_COPY, copy), 0);
  t.equal(iommufd.result(IOMMU_IOAS_COPY, { ...copy, length: 0n }), -EINVAL);
  t.equal(iommufd.result(IOMMU_IOAS_COPY, { ...copy, length: 4n * page }), -ENOENT, 'only three are mapped');
  t.equal(iommufd.result(IOMMU_IOAS_COPY, { ...copy, dst_ioas_id: 99 }), -ENOENT);
  t.equal(iommufd.result(IOMMU_IOAS_COPY, { ...copy, length: U64_MAX }), -EOVERFLOW);
  const third = new TestDomain();
  t.equal(iommufd.table(other).addDomain(third), 0);
  t.equal(third.translate(0n), first.translate(2n * page));
  t.equal(process.pinnedPages, 4);
  t.equal(physical.pins(Number((third.translate(0n) as bigint) / page)), 1, 'once, for three domains');

  iommufd.table(ioas_id).removeDomain(first);
  t.equal(first.mapped, 0n);
  t.equal(second.mapped, 4n * page);
  t.equal(physical.pinnedPages, 4);
  iommufd.table(ioas_id).removeDomain(second);
  t.equal(physical.pinnedPages, 2, 'what the copy needs');
  t.equal(iommufd.result(IOMMU_IOAS_UNMAP, { ioas_id: other, iova: 0n, length: U64_MAX }), 0);
  t.equal(physical.pinnedPages, 0);
  t.equal(process.pinnedPages, 0);
  iommufd.table(other).removeDomain(third);

  const readOnly = iommufd.newIoas();
  t.equal(
    iommufd.result(IOMMU_IOAS_MAP, {
      ioas_id: readOnly,
      flags: READ | FIXED,
      user_va,
      length: page,
      iova: 0n,
    }),
    0,
  );
  const writeable = { dst_ioas_id: other, src_ioas_id: readOnly, flags, length: page };
  t.equal(iommufd.result(IOMMU_IOAS_COPY, writeable), -EPERM);
  t.equal(process.close(iommufd.fd), 0);
  t.equal(process.pinnedPages, 0);
  t.end();
});

t.test('memory that cannot be mapped', t => {
  const { newProcess, physical } = machine();
  const iommufd = new Iommufd(newProcess());
  const { process } = iommufd;
  const ioas_id = iommufd.newIoas();
  const domain = new TestDomain();
  const table = iommufd.table(ioas_id);
  table.addDomain(domain);
  const map = (user_va: bigint, pages = 1n, flags = RW) =>
    iommufd.result(IOMMU_IOAS_MAP, { ioas_id, flags, user_va, length: pages * page });
  const memory = iommufd.memory(2);
  t.equal(map(page), -EFAULT);
  t.equal(map(memory, 3n), -EFAULT, 'less memory than that');
  t.equal(map(U64_MAX - 2n * page + 1n), -EFAULT);
  t.equal(physical.pinnedPages, 0);
  t.equal(domain.mapped, 0n);
  const readOnly = iommufd.memory(1, PROT_READ);
  t.equal(map(readOnly), -EFAULT);
  t.equal(map(readOnly, 1n, READ), 0);
  domain.patience = 0;
  t.equal(map(memory), -ENOMEM, 'the domain fails');
  t.equal(physical.pinnedPages, 1);
  domain.patience = 10;
  t.equal(map(memory + 10n), -EINVAL, 'not aligned as the domain wants');
  const device = process.memory.map({
    length: PAGE,
    memory: (process.memory.find(memory) as never as { memory: never }).memory,
    offset: 0,
    writeable: true,
    shared: true,
    device: true,
    unmapped: undefined,
  });
  t.equal(map(device), -EFAULT, "a device's memory");

  table.removeDomain(domain);
  t.equal(physical.pinnedPages, 0);
  t.equal(map(page), 0, 'nobody has looked yet');
  t.equal(table.addDomain(new TestDomain()), -EFAULT);
  t.equal(table.domains.length, 0);
  t.equal(physical.pinnedPages, 0);
  t.end();
});

t.test('alignment', t => {
  const { newProcess } = machine();
  const iommufd = new Iommufd(newProcess());
  const ioas_id = iommufd.newIoas();
  const table = iommufd.table(ioas_id);
  const user_va = iommufd.memory(4);
  const flags = RW | FIXED;
  const map = (iova: bigint, length: bigint, at = user_va) =>
    iommufd.result(IOMMU_IOAS_MAP, { ioas_id, flags, user_va: at, length, iova });
  const option = (op: number, val64: bigint, more = {}) =>
    iommufd.call(IOMMU_OPTION, { option_id: 1, op, object_id: ioas_id, val64, ...more });
  t.equal(map(100n, 5n), 0, 'any byte will do');
  t.equal(table.addDomain(new TestDomain()), -EADDRINUSE);
  t.equal(option(0, 0n).result, -EADDRINUSE);
  t.equal(option(1, 7n).out.val64, 1n);
  iommufd.result(IOMMU_IOAS_UNMAP, { ioas_id, iova: 0n, length: U64_MAX });
  t.equal(table.addDomain(new TestDomain({ pageSizes: 2n ** 13n })), -EINVAL, 'pages larger than ours');
  const half = new TestDomain({ pageSizes: 2048n });
  t.equal(table.addDomain(half), 0);
  t.equal(table.iovaAlignment, 2048n);
  t.equal(map(2048n, 4096n, user_va + 2048n), 0);
  t.same(half.maps.map(({ iova, length }) => [iova, length]).at(0)?.[0], 2048n);
  t.equal(half.mapped, 4096n);
  t.equal(
    half.translate(2048n + 2048n),
    (half.maps.at(-1) as { address: bigint }).address + (half.maps.length === 1 ? 2048n : 0n),
  );
  t.equal(map(8192n, 2048n, U64_MAX - 4095n), -EOVERFLOW, 'the very last page');
  t.equal(map(8192n + 1n, 4096n), -EINVAL);
  t.equal(map(8192n, 4095n), -EINVAL);
  t.equal(map(8192n, 4096n, user_va + 1n), -EINVAL);
  t.equal(option(0, 0n).result, -EINVAL, 'something is in a domain');
  iommufd.result(IOMMU_IOAS_UNMAP, { ioas_id, iova: 0n, length: U64_MAX });
  t.equal(option(0, 0n).result, 0);
  t.equal(option(1, 7n).out.val64, 0n);
  t.equal(table.iovaAlignment, page);
  half.maps.length = 0;
  t.equal(map(8192n, 4n * page), 0);
  t.same(
    half.maps.map(({ length }) => length),
    [page, page, page, page],
    'page by page',
  );
  t.equal(option(0, 2n).result, -EINVAL);
  t.equal(option(2, 0n).result, -EOPNOTSUPP);
  t.equal(option(1, 0n, { object_id: 0 }).result, -ENOENT);
  t.equal(option(1, 0n, { option_id: 5 }).result, -EOPNOTSUPP);
  t.equal(option(1, 0n, { __reserved: 1 }).result, -EOPNOTSUPP);
  t.equal(option(0, 1n).result, 0);
  t.end();
});

t.test('who is charged, and how much', t => {
  const { newProcess, physical } = machine();
  const user = { lockedPages: 0 };
  const capabilities = [Capability.SysResource];
  const process = newProcess({ user, capabilities, memlockLimit: 4 * PAGE });
  const iommufd = new Iommufd(process);
  const rlimit = (op: number, val64: bigint) =>
    iommufd.call(IOMMU_OPTION, { option_id: 0, op, object_id: 0, val64 });
  t.equal(rlimit(1, 9n).out.val64, 0n);
  t.equal(rlimit(0, 2n).result, -EINVAL);
  t.equal(iommufd.result(IOMMU_OPTION, { option_id: 0, op: 1, object_id: 1 }), -EOPNOTSUPP);
  process.capabilities.delete(Capability.SysResource);
  t.equal(rlimit(0, 1n).result, -EPERM);
  process.capabilities.add(Capability.SysResource);

  const ioas_id = iommufd.newIoas();
  t.equal(rlimit(0, 1n).result, -EBUSY);
  const table = iommufd.table(ioas_id);
  table.addDomain(new TestDomain());
  const user_va = iommufd.memory(8);
  const map = (pages: bigint, on = iommufd, id = ioas_id) =>
    on.call(IOMMU_IOAS_MAP, { ioas_id: id, flags: RW, user_va, length: pages * page });
  t.equal(map(5n).result, -ENOMEM);
  t.equal(physical.pinnedPages, 0);
  t.equal(map(3n).result, 0);
  t.equal(map(3n).result, -ENOMEM, 'the same memory again is charged again');
  t.equal(user.lockedPages, 3);
  t.equal(process.pinnedPages, 3);
  t.equal(process.lockedPages, 0);
  iommufd.result(IOMMU_IOAS_UNMAP, { ioas_id, iova: 0n, length: U64_MAX });
  t.equal(user.lockedPages, 0);
  t.equal(process.pinnedPages, 0);

  const strict = new Iommufd(process);
  const set = strict.call(IOMMU_OPTION, { option_id: 0, op: 0, object_id: 0, val64: 1n });
  t.equal(set.result, 0);
  const id = strict.newIoas();
  strict.table(id).addDomain(new TestDomain());
  t.equal(map(4n, strict, id).result, 0);
  t.equal(map(1n, strict, id).result, -ENOMEM);
  t.same([user.lockedPages, process.lockedPages, process.pinnedPages], [0, 4, 4], 'VmLck');
  process.capabilities.add(Capability.IpcLock);
  t.equal(map(8n, strict, id).result, 0, 'CAP_IPC_LOCK');
  t.same([user.lockedPages, process.lockedPages, process.pinnedPages], [0, 4, 12]);
  process.close(strict.fd);
  t.same([user.lockedPages, process.lockedPages, process.pinnedPages], [0, 0, 0]);
  t.end();
});

t.test('another process takes over', t => {
  const { newProcess, physical } = machine();
  const before = newProcess({ capabilities: [], memlockLimit: 10 * PAGE });
  const after = newProcess({ capabilities: [], memlockLimit: 3 * PAGE });
  const iommufd = new Iommufd(before);
  const ioas_id = iommufd.newIoas();
  const fd = before.memfdCreate('memory', 0);
  before.ftruncate(fd, 4 * PAGE);
  iommufd.table(ioas_id).addDomain(new TestDomain());
  const map = { ioas_id, flags: RW, fd, length: 4n * page };
  t.equal(iommufd.result(IOMMU_IOAS_MAP_FILE, map), 0);
  const taken = new Iommufd(after, before.share(iommufd.fd, after));
  t.equal(taken.result(IOMMU_IOAS_CHANGE_PROCESS, { __reserved: 1 }), -EOPNOTSUPP);
  t.equal(taken.result(IOMMU_IOAS_CHANGE_PROCESS, {}), -ENOMEM, 'more than it may lock');
  t.same([before.user.lockedPages, before.pinnedPages, after.pinnedPages], [4, 4, 0]);
  t.equal(iommufd.result(IOMMU_IOAS_CHANGE_PROCESS, {}), 0, 'to the same process');
  before.memlockLimit = 0;
  t.equal(iommufd.result(IOMMU_IOAS_CHANGE_PROCESS, {}), 0, 'which is charged for nothing more');
  after.memlockLimit = 4 * PAGE;
  t.equal(taken.result(IOMMU_IOAS_CHANGE_PROCESS, {}), 0);
  t.same([before.user.lockedPages, before.pinnedPages], [0, 0]);
  t.same([after.user.lockedPages, after.pinnedPages], [4, 4]);
  before.exit();
  t.equal(physical.pinnedPages, 4);
  t.equal(taken.result(IOMMU_IOAS_UNMAP, { ioas_id, iova: 0n, length: U64_MAX }), 0);
  t.same([after.user.lockedPages, after.pinnedPages], [0, 0]);
  const user_va = taken.memory(1);
  t.equal(taken.result(IOMMU_IOAS_MAP, { ioas_id, flags: RW, user_va, length: page }), 0);
  t.equal(taken.result(IOMMU_IOAS_CHANGE_PROCESS, {}), -EINVAL, 'memory that is no file');
  t.end();
});

t.test('files', t => {
  const { newProcess, physical } = machine();
  const iommufd = new Iommufd(newProcess());
  const { process } = iommufd;
  const ioas_id = iommufd.newIoas();
  const fd = process.memfdCreate('memory', 0);
  process.ftruncate(fd, 4 * PAGE);
  const table = iommufd.table(ioas_id);
  const domain = new TestDomain();
  table.addDomain(domain);
  const map = (more: object) =>
    iommufd.call(IOMMU_IOAS_MAP_FILE, { ioas_id, flags: RW, fd, start: 0n, length: page, ...more });
  t.equal(map({ length: 0n }).result, -EINVAL);
  t.equal(map({ fd: 99 }).result, -EBADF);
  t.equal(map({ fd: -1 }).result, -EBADF);
  t.equal(map({ fd: iommufd.fd }).result, -EINVAL, 'no memfd');
  t.equal(map({ start: U64_MAX, length: 2n }).result, -EOVERFLOW);
  t.equal(map({ start: 3n * page, length: 2n * page }).result, -EINVAL, 'past the end');
  t.equal(map({ flags: 0 }).result, -EINVAL);
  t.equal(map({ flags: 64 }).result, -EOPNOTSUPP);
  const { result, out } = map({ start: page, length: 3n * page });
  t.equal(result, 0);
  const view = process.mmap(4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  process.memory.write(view + page, Uint8Array.of(7));
  const seen = new Uint8Array(1);
  physical.read(domain.translate(out.iova) as bigint, seen);
  t.equal(seen[0], 7, 'the very memory of the file');
  process.close(fd);
  t.equal(physical.pinnedPages, 3);
  process.ftruncate(fd, PAGE);
  t.equal(iommufd.result(IOMMU_IOAS_UNMAP, { ioas_id, iova: 0n, length: U64_MAX }), 0);

  const lazy = iommufd.newIoas();
  t.equal(map({ ioas_id: lazy, fd: iommufd.fd }).result, 0, 'nobody looks at the file without a domain');
  t.equal(iommufd.table(lazy).addDomain(new TestDomain()), -EINVAL);
  iommufd.result(IOMMU_DESTROY, { id: lazy });

  const huge = process.memfdCreate('huge', MFD_HUGETLB);
  process.ftruncate(huge, 2 ** 21);
  domain.maps.length = 0;
  t.equal(map({ fd: huge, length: 2n ** 21n }).result, 0);
  t.equal(domain.maps.length, 1, 'a huge page in one piece');
  t.equal(iommufd.result(IOMMU_IOAS_UNMAP, { ioas_id, iova: 0n, length: U64_MAX }), 0);
  t.equal(physical.pinnedPages, 0);
  t.end();
});

t.test('memory of devices', t => {
  const { newProcess, physical } = machine();
  const iommufd = new Iommufd(newProcess());
  const { process } = iommufd;
  const ioas_id = iommufd.newIoas();
  const table = iommufd.table(ioas_id);
  const domain = new TestDomain();
  table.addDomain(domain);
  const buffer = new TestDmaBuf({ address: 0xfe00_0000n, length: 8 * PAGE });
  const fd = process.install(buffer);
  const map = (more: object) =>
    iommufd.call(IOMMU_IOAS_MAP_FILE, { ioas_id, flags: RW, fd, start: 0n, length: page, ...more });
  t.equal(map({ length: 9n * page }).result, -EINVAL);
  t.equal(map({ start: 8n * page }).result, -EINVAL);
  const { result, out } = map({ start: page, length: 7n * page });
  t.equal(result, 0);
  t.same(domain.maps, [{ iova: out.iova, address: 0xfe00_1000n, length: 7n * page, protection: 3 }]);
  t.equal(physical.pinnedPages, 0, 'it is not pinned');
  t.equal(iommufd.result(IOMMU_IOAS_CHANGE_PROCESS, {}), -EINVAL);
  const second = new TestDomain();
  t.equal(table.addDomain(second), 0);
  buffer.revoke();
  t.equal(domain.mapped + second.mapped, 0n);
  t.equal(map({}).result, -ENODEV);
  const third = new TestDomain();
  t.equal(table.addDomain(third), 0);
  t.equal(third.mapped, 0n);
  for (const each of [domain, second, third]) table.removeDomain(each);
  t.equal(iommufd.result(IOMMU_IOAS_UNMAP, { ioas_id, iova: 0n, length: U64_MAX }), 0);
  t.equal(buffer.references, 1);
  t.end();
});

t.test('access by the kernel', t => {
  const { newProcess, physical } = machine();
  const iommufd = new Iommufd(newProcess());
  const { process, context } = iommufd;
  const ioas_id = iommufd.newIoas();
  const pinned: [bigint, bigint][] = [];
  const access: IommufdAccess = IommufdAccess.create(context, {
    needsPinPages: true,
    unmap(iova, length) {
      for (const [at, bytes] of pinned.splice(0)) {
        t.ok(at < iova + length && at + bytes > iova);
        access.unpinPages(at, bytes);
      }
    },
  });
  t.equal(access.id, 2);
  t.same(access.pinPages(0n, page, AccessFlag.Read), -ENOENT, 'not attached');
  t.equal(access.attach(99), -ENOENT);
  t.equal(access.replace(ioas_id), -ENOENT);
  t.equal(access.attach(ioas_id), 0);
  t.equal(access.attach(ioas_id), -EINVAL);
  t.equal(iommufd.result(IOMMU_DESTROY, { id: ioas_id }), -EBUSY);
  t.equal(iommufd.result(IOMMU_DESTROY, { id: access.id }), -EBUSY);
  t.equal(iommufd.table(ioas_id).iovaAlignment, page);
  const user_va = iommufd.memory(4);
  const flags = RW | FIXED;
  iommufd.result(IOMMU_IOAS_MAP, { ioas_id, flags, user_va, length: 2n * page, iova: page });
  iommufd.result(IOMMU_IOAS_MAP, {
    ioas_id,
    flags: READ | FIXED,
    user_va: user_va + 2n * page,
    length: page,
    iova: 3n * page,
  });
  t.equal(access.pinPages(page, 0n, 0), -EINVAL);
  t.equal(access.pinPages(U64_MAX, page, 0), -EOVERFLOW);
  t.equal(access.pinPages(page, 4n * page, 0), -ENOENT);
  t.equal(access.pinPages(page, 3n * page, AccessFlag.Write), -EPERM);
  t.equal(access.pinPages(page + 1n, page, 0), -EINVAL);
  t.equal(physical.pinnedPages, 0);
  const frames = access.pinPages(page, 3n * page, AccessFlag.Read);
  pinned.push([page, 3n * page]);
  t.equal((frames as number[]).length, 3);
  t.equal(physical.pinnedPages, 3);
  t.equal(process.pinnedPages, 3);
  const domain = new TestDomain();
  iommufd.table(ioas_id).addDomain(domain);
  t.equal(domain.translate(page), BigInt((frames as number[])[0] as number) * page, 'the same pages');
  iommufd.table(ioas_id).removeDomain(domain);
  t.equal(physical.pinnedPages, 3);

  const data = Uint8Array.of(1, 2, 3, 4);
  for (const way of [0, AccessFlag.SlowPath, AccessFlag.KernelThread]) {
    t.equal(access.copy(process, 2n * page - 2n, data, AccessFlag.Write | way), 0);
    const back = new Uint8Array(4);
    t.equal(access.copy(process, 2n * page - 2n, back, way), 0);
    t.same(back, data);
  }
  t.same(process.memory.read(user_va + page - 2n, 4), data);
  t.equal(access.copy(process, 3n * page - 2n, data, AccessFlag.Write), -EPERM);
  t.equal(access.copy(process, 4n * page - 2n, data, 0), -ENOENT);

  const unmapped = iommufd.call(IOMMU_IOAS_UNMAP, { ioas_id, iova: 0n, length: U64_MAX });
  t.equal(unmapped.out.length, 3n * page, 'whoever has them lets go first');
  t.equal(physical.pinnedPages, 0);
  t.equal(process.pinnedPages, 0);

  iommufd.result(IOMMU_IOAS_MAP, { ioas_id, flags, user_va, length: page, iova: page });
  const internal = IommufdAccess.createInternal(context);
  t.equal(internal.attachInternal(iommufd.ioas(ioas_id)), 0);
  t.equal((internal.pinPages(page, page, AccessFlag.Write) as number[]).length, 1);
  t.equal(iommufd.result(IOMMU_IOAS_UNMAP, { ioas_id, iova: page, length: page }), -EBUSY);
  internal.unpinPages(page, page);
  t.equal(iommufd.result(IOMMU_IOAS_UNMAP, { ioas_id, iova: page, length: page }), 0);
  context.destroyUser(internal);
  const other = iommufd.newIoas();
  t.equal(access.replace(other), 0);
  t.equal(iommufd.result(IOMMU_DESTROY, { id: ioas_id }), 0);
  process.close(iommufd.fd);
  t.ok(context.get(other), 'the access keeps the context');
  context.destroyUser(access);
  t.notOk(context.get(other));
  t.end();
});

t.test('what is destroyed while it is used stays', t => {
  const { newProcess } = machine();
  const iommufd = new Iommufd(newProcess());
  const { context } = iommufd;
  const access = IommufdAccess.createInternal(context);
  access.users++;
  context.destroyUser(access);
  t.equal(context.get(access.id), access, 'Linux warns');
  access.users--;
  t.equal(iommufd.result(IOMMU_DESTROY, { id: access.id }), 0);
  const other = IommufdAccess.createInternal(context);
  context.tombstone(other);
  t.equal(iommufd.newIoas(), 2, 'its id is not used again');
  t.end();
});

t.test('memory of a process that has ended', t => {
  const { newProcess } = machine();
  const owner = newProcess();
  const heir = newProcess();
  const iommufd = new Iommufd(owner);
  const ioas_id = iommufd.newIoas();
  const user_va = iommufd.memory(1);
  iommufd.result(IOMMU_IOAS_MAP, { ioas_id, flags: RW, user_va, length: page });
  const taken = new Iommufd(heir, owner.share(iommufd.fd, heir));
  owner.exit();
  t.equal(taken.table(ioas_id).addDomain(new TestDomain()), -EFAULT);
  t.end();
});

t.test('physical addresses', t => {
  const { newProcess } = machine({ longestRun: Number.POSITIVE_INFINITY });
  const iommufd = new Iommufd(newProcess());
  const { process } = iommufd;
  const ioas_id = iommufd.newIoas();
  const table = iommufd.table(ioas_id);
  const user_va = iommufd.memory(4);
  const { out } = iommufd.call(IOMMU_IOAS_MAP, { ioas_id, flags: RW, user_va, length: 4n * page });
  const ask = (iova: bigint, length: bigint, more = {}) =>
    iommufd.call(IOMMU_IOAS_NOIOMMU_GET_PA, { ioas_id, iova, length, ...more });
  t.equal(ask(out.iova, page).result, -EOPNOTSUPP, 'no domain');
  const domain = new TestDomain({ driver: 'noiommu' });
  table.addDomain(domain);
  const address = domain.translate(out.iova);
  t.match(ask(out.iova, U64_MAX), { result: 0, out: { out_phys: address, length: 4n * page } });
  t.match(ask(out.iova + 10n, 2n * page), { result: 0, out: { length: 2n * page } });
  t.match(ask(out.iova + 10n, U64_MAX), { result: 0, out: { length: 4n * page - 10n } });
  t.match(ask(out.iova, 5n), { result: 0, out: { out_phys: address, length: 5n } });
  t.equal(ask(out.iova, 0n).result, -EINVAL);
  t.equal(ask(U64_MAX, page).result, -EOVERFLOW);
  t.equal(ask(0n, page).result, -ENOENT);
  t.equal(ask(out.iova, page, { flags: 1 }).result, -EOPNOTSUPP);
  process.capabilities.delete(Capability.SysRawio);
  t.equal(ask(out.iova, page, { flags: 1 }).result, -EPERM);
  t.end();
});
