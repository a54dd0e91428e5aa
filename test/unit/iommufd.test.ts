// The requests of /dev/iommu, byte by byte, and what is refused before any is made. Offsets are those of the kernel's
// header, written out here.
import t from 'tap';
import { EACCES, EBUSY, EINVAL, EMSGSIZE, ENOENT } from '../../bindings/uapi/errno.js';
import { type Iova, iova } from '../../src/address.js';
import { Hwpt } from '../../src/iommufd/hwpt.js';
import type { Ioas } from '../../src/iommufd/ioas.js';
import { Iommufd, RlimitMode } from '../../src/iommufd/iommufd.js';
import { FakeIommufd, fakeSpace } from './support/fake-iommufd.js';
import { openDescriptors } from './support/holdings.js';

const PAGE = 4096;

/** The struct of the last request: by type and offset. */
function last(kernel: FakeIommufd) {
  const { name, bytes } = kernel.arrived.at(-1) as { name: string; bytes: Uint8Array };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    name,
    size: bytes.byteLength,
    u16: (offset: number) => view.getUint16(offset, true),
    u32: (...offsets: number[]) => offsets.map(offset => view.getUint32(offset, true)),
    u64: (...offsets: number[]) => offsets.map(offset => view.getBigUint64(offset, true)),
  };
}

t.test('mapping', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  let request = last(kernel);
  t.equal(request.name, 'IOMMU_IOAS_ALLOC');
  t.same([request.size, request.u32(0, 4, 8)], [12, [12, 0, 0]]);

  ioas.map(0x7000_1000n, 2 * PAGE, iova(0x20_0000), { writeable: false });
  request = last(kernel);
  t.equal(request.name, 'IOMMU_IOAS_MAP');
  t.equal(request.size, 40);
  t.same(request.u32(0, 4, 8, 12), [40, 1 | 4, ioas.id, 0], 'fixed and readable');
  t.same(request.u64(16, 24, 32), [0x7000_1000n, 8192n, 0x20_0000n]);

  ioas.map(0x7000_1000n, PAGE, iova(0x22_0000), { readable: false });
  request = last(kernel);
  t.same(request.u32(4), [1 | 2], 'writeable');

  ioas.mapFile({ fd: 5, offset: 3 * PAGE, length: PAGE }, iova(0x30_0000));
  request = last(kernel);
  t.equal(request.name, 'IOMMU_IOAS_MAP_FILE');
  t.equal(request.size, 40);
  t.same(request.u32(0, 4, 8, 12), [40, 1 | 2 | 4, ioas.id, 5]);
  t.same(request.u64(16, 24, 32), [0x3000n, 0x1000n, 0x30_0000n]);
  ioas.mapFile({ fd: -1, length: PAGE }, iova(0x31_0000));
  t.same(last(kernel).u32(12), [0xffff_ffff], 'a descriptor is signed');

  const other = iommufd.allocIoas();
  other.copy(ioas, iova(0x20_0000), 2 * PAGE, iova(0x5000), { writeable: false });
  request = last(kernel);
  t.equal(request.name, 'IOMMU_IOAS_COPY');
  t.equal(request.size, 40);
  t.same(request.u32(0, 4, 8, 12), [40, 1 | 4, other.id, ioas.id]);
  t.same(request.u64(16, 24, 32), [8192n, 0x5000n, 0x20_0000n]);

  t.equal(ioas.unmap(iova(0x20_0000), 2 * PAGE), 8192n);
  request = last(kernel);
  t.equal(request.name, 'IOMMU_IOAS_UNMAP');
  t.equal(request.size, 24);
  t.same(
    [request.u32(0, 4), request.u64(8, 16)],
    [
      [24, ioas.id],
      [0x20_0000n, 8192n],
    ],
  );
  t.throws(() => ioas.unmap(iova(0x20_0000), PAGE), {
    name: 'KernelError',
    code: 'ENOENT',
    request: 'IOMMU_IOAS_UNMAP',
    hint: /whole mappings/,
    args: { iova: 0x20_0000n },
  });
  ioas.unmapAll();
  t.same(last(kernel).u64(8, 16), [0n, 2n ** 64n - 1n]);
  t.equal(ioas.unmapAll(), 0n, 'fine when there is nothing');
  iommufd[Symbol.dispose]();
});

