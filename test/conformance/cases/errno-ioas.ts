/** Rows 31 to 56 of the errno table: unmapping, copying, IOVA ranges, options. @module */
import {
  EADDRINUSE,
  EBUSY,
  EINVAL,
  EMSGSIZE,
  ENOENT,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
} from '../../../bindings/uapi/errno.js';
import {
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
  iommu_iova_range,
} from '../../../bindings/uapi/iommufd.js';
import {
  IOMMU_HW_QUEUE_TYPE_SELFTEST,
  MOCK_APERTURE_LAST,
  MOCK_APERTURE_START,
} from '../../../bindings/uapi/iommufd-test.js';
import { decodeList, encodeList } from '../../../bindings/uapi/struct.js';
import type { Case } from '../support/case.js';
import { iommufdRows } from '../support/errno-cases.js';
import { equal, refused } from '../support/expect.js';
import { PAGE } from '../support/memory.js';
import type { IovaRange } from '../support/vfio.js';
import type { ViommuFixture } from '../support/viommu.js';

const U64_MAX = 2n ** 64n - 1n;
const pageSize = BigInt(PAGE);
/** Far from the rest, and aligned to everything. */
const base = 1n << 30n;

const areas = (iommu: ViommuFixture, ioas: number, count: number): void => {
  for (let i = 0n; i < count; i++) iommu.map(ioas, iommu.buffer.address, 2 * PAGE, base + i * 2n * pageSize);
};

function copy(
  iommu: ViommuFixture,
  ioas: number,
  src_iova: bigint,
  length: bigint,
  flags = IOMMU_IOAS_MAP_READABLE,
): number {
  const values = { src_ioas_id: ioas, dst_ioas_id: ioas, src_iova, length, dst_iova: 2n * base };
  return iommu.call(IOMMU_IOAS_COPY, { ...values, flags: flags | IOMMU_IOAS_MAP_FIXED_IOVA }).result;
}

function allow(iommu: ViommuFixture, ioas_id: number, ranges: readonly IovaRange[], __reserved = 0): number {
  const list = iommu.point(Math.max(1, ranges.length) * iommu_iova_range.size);
  encodeList(list.view, iommu_iova_range, ranges);
  const values = { ioas_id, num_iovas: ranges.length, allowed_iovas: list.address, __reserved };
  return iommu.call(IOMMU_IOAS_ALLOW_IOVAS, values).result;
}

const set = (iommu: ViommuFixture, option_id: number, object_id: number, val64: bigint): number =>
  iommu.call(IOMMU_OPTION, { option_id, op: IOMMU_OPTION_OP_SET, object_id, val64 }).result;

