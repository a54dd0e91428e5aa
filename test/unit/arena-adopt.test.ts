// Arenas that change hands: taken over with what is in them, claimed piece by piece, held, released.
import t from 'tap';
import { F_ADD_SEALS, F_SEAL_SHRINK } from '../../bindings/uapi/fcntl.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '../../bindings/uapi/memfd.js';
import { iova } from '../../src/address.js';
import { Iommufd } from '../../src/iommufd/iommufd.js';
import { DmaArena, memoryOf } from '../../src/memory/dma-memory.js';
import { createSealedMemfd, PageSize } from '../../src/memory/memfd.js';
import { SimulatedHost } from '../../src/sim/host.js';

const SIZE = 64 * 1024;

function stage() {
  const host = new SimulatedHost();
  const kernel = host.process();
  const iommufd = Iommufd.open(kernel);
  const space = iommufd.allocIoas();
  return { host, kernel, iommufd, space };
}

const adopted = { token: 7n, name: 'kept', pageSize: PageSize.Small, size: SIZE, iova: iova(0x10_0000n) };

t.test('all of it is unclaimed at first', t => {
  const { kernel, space } = stage();
  const fd = createSealedMemfd(kernel, 'kept', SIZE, PageSize.Small);
  using arena = DmaArena.adopt(space, fd, { ...adopted, mapped: false });
  t.equal(arena.token, 7n);
  t.equal(arena.iova, 0x10_0000n);
  t.strictSame(arena.unclaimed, [{ offset: 0, length: SIZE }]);
  t.equal(arena.available, 0);
  t.throws(() => arena.allocate(64), { code: 'BUSY' });
  const claimed = arena.allocateAt(4096, 5000);
  t.strictSame(arena.unclaimed, [
    { offset: 0, length: 4096 },
    { offset: 4096 + 5056, length: SIZE - 4096 - 5056 },
  ]);
  t.throws(() => arena.allocateAt(8192, 64), { code: 'BUSY' });
  t.strictSame(arena.unclaimed.length, 2, 'as before');
  const held = arena.hold(100, 10);
  arena.releaseUnclaimed();
  t.strictSame(arena.unclaimed, [{ offset: 64, length: 64 }]);
  t.equal(arena.available, SIZE - 5056 - 64);
  held[Symbol.dispose]();
  t.strictSame(arena.unclaimed, []);
  claimed[Symbol.dispose]();
  t.equal(arena.available, SIZE);
  t.equal(arena.allocate(SIZE).offset, 0);
  t.end();
});

t.test('holds that overlap', t => {
  const { kernel, space } = stage();
  const fd = createSealedMemfd(kernel, 'kept', SIZE, PageSize.Small);
  using arena = DmaArena.adopt(space, fd, { ...adopted, mapped: false });
  const one = arena.hold(0, 8192);
  const two = arena.hold(4096, 8192);
  arena.releaseUnclaimed();
  t.equal(
    arena.unclaimed.reduce((sum, { length }) => sum + length, 0),
    12288,
  );
  one[Symbol.dispose]();
  t.equal(
    arena.unclaimed.reduce((sum, { length }) => sum + length, 0),
    8192,
  );
  two[Symbol.dispose]();
  t.strictSame(arena.unclaimed, []);
  t.end();
});

t.test('memory that is not what it is said to be', t => {
  const { host, kernel, iommufd, space } = stage();
  const sizes: [number, RegExp][] = [
    [SIZE - 4096, /is shorter than/],
    [SIZE + 4096, /is longer than/],
  ];
  for (const [size, message] of sizes) {
    const fd = createSealedMemfd(kernel, 'kept', size, PageSize.Small);
    t.throws(() => DmaArena.adopt(space, fd, { ...adopted, mapped: false }), {
      code: 'UNSUPPORTED',
      message,
    });
  }
  const open = kernel.memfdCreate('open', MFD_CLOEXEC | MFD_ALLOW_SEALING);
  kernel.ftruncate(open, SIZE);
  kernel.fcntl(open, F_ADD_SEALS, F_SEAL_SHRINK);
  t.throws(() => DmaArena.adopt(space, open, { ...adopted, mapped: false }), {
    message: /has seals 0x2, not 0x7/,
  });
  const eventfd = kernel.eventfd(0, 0);
  t.throws(() => DmaArena.adopt(space, eventfd, { ...adopted, mapped: false }), {
    syscall: 'fcntl',
    code: 'EINVAL',
  });
  t.equal([...memoryOf(space)].length, 0);
  space[Symbol.dispose]();
  iommufd[Symbol.dispose]();
  t.strictSame(host.leftovers(), [], 'nothing is left of those that were refused');
  t.end();
});

t.test('relinquished: mapped still, and gone here', t => {
  const { host, kernel, iommufd, space } = stage();
  const arena = DmaArena.create(space, SIZE, { name: 'first' });
  t.strictSame([...memoryOf(space)], [arena]);
  const [mapping] = [...space.mappings];
  t.equal(mapping?.file, arena);
  const copy = kernel.fcntl(arena.fd, 1030, 0);
  arena.relinquish();
  t.throws(() => arena.buffer, { code: 'DISPOSED' });
  t.equal(space.mappingCount, 1);
  const again = DmaArena.adopt(space, copy, { ...adopted, iova: arena.iova, mapped: true });
  t.strictSame(again.access, { readable: true, writeable: true });
  again[Symbol.dispose]();
  t.equal(space.mappingCount, 0);
  space[Symbol.dispose]();
  iommufd[Symbol.dispose]();
  t.strictSame(host.leftovers(), []);
  t.end();
});

t.test('mappings as they are', t => {
  const { space, iommufd } = stage();
  using arena = DmaArena.create(space, SIZE, { iova: iova(0x40_0000n) });
  space.mapFile({ fd: arena, offset: 4096, length: 8192 }, iova(0x80_0000n), { writeable: false });
  const other = iommufd.allocIoas();
  other.copy(space, iova(0x80_1000n), 4096, iova(0x1000n), { writeable: false });
  t.match(
    [...other.mappings],
    [{ iova: 0x1000n, length: 4096n, file: arena, offset: 8192n, readable: true, writeable: false }],
  );
  t.equal(space.unmap(iova(0x80_0000n), 8192), 8192n);
  t.equal(space.mappingCount, 1);
  other.unmapAll();
  t.equal(other.mappingCount, 0);
  t.strictSame([...iommufd.ioases], [space, other]);
  other[Symbol.dispose]();
  t.strictSame([...iommufd.ioases], [space]);
  iommufd.kept = true;
  t.throws(() => space.map(4096n, 4096, iova(0n)), { code: 'UNSUPPORTED', message: /kept alive/ });
  t.end();
});
