// DMA memory over a model of iommufd, with real memfds and mappings: where it is mapped, what addresses a device gets,
// and that nothing is left behind, whichever step fails.
import assert from 'node:assert/strict';
import t from 'tap';
import { EINVAL, ENOMEM } from '../../bindings/uapi/errno.js';
import { F_GET_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK } from '../../bindings/uapi/fcntl.js';
import {
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
} from '../../bindings/uapi/iommufd.js';
import { iova } from '../../src/address.js';
import { DeviceErrorCode } from '../../src/errors.js';
import { DmaArena, type DmaMemory, EphemeralMemory } from '../../src/memory/dma-memory.js';
import type { PageSize } from '../../src/memory/memfd.js';
import { fakeSpace, scatteredPage } from './support/fake-iommufd.js';
import { mappings, openDescriptors } from './support/holdings.js';

const PAGE = 4096;
const RW = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;

t.test('an arena is mapped by file, at the IOVA it records', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  const before = openDescriptors();
  const arena = DmaArena.create(ioas, 4 * PAGE, { name: 'arena-by-file' });
  const [mapping] = kernel.mappingsOf(ioas);
  t.match(mapping, { iova: arena.iova, length: BigInt(4 * PAGE), flags: RW });
  t.same(mapping?.file, { fd: arena.fd, start: 0n }, 'the whole file');
  t.equal(arena.kind, 'kept');
  t.equal(arena.size, 4 * PAGE);
  t.equal(arena.buffer.byteLength, 4 * PAGE);
  t.equal(openDescriptors(), before + 1, 'holds one descriptor');
  t.equal(mappings('memfd:arena-by-file'), 1, 'and one mapping');
  t.equal(kernel.fcntl(arena.fd, F_GET_SEALS, 0), F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW, 'is sealed');

  new Uint8Array(arena.buffer)[5000] = 42;
  const other = new Uint8Array(1);
  t.equal(kernel.pread(arena.fd, other, 5000), 1);
  t.equal(other[0], 42, 'what is written is in the file');

  arena[Symbol.dispose]();
  arena[Symbol.dispose]();
  t.equal(arena.disposed, true);
  t.same(kernel.mappingsOf(ioas), [], 'unmapped');
  t.equal(openDescriptors(), before, 'closed');
  t.equal(mappings('memfd:arena-by-file'), 0);
  t.equal(kernel.count('IOMMU_IOAS_UNMAP'), 1, 'once');

  const fixed = DmaArena.create(ioas, PAGE, { iova: iova(0x8000_0000), writeable: false });
  t.equal(fixed.iova, 0x8000_0000n);
  t.equal(kernel.mappingsOf(ioas)[0]?.flags, IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE);
  t.throws(() => DmaArena.create(ioas, PAGE, { iova: iova(0x8000_0000) }), { code: 'EEXIST' });
  t.equal(kernel.mapped.size, 1, 'the refused one left nothing');
  fixed[Symbol.dispose]();
  ioas[Symbol.dispose]();
  iommufd[Symbol.dispose]();
});

t.test('nothing is left where its own books cannot be made', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  // The books of the address space are there from now on.
  DmaArena.create(ioas, PAGE)[Symbol.dispose]();
  const before = [openDescriptors(), kernel.mapped.size];
  const { Memory } = WebAssembly;
  const refusal = new RangeError('no memory');
  WebAssembly.Memory = class {
    constructor() {
      throw refusal;
    }
  } as unknown as typeof Memory;
  try {
    t.throws(() => DmaArena.create(ioas, PAGE), refusal);
  } finally {
    WebAssembly.Memory = Memory;
  }
  t.same([openDescriptors(), kernel.mapped.size], before);
  t.same(kernel.mappingsOf(ioas), [], 'unmapped');
  using next = DmaArena.create(ioas, PAGE);
  t.equal(next.iova, 0x1000n, 'and its IOVA is free');
  iommufd[Symbol.dispose]();
});

