/** Rows 11 to 30 of the errno table: mapping memory and files. @module */
import {
  EBADF,
  EEXIST,
  EFAULT,
  EINVAL,
  ENODEV,
  ENOENT,
  ENOMEM,
  ENOSPC,
  EOPNOTSUPP,
  EOVERFLOW,
} from '../../../bindings/uapi/errno.js';
import {
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_SET,
} from '../../../bindings/uapi/iommufd.js';
import {
  iommu_viommu_selftest,
  MOCK_APERTURE_START,
  MOCK_PAGE_SIZE,
} from '../../../bindings/uapi/iommufd-test.js';
import {
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE,
} from '../../../bindings/uapi/mman.js';
import type { Case } from '../support/case.js';
import { iommufdRows } from '../support/errno-cases.js';
import { equal, holds, refused, succeeds } from '../support/expect.js';
import { memfd, PAGE } from '../support/memory.js';
import type { ViommuFixture } from '../support/viommu.js';

const O_RDWR = 2;
/** Makes dma-bufs that are of no use to iommufd. */
const HEAP = '/dev/dma_heap/system';

const U64_MAX = 2n ** 64n - 1n;
const pageSize = BigInt(PAGE);
const start = BigInt(MOCK_APERTURE_START);
const READ_WRITE = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;

/** The request with everything right, but for `wrong`. */
function map(iommu: ViommuFixture, ioas_id: number, wrong: Parameters<typeof mapping>[1]): number {
  return iommu.call(IOMMU_IOAS_MAP, mapping(iommu, { ioas_id, ...wrong })).result;
}

interface Mapping {
  readonly flags?: number;
  readonly ioas_id?: number;
  readonly __reserved?: number;
  readonly user_va?: bigint;
  readonly length?: bigint;
  readonly iova?: bigint;
}

const mapping = (iommu: ViommuFixture, given: Mapping): Mapping => ({
  flags: READ_WRITE | (given.iova === undefined ? 0 : IOMMU_IOAS_MAP_FIXED_IOVA),
  user_va: iommu.buffer.address,
  length: pageSize,
  ...given,
});