export const cases: readonly Case[] = iommufdRows([
  [
    31,
    'UNMAP where nothing is',
    iommu => {
      const ioas = iommu.allocIoas();
      for (let i = 0n; i < 10n; i++) {
        refused(iommu.tryUnmap(ioas, base + i * pageSize, PAGE).result, ENOENT, `page ${i}`);
      }
    },
  ],
  [
    32,
    'UNMAP of a part of an area',
    iommu => {
      const ioas = iommu.allocIoas();
      areas(iommu, ioas, 1);
      refused(iommu.tryUnmap(ioas, base, PAGE).result, ENOENT, 'the first half');
      refused(iommu.tryUnmap(ioas, base + pageSize, PAGE).result, ENOENT, 'the second half');
      equal(iommu.unmap(ioas, base, 2 * PAGE), 2n * pageSize, 'all of it');
    },
  ],
  [
    33,
    'UNMAP that cuts one of several areas',
    iommu => {
      const ioas = iommu.allocIoas();
      areas(iommu, ioas, 4);
      const all = 8n * pageSize;
      refused(iommu.tryUnmap(ioas, base + pageSize, all - pageSize).result, ENOENT, 'the first');
      refused(iommu.tryUnmap(ioas, base, all - pageSize).result, ENOENT, 'the last');
    },
  ],
  [
    34,
    'UNMAP of more than the areas',
    iommu => {
      const ioas = iommu.allocIoas();
      areas(iommu, ioas, 4);
      equal(iommu.unmap(ioas, base - pageSize, 16n * pageSize), 8n * pageSize, 'bytes');
    },
  ],
  [
    35,
    'UNMAP of everything',
    iommu => {
      const ioas = iommu.allocIoas();
      equal(iommu.unmap(ioas, 0n, U64_MAX), 0n, 'of nothing');
      areas(iommu, ioas, 4);
      equal(iommu.unmap(ioas, 0n, U64_MAX), 8n * pageSize, 'of four areas');
      equal(iommu.unmap(ioas, 0n, U64_MAX), 0n, 'once more');
    },
  ],
  [
    36,
    'UNMAP of length 0',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(iommu.tryUnmap(ioas, base, 0).result, EINVAL, 'where nothing is');
      areas(iommu, ioas, 1);
      refused(iommu.tryUnmap(ioas, base, 0).result, EINVAL, 'where something is');
      refused(iommu.tryUnmap(0, base, 0).result, ENOENT, 'in no IOAS');
    },
  ],
  [
    37,
    'UNMAP over the end of the addresses',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(iommu.tryUnmap(ioas, U64_MAX - pageSize + 1n, 2 * PAGE).result, EOVERFLOW, 'over the end');
      refused(iommu.tryUnmap(ioas, U64_MAX, 1).result, EOVERFLOW, 'IOVA 2^64 - 1');
      refused(iommu.tryUnmap(ioas, 1n, U64_MAX).result, EOVERFLOW, 'length 2^64 - 1, not from 0 on');
      refused(iommu.tryUnmap(ioas, U64_MAX - pageSize + 1n, PAGE).result, ENOENT, 'to the very end');
    },
  ],
  [
    38,
    'UNMAP of a hardware queue',
    iommu => {
      const ioas = iommu.allocIoas();
      const { id, deviceId } = iommu.mockDevice(ioas);
      const parent = iommu.allocHwpt(deviceId, ioas, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT });
      const viommu = iommu.allocViommu(deviceId, parent);
      const iova = iommu.map(ioas, iommu.buffer.address, PAGE);
      const queue = iommu.allocHwQueue(viommu, IOMMU_HW_QUEUE_TYPE_SELFTEST, 0, iova, PAGE);
      refused(iommu.tryUnmap(ioas, iova, PAGE).result, EBUSY, 'the queue');
      refused(iommu.tryUnmap(ioas, 0n, U64_MAX).result, EBUSY, 'everything');
      iommu.destroy(queue);
      equal(iommu.unmap(ioas, iova, PAGE), pageSize, 'without the queue');
      for (const each of [viommu, parent, id]) iommu.destroy(each);
    },
  ],
  [
    39,
    'UNMAP while another call maps or unmaps',
    'two calls would have to be inside the kernel at the same moment',
  ],
  [
    40,
    'COPY of what is not mapped',
    iommu => {
      const ioas = iommu.allocIoas();
      areas(iommu, ioas, 1);
      refused(copy(iommu, ioas, base - pageSize, pageSize), ENOENT, 'before');
      refused(copy(iommu, ioas, base - 1n, 2n), ENOENT, 'over the start');
      refused(copy(iommu, ioas, base + pageSize, 2n * pageSize), ENOENT, 'over the end');
      refused(copy(iommu, ioas, base + 2n * pageSize, 1n), ENOENT, 'after');
      refused(copy(iommu, 0, base, pageSize), ENOENT, 'in no IOAS');
      equal(copy(iommu, ioas, base, pageSize), 0, 'the first half');
    },
  ],
  [
    41,
    'COPY for writing of what is read-only',
    iommu => {
      const ioas = iommu.allocIoas();
      iommu.map(ioas, iommu.buffer.address, PAGE, base, IOMMU_IOAS_MAP_READABLE);
      refused(copy(iommu, ioas, base, pageSize, IOMMU_IOAS_MAP_WRITEABLE), EPERM, 'writeable');
      equal(copy(iommu, ioas, base, pageSize), 0, 'readable');
    },
  ],
  [
    42,
    'COPY of length 0',
    iommu => {
      const ioas = iommu.allocIoas();
      areas(iommu, ioas, 1);
      refused(copy(iommu, ioas, base, 0n), EINVAL, 'of what is mapped');
      refused(copy(iommu, ioas, base, pageSize, 0), EINVAL, 'neither readable nor writeable');
      refused(copy(iommu, ioas, base, pageSize, 8), EOPNOTSUPP, 'unknown flags');
      refused(copy(iommu, ioas, U64_MAX, pageSize), EOVERFLOW, 'from IOVA 2^64 - 1');
      refused(copy(iommu, ioas, base, U64_MAX), EOVERFLOW, 'of length 2^64 - 1');
    },
  ],
  [
    43,
    'IOVA_RANGES into too small a buffer',
    iommu => {
      const ioas_id = iommu.allocIoas();
      equal(iommu.tryAddReserved(ioas_id, base, pageSize), 0, 'reserve');
      const list = iommu.point(3 * iommu_iova_range.size);
      const ask = (num_iovas: number) => {
        list.bytes.fill(0xee);
        const values = { ioas_id, num_iovas, allowed_iovas: list.address };
        const answer = iommu.call(IOMMU_IOAS_IOVA_RANGES, values);
        equal(answer.values.num_iovas, 2, `ranges, with room for ${num_iovas}`);
        return { ...answer, ranges: decodeList(list.view, iommu_iova_range, 3) };
      };
      const untouched = 0xeeee_eeee_eeee_eeeen;
      const none = ask(0);
      refused(none.result, EMSGSIZE, 'no room');
      equal(none.ranges[0]?.start, untouched, 'nothing is written');
      const one = ask(1);
      refused(one.result, EMSGSIZE, 'room for one');
      equal(one.ranges[0]?.last, base - 1n, 'the first');
      equal(one.ranges[1]?.start, untouched, 'the second is not written');
      const all = ask(3);
      equal(all.result, 0, 'room for three');
      equal(all.ranges[1]?.start, base + pageSize, 'the second');
      equal(all.ranges[1]?.last, U64_MAX, 'its end');
      equal(all.ranges[2]?.start, untouched, 'there is no third');
    },
  ],
  [
    44,
    'IOVA_RANGES with reserved bytes',
    iommu => {
      const ioas_id = iommu.allocIoas();
      const values = { ioas_id, __reserved: 1 };
      refused(iommu.call(IOMMU_IOAS_IOVA_RANGES, values).result, EOPNOTSUPP, '__reserved');
      refused(iommu.call(IOMMU_IOAS_IOVA_RANGES, { ioas_id: 0 }).result, ENOENT, 'in no IOAS');
    },
  ],
  [
    45,
    'ALLOW_IOVAS over a reserved one',
    iommu => {
      const ioas = iommu.allocIoas();
      equal(iommu.tryAddReserved(ioas, base, pageSize), 0, 'reserve');
      refused(allow(iommu, ioas, [{ start: base, last: base + 1n }]), EADDRINUSE, 'inside');
      refused(allow(iommu, ioas, [{ start: 0n, last: base }]), EADDRINUSE, 'over its start');
      equal(allow(iommu, ioas, [{ start: 0n, last: base - 1n }]), 0, 'before it');
    },
  ],
  [
    46,
    'ALLOW_IOVAS with ranges that are none',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(allow(iommu, ioas, [{ start: 10n, last: 9n }]), EINVAL, 'backwards');
      refused(allow(iommu, ioas, [{ start: 10n, last: 10n }]), EINVAL, 'of one byte');
      const first = { start: 0n, last: 100n };
      refused(allow(iommu, ioas, [first, { start: 100n, last: 200n }]), EINVAL, 'that overlap');
      refused(allow(iommu, ioas, [first], 1), EOPNOTSUPP, '__reserved');
      refused(allow(iommu, 0, [first]), ENOENT, 'in no IOAS');
      equal(allow(iommu, ioas, [first, { start: 101n, last: 200n }]), 0, 'that touch');
      equal(allow(iommu, ioas, []), 0, 'none at all');
    },
  ],
  [
    47,
    'reserving what is allowed',
    iommu => {
      const ioas = iommu.allocIoas();
      equal(allow(iommu, ioas, [{ start: base, last: base + 2n * pageSize - 1n }]), 0, 'allow');
      refused(iommu.tryAddReserved(ioas, base + pageSize, pageSize), EADDRINUSE, 'reserve');
      const other = iommu.allocIoas();
      equal(allow(iommu, other, [{ start: 0n, last: pageSize }]), 0, 'allow what a mock device cannot reach');
      refused(iommu.tryMockDevice(other).result, EADDRINUSE, 'attach');
      const fits = iommu.allocIoas();
      const aperture = { start: BigInt(MOCK_APERTURE_START), last: BigInt(MOCK_APERTURE_LAST) };
      equal(allow(iommu, fits, [aperture]), 0, 'allow what it can reach');
      iommu.destroy(iommu.mockDevice(fits).id);
      iommu.map(other, iommu.buffer.address, PAGE, 0n);
      equal(allow(iommu, other, []), 0, 'allow nothing in particular');
      refused(iommu.tryMockDevice(other).result, EADDRINUSE, 'attach where something is mapped out of reach');
    },
  ],
  [
    48,
    'OPTION RLIMIT_MODE to 2',
    iommu => {
      refused(set(iommu, IOMMU_OPTION_RLIMIT_MODE, 0, 2n), EINVAL, '2');
      equal(set(iommu, IOMMU_OPTION_RLIMIT_MODE, 0, 1n), 0, '1');
      const get = { option_id: IOMMU_OPTION_RLIMIT_MODE, op: IOMMU_OPTION_OP_GET };
      equal(iommu.call(IOMMU_OPTION, get).values.val64, 1n, 'what it is');
      refused(iommu.call(IOMMU_OPTION, { ...get, object_id: 1 }).result, EOPNOTSUPP, 'of an object');
      refused(iommu.call(IOMMU_OPTION, { ...get, op: 2 }).result, EOPNOTSUPP, 'an unknown operation');
      refused(iommu.call(IOMMU_OPTION, { ...get, __reserved: 1 }).result, EOPNOTSUPP, '__reserved');
      equal(set(iommu, IOMMU_OPTION_RLIMIT_MODE, 0, 0n), 0, '0');
    },
  ],
  [
    49,
    'OPTION RLIMIT_MODE without CAP_SYS_RESOURCE',
    iommu => {
      using _dropped = iommu.host.dropCapability('CAP_SYS_RESOURCE');
      refused(set(iommu, IOMMU_OPTION_RLIMIT_MODE, 0, 1n), EPERM, 'set');
      refused(set(iommu, IOMMU_OPTION_RLIMIT_MODE, 0, 2n), EPERM, 'set to 2');
      const get = { option_id: IOMMU_OPTION_RLIMIT_MODE, op: IOMMU_OPTION_OP_GET };
      equal(iommu.call(IOMMU_OPTION, get).result, 0, 'get');
    },
  ],
  [
    50,
    'OPTION RLIMIT_MODE once there are objects',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(set(iommu, IOMMU_OPTION_RLIMIT_MODE, 0, 1n), EBUSY, 'with an IOAS');
      refused(set(iommu, IOMMU_OPTION_RLIMIT_MODE, 0, 2n), EBUSY, 'with an IOAS, to 2');
      iommu.destroy(ioas);
      equal(set(iommu, IOMMU_OPTION_RLIMIT_MODE, 0, 1n), 0, 'without');
    },
  ],
  [
    51,
    'OPTION HUGE_PAGES of nothing',
    iommu => {
      refused(set(iommu, IOMMU_OPTION_HUGE_PAGES, 0, 1n), ENOENT, 'set');
      const get = { option_id: IOMMU_OPTION_HUGE_PAGES, op: IOMMU_OPTION_OP_GET };
      refused(iommu.call(IOMMU_OPTION, get).result, ENOENT, 'get');
    },
  ],
  [
    52,
    'OPTION HUGE_PAGES to 2',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(set(iommu, IOMMU_OPTION_HUGE_PAGES, ioas, 2n), EINVAL, '2');
      equal(set(iommu, IOMMU_OPTION_HUGE_PAGES, ioas, 0n), 0, '0');
      equal(set(iommu, IOMMU_OPTION_HUGE_PAGES, ioas, 1n), 0, '1');
      const unknown = { option_id: IOMMU_OPTION_HUGE_PAGES, op: 2, object_id: ioas };
      refused(iommu.call(IOMMU_OPTION, unknown).result, EOPNOTSUPP, 'an unknown operation');
    },
  ],
  [
    53,
    'OPTION HUGE_PAGES off over a misaligned mapping',
    iommu => {
      const ioas = iommu.allocIoas();
      iommu.map(ioas, iommu.buffer.address + 8n, PAGE, base + 8n);
      refused(set(iommu, IOMMU_OPTION_HUGE_PAGES, ioas, 0n), EADDRINUSE, 'misaligned');
      iommu.unmap(ioas, base + 8n, PAGE);
      equal(set(iommu, IOMMU_OPTION_HUGE_PAGES, ioas, 0n), 0, 'without it');
      equal(set(iommu, IOMMU_OPTION_HUGE_PAGES, ioas, 1n), 0, 'on again');
      const { id } = iommu.mockDevice(ioas);
      equal(set(iommu, IOMMU_OPTION_HUGE_PAGES, ioas, 0n), 0, 'with a device and no mapping');
      equal(set(iommu, IOMMU_OPTION_HUGE_PAGES, ioas, 1n), 0, 'on again');
      iommu.map(ioas, iommu.buffer.address, PAGE);
      refused(set(iommu, IOMMU_OPTION_HUGE_PAGES, ioas, 0n), EINVAL, 'with a device and a mapping');
      iommu.destroy(id);
    },
  ],
  [
    54,
    'OPTION unknown',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(set(iommu, 2, ioas, 0n), EOPNOTSUPP, '2');
      refused(set(iommu, 0xffff, 0, 0n), EOPNOTSUPP, '0xffff');
    },
  ],
  [
    55,
    'CHANGE_PROCESS with anonymous memory',
    iommu => {
      const change = (): number => iommu.call(IOMMU_IOAS_CHANGE_PROCESS, {}).result;
      const ioas = iommu.allocIoas();
      equal(change(), 0, 'nothing');
      iommu.mapFile(ioas, iommu.file.fd, 0, PAGE);
      equal(change(), 0, 'a file');
      const iova = iommu.map(ioas, iommu.buffer.address, PAGE);
      refused(change(), EINVAL, 'anonymous memory');
      iommu.unmap(ioas, iova, PAGE);
      const dmabuf = iommu.createDmabuf(PAGE);
      iommu.mapFile(ioas, dmabuf, 0, PAGE);
      refused(change(), EINVAL, 'a dma-buf');
      iommu.kernel.close(dmabuf);
    },
  ],
  [
    56,
    'CHANGE_PROCESS with reserved bytes',
    iommu => {
      refused(iommu.call(IOMMU_IOAS_CHANGE_PROCESS, { __reserved: 1 }).result, EOPNOTSUPP, '__reserved');
    },
  ],
]);