t.test('physical addresses', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  kernel.physicalPage = at => at + 0x1_0000_0000n;
  ioas.map(0x7000_1000n, 4 * PAGE, iova(0x8000));
  t.same(ioas.physicalExtent(iova(0x9010), 100 * PAGE), { address: 0x1_0000_9010n, length: 0x2ff0n });
  const request = last(kernel);
  t.equal(request.name, 'IOMMU_IOAS_NOIOMMU_GET_PA');
  t.equal(request.size, 40);
  t.same(request.u32(0, 4, 8, 12), [40, 0, ioas.id, 0]);
  t.same(request.u64(16, 24, 32), [0x9010n, 0x6_4000n, 0n]);
  t.throws(() => ioas.physicalExtent(iova(0x7000), 1), { code: 'ENOENT' });
  iommufd[Symbol.dispose]();
});

t.test('the ranges', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  t.same(ioas.iovaRanges(), { ranges: [{ first: 0n, last: 2n ** 48n - 1n }], alignment: 4096n });
  const request = last(kernel);
  t.equal(request.name, 'IOMMU_IOAS_IOVA_RANGES');
  t.equal(request.size, 32);
  t.same(request.u32(0, 4, 12), [32, ioas.id, 0]);
  t.ok((request.u32(8)[0] as number) > 0);
  t.equal(kernel.count('IOMMU_IOAS_IOVA_RANGES'), 1);

  for (const count of [0, 15, 16, 17, 100]) {
    kernel.usable = Array.from({ length: count }, (_, i) => ({
      start: BigInt(i) << 32n,
      last: (BigInt(i) << 32n) + 0xffffn,
    }));
    kernel.forget();
    const { ranges } = ioas.iovaRanges();
    t.same(
      ranges,
      kernel.usable.map(({ start, last }) => ({ first: start, last })),
      `${count} of them`,
    );
    t.equal(
      kernel.count('IOMMU_IOAS_IOVA_RANGES'),
      count <= 16 ? 1 : 2,
      'asked again with more room if need be',
    );
  }
  kernel.usable = [];
  kernel.refuse('IOMMU_IOAS_IOVA_RANGES', EMSGSIZE);
  t.throws(
    () => ioas.iovaRanges(),
    { name: 'KernelError', code: 'EMSGSIZE' },
    'a kernel that does not say how many',
  );
  kernel.refuse('IOMMU_IOAS_IOVA_RANGES', ENOENT);
  t.throws(() => ioas.iovaRanges(), { code: 'ENOENT', args: { ioas_id: ioas.id } });

  ioas.allowIovas([
    { first: iova(0x1000), last: iova(0x1fff) },
    { first: iova(0x1_0000_0000n), last: iova(2n ** 64n - 1n) },
  ]);
  t.same(kernel.allowed, [
    { start: 0x1000n, last: 0x1fffn },
    { start: 0x1_0000_0000n, last: 2n ** 64n - 1n },
  ]);
  const allow = last(kernel);
  t.equal(allow.name, 'IOMMU_IOAS_ALLOW_IOVAS');
  t.same([allow.size, allow.u32(0, 4, 8, 12)], [24, [24, ioas.id, 2, 0]]);
  ioas.allowIovas([]);
  t.same([kernel.allowed, last(kernel).u32(8)], [[], [0]], 'an empty list');
  iommufd[Symbol.dispose]();
});

t.test('options', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  iommufd.rlimitMode = RlimitMode.Process;
  let request = last(kernel);
  t.equal(request.name, 'IOMMU_OPTION');
  t.equal(request.size, 24);
  t.same([request.u32(0, 4, 12), request.u16(8), request.u16(10), request.u64(16)], [[24, 0, 0], 0, 0, [1n]]);
  t.equal(iommufd.rlimitMode, RlimitMode.Process);
  t.equal(last(kernel).u16(8), 1, 'a get');
  iommufd.rlimitMode = RlimitMode.User;
  t.equal(iommufd.rlimitMode, RlimitMode.User);
  ioas.hugePages = false;
  request = last(kernel);
  t.same([request.u32(4, 12), request.u16(8), request.u64(16)], [[1, ioas.id], 0, [0n]]);
  t.equal(ioas.hugePages, false);
  ioas.hugePages = true;
  t.equal(ioas.hugePages, true);
  iommufd[Symbol.dispose]();
});