t.test('ephemeral memory is mapped by address', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  const before = openDescriptors();
  const memory = EphemeralMemory.create(ioas, 2 * PAGE);
  t.equal(memory.kind, 'ephemeral');
  t.equal(openDescriptors(), before, 'holds no descriptor');
  const [mapping] = kernel.mappingsOf(ioas);
  t.same([...kernel.mapped], [[mapping?.userAddress, 2 * PAGE]]);
  t.equal(kernel.count('madvise'), 1, 'kept from children');
  t.same(new Uint8Array(memory.buffer), new Uint8Array(2 * PAGE), 'zero at first');
  memory[Symbol.dispose]();
  t.equal(kernel.mapped.size, 0);
  t.same(kernel.mappingsOf(ioas), []);
  iommufd[Symbol.dispose]();
});

t.test('a failing step leaves nothing behind', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  const cases: [string, string[], () => DmaMemory][] = [
    [
      'arena',
      ['memfdCreate', 'ftruncate', 'fcntl', 'mmap', 'view', 'IOMMU_IOAS_MAP_FILE'],
      () => DmaArena.create(ioas, 2 * PAGE, { name: 'arena-that-fails' }),
    ],
    [
      'ephemeral',
      ['mmap', 'madvise', 'view', 'IOMMU_IOAS_MAP'],
      () => EphemeralMemory.create(ioas, 2 * PAGE),
    ],
  ];
  for (const [kind, steps, make] of cases) {
    kernel.forget();
    make()[Symbol.dispose]();
    for (const step of steps) t.equal(kernel.count(step), 1, `${kind}: ${step} is a step`);
    for (const step of steps) {
      const before = openDescriptors();
      kernel.forget();
      kernel.refuse(step, ENOMEM);
      t.throws(make, step === 'view' ? { message: 'view refused' } : { name: 'KernelError', code: 'ENOMEM' });
      t.equal(openDescriptors(), before, `${kind}, ${step}: no descriptor`);
      t.equal(kernel.mapped.size, 0, `${kind}, ${step}: no mapping here`);
      t.equal(mappings('arena-that-fails'), 0);
      t.same(kernel.mappingsOf(ioas), [], `${kind}, ${step}: no mapping for the device`);
    }
  }
  iommufd[Symbol.dispose]();
});

t.test('disposal does everything it can and reports the rest', async t => {
  for (const steps of [
    ['IOMMU_IOAS_UNMAP'],
    ['munmap'],
    ['close'],
    ['IOMMU_IOAS_UNMAP', 'munmap', 'close'],
  ]) {
    const { kernel, iommufd, ioas } = fakeSpace();
    const before = openDescriptors();
    const arena = DmaArena.create(ioas, PAGE);
    for (const step of steps) kernel.refuse(step, EINVAL);
    const expected =
      steps.length === 1
        ? { name: 'KernelError', code: 'EINVAL' }
        : { name: 'AggregateError', errors: { length: 3 } };
    t.throws(() => arena[Symbol.dispose](), expected, steps.join(' and '));
    t.equal(openDescriptors(), before);
    t.equal(kernel.mapped.size, 0);
    t.doesNotThrow(() => arena[Symbol.dispose](), 'once is enough');
    iommufd[Symbol.dispose]();
  }
});

t.test('memory outlives its address space without harm', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  const first = DmaArena.create(ioas, PAGE);
  first[Symbol.dispose]();
  const second = DmaArena.create(ioas, PAGE);
  ioas[Symbol.dispose]();
  kernel.forget();
  second[Symbol.dispose]();
  t.equal(kernel.count('IOMMU_IOAS_UNMAP'), 0, 'its mapping went with the address space');
  t.equal(kernel.mapped.size, 0);
  const other = iommufd.allocIoas();
  const third = DmaArena.create(other, PAGE);
  iommufd[Symbol.dispose]();
  kernel.forget();
  third[Symbol.dispose]();
  t.equal(kernel.count('IOMMU_IOAS_UNMAP'), 0, 'or with the whole context');
  t.equal(kernel.mapped.size, 0);
});

