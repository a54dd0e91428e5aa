// DMA memory in a legacy container, where the library itself chooses the IOVAs.
import t from 'tap';
import { EBUSY, EINVAL, ENOMEM, EPERM } from '../../bindings/uapi/errno.js';
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
} from '../../bindings/uapi/vfio.js';
import { iova } from '../../src/address.js';
import { DeviceErrorCode } from '../../src/errors.js';
import { DmaArena, EphemeralMemory } from '../../src/memory/dma-memory.js';
import { Type1Container } from '../../src/vfio/type1-container.js';
import { FakeContainer } from './support/fake-container.js';
import { openDescriptors } from './support/holdings.js';

const PAGE = 4096;

t.test('memory is mapped where the container allows it', async t => {
  const before = openDescriptors();
  const kernel = new FakeContainer();
  kernel.ranges = [
    { start: 0n, end: 0x4fffn },
    { start: 0x20_0000n, end: 2n ** 64n - 1n },
  ];
  const container = Type1Container.open(kernel);
  const first = EphemeralMemory.create(container, 2 * PAGE);
  t.equal(first.iova, 0x2000n, 'never at 0, and at a multiple of its size');
  t.same(
    [...kernel.mappings],
    [
      [
        0x2000n,
        {
          vaddr: [...kernel.mapped.keys()][0],
          size: 0x2000n,
          flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        },
      ],
    ],
  );
  t.equal(first.deviceAddress(10), 0x200an, 'the device sees it there');
  const second = DmaArena.create(container, 4 * PAGE);
  t.equal(second.iova, 0x20_0000n, 'not across a reserved range');
  const large = EphemeralMemory.create(container, 2 ** 21);
  t.equal(large.iova % 2n ** 21n, 0n, 'a large one is aligned for large entries');
  t.throws(() => EphemeralMemory.create(container, PAGE, { iova: iova(0x2000) }), {
    name: 'KernelError',
    code: 'EEXIST',
  });
  t.throws(() => EphemeralMemory.create(container, PAGE, { iova: iova(0x10_0000) }), { code: 'EINVAL' });
  const fixed = EphemeralMemory.create(container, PAGE, { iova: iova(0x4000), writeable: false });
  t.equal(fixed.iova, 0x4000n);
  t.equal(kernel.mappings.get(0x4000n)?.flags, VFIO_DMA_MAP_FLAG_READ);
  t.equal(kernel.mapped.size, 4, 'those refused left nothing');

  first[Symbol.dispose]();
  const again = EphemeralMemory.create(container, 2 * PAGE);
  t.equal(again.iova, 0x2000n, 'a range that was freed is used again');
  kernel.refuse('VFIO_IOMMU_MAP_DMA', ENOMEM);
  t.throws(() => EphemeralMemory.create(container, PAGE), { code: 'ENOMEM' });
  t.equal(EphemeralMemory.create(container, PAGE).iova, 0x1000n, 'the range of one that failed, too');

  container[Symbol.dispose]();
  container[Symbol.dispose]();
  t.throws(() => container.fd, { name: 'DisposedError' });
  kernel.forget();
  for (const memory of [second, large, fixed, again]) memory[Symbol.dispose]();
  t.equal(kernel.count('VFIO_IOMMU_UNMAP_DMA'), 0, 'the mappings went with the container');
  t.equal(openDescriptors(), before);
});

t.test('the ranges', async t => {
  const kernel = new FakeContainer();
  const container = Type1Container.open(kernel);
  t.same(container.iovaRanges(), {
    ranges: [
      { first: 0n, last: 0xfedf_ffffn },
      { first: 0xfef0_0000n, last: 2n ** 64n - 1n },
    ],
    alignment: 4096n,
  });
  t.equal(kernel.count('VFIO_IOMMU_GET_INFO'), 2, 'the second call has room for them');
  kernel.ranges = undefined;
  t.same(container.iovaRanges().ranges, [{ first: 0n, last: 2n ** 39n - 1n }], 'a kernel that does not say');
  container[Symbol.dispose]();
});

t.test('opening', async t => {
  const before = openDescriptors();
  const kernel = new FakeContainer();
  for (const [property, value] of [
    ['apiVersion', 1],
    ['type1v2', 0],
    ['type1v2', -EINVAL],
  ] as const) {
    const lacking = new FakeContainer();
    Object.assign(lacking, { [property]: value });
    t.throws(() => Type1Container.open(lacking), { name: 'DeviceError', code: DeviceErrorCode.Unsupported });
    t.equal(openDescriptors(), before);
  }
  const container = Type1Container.open(kernel);
  const device = (): number => container.openDevice('/dev/vfio/7', '0000:00:04.0');
  kernel.groupFlags = 0;
  t.throws(device, { name: 'DeviceError', code: DeviceErrorCode.Busy, message: /not viable/ });
  kernel.groupFlags = VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET;
  t.throws(device, { name: 'DeviceError', code: DeviceErrorCode.Busy, message: /another container/ });
  kernel.groupFlags = VFIO_GROUP_FLAGS_VIABLE;
  kernel.refuse('open', EBUSY);
  t.throws(device, { name: 'KernelError', code: 'EBUSY', path: '/dev/vfio/7', hint: /Another process/ });
  kernel.refuse('VFIO_GROUP_SET_CONTAINER', EINVAL);
  t.throws(device, { name: 'KernelError', request: 'VFIO_GROUP_SET_CONTAINER' });
  kernel.refuse('VFIO_SET_IOMMU', EPERM);
  t.throws(device, { name: 'KernelError', code: 'EPERM', hint: /Interrupt remapping/ });
  t.equal(openDescriptors(), before + 1, 'only the container is open');
  const fds = [device(), container.openDevice('/dev/vfio/7', '0000:00:04.1')];
  t.same(kernel.devices, ['0000:00:04.0\0', '0000:00:04.1\0']);
  t.equal(kernel.count('VFIO_GROUP_SET_CONTAINER'), 3, 'a group joins once');
  t.equal(kernel.count('VFIO_SET_IOMMU'), 2);
  t.throws(
    () => container.map(0x1000n, PAGE, iova(0x1000), { readable: false, writeable: false }),
    RangeError,
  );
  t.throws(() => container.map(-1n, PAGE, iova(0x1000)), RangeError);
  for (const fd of fds) kernel.close(fd);
  container[Symbol.dispose]();
  t.equal(openDescriptors(), before);
});
