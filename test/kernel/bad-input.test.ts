/** Mistakes and hostile circumstances: each ends in the right typed error, and leaves nothing behind. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { claim, DmaArena, InterruptKind, Iommufd, openDevice, readPciDevice } from 'iommufd';
import { NvmeController } from 'iommufd/nvme';
import t from 'tap';
import { address } from '../vm/topology.js';
import { nothingLeaked, snapshot } from './support/leaks.js';
import { isLegacy, isNoiommu, profile } from './support/profile.js';

const noiommu = isNoiommu;
const driverOf = (bdf: string): string | undefined => readPciDevice(bdf).driver;
const overrideOf = (bdf: string): string =>
  readFileSync(`/sys/bus/pci/devices/${bdf}/driver_override`, 'utf8').trim();

/** Runs this very library in another process, as another user or with fewer capabilities. */
const program = fileURLToPath(new URL('./support/open-once.js', import.meta.url));
function elsewhere(prefix: readonly string[], ...args: string[]): { outcome: string; output: string } {
  const [command, ...rest] = [...prefix, process.execPath, program, ...args];
  const result = spawnSync(command as string, rest, { encoding: 'utf8' });
  return { outcome: result.stdout.trim(), output: result.stdout + result.stderr };
}

t.test(`bad input, ${profile}`, async t => {
  const before = snapshot();

  await t.test('addresses', async t => {
    await t.rejects(claim('0000:00:1e.7'), {
      name: 'KernelError',
      code: 'ENOENT',
      syscall: 'readlink',
      hint: /no PCI device/,
    });
    await t.rejects(claim('4.0'), RangeError);
    await t.rejects(claim(4 as unknown as string), TypeError);
    t.throws(() => openDevice('0000:00:1e.7'), { code: 'ENOENT' });
    t.throws(() => openDevice(address.nvmeA), { name: 'DeviceError', code: 'UNSUPPORTED', hint: /claim/ });
    t.equal(driverOf(address.nvmeA), 'nvme', 'and the driver keeps its device');
  });

  await t.test('claim and release', async t => {
    const first = await claim(address.nvmeA);
    t.equal(first.previousDriver, 'nvme');
    t.equal(driverOf(address.nvmeA), 'vfio-pci');
    const second = await claim(address.nvmeA);
    t.equal(second.previousDriver, 'vfio-pci', 'claimed already');
    second.release();
    t.equal(driverOf(address.nvmeA), 'vfio-pci', 'and left so');
    const device = openDevice(first, { noiommu });
    t.throws(() => first.release(), { name: 'DeviceError', code: 'BUSY' }, 'not while it is open');
    t.equal(driverOf(address.nvmeA), 'vfio-pci');
    device[Symbol.dispose]();
    first.release();
    first.release();
    t.equal(driverOf(address.nvmeA), 'nvme', 'back with its driver');
    t.equal(overrideOf(address.nvmeA), '(null)', 'without override');
    t.throws(() => openDevice(first), { code: 'UNSUPPORTED', hint: /released/ });
    using none = await claim(address.edu);
    t.equal(none.previousDriver, undefined);
  });
  t.equal(driverOf(address.edu), undefined, 'a device without driver is without driver again');
  t.equal(overrideOf(address.edu), '(null)');

  await t.test('a device that another owner holds', async t => {
    using claimed = await claim(address.edu);
    using _held = openDevice(claimed, { noiommu });
    t.throws(() => openDevice(claimed, { noiommu }), {
      code: /^(EBUSY|EINVAL|BUSY)$/,
      message: /already|another|process/i,
    });
    const { outcome } = elsewhere([], address.edu, String(noiommu));
    t.match(outcome, /^(EBUSY|EINVAL|EPERM|BUSY):/, 'also from another process');
  });

  await t.test(
    'no IOMMU must be accepted explicitly',
    { skip: noiommu ? false : 'runs in the profile noiommu' },
    async t => {
      using claimed = await claim(address.edu);
      t.throws(() => openDevice(claimed), { name: 'DeviceError', code: 'NO_IOMMU', hint: /noiommu: true/ });
      writeFileSync('/sys/module/vfio/parameters/enable_unsafe_noiommu_mode', '0');
      try {
        await t.rejects(claim(address.nvmeA), { code: 'UNSUPPORTED', hint: /enable_unsafe_noiommu_mode/ });
        t.equal(driverOf(address.nvmeA), 'nvme', 'refused, and back with its driver');
        t.equal(overrideOf(address.nvmeA), '(null)');
      } finally {
        writeFileSync('/sys/module/vfio/parameters/enable_unsafe_noiommu_mode', '1');
      }
    },
  );

  await t.test('missing privilege', async t => {
    using _claimed = await claim(address.edu);
    const user = elsewhere(
      ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'],
      address.edu,
      String(noiommu),
    );
    t.match(user.outcome, /^(EACCES|EPERM):.*(root|access)/i, 'an ordinary user');
    if (noiommu) {
      const less = ['setpriv', '--bounding-set=-sys_rawio', '--inh-caps=-sys_rawio', '--'];
      t.match(
        elsewhere(less, address.edu, 'true').outcome,
        /^EPERM:.*CAP_SYS_RAWIO/,
        'without CAP_SYS_RAWIO',
      );
    }
    const claiming = elsewhere(
      ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'],
      address.nvmeA,
      'claim',
    );
    t.match(claiming.outcome, /^(EACCES|EPERM):.*root/, 'claiming, too');
    t.equal(driverOf(address.nvmeA), 'nvme');
  });

  await t.test(
    'a kernel without iommufd',
    { skip: isLegacy ? 'the profile legacy has none anyway' : false },
    async t => {
      renameSync('/dev/iommu', '/dev/iommu.away');
      try {
        t.throws(() => Iommufd.open(), {
          name: 'KernelError',
          code: 'ENOENT',
          path: '/dev/iommu',
          hint: /CONFIG_IOMMUFD/,
        });
        t.equal(Iommufd.available(), false);
        using claimed = await claim(address.edu);
        t.throws(() => openDevice(claimed, { noiommu }), { code: 'ENOENT', path: '/dev/iommu' });
      } finally {
        renameSync('/dev/iommu.away', '/dev/iommu');
      }
    },
  );

  await t.test(
    'legacy only: what needs iommufd says so',
    { skip: isLegacy ? false : 'runs in the profile legacy' },
    async t => {
      t.notOk(existsSync('/dev/iommu'));
      t.throws(() => Iommufd.open(), { code: 'ENOENT', hint: /CONFIG_IOMMUFD/ });
      using claimed = await claim(address.edu);
      t.equal(claimed.node.kind, 'group');
      using device = openDevice(claimed);
      t.throws(() => device.detach(), { name: 'DeviceError', code: 'UNSUPPORTED', hint: /6\.6/ });
      t.throws(() => device.id, { code: 'UNSUPPORTED' });
      using arena = DmaArena.create(device.space, 65536);
      t.ok(arena.deviceAddress(0) > 0n);
      t.throws(() => DmaArena.create(device.space, 65536, { iova: arena.iova }), {
        code: 'EEXIST',
        request: 'VFIO_IOMMU_MAP_DMA',
      });
    },
  );

  await t.test('file systems on the device', async t => {
    const disk = '/dev/nvme0n1';
    if (existsSync(disk) && spawnSync('mkfs.ext4', ['-q', '-F', disk]).status === 0) {
      mkdirSync('/tmp/mounted', { recursive: true });
      t.equal(spawnSync('mount', [disk, '/tmp/mounted']).status, 0);
      const bdf = readFileSync('/sys/class/nvme/nvme0/address', 'utf8').trim();
      await t.rejects(claim(bdf), { name: 'DeviceError', code: 'BUSY', message: /\/tmp\/mounted/ });
      t.equal(driverOf(bdf), 'nvme');
      spawnSync('umount', ['/tmp/mounted']);
    } else t.fail('mkfs.ext4 and /dev/nvme0n1 are needed');
  });

  await t.test('after disposal', async t => {
    using claimed = await claim(address.edu);
    const device = openDevice(claimed, { noiommu });
    const registers = device.bar(0);
    const arena = DmaArena.create(device.space, 65536);
    const buffer = arena.allocate(4096);
    arena[Symbol.dispose]();
    arena[Symbol.dispose]();
    for (const use of [
      () => buffer.bytes,
      () => arena.buffer,
      () => arena.allocate(1),
      () => buffer.deviceAddress(),
      () => buffer.part(0, 1),
    ]) {
      t.throws(use, { name: 'DisposedError' });
    }
    device[Symbol.dispose]();
    device[Symbol.dispose]();
    for (const use of [
      () => registers.read32(0),
      () => registers.map(),
      () => device.fd,
      () => device.config.vendorId,
      () => device.interrupts.enable(InterruptKind.Msi),
      () => device.interrupts.info(InterruptKind.Msi),
    ]) {
      t.throws(use, { name: 'DisposedError' });
    }
    await t.rejects(NvmeController.open(device), { name: 'DisposedError' });
  });

  await t.test('what the device does not have', async t => {
    using claimed = await claim(address.edu);
    using device = openDevice(claimed, { noiommu });
    t.throws(() => device.bar(3), { name: 'DeviceError', code: 'UNSUPPORTED' });
    t.throws(() => device.bar(9), RangeError);
    t.throws(() => device.region(77), { name: 'KernelError', code: 'EINVAL' });
    t.throws(() => device.interrupts.enable(InterruptKind.Msix), { code: 'UNSUPPORTED' });
    t.throws(() => device.interrupts.enable(InterruptKind.Msi, 32), RangeError);
    device.interrupts.enable(InterruptKind.Msi);
    t.throws(() => device.interrupts.enable(InterruptKind.Intx), { code: 'BUSY' });
    await t.rejects(NvmeController.open(device), { name: 'DeviceError' }, 'edu is no NVMe controller');
    t.equal(device.config.busMaster, false, 'and was not let loose on memory');
    t.throws(
      () => device.hotResetDevices(),
      { name: 'KernelError', code: 'ENODEV' },
      'its bus cannot be reset',
    );
    await t.rejects(device.reset(), { code: 'EINVAL', hint: /reset method/ });
  });

  await t.test('locked-memory limit', async t => {
    using _claimed = await claim(address.edu);
    const limited = [
      'setpriv',
      '--bounding-set=-ipc_lock',
      '--inh-caps=-ipc_lock',
      '--',
      'prlimit',
      '--memlock=1048576',
      '--',
    ];
    t.match(elsewhere(limited, address.edu, String(noiommu), '8388608').outcome, /^ENOMEM:.*RLIMIT_MEMLOCK/);
  });

  await nothingLeaked(t, before);
});