t.test('nothing works after disposal', async t => {
  const { iommufd, ioas } = fakeSpace();
  ioas.noteAttached('iommu', 1);
  const arena = DmaArena.create(ioas, 2 * PAGE);
  const ephemeral = EphemeralMemory.create(ioas, 2 * PAGE);
  const disposed = { name: 'DisposedError', code: 'DISPOSED' };
  for (const memory of [arena, ephemeral]) {
    const buffer = memory.allocate(100);
    const freed = memory.allocate(100);
    freed[Symbol.dispose]();
    freed[Symbol.dispose]();
    t.throws(() => freed.bytes, disposed, 'a freed buffer has no bytes');
    t.throws(() => freed.view, disposed, 'a freed buffer has no view');
    t.throws(() => freed.deviceAddress(), disposed, 'a freed buffer has no device address');
    t.throws(() => freed.segments(), disposed, 'a freed buffer has no segments');
    memory[Symbol.dispose]();
    t.throws(() => memory.buffer, disposed);
    t.throws(() => memory.pages, disposed);
    t.throws(() => memory.allocate(1), disposed);
    t.throws(() => memory.deviceAddress(0), disposed);
    t.throws(() => buffer.bytes, disposed);
    t.throws(() => buffer.deviceAddress(), disposed);
    t.throws(() => buffer.segments(), disposed);
    t.doesNotThrow(() => buffer[Symbol.dispose](), 'a buffer may be freed late');
  }
  t.throws(() => arena.fd, disposed);
  iommufd[Symbol.dispose]();
});

t.test('buffers', async t => {
  const { iommufd, ioas } = fakeSpace();
  ioas.noteAttached('iommu', 1);
  const arena = DmaArena.create(ioas, 4 * PAGE);
  const busy = { name: 'DeviceError', code: DeviceErrorCode.Busy };
  const [a, b] = [arena.allocate(100), arena.allocate(1)];
  t.equal(a.byteLength, 100);
  t.equal(a.bytes.byteLength, 100);
  t.equal(a.offset % 64, 0, 'on a cache line');
  a.view.setUint32(96, 0x04030201, true);
  t.same([...a.bytes.subarray(96)], [1, 2, 3, 4], 'a view of the same memory');
  t.equal(a.view.byteLength, 100);
  t.equal(b.offset % 64, 0);
  t.ok(b.offset >= a.offset + 100, 'of their own');
  t.equal(arena.available, 4 * PAGE - 3 * 64, 'in cache lines');
  t.equal(a.deviceAddress(), arena.iova + BigInt(a.offset));
  t.equal(a.deviceAddress(99), arena.iova + BigInt(a.offset) + 99n);
  t.throws(() => a.deviceAddress(100), RangeError);
  t.throws(() => a.deviceAddress(-1), RangeError);
  t.throws(() => a.deviceAddress(0.5), RangeError);
  const page = arena.allocate(PAGE, { alignment: PAGE });
  t.equal(page.offset % PAGE, 0);
  const large = arena.allocate(2 * PAGE, { alignment: PAGE });
  t.same(large.segments(), [{ offset: 0, address: arena.iova + BigInt(large.offset), length: 2 * PAGE }]);
  t.same(large.segments(1000, 24), [
    { offset: 1000, address: arena.iova + BigInt(large.offset) + 1000n, length: 24 },
  ]);
  t.throws(() => large.segments(0, 2 * PAGE + 1), RangeError);
  t.throws(() => large.segments(2 * PAGE + 1), RangeError);
  t.throws(() => arena.allocate(PAGE), busy, 'no room');
  large.bytes.fill(7);
  large[Symbol.dispose]();
  const again = arena.allocate(2 * PAGE);
  t.ok(again.bytes.includes(7), 'room that was returned is given out again');
  for (const size of [0, -1, 1.5, Number.NaN, 4 * PAGE + 1]) t.throws(() => arena.allocate(size), RangeError);
  for (const alignment of [0, 3, -64, 1.5]) t.throws(() => arena.allocate(1, { alignment }), RangeError);
  t.throws(() => arena.allocate('1' as unknown as number), TypeError);
  for (const buffer of [a, b, page, again]) buffer[Symbol.dispose]();
  t.equal(arena.available, 4 * PAGE, 'all of it is back');
  t.equal(arena.allocate(4 * PAGE).offset, 0, 'in one piece');
  arena[Symbol.dispose]();
  iommufd[Symbol.dispose]();
});