/** An address where nothing is mapped. */
function hole({ kernel }: ViommuFixture): bigint {
  const address = kernel.mmap(PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
  equal(kernel.munmap(address, PAGE), 0, 'munmap');
  return address;
}

export const cases: readonly Case[] = iommufdRows([
  [
    11,
    'MAP over what is mapped',
    iommu => {
      const ioas = iommu.allocIoas();
      const area = 4n * pageSize;
      const iova = 16n * pageSize;
      iommu.map(ioas, iommu.buffer.address, 4 * PAGE, iova);
      const overlapping = [
        { title: 'the same', at: iova, length: area },
        { title: 'its start', at: iova - pageSize, length: 2n * pageSize },
        { title: 'its end', at: iova + area - pageSize, length: 2n * pageSize },
        { title: 'its inside', at: iova + pageSize, length: pageSize },
        { title: 'all of it and more', at: iova - pageSize, length: area + 2n * pageSize },
      ];
      for (const { title, at, length } of overlapping) {
        refused(map(iommu, ioas, { iova: at, length }), EEXIST, title);
      }
      iommu.map(ioas, iommu.buffer.address, PAGE, iova - pageSize);
      iommu.map(ioas, iommu.buffer.address, PAGE, iova + area);
    },
  ],
  [
    12,
    'MAP at a reserved IOVA',
    iommu => {
      const ioas = iommu.allocIoas();
      equal(iommu.tryAddReserved(ioas, 16n * pageSize, pageSize), 0, 'reserve');
      refused(map(iommu, ioas, { iova: 16n * pageSize }), EINVAL, 'the very range');
      refused(map(iommu, ioas, { iova: 15n * pageSize, length: 2n * pageSize }), EINVAL, 'over its start');
      equal(map(iommu, ioas, { iova: 15n * pageSize }), 0, 'before it');
      const other = iommu.allocIoas();
      const mock = iommu.mockDevice(other);
      refused(map(iommu, other, { iova: start - pageSize }), EINVAL, 'before the aperture');
      refused(map(iommu, other, { iova: 2n ** 31n }), EINVAL, 'after the aperture');
      iommu.destroy(mock.id);
    },
  ],
  [
    13,
    'MAP at a misaligned IOVA',
    iommu => {
      const ioas = iommu.allocIoas();
      equal(map(iommu, ioas, { iova: 1n, user_va: iommu.buffer.address + 1n }), 0, 'any, without a device');
      const other = iommu.allocIoas();
      const { id } = iommu.mockDevice(other);
      refused(map(iommu, other, { iova: start + 1n }), EINVAL, 'by 1');
      refused(map(iommu, other, { iova: start + BigInt(MOCK_PAGE_SIZE / 2) }), EINVAL, 'by half a page');
      equal(map(iommu, other, { iova: start + BigInt(MOCK_PAGE_SIZE) }), 0, 'by a page of the device');
      iommu.destroy(id);
    },
  ],
  [
    14,
    'MAP of a length that is no number of pages, or 0',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(map(iommu, ioas, { length: 0n }), EINVAL, '0');
      refused(map(iommu, ioas, { length: 0n, iova: 0n }), EINVAL, '0, at a fixed IOVA');
      equal(map(iommu, ioas, { length: 1n }), 0, '1, without a device');
      const other = iommu.allocIoas();
      const { id } = iommu.mockDevice(other);
      for (const length of [0n, 1n, 2047n, 2049n, 4097n]) {
        refused(map(iommu, other, { length }), EINVAL, `${length}`);
      }
      equal(map(iommu, other, { length: 2048n }), 0, '2048');
      iommu.destroy(id);
    },
  ],
  [
    15,
    'MAP of a misaligned address',
    iommu => {
      const ioas = iommu.allocIoas();
      const option = {
        option_id: IOMMU_OPTION_HUGE_PAGES,
        op: IOMMU_OPTION_OP_SET,
        object_id: ioas,
        val64: 0n,
      };
      equal(iommu.call(IOMMU_OPTION, option).result, 0, 'no huge pages');
      const { address } = iommu.buffer;
      for (const user_va of [address + 1n, address + 2048n, address + 4095n]) {
        refused(map(iommu, ioas, { user_va }), EINVAL, `by ${user_va - address}`);
        refused(map(iommu, ioas, { user_va, iova: pageSize }), EINVAL, `by ${user_va - address}, fixed`);
      }
      const other = iommu.allocIoas();
      const { id } = iommu.mockDevice(other);
      refused(map(iommu, other, { user_va: address + 1n }), EINVAL, 'by 1, with a device');
      equal(map(iommu, other, { user_va: address + 2048n }), 0, "by a page of the device's");
      iommu.destroy(id);
    },
  ],
  [
    16,
    'MAP over the end of the addresses',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(map(iommu, ioas, { iova: U64_MAX }), EOVERFLOW, 'IOVA 2^64 - 1');
      refused(map(iommu, ioas, { length: U64_MAX }), EOVERFLOW, 'length 2^64 - 1');
      refused(map(iommu, ioas, { iova: U64_MAX - pageSize + 2n }), EOVERFLOW, 'one byte too many');
      equal(map(iommu, ioas, { iova: U64_MAX - pageSize + 1n }), 0, 'to the very end');
      refused(map(iommu, ioas, { user_va: U64_MAX - 1n }), EOVERFLOW, 'memory over the end');
      refused(map(iommu, ioas, { length: U64_MAX, flags: 0 }), EOVERFLOW, 'length 2^64 - 1, without flags');
    },
  ],
  [
    17,
    'MAP neither readable nor writeable',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(map(iommu, ioas, { flags: 0 }), EINVAL, 'no flags');
      refused(map(iommu, ioas, { flags: IOMMU_IOAS_MAP_FIXED_IOVA }), EINVAL, 'fixed alone');
      refused(map(iommu, 0, { flags: 0 }), EINVAL, 'before the IOAS is looked up');
      equal(map(iommu, ioas, { flags: IOMMU_IOAS_MAP_WRITEABLE }), 0, 'writeable alone');
      const file = { ioas_id: ioas, fd: iommu.file.fd, length: pageSize };
      refused(iommu.call(IOMMU_IOAS_MAP_FILE, file).result, EINVAL, 'a file');
    },
  ],
  [
    18,
    'MAP with unknown flags or reserved bytes',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(map(iommu, ioas, { flags: READ_WRITE | 8 }), EOPNOTSUPP, 'flag 8');
      refused(map(iommu, ioas, { flags: 0x8000_0000 }), EOPNOTSUPP, 'flag 2^31');
      refused(map(iommu, ioas, { __reserved: 1 }), EOPNOTSUPP, '__reserved');
      refused(map(iommu, 0, { __reserved: 1, length: U64_MAX }), EOPNOTSUPP, 'before all else');
      const file = { flags: READ_WRITE | 8, ioas_id: ioas, fd: iommu.file.fd, length: pageSize };
      refused(iommu.call(IOMMU_IOAS_MAP_FILE, file).result, EOPNOTSUPP, 'a file');
    },
  ],
  [
    19,
    'MAP in what is no IOAS',
    iommu => {
      const ioas = iommu.allocIoas();
      const { id, hwptId, deviceId } = iommu.mockDevice(ioas);
      for (const ioas_id of [0, 0xffff_ffff, hwptId, deviceId, id]) {
        refused(map(iommu, ioas_id, {}), ENOENT, `object ${ioas_id}`);
        const file = { flags: READ_WRITE, ioas_id, fd: iommu.file.fd, length: pageSize };
        refused(iommu.call(IOMMU_IOAS_MAP_FILE, file).result, ENOENT, `object ${ioas_id}, a file`);
      }
      iommu.destroy(id);
    },
  ],
  [
    20,
    'MAP of what is no memory, with a device',
    iommu => {
      const { kernel } = iommu;
      const ioas = iommu.allocIoas();
      const { id, deviceId } = iommu.mockDevice(ioas);
      refused(map(iommu, ioas, { user_va: hole(iommu) }), EFAULT, 'a hole');
      refused(map(iommu, ioas, { user_va: 0n }), EFAULT, 'address 0');
      // A page of the virtual IOMMU's registers: there, but none of the pages that memory is made of.
      const parent = iommu.allocHwpt(deviceId, ioas, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT });
      const data = iommu.pointStruct(iommu_viommu_selftest, {});
      const viommu = iommu.allocViommu(deviceId, parent, { data });
      const { out_mmap_length, out_mmap_offset } = iommu_viommu_selftest.decode(data.view);
      const length = Number(out_mmap_length);
      const page = kernel.mmap(length, PROT_READ | PROT_WRITE, MAP_SHARED, iommu.fd, Number(out_mmap_offset));
      holds(page > 0n, 'mmap');
      refused(map(iommu, ioas, { user_va: page }), EFAULT, 'a page of registers');
      equal(kernel.munmap(page, length), 0, 'munmap');
      for (const each of [viommu, parent, id]) iommu.destroy(each);
    },
  ],
  [
    21,
    'MAP of a hole, without a device',
    iommu => {
      const ioas = iommu.allocIoas();
      equal(map(iommu, ioas, { user_va: hole(iommu), iova: start }), 0, 'nobody looks');
      refused(iommu.tryMockDevice(ioas).result, EFAULT, 'attach');
    },
  ],
  [
    22,
    'MAP where there is no space',
    iommu => {
      const ioas = iommu.allocIoas();
      equal(iommu.tryAddReserved(ioas, pageSize, U64_MAX - 2n * pageSize), 0, 'reserve almost everything');
      refused(map(iommu, ioas, { length: 2n * pageSize }), ENOSPC, 'two pages');
    },
  ],
  [
    23,
    'MAP of half of all addresses',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(map(iommu, ioas, { length: 2n ** 63n, user_va: 0n }), EOVERFLOW, '2^63');
      refused(map(iommu, ioas, { length: 2n ** 63n - 1n, user_va: 0n }), EOVERFLOW, '2^63 - 1');
      refused(map(iommu, ioas, { length: 0n }), EINVAL, '0');
    },
  ],
  [
    24,
    'MAP of more than may be locked',
    iommu => {
      const { host } = iommu;
      const ioas = iommu.allocIoas();
      const { id } = iommu.mockDevice(ioas);
      {
        using _dropped = host.dropCapability('CAP_IPC_LOCK');
        using _limit = host.limitLockedMemory(2 * PAGE);
        refused(map(iommu, ioas, { length: 3n * pageSize }), ENOMEM, 'three pages of two');
        const iova = iommu.map(ioas, iommu.buffer.address, 2 * PAGE);
        refused(map(iommu, ioas, {}), ENOMEM, 'one more');
        const file = { flags: READ_WRITE, ioas_id: ioas, fd: iommu.file.fd, length: pageSize };
        refused(iommu.call(IOMMU_IOAS_MAP_FILE, file).result, ENOMEM, 'one more, of a file');
        iommu.unmap(ioas, iova, 2 * PAGE);
        const again = iommu.map(ioas, iommu.buffer.address, PAGE);
        iommu.unmap(ioas, again, PAGE);
      }
      {
        using _limit = host.limitLockedMemory(2 * PAGE);
        equal(map(iommu, ioas, { length: 3n * pageSize }), 0, 'with CAP_IPC_LOCK nobody counts');
      }
      const lazy = iommu.allocIoas();
      {
        using _dropped = host.dropCapability('CAP_IPC_LOCK');
        using _limit = host.limitLockedMemory(2 * PAGE);
        equal(
          map(iommu, lazy, { length: 3n * pageSize, iova: start }),
          0,
          'nothing is locked without a device',
        );
        refused(iommu.tryMockDevice(lazy).result, ENOMEM, 'until there is one');
      }
      iommu.destroy(id);
    },
  ],
  [
    25,
    'MAP_FILE of length 0',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(iommu.tryMapFile(ioas, iommu.file.fd, 0, 0).result, EINVAL, 'a memfd');
      const dmabuf = iommu.createDmabuf(PAGE);
      refused(iommu.tryMapFile(ioas, dmabuf, 0, 0).result, EINVAL, 'a dma-buf');
      iommu.kernel.close(dmabuf);
    },
  ],
  [
    26,
    'MAP_FILE beyond the file',
    iommu => {
      const { kernel } = iommu;
      using file = memfd(iommu, 2 * PAGE);
      const ioas = iommu.allocIoas();
      const { id } = iommu.mockDevice(ioas);
      refused(iommu.tryMapFile(ioas, file.fd, 0, 3 * PAGE).result, EINVAL, 'longer');
      refused(iommu.tryMapFile(ioas, file.fd, 2 * PAGE, PAGE).result, EINVAL, 'after it');
      refused(iommu.tryMapFile(ioas, file.fd, PAGE, 2 * PAGE).result, EINVAL, 'over its end');
      equal(kernel.ftruncate(file.fd, PAGE), 0, 'ftruncate');
      refused(iommu.tryMapFile(ioas, file.fd, 0, 2 * PAGE).result, EINVAL, 'cut short');
      iommu.mapFile(ioas, file.fd, 0, PAGE);
      const lazy = iommu.allocIoas();
      iommu.mapFile(lazy, file.fd, 0, 2 * PAGE, start);
      refused(iommu.tryMockDevice(lazy).result, EINVAL, 'mapped before the device, and seen at attach');
      iommu.destroy(id);
    },
  ],
  [
    27,
    'MAP_FILE of no open file',
    iommu => {
      const ioas = iommu.allocIoas();
      refused(iommu.tryMapFile(ioas, -1, 0, PAGE).result, EBADF, '-1');
      refused(iommu.tryMapFile(ioas, 10_000, 0, PAGE).result, EBADF, 'not open');
    },
  ],
  [
    28,
    'MAP_FILE beyond a dma-buf',
    iommu => {
      const ioas = iommu.allocIoas();
      const dmabuf = iommu.createDmabuf(2 * PAGE);
      refused(iommu.tryMapFile(ioas, dmabuf, 2 * PAGE, PAGE).result, EINVAL, 'after it');
      refused(iommu.tryMapFile(ioas, dmabuf, 0, 3 * PAGE).result, EINVAL, 'longer');
      refused(iommu.tryMapFile(ioas, dmabuf, PAGE, PAGE + 1).result, EINVAL, 'over its end');
      iommu.mapFile(ioas, dmabuf, 0, 2 * PAGE);
      iommu.kernel.close(dmabuf);
    },
  ],
  [
    29,
    'MAP_FILE of a dma-buf that was taken away',
    iommu => {
      const ioas = iommu.allocIoas();
      const { id } = iommu.mockDevice(ioas);
      const dmabuf = iommu.createDmabuf(PAGE);
      iommu.revokeDmabuf(dmabuf, true);
      refused(iommu.tryMapFile(ioas, dmabuf, 0, PAGE).result, ENODEV, 'taken away');
      iommu.revokeDmabuf(dmabuf, false);
      iommu.mapFile(ioas, dmabuf, 0, PAGE);
      iommu.destroy(id);
      iommu.kernel.close(dmabuf);
    },
  ],
  [
    30,
    'MAP_FILE of a dma-buf of somebody else',
    iommu => {
      const { kernel } = iommu;
      const heap = succeeds(kernel.open(HEAP, O_RDWR), 'open of a heap');
      // struct dma_heap_allocation_data: length, descriptor, its flags, flags (linux/dma-heap.h)
      const allocation = Buffer.alloc(24);
      allocation.writeBigUInt64LE(pageSize, 0);
      allocation.writeUInt32LE(2, 12);
      succeeds(kernel.ioctl(heap, 0xc018_4800, allocation), 'DMA_HEAP_IOCTL_ALLOC');
      const dmabuf = allocation.readUInt32LE(8);
      const ioas = iommu.allocIoas();
      refused(iommu.tryMapFile(ioas, dmabuf, 0, PAGE).result, EOPNOTSUPP, 'a heap');
      kernel.close(dmabuf);
      kernel.close(heap);
    },
    ({ kernel }) => (kernel.access(HEAP, 0) === 0 ? undefined : 'nobody else makes dma-bufs on this machine'),
  ],
]);
