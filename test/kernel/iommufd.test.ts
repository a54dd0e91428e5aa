/** Address spaces and page tables of the real kernel, with a real device attached. */
import {
  allocateIova,
  claim,
  DmaArena,
  defaultKernel,
  EphemeralMemory,
  Hwpt,
  Ioas,
  Iommufd,
  iova,
  openDevice,
  PageSize,
} from 'iommufd';
import t from 'tap';
import { address } from '../vm/topology.js';
import { nothingLeaked, snapshot } from './support/leaks.js';
import { isNoiommu, profile } from './support/profile.js';

const PAGE = 4096;
const MIB = 2 ** 20;

t.test(`iommufd, ${profile}`, async t => {
  const before = snapshot();
  await t.test('without a device', async t => {
    using iommufd = Iommufd.open();
    using a = iommufd.allocIoas();
    using b = iommufd.allocIoas();
    t.not(a.id, b.id);
    const memory = defaultKernel().memfdCreate('test', 1);
    t.equal(defaultKernel().ftruncate(memory, 4 * MIB), 0);

    const chosen = allocateIova(a, MIB);
    a.mapFile({ fd: memory, length: MIB }, chosen);
    const fixed = iova(0x4000_0000n);
    a.mapFile({ fd: memory, offset: MIB, length: MIB }, fixed);
    t.throws(() => a.mapFile({ fd: memory, length: PAGE }, fixed), { code: 'EEXIST' }, 'overlap');
    t.throws(() => a.mapFile({ fd: memory, length: PAGE }, iova(0x4000_0000n + 1n * 2n ** 20n - 4096n)), {
      code: 'EEXIST',
      request: 'IOMMU_IOAS_MAP_FILE',
    });
    const free = iova(0x5000_0000n);
    t.throws(() => a.mapFile({ fd: -1, length: PAGE }, free), { code: 'EBADF' });
    t.throws(() => a.mapFile({ fd: memory, length: 0 }, free), RangeError);
    t.throws(
      () => a.mapFile({ fd: memory, length: PAGE }, free, { readable: false, writeable: false }),
      RangeError,
    );
    t.throws(() => a.mapFile({ fd: memory, length: PAGE }, iova(2n ** 64n - 1n)), { code: 'EOVERFLOW' });

    b.copy(a, fixed, MIB, fixed);
    t.throws(() => b.copy(a, iova(0x10n * BigInt(PAGE) + 0x9000_0000n), PAGE, free), { code: 'ENOENT' });
    t.throws(() => b.unmap(fixed, PAGE), { code: 'ENOENT' }, 'a part of a mapping cannot go');
    t.equal(b.unmap(fixed, MIB), BigInt(MIB));
    t.throws(() => b.unmap(fixed, MIB), { code: 'ENOENT' });
    t.equal(b.unmapAll(), 0n, 'nothing left, which is fine');

    a.mapFile({ fd: memory, offset: 2 * MIB, length: PAGE }, free, { writeable: false });
    t.throws(() => b.copy(a, free, PAGE, free), { code: 'EPERM' }, 'read-only cannot be widened');

    t.ok(a.iovaRanges().ranges.length >= 1);
    b.allowIovas([{ first: iova(0x1000_0000n), last: iova(0x1fff_ffffn) }]);
    const inside = allocateIova(b, PAGE);
    t.ok(inside >= 0x1000_0000n && inside <= 0x1fff_ffffn, 'allowed range respected');
    b.mapFile({ fd: memory, length: PAGE }, inside);
    t.throws(() => b.allowIovas([{ first: iova(5n), last: iova(4n) }]), { code: 'EINVAL' });
    t.equal(b.hugePages, true);
    b.hugePages = false;
    t.equal(b.hugePages, false);
    t.throws(() => iommufd.destroy(4711), { code: 'ENOENT', hint: /No such object/ });
    t.throws(
      () => {
        iommufd.rlimitMode = 1;
      },
      { code: 'EBUSY' },
      'only before the first object',
    );
    t.equal(iommufd.rlimitMode, 0);
    a[Symbol.dispose]();
    t.throws(() => a.mapFile({ fd: memory, length: PAGE }, free), { name: 'DisposedError' });
    defaultKernel().close(memory);
  });

  await t.test('with a device', async t => {
    using claimed = await claim(address.edu);
    using device = openDevice(claimed, { noiommu: isNoiommu });
    const space = device.space;
    if (!(space instanceof Ioas)) throw new Error('not iommufd');
    t.throws(() => space[Symbol.dispose](), { code: 'EBUSY' }, 'an attached address space cannot go');
    const { ranges, alignment } = space.iovaRanges();
    t.equal(alignment, BigInt(PAGE));
    t.comment(ranges.map(range => `${range.first.toString(16)}..${range.last.toString(16)}`).join(' '));
    if (isNoiommu) t.equal(ranges.length, 1, 'no holes without IOMMU');
    else
      t.ok(
        ranges.every(range => range.last < 0xfee0_0000n || range.first > 0xfeef_ffffn),
        'the MSI window is not offered',
      );

    using arena = DmaArena.create(space, 4 * MIB);
    using ephemeral = EphemeralMemory.create(space, 16 * PAGE);
    t.equal(arena.kind, 'kept');
    t.equal(ephemeral.kind, 'ephemeral');
    t.throws(() => arena.allocate(8 * MIB), RangeError);
    using buffer = arena.allocate(64 * 1024, { alignment: PAGE });
    const segments = buffer.segments();
    t.equal(
      segments.reduce((sum, segment) => sum + segment.length, 0),
      buffer.byteLength,
    );
    if (isNoiommu) {
      t.not(buffer.deviceAddress(), arena.iova + BigInt(buffer.offset), 'physical addresses');
      t.equal(buffer.deviceAddress(PAGE) % BigInt(PAGE), 0n);
      const extent = space.physicalExtent(iova(arena.iova + BigInt(buffer.offset)), buffer.byteLength);
      t.equal(extent.address as bigint, buffer.deviceAddress() as bigint);
      t.throws(() => space.physicalExtent(iova(0x7777_0000_0000n), PAGE), { code: 'ENOENT' });
    } else {
      t.equal(segments.length, 1);
      t.equal(buffer.deviceAddress() as bigint, arena.iova + BigInt(buffer.offset));
      t.throws(() => space.physicalExtent(arena.iova, PAGE), { code: 'EOPNOTSUPP', hint: /noiommu/ });
      t.throws(
        () => DmaArena.create(space, MIB, { iova: iova(0xfee0_0000n) }),
        { code: 'EINVAL' },
        'reserved',
      );
    }
    t.throws(() => DmaArena.create(space, MIB, { iova: iova(arena.iova + BigInt(MIB)) }), { code: 'EEXIST' });
    t.throws(
      () => DmaArena.create(space, MIB, { iova: iova(0x1234_5001n) }),
      { code: 'EINVAL' },
      'misaligned IOVA',
    );
    t.throws(() => DmaArena.create(space, MIB + 1), RangeError, 'misaligned size, before any call');
    t.throws(() => space.map(1n, PAGE, iova(0x6000_0000n)), { code: /EINVAL|EFAULT/ }, 'no memory there');

    await t.test('huge pages', async t => {
      t.throws(() => DmaArena.create(space, MIB, { pageSize: PageSize.Huge2M }), RangeError);
      using huge = DmaArena.create(space, 8 * MIB, { pageSize: PageSize.Huge2M });
      using two = huge.allocate(2 * MIB, { contiguous: true, alignment: PAGE });
      t.equal(two.segments().length, 1, 'two megabytes in one run');
      two.bytes.fill(0x55);
      t.throws(() => DmaArena.create(space, 2048 * MIB, { pageSize: PageSize.Huge2M }), {
        code: 'ENOMEM',
        hint: /hugepages/,
      });
    });

    await t.test('explicit page tables and replacement', async t => {
      using hwpt = device.allocHwpt(space);
      t.ok(hwpt instanceof Hwpt);
      device.attach(hwpt);
      t.equal(device.attached, hwpt);
      t.throws(() => hwpt[Symbol.dispose](), { code: 'EBUSY' });
      using other = space.iommufd.allocIoas();
      const memory = arena.fd;
      other.mapFile({ fd: memory, length: 4 * MIB }, arena.iova);
      device.attach(other);
      t.equal(device.attached, other);
      t.throws(() => device.attach({} as Ioas), TypeError);
      device.detach();
      t.equal(device.attached, undefined);
      t.throws(() => other.translation === undefined && arena.deviceAddress(0), { code: 'UNSUPPORTED' });
      device.attach(space);
      t.ok(arena.deviceAddress(0) > 0n);
    });
    using foreign = Iommufd.open();
    using elsewhere = foreign.allocIoas();
    t.throws(() => device.attach(elsewhere), TypeError, 'an address space of another context');
    t.equal(device.supportsFeature(0x7f, 1 << 16), false);
  });

  await t.test('resets', async t => {
    using claimed = await claim(address.nvmeB);
    using device = openDevice(claimed, { noiommu: isNoiommu });
    t.equal(device.info.canReset, true);
    device.config.memory = true;
    device.config.busMaster = true;
    await device.reset();
    t.equal(device.config.busMaster, true, 'the kernel restores configuration space');
    const affected = device.hotResetDevices();
    t.ok(
      affected.some(entry => entry.address === address.nvmeB),
      'a hot reset affects the device itself',
    );
    device.hotReset();
    t.equal(device.bar(0).read32(0x1c) & 1, 0, 'the controller is not ready after it');
  });

  await t.test('an address space shared by two devices', async t => {
    using edu = await claim(address.edu);
    using nvme = await claim(address.nvmeA);
    using first = openDevice(edu, { noiommu: isNoiommu });
    using second = openDevice(nvme, { noiommu: isNoiommu, space: first.space });
    t.equal(first.space, second.space);
    if (first.space instanceof Ioas) t.equal(first.space.translation, isNoiommu ? 'none' : 'iommu');
  });
  await nothingLeaked(t, before);
});