t.test('without IOMMU a device gets physical addresses', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  const arena = DmaArena.create(ioas, 16 * PAGE);
  const unsupported = { name: 'DeviceError', code: DeviceErrorCode.Unsupported };
  t.throws(() => arena.pages, unsupported, 'none while no device is attached');
  t.throws(() => arena.deviceAddress(0), unsupported);
  t.throws(() => arena.allocate(PAGE, { contiguous: true }), unsupported);
  const buffer = arena.allocate(3 * PAGE + 100, { alignment: PAGE });
  t.throws(() => buffer.segments(), unsupported);

  kernel.physicalPage = scatteredPage;
  ioas.noteAttached('none', 1);
  const expected = Array.from({ length: 16 }, (_, i) => scatteredPage(arena.iova + BigInt(i * PAGE)));
  t.same([...arena.pages.addresses], expected);
  t.equal(arena.pages.scattered, true);
  t.equal(arena.deviceAddress(5 * PAGE + 17), (expected[5] as bigint) + 17n);
  const covered = buffer.segments().map(({ offset, address, length }) => {
    const at = buffer.offset + offset;
    assert.equal(address, (expected[Math.floor(at / PAGE)] as bigint) + BigInt(at % PAGE));
    return length;
  });
  t.equal(
    covered.reduce((sum, length) => sum + length, 0),
    3 * PAGE + 100,
  );
  t.ok(covered.length >= 4, 'in pieces');
  const asked = kernel.count('IOMMU_IOAS_NOIOMMU_GET_PA');
  arena.deviceAddress(0);
  buffer.segments();
  t.equal(kernel.count('IOMMU_IOAS_NOIOMMU_GET_PA'), asked, 'asked once');

  // A second device comes and the first goes: the memory stayed pinned.
  ioas.noteAttached('none', 1);
  ioas.noteAttached('none', -1);
  t.equal(arena.deviceAddress(0), expected[0]);
  t.equal(kernel.count('IOMMU_IOAS_NOIOMMU_GET_PA'), asked);

  ioas.noteAttached('none', -1);
  t.throws(() => arena.pages, unsupported, 'no stale addresses once it is detached');
  t.throws(() => buffer.deviceAddress(), unsupported);

  kernel.physicalPage = at => scatteredPage(at + 0x1000_0000n);
  ioas.noteAttached('none', 1);
  t.equal(
    arena.deviceAddress(0),
    scatteredPage(arena.iova + 0x1000_0000n),
    'asked again for the next device',
  );
  t.not(arena.deviceAddress(0), expected[0]);

  kernel.physicalPage = undefined;
  ioas.noteAttached('none', -1);
  ioas.noteAttached('none', 1);
  t.throws(() => arena.pages, { name: 'KernelError', errno: 95 }, 'what the kernel refuses is reported');
  t.throws(() => arena.pages, { name: 'KernelError', errno: 95 }, 'and not remembered');

  ioas.noteAttached('none', -1);
  ioas.noteAttached('iommu', 1);
  t.equal(arena.deviceAddress(123), arena.iova + 123n, 'an IOVA again behind an IOMMU');
  arena[Symbol.dispose]();
  iommufd[Symbol.dispose]();
});