t.test('lifetimes', async t => {
  const before = openDescriptors();
  const { kernel, iommufd, ioas } = fakeSpace();
  t.equal(openDescriptors(), before + 1);
  const { id } = ioas;
  t.equal(ioas.alive, true);
  kernel.inUse.add(id);
  t.throws(() => ioas[Symbol.dispose](), { name: 'KernelError', code: 'EBUSY', request: 'IOMMU_DESTROY' });
  t.equal(ioas.alive, true, 'it is still there');
  t.equal(ioas.id, id);
  kernel.inUse.clear();
  ioas[Symbol.dispose]();
  const request = last(kernel);
  t.same([request.name, request.size, request.u32(0, 4)], ['IOMMU_DESTROY', 8, [8, id]]);
  ioas[Symbol.dispose]();
  t.equal(ioas.alive, false);
  t.equal(kernel.count('IOMMU_DESTROY'), 2, 'destroyed once');
  const disposed = { name: 'DisposedError', object: `Ioas ${id}` };
  kernel.forget();
  for (const use of [
    () => ioas.id,
    () => ioas.map(0x1000n, PAGE, iova(0x4000)),
    () => ioas.mapFile({ fd: 1, length: PAGE }, iova(0x4000)),
    () => ioas.unmap(iova(0), 1),
    () => ioas.unmapAll(),
    () => ioas.iovaRanges(),
    () => ioas.allowIovas([]),
    () => ioas.physicalExtent(iova(0), 1),
    () => ioas.hugePages,
    () => {
      ioas.hugePages = true;
    },
  ]) {
    t.throws(use, disposed, String(use));
  }
  t.same(kernel.calls, []);

  const second = iommufd.allocIoas();
  const hwpt = new Hwpt(second, 77, 0, 'device');
  t.equal(hwpt.id, 77);
  t.throws(() => hwpt[Symbol.dispose](), { code: 'ENOENT' });
  t.equal(hwpt.id, 77, 'still there when it could not be destroyed');
  kernel.spaces.set(77, new Map());
  hwpt[Symbol.dispose]();
  hwpt[Symbol.dispose]();
  t.throws(() => hwpt.id, { name: 'DisposedError', object: 'Hwpt 77' });

  t.equal(iommufd.open, true);
  iommufd[Symbol.dispose]();
  iommufd[Symbol.dispose]();
  t.equal(iommufd.open, false);
  t.equal(openDescriptors(), before);
  t.equal(second.alive, false);
  t.throws(() => iommufd.fd, { name: 'DisposedError', object: 'Iommufd' });
  t.throws(() => iommufd.allocIoas(), { name: 'DisposedError' });
  t.throws(() => second.unmapAll(), { name: 'DisposedError' });
  t.doesNotThrow(() => second[Symbol.dispose](), 'what went with its context can still be disposed of');
});

t.test('opening', async t => {
  const kernel = new FakeIommufd();
  kernel.refuse('open', ENOENT);
  t.throws(() => Iommufd.open(kernel), {
    name: 'KernelError',
    code: 'ENOENT',
    path: '/dev/iommu',
    hint: /CONFIG_IOMMUFD/,
  });
  kernel.refuse('open', EACCES);
  t.throws(() => Iommufd.open(kernel), { code: 'EACCES' });
  kernel.refuse('access', ENOENT);
  t.equal(Iommufd.available(kernel), false);
  const iommufd = Iommufd.open(kernel);
  kernel.refuse('IOMMU_IOAS_ALLOC', EBUSY);
  t.throws(() => iommufd.allocIoas(), { code: 'EBUSY', request: 'IOMMU_IOAS_ALLOC' });
  kernel.refuse('close', EINVAL);
  t.throws(() => iommufd[Symbol.dispose](), { code: 'EINVAL', syscall: 'close' });
  t.equal(iommufd.open, false);
});

