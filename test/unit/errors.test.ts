// Errors: what they say, what they carry, and the hint that belongs to them.
import { constants } from 'node:os';
import t from 'tap';
import { DeviceError, DeviceErrorCode, DisposedError, KernelError, runAll } from '../../src/errors.js';
import { hintFor } from '../../src/hints.js';

t.test('KernelError', async t => {
  const error = new KernelError(17, {
    syscall: 'ioctl',
    request: 'IOMMU_IOAS_MAP_FILE',
    args: { iova: 0x1000n, length: 4096, name: 'a "b"' },
  });
  t.ok(error instanceof Error);
  t.match(error, {
    name: 'KernelError',
    code: 'EEXIST',
    errno: 17,
    syscall: 'ioctl',
    request: 'IOMMU_IOAS_MAP_FILE',
    path: undefined,
    args: { iova: 0x1000n, length: 4096, name: 'a "b"' },
    hint: /already mapped/,
  });
  t.equal(
    error.message,
    `IOMMU_IOAS_MAP_FILE (iova=0x1000, length=4096, name="a \\"b\\""): EEXIST. ${error.hint}`,
  );

  const plain = new KernelError(9, { syscall: 'close' });
  t.equal(plain.message, 'close: EBADF');
  t.same([plain.hint, plain.request, plain.path, plain.args], [undefined, undefined, undefined, {}]);

  const own = new KernelError(2, { syscall: 'open', path: '/dev/iommu', hint: 'Try again' });
  t.equal(own.message, 'open (/dev/iommu): ENOENT. Try again', 'a hint of its own goes before the table');
});

t.test('every errno has the name that the kernel uses', async t => {
  // Two names for one number: the kernel's own is used.
  const aliases = new Set(['EWOULDBLOCK', 'ENOTSUP']);
  const names = Object.entries(constants.errno).filter(([name]) => !aliases.has(name));
  t.same(
    names.map(([, errno]) => new KernelError(errno, { syscall: 'ioctl' }).code),
    names.map(([name]) => name),
  );
  // These the kernel has for itself, and for descriptors in a bad state; Node.js knows neither.
  t.equal(new KernelError(524, { syscall: 'ioctl' }).code, 'ENOTSUPP');
  t.equal(new KernelError(77, { syscall: 'ioctl' }).code, 'EBADFD');
  t.equal(new KernelError(4095, { syscall: 'ioctl' }).code, 'E4095', 'or its number, where there is no name');
});

t.test('hints', async t => {
  const hint = (errno: number, request: string): string | undefined =>
    new KernelError(errno, { syscall: 'ioctl', request }).hint;
  t.match(hint(constants.errno.EPERM, 'VFIO_DEVICE_BIND_IOMMUFD'), 'interrupt remapping');
  t.match(hint(constants.errno.ENOMEM, 'IOMMU_IOAS_MAP'), 'RLIMIT_MEMLOCK');
  t.match(hint(constants.errno.EPERM, 'IOMMU_IOAS_NOIOMMU_GET_PA'), 'CAP_SYS_RAWIO');
  t.match(hint(constants.errno.EOPNOTSUPP, 'IOMMU_IOAS_NOIOMMU_GET_PA'), 'No noiommu device is attached');
  t.match(hint(constants.errno.ENOTTY, 'IOMMU_IOAS_NOIOMMU_GET_PA'), '7.3');
  t.match(hint(constants.errno.EADDRINUSE, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT'), 'reserves');
  t.equal(hint(constants.errno.EFAULT, 'IOMMU_IOAS_UNMAP'), undefined, 'none where none is known');

  for (const [operation, code, path, expected] of [
    ['open', 'ENOENT', '/dev/iommu', /CONFIG_IOMMUFD/],
    ['open', 'EACCES', '/dev/iommu', /\/dev\/iommu/],
    ['open', 'EPERM', '/dev/vfio/devices/noiommu-vfio0', /CAP_SYS_RAWIO/],
    ['open', 'EBUSY', '/dev/vfio/devices/vfio0', /Another process/],
    ['open', 'EBUSY', '/dev/vfio/12', /Another process/],
    ['open', 'EACCES', '/dev/vfio/12', /VFIO node/],
    ['open', 'ENOENT', '/dev/vfio/vfio', /CONFIG_VFIO/],
    ['access', 'ENOENT', '/sys/bus/pci/drivers/vfio-pci', /modprobe vfio-pci/],
    ['readlink', 'ENOENT', '/sys/bus/pci/devices/0000:00:04.0', /iommufd devices/],
    ['write', 'EACCES', '/sys/bus/pci/devices/0000:00:04.0/driver_override', /needs root/],
    ['write', 'EPERM', '/sys/bus/pci/drivers_probe', /needs root/],
    ['mmap', 'ENOMEM', undefined, /nr_hugepages/],
  ] as const) {
    t.match(hintFor(operation, code, path), expected, `${operation} ${path}: ${code}`);
  }
  for (const [operation, code, path] of [
    ['open', 'EPERM', '/dev/vfio/devices/vfio0'],
    ['open', 'ENOENT', '/dev/iommu2'],
    ['open', 'ENOENT', '/tmp/dev/iommu'],
    ['read', 'ENOENT', '/sys/bus/pci/devices/0000:00:04.0/vendor'],
    ['open', 'ENOENT', undefined],
    ['constructor', '', undefined],
  ] as const) {
    t.equal(hintFor(operation, code, path), undefined, `none for ${operation} ${path}: ${code}`);
  }
});

t.test('DeviceError and DisposedError', async t => {
  const error = new DeviceError(DeviceErrorCode.Busy, '0000:00:04.0', 'is in use', 'Close it');
  t.match(error, { name: 'DeviceError', code: 'BUSY', device: '0000:00:04.0', hint: 'Close it' });
  t.equal(error.message, '0000:00:04.0: is in use. Close it');
  t.equal(new DeviceError(DeviceErrorCode.Gone, 'x', 'went').message, 'x: went');
  const disposed = new DisposedError('Ioas 3');
  t.match(disposed, { name: 'DisposedError', code: 'DISPOSED', object: 'Ioas 3' });
  t.equal(disposed.message, 'Ioas 3 was already released');
});

t.test('runAll', async t => {
  const run: string[] = [];
  const step =
    (name: string, fails = false) =>
    () => {
      run.push(name);
      if (fails) throw new Error(name);
    };
  runAll([]);
  runAll([step('a'), step('b')]);
  t.same(run, ['a', 'b']);
  const only = new Error('only');
  t.throws(
    () =>
      runAll([
        () => {
          throw only;
        },
        step('c'),
      ]),
    only,
    'one error is thrown as it is',
  );
  t.same(run, ['a', 'b', 'c'], 'the steps after it ran');
  t.throws(() => runAll([step('d', true), step('e'), step('f', true)]), {
    name: 'AggregateError',
    errors: [{ message: 'd' }, { message: 'f' }],
    message: /^2 steps failed/,
  });
  t.same(run, ['a', 'b', 'c', 'd', 'e', 'f']);
});