t.test('contiguous buffers lie in one run', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  const arena = DmaArena.create(ioas, 16 * PAGE);
  // Runs of 1, 2, 3, 4 and 6 pages.
  const runs = [1, 2, 3, 4, 6].flatMap((pages, run) =>
    Array.from({ length: pages }, (_, i) => BigInt(1000 * (run + 1) + i) * BigInt(PAGE)),
  );
  kernel.physicalPage = at => runs[Number((at - arena.iova) / BigInt(PAGE))] as bigint;
  ioas.noteAttached('none', 1);
  const busy = { name: 'DeviceError', code: DeviceErrorCode.Busy, hint: /huge pages/ };
  const contiguous = (pages: number) => {
    const buffer = arena.allocate(pages * PAGE, { contiguous: true, alignment: PAGE });
    assert.equal(buffer.segments().length, 1);
    return buffer;
  };
  const three = contiguous(3);
  t.equal(three.offset, 3 * PAGE, 'the first run that is long enough');
  t.equal(three.deviceAddress(), runs[3]);
  t.equal(contiguous(3).offset, 6 * PAGE);
  t.equal(contiguous(2).offset, PAGE);
  const six = contiguous(6);
  t.equal(six.offset, 10 * PAGE);
  t.throws(() => contiguous(2), busy, 'two pages are left, but apart');
  t.equal(arena.available, 2 * PAGE);
  t.throws(() => arena.allocate(2 * PAGE, { alignment: PAGE }), { code: DeviceErrorCode.Busy });
  six[Symbol.dispose]();
  t.throws(() => contiguous(7), busy, 'no run is that long');
  t.equal(contiguous(5).offset, 10 * PAGE);
  t.equal(contiguous(1).offset, 0);
  three[Symbol.dispose]();
  t.throws(
    () => arena.allocate(PAGE, { alignment: 2 * PAGE }),
    RangeError,
    'physical pages are aligned to their size only',
  );
  arena[Symbol.dispose]();
  iommufd[Symbol.dispose]();
});

t.test('an alignment is one of the device address', async t => {
  const { iommufd, ioas } = fakeSpace();
  ioas.noteAttached('iommu', 1);
  const arena = DmaArena.create(ioas, 64 * PAGE, { iova: iova(0x1234_5000n) });
  for (const alignment of [PAGE, 4 * PAGE, 16 * PAGE]) {
    const buffer = arena.allocate(PAGE, { alignment });
    t.equal(buffer.deviceAddress() % BigInt(alignment), 0n, `${alignment}`);
  }
  arena[Symbol.dispose]();
  iommufd[Symbol.dispose]();
});

t.test('arguments are checked before any call', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  kernel.forget();
  for (const size of [0, -PAGE, 1, PAGE + 1, PAGE / 2, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    t.throws(() => DmaArena.create(ioas, size), RangeError, `arena of ${size}`);
    t.throws(() => EphemeralMemory.create(ioas, size), RangeError, `ephemeral memory of ${size}`);
  }
  t.throws(() => DmaArena.create(ioas, '4096' as unknown as number), TypeError);
  t.throws(() => DmaArena.create(ioas, PAGE, { pageSize: (2 * PAGE) as unknown as PageSize }), RangeError);
  t.throws(
    () => DmaArena.create(ioas, PAGE, { pageSize: (2 ** 21) as PageSize }),
    RangeError,
    'less than a huge page',
  );
  t.throws(() => DmaArena.create({} as unknown as typeof ioas, PAGE), TypeError);
  t.throws(() => EphemeralMemory.create(undefined as unknown as typeof ioas, PAGE), TypeError);
  t.same(kernel.calls, [], 'not one call');
  // These are found only when it is mapped, but leave nothing behind.
  const before = openDescriptors();
  t.throws(() => DmaArena.create(ioas, PAGE, { readable: false, writeable: false }), RangeError);
  t.throws(() => DmaArena.create(ioas, PAGE, { iova: -1n as ReturnType<typeof iova> }), RangeError);
  t.equal(openDescriptors(), before);
  t.equal(kernel.mapped.size, 0);
  iommufd[Symbol.dispose]();
});
