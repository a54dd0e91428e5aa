// Where mappings go: the kernel is never asked to choose, and what it allows is respected as it changes.
import t from 'tap';
import { EINVAL } from '../../bindings/uapi/errno.js';
import { type Iova, iova } from '../../src/address.js';
import { allocateIova, freeIova } from '../../src/memory/address-space.js';
import { DmaArena, EphemeralMemory } from '../../src/memory/dma-memory.js';
import { fakeSpace } from './support/fake-iommufd.js';

const PAGE = 4096;
const MIB = 2 ** 20;
const busy = { name: 'DeviceError', code: 'BUSY' };

t.test('the lowest place that is free', async t => {
  const { iommufd, ioas } = fakeSpace();
  using first = DmaArena.create(ioas, PAGE);
  t.equal(first.iova, 0x1000n, 'not page 0');
  using large = EphemeralMemory.create(ioas, 3 * MIB);
  t.equal(large.iova % BigInt(2 * MIB), 0n, 'aligned for large entries');
  const own = allocateIova(ioas, 2 * PAGE);
  t.equal(own, 0x2000n, 'and between the two');
  t.equal(freeIova(ioas, own), 2 * PAGE);
  using again = DmaArena.create(ioas, 2 * PAGE);
  t.equal(again.iova, own, 'what is freed is used again');
  t.throws(() => freeIova(ioas, iova(0x70_0000)), RangeError, 'nothing there');
  t.throws(() => allocateIova({} as typeof ioas, PAGE), TypeError);
  t.throws(() => freeIova({} as typeof ioas, own), TypeError);
  t.throws(() => allocateIova(ioas, 0), RangeError);
  iommufd[Symbol.dispose]();
});

t.test('never where x86 machines reserve addresses', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  // As without any device: the kernel would allow everything.
  kernel.usable = [{ start: 0n, last: 2n ** 64n - 1n }];
  const lowest = 0xfed0_0000n;
  const around = allocateIova(ioas, 4 * MIB, { lowest });
  t.ok(around > 0xfeef_ffffn, 'beyond the MSI window');
  const beyond = allocateIova(ioas, 2 ** 40 - 0xfe_0000_0000 + 1, { lowest: 0xfc_8000_0000n });
  t.ok(beyond > 0xff_ffff_ffffn, 'beyond HyperTransport');
  t.throws(() => allocateIova(ioas, PAGE, { lowest: 0xfee0_0000n, highest: 0xfeef_ffffn }), busy);
  iommufd[Symbol.dispose]();
});

t.test('ranges that change as devices come and go', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  kernel.usable = [{ start: 0n, last: 0xf_ffffn }];
  using kept = DmaArena.create(ioas, 0x8_0000);
  const own = allocateIova(ioas, PAGE);
  t.same([kept.iova, own], [0x8_0000n, 0x1000n]);
  kernel.usable = [
    { start: 0n, last: 0x1fffn },
    { start: 0x8_0000n, last: 0xf_ffffn },
    { start: 0x100_0000n, last: 0x100_0fffn },
  ];
  using moved = DmaArena.create(ioas, PAGE);
  t.equal(moved.iova, 0x100_0000n, 'what was in use still is, what is gone is not offered');
  t.throws(() => DmaArena.create(ioas, PAGE), { ...busy, message: /4096 free bytes/ });
  kernel.usable = [{ start: 0n, last: 0x1ff_ffffn }];
  using wide = DmaArena.create(ioas, PAGE);
  t.equal(wide.iova, 0x2000n, 'and again when it comes back');
  t.equal(freeIova(ioas, own), PAGE, 'recorded throughout');
  iommufd[Symbol.dispose]();
});

t.test('ranges that were claimed', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  ioas.allowIovas([
    { first: iova(0x40_0000), last: iova(0x40_1fff) },
    { first: iova(0x20_0000), last: iova(0x20_0fff) },
  ]);
  kernel.usable = [{ start: 0n, last: 0x40_17ffn }];
  using first = DmaArena.create(ioas, PAGE);
  using second = DmaArena.create(ioas, PAGE);
  t.same([first.iova, second.iova], [0x20_0000n, 0x40_0000n]);
  t.throws(() => DmaArena.create(ioas, PAGE), busy);
  ioas.allowIovas([]);
  t.equal(allocateIova(ioas, PAGE), 0x1000n, 'the claim is lifted');
  iommufd[Symbol.dispose]();
});

t.test('a wanted place is judged by the kernel', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  const at = allocateIova(ioas, PAGE);
  {
    using wanted = DmaArena.create(ioas, PAGE, { iova: at });
    t.equal(wanted.iova, at, 'one’s own allocation can be used');
    using zero = EphemeralMemory.create(ioas, PAGE, { iova: 0n as Iova });
    t.equal(zero.iova, 0n, 'even page 0, which is never chosen');
    using inMsiWindow = EphemeralMemory.create(ioas, PAGE, { iova: iova(0xfee0_0000) });
    t.equal(inMsiWindow.iova, 0xfee0_0000n, 'or what x86 reserves');
    t.equal(kernel.mappingsOf(ioas).length, 3);
    t.throws(() => DmaArena.create(ioas, PAGE, { iova: at }), { name: 'KernelError', code: 'EEXIST' });
    t.throws(() => DmaArena.create(ioas, PAGE, { iova: iova(0x1001) }), { code: 'EINVAL' });
    t.not(allocateIova(ioas, PAGE), at);
  }
  t.same(kernel.mappingsOf(ioas), []);
  t.equal(allocateIova(ioas, PAGE), at, 'it went back with the memory');
  iommufd[Symbol.dispose]();
});

t.test('a mapping that fails keeps no place', async t => {
  const { kernel, iommufd, ioas } = fakeSpace();
  kernel.refuse('IOMMU_IOAS_MAP_FILE', EINVAL);
  t.throws(() => DmaArena.create(ioas, PAGE), { name: 'KernelError', code: 'EINVAL' });
  using next = DmaArena.create(ioas, PAGE);
  t.equal(next.iova, 0x1000n);
  iommufd[Symbol.dispose]();
  t.throws(() => allocateIova(ioas, PAGE), { name: 'DisposedError' });
});