t.test('arguments are checked before any call', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  const other = fakeSpace();
  kernel.forget();
  const AT = iova(0x4000);
  const range: (() => unknown)[] = [
    () => ioas.map(-1n, PAGE, AT),
    () => ioas.map(2n ** 64n, PAGE, AT),
    () => ioas.map(0x1000n, 0, AT),
    () => ioas.map(0x1000n, -1, AT),
    () => ioas.map(0x1000n, 1.5, AT),
    () => ioas.map(0x1000n, Number.NaN, AT),
    () => ioas.map(0x1000n, 2n ** 64n, AT),
    () => ioas.map(0x1000n, PAGE, -1n as Iova),
    () => ioas.map(0x1000n, PAGE, AT, { readable: false, writeable: false }),
    () => ioas.mapFile({ fd: Number.NaN, length: PAGE }, AT),
    () => ioas.mapFile({ fd: 1.5, length: PAGE }, AT),
    () => ioas.mapFile({ fd: 2 ** 31, length: PAGE }, AT),
    () => ioas.mapFile({ fd: 1, offset: -1, length: PAGE }, AT),
    () => ioas.mapFile({ fd: 1, offset: 0.5, length: PAGE }, AT),
    () => ioas.mapFile({ fd: 1, length: 0 }, AT),
    () => ioas.mapFile({ fd: 1, length: Number.POSITIVE_INFINITY }, AT),
    () => ioas.copy(ioas, iova(0), 0, AT),
    () => ioas.copy(ioas, -1n as Iova, 1, AT),
    () => ioas.unmap(iova(0), 0),
    () => ioas.unmap(-1n as Iova, 1),
    () => ioas.physicalExtent(iova(0), 0),
    () => ioas.allowIovas([{ first: -1n as Iova, last: iova(1) }]),
    () => iommufd.destroy(-1),
    () => iommufd.destroy(2 ** 32),
    () => iommufd.destroy(Number.NaN),
    () => {
      iommufd.rlimitMode = 2 as RlimitMode;
    },
  ];
  for (const use of range) t.throws(use, RangeError, String(use));
  const type: (() => unknown)[] = [
    () => ioas.map('0x1000' as unknown as bigint, PAGE, AT),
    () => ioas.map(0x1000n, '4096' as unknown as number, AT),
    () => ioas.map(0x1000n, PAGE, '0' as unknown as Iova),
    () => ioas.mapFile({ fd: '1' as unknown as number, length: PAGE }, AT),
    () => ioas.mapFile({ fd: undefined as unknown as number, length: PAGE }, AT),
    () => ioas.copy(other.ioas, iova(0), PAGE, AT),
    () => ioas.copy({} as Ioas, iova(0), PAGE, AT),
    () => ioas.allowIovas([{ first: iova(0), last: undefined as unknown as Iova }]),
    () => iommufd.destroy('1' as unknown as number),
  ];
  for (const use of type) t.throws(use, TypeError, String(use));
  t.same(kernel.calls, [], 'not one call was made');
  other.iommufd[Symbol.dispose]();
  iommufd[Symbol.dispose]();
});

t.test('translation and generation', async t => {
  const { iommufd, ioas } = fakeSpace();
  t.equal(ioas.translation, undefined);
  const { generation } = ioas;
  ioas.checkTranslation('none', 'a');
  ioas.noteAttached('none', 1);
  t.equal(ioas.translation, 'none');
  t.not(ioas.generation, generation);
  const now = ioas.generation;
  ioas.checkTranslation('none', 'b');
  t.throws(() => ioas.checkTranslation('iommu', 'b'), {
    name: 'DeviceError',
    code: 'UNSUPPORTED',
    device: 'b',
  });
  ioas.noteAttached('none', 1);
  ioas.noteAttached('none', -1);
  t.equal(ioas.generation, now, 'a device was attached all the time');
  ioas.noteAttached('none', -1);
  t.equal(ioas.translation, undefined);
  ioas.checkTranslation('iommu', 'b');
  ioas.noteAttached('iommu', 1);
  t.equal(ioas.translation, 'iommu');
  t.ok(ioas.generation > now);
  iommufd[Symbol.dispose]();
});
