// Kexec by system call on the simulated host: loading, starting, what the command line and the initramfs do to devices,
// and a controller that goes on over it.
import t from 'tap';
import { EBADF, EINVAL, ENOENT, ENOEXEC, EPERM } from '../../bindings/uapi/errno.js';
import { F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK } from '../../bindings/uapi/fcntl.js';
import {
  KEXEC_FILE_NO_INITRAMFS,
  KEXEC_FILE_UNLOAD,
  LINUX_REBOOT_CMD_KEXEC,
} from '../../bindings/uapi/kexec.js';
import {
  LIVEUPDATE_IOCTL_CREATE_SESSION,
  LIVEUPDATE_IOCTL_RETRIEVE_SESSION,
  LIVEUPDATE_SESSION_PRESERVE_FD,
  LIVEUPDATE_SESSION_RETRIEVE_FD,
  liveupdate_ioctl_create_session,
  liveupdate_session_preserve_fd,
} from '../../bindings/uapi/liveupdate.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '../../bindings/uapi/memfd.js';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../bindings/uapi/mman.js';
import type { Iova } from '../../src/address.js';
import { Ioas } from '../../src/iommufd/ioas.js';
import { openDevice } from '../../src/open-device.js';
import { claim } from '../../src/pci/claim.js';
import { readPciDevice } from '../../src/pci/devices.js';
import { NvmeModel, NvmeNamespaceModel } from '../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../src/sim/host.js';
import { Capability, type SimulatedProcess } from '../../src/sim/process/process.js';
import { ProcessEnded } from '../../src/sim/process/process-ended.js';
import type { Device } from '../../src/vfio/device.js';
import { issue } from './support/sim-vfio-calls.js';

const PAGE = 4096;
const A = '0000:00:04.0';
const B = '0000:00:06.0';
const PORT = '0000:00:07.0';
const BEHIND_PORT = '0000:01:00.0';
const USUAL = 'console=ttyS0 liveupdate=on';
const sysfs = (at: string, name: string): string => `/sys/bus/pci/devices/${at}/${name}`;

const controller = (): NvmeModel =>
  new NvmeModel({ namespaces: [new NvmeNamespaceModel({ id: 1, blockSize: 512, size: 2 ** 20 })] });

function machine(profile: 'vtd' | 'noiommu' | 'legacy' = 'vtd'): SimulatedHost {
  return new SimulatedHost({
    profile,
    devices: [
      { address: A, function: controller() },
      { address: B, function: controller() },
    ],
  });
}

/** Loads the kernel that every simulated machine has. */
function load(process: SimulatedProcess, commandLine: string): number {
  const [kernel, initrd] = [process.open('/boot/vmlinuz', 0), process.open('/boot/initrd.img', 0)];
  const result = process.kexecFileLoad(kernel, initrd, commandLine, 0);
  process.close(kernel);
  process.close(initrd);
  return result;
}

/** Loads that kernel and starts it. @returns a process on it */
function replace(host: SimulatedHost, commandLine: string): SimulatedProcess {
  const process = host.process();
  const loaded = load(process, commandLine);
  if (loaded < 0) throw new Error(`load: ${loaded}`);
  try {
    process.reboot(LINUX_REBOOT_CMD_KEXEC);
  } catch (error) {
    if (error instanceof ProcessEnded) return host.process();
    throw error;
  }
  throw new Error('the process goes on');
}

const driverOf = (process: SimulatedProcess, at: string): string | undefined =>
  readPciDevice(at, process).driver;

t.test('loading', async t => {
  using host = machine();
  const process = host.process();
  const loaded = (): unknown => process.readText('/sys/kernel/kexec_loaded');
  const kernel = process.open('/boot/vmlinuz', 0);
  const initrd = process.open('/boot/initrd.img', 0);
  const memfd = process.memfdCreate('initrd', MFD_CLOEXEC);
  const attempt = (image: number, ramdisk: number, flags = 0, line = USUAL): number =>
    process.kexecFileLoad(image, ramdisk, line, flags);
  t.equal(loaded(), '0\n');
  t.equal(process.readLink('/sys/kernel/kexec_loaded'), 'kexec/loaded');
  t.equal(attempt(-1, initrd), -EBADF);
  t.equal(attempt(999, initrd), -EBADF);
  t.equal(attempt(kernel, -1), -EBADF);
  t.equal(attempt(initrd, initrd), -ENOEXEC, 'no kernel');
  t.equal(attempt(memfd, initrd), -EINVAL, 'empty');
  t.equal(attempt(kernel, memfd), -EINVAL);
  t.equal(attempt(kernel, process.eventfd(1, 0)), -EINVAL, 'no file');
  t.equal(attempt(kernel, initrd, 0x40), -EINVAL);
  t.equal(attempt(kernel, initrd, 2 ** 40), -EINVAL);
  t.equal(attempt(kernel, initrd, 0, 'x'.repeat(2017)), -EINVAL, 'too long');
  t.equal(loaded(), '0\n');
  t.equal(process.reboot(LINUX_REBOOT_CMD_KEXEC), -EINVAL, 'there is nothing to start');

  t.equal(attempt(kernel, initrd, 0, 'x'.repeat(2016)), 0);
  t.equal(loaded(), '1\n');
  t.equal(attempt(initrd, initrd), -ENOEXEC);
  t.equal(loaded(), '1\n', 'the one that was loaded stays');
  t.equal(attempt(-1, -1, KEXEC_FILE_UNLOAD), 0);
  t.equal(loaded(), '0\n');
  process.pwrite(memfd, new TextEncoder().encode('an archive'), 0);
  t.equal(attempt(memfd, initrd), -ENOEXEC);
  t.equal(attempt(kernel, memfd), 0, 'a memfd as initrd');
  t.equal(attempt(-1, -1, KEXEC_FILE_UNLOAD), 0);
  t.equal(attempt(kernel, -1, KEXEC_FILE_NO_INITRAMFS), 0, 'or none');
  const copy = process.memfdCreate('kernel', MFD_CLOEXEC);
  process.pwrite(copy, new TextEncoder().encode(process.readText('/boot/vmlinuz') as string), 0);
  t.equal(attempt(copy, memfd), 0, 'a kernel is one wherever it lies');

  process.capabilities.delete(Capability.SysBoot);
  t.equal(attempt(kernel, initrd), -EPERM);
  t.equal(attempt(-1, -1, KEXEC_FILE_UNLOAD), -EPERM);
  t.equal(process.reboot(LINUX_REBOOT_CMD_KEXEC), -EPERM);
  t.equal(loaded(), '1\n');
});

t.test('arguments that cannot be passed', async t => {
  using host = machine();
  const process = host.process();
  for (const bad of [-2, 0.5, 2 ** 31]) {
    t.throws(() => process.kexecFileLoad(bad, -1, '', 0), RangeError);
    t.throws(() => process.kexecFileLoad(-1, bad, '', 0), RangeError);
  }
  t.throws(() => process.kexecFileLoad(-1, -1, 'a\0b', 0), RangeError);
  t.throws(() => process.kexecFileLoad(-1, -1, '', -1), RangeError);
  t.throws(() => process.kexecFileLoad(-1, -1, 1 as unknown as string, 0), TypeError);
  for (const bad of [0.5, 2 ** 32, Number.NaN]) t.throws(() => process.reboot(bad), RangeError);
  t.throws(() => process.reboot('x' as unknown as number), TypeError);
  t.throws(() => process.reboot(0x1234567), /not simulated/, 'a restart, which is no kexec');
  t.equal(process.ended, false);
});

t.test('starting it ends every process', async t => {
  using host = machine();
  const [one, other] = [host.process(), host.process()];
  t.equal(one.readText('/proc/cmdline'), `${USUAL}\n`);
  t.equal(load(one, `${USUAL} mark=1`), 0);
  host.bus.slot(A)?.changeConfig(4, 0, 6);
  t.throws(() => one.reboot(LINUX_REBOOT_CMD_KEXEC), { name: 'ProcessEnded', pid: one.pid });
  for (const process of [one, other]) {
    t.equal(process.ended, true);
    t.throws(() => process.readText('/proc/cmdline'), ProcessEnded);
    t.throws(() => process.reboot(LINUX_REBOOT_CMD_KEXEC), ProcessEnded);
    t.throws(() => process.kexecFileLoad(-1, -1, '', 0), ProcessEnded);
    t.throws(() => process.socketPair(5), ProcessEnded);
  }
  const next = host.process();
  t.equal(next.readText('/proc/cmdline'), `${USUAL} mark=1\n`);
  t.equal(next.readText('/sys/kernel/kexec_loaded'), '0\n');
  t.equal(next.reboot(LINUX_REBOOT_CMD_KEXEC), -EINVAL, 'it has loaded none itself');
  t.equal(host.bus.slot(A)?.busMaster, false);
  t.strictSame(host.leftovers(), []);
  host.kexec({ vfioPciIds: ['1b36:0010'], blacklist: ['nvme', 'vfio-pci'] });
  t.equal(
    host.process().readText('/proc/cmdline'),
    `${USUAL} vfio-pci.ids=1b36:0010 module_blacklist=nvme,vfio_pci\n`,
    'the other way to replace the kernel says it, too',
  );
});

t.test('what the command line says about drivers', async t => {
  using host = machine();
  const drivers = (line: string): (string | undefined)[] => {
    const process = replace(host, line);
    return [A, B].map(at => driverOf(process, at));
  };
  t.strictSame(drivers(USUAL), ['nvme', 'nvme']);
  t.strictSame(drivers('vfio-pci.ids=1b36:0010'), ['nvme', 'nvme'], 'it was there first');
  for (const line of [
    'vfio-pci.ids=1b36:0010 module_blacklist=nvme',
    'vfio_pci.ids=1B36:10 initcall_blacklist=nvme_init',
    'initcall_blacklist=foo,nvme_init initcall_blacklist=bar "vfio-pci.ids=1234:11e8,1b36:0010"',
    'module_blacklist=ext4,nvme vfio-pci.ids=1b36:0010:1af4:1100',
    'module_blacklist=nvme vfio-pci.ids=1b36:0010:ffffffff:1100',
  ]) {
    t.strictSame(drivers(line), ['vfio-pci', 'vfio-pci'], line);
  }
  for (const line of [
    'module_blacklist=nvme vfio-pci.ids=1b36:0011',
    'module_blacklist=nvme vfio-pci.ids=1b36:0010:1af4:1101',
    'module_blacklist=nvme vfio-pci.ids=1b36',
    'module_blacklist=nvme,vfio_pci vfio-pci.ids=1b36:0010',
    'module_blacklist=nvme initcall_blacklist=vfio_pci_init vfio-pci.ids=1b36:0010',
    'module_blacklist=nvme -- vfio-pci.ids=1b36:0010',
  ]) {
    t.strictSame(drivers(line), [undefined, undefined], line);
  }
  t.strictSame(
    drivers('module_blacklist=nvme module_blacklist=ext4'),
    ['nvme', 'nvme'],
    'the last one holds',
  );
  t.equal(host.process().access('/sys/module/nvme/initstate', 0), 0);
  replace(host, 'module_blacklist=nvme');
  t.equal(host.process().access('/sys/module/nvme', 0), -ENOENT);
});

t.test('what the command line says about the rest', async t => {
  using host = machine();
  const [live, parameter] = ['/dev/liveupdate', '/sys/module/vfio_pci/parameters/disable_idle_d3'];
  for (const [line, there, awake] of [
    ['', -ENOENT, 'N\n'],
    ['liveupdate=on vfio_pci.disable_idle_d3=1', 0, 'Y\n'],
    ['liveupdate=1 vfio-pci.disable-idle-d3', 0, 'Y\n'],
    ['liveupdate=off vfio_pci.disable_idle_d3=0', -ENOENT, 'N\n'],
    ['liveupdate', -ENOENT, 'N\n'],
  ] as const) {
    const process = replace(host, line);
    t.equal(process.access(live, 0), there, line);
    t.equal(process.readText(parameter), awake, line);
  }
  using unprotected = machine('noiommu');
  const unsafe = '/sys/module/vfio/parameters/enable_unsafe_noiommu_mode';
  const process = unprotected.process();
  t.equal(process.readText(unsafe), 'Y\n');
  const usual = (process.readText('/proc/cmdline') as string).trim();
  t.equal(replace(unprotected, 'liveupdate=on').readText(unsafe), 'N\n');
  t.equal(replace(unprotected, usual).readText(unsafe), 'Y\n');
  using legacy = machine('legacy');
  t.equal(legacy.process().access(live, 0), -ENOENT);
  t.equal(replace(legacy, USUAL).access(live, 0), -ENOENT, 'a kernel without it');
});

t.test('what the initramfs does', async t => {
  using host = machine();
  host.landing = { overrides: { [B]: 'vfio-pci' }, withoutReset: [B, '0000:00:1f.0'] };
  let process = replace(host, USUAL);
  t.equal(driverOf(process, A), 'nvme');
  t.equal(driverOf(process, B), 'vfio-pci');
  t.equal(process.readText(sysfs(A, 'driver_override')), '(null)\n');
  t.equal(process.readText(sysfs(B, 'driver_override')), 'vfio-pci\n');
  t.equal(process.readText(sysfs(A, 'reset_method')), 'flr\n');
  t.equal(process.readText(sysfs(B, 'reset_method')), '');
  host.kexec();
  process = host.process();
  t.equal(driverOf(process, B), 'nvme', 'nothing of it is left in the next one');
  t.equal(process.readText(sysfs(B, 'reset_method')), 'flr\n');
  host.kexec({ overrides: { [A]: 'vfio-pci' } });
  t.equal(driverOf(host.process(), A), 'vfio-pci');

  host.landing = { overrides: { [A]: 'none-such', [BEHIND_PORT]: 'vfio-pci' } };
  process = replace(host, `${USUAL} vfio-pci.ids=1b36:0010`);
  t.equal(driverOf(process, A), undefined, 'a driver that is not there');
  host.plug({ address: BEHIND_PORT, port: PORT, function: controller() });
  t.equal(driverOf(process, BEHIND_PORT), 'nvme', 'it came when the initramfs was done');
  process = replace(host, USUAL);
  t.equal(driverOf(process, BEHIND_PORT), 'vfio-pci');
});

// A controller that is kept: one memfd at one IOVA, in which are its queues and the data, over two kernels.

const IOVA = 0x10_0000n as Iova;
const PAGES = 8;
const [ADMIN_SQ, ADMIN_CQ, IO_SQ, IO_CQ, DATA] = [0, 1, 2, 3, 4];
const ENTRIES = 16;
const Register = { CC: 0x14, CSTS: 0x1c, AQA: 0x24, ASQ: 0x28, ACQ: 0x30, DOORBELLS: 0x1000 };
const at = (page: number): bigint => IOVA + BigInt(page * PAGE);

/** Where a queue pair is; all that the next kernel's driver has to know of it. */
interface Queue {
  readonly id: number;
  readonly sq: number;
  readonly cq: number;
  /** Commands so far. */
  done: number;
}

/** Issues a command and waits for it. @returns its status */
async function run(device: Device, memory: Uint8Array, queue: Queue, words: Record<number, number | bigint>) {
  const view = new DataView(memory.buffer);
  const entry = queue.sq * PAGE + 64 * (queue.done % ENTRIES);
  memory.fill(0, entry, entry + 64);
  for (const [offset, value] of Object.entries(words)) {
    if (typeof value === 'bigint') view.setBigUint64(entry + Number(offset), value, true);
    else view.setUint32(entry + Number(offset), value, true);
  }
  const completion = queue.cq * PAGE + 16 * (queue.done % ENTRIES);
  const phase = Math.floor(queue.done / ENTRIES) % 2 === 0 ? 1 : 0;
  queue.done++;
  const doorbell = Register.DOORBELLS + 8 * queue.id;
  device.bar(0).write32(doorbell, queue.done % ENTRIES);
  for (let waited = 0; ; waited++) {
    const status = view.getUint16(completion + 14, true);
    if ((status & 1) === phase) {
      device.bar(0).write32(doorbell + 4, queue.done % ENTRIES);
      return status >> 1;
    }
    if (waited === 200) return undefined;
    await new Promise(resolve => setTimeout(resolve, 1));
  }
}

function transfer(device: Device, memory: Uint8Array, queue: Queue, opcode: 1 | 2, block: number) {
  return run(device, memory, queue, { 0: opcode, 4: 1, 24: at(DATA), 40: block });
}

/** Maps the file at its IOVA, and all of it into the process. */
function useMemory(process: SimulatedProcess, device: Device, memfd: number): Uint8Array {
  if (!(device.space instanceof Ioas)) throw new Error('no iommufd');
  device.space.mapFile({ fd: memfd, length: PAGES * PAGE }, IOVA);
  const address = process.mmap(PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
  return new Uint8Array(process.view(address, PAGES * PAGE));
}

async function bringUp(device: Device, memory: Uint8Array): Promise<Queue> {
  const registers = device.bar(0);
  device.config.memory = true;
  device.config.busMaster = true;
  registers.write32(Register.CC, 0);
  registers.write32(Register.AQA, ((ENTRIES - 1) << 16) | (ENTRIES - 1));
  registers.write64(Register.ASQ, at(ADMIN_SQ));
  registers.write64(Register.ACQ, at(ADMIN_CQ));
  registers.write32(Register.CC, 0x46_0001);
  const admin: Queue = { id: 0, sq: ADMIN_SQ, cq: ADMIN_CQ, done: 0 };
  const size = ((ENTRIES - 1) << 16) | 1;
  const created = [
    await run(device, memory, admin, { 0: 5, 24: at(IO_CQ), 40: size, 44: 1 }),
    await run(device, memory, admin, { 0: 1, 24: at(IO_SQ), 40: size, 44: (1 << 16) | 1 }),
  ];
  if (created.some(status => status !== 0)) throw new Error(`queues: ${created}`);
  return { id: 1, sq: IO_SQ, cq: IO_CQ, done: 0 };
}

function session(process: SimulatedProcess, retrieve: boolean): number {
  const device = process.open('/dev/liveupdate', 2);
  const { bytes, view } = liveupdate_ioctl_create_session.allocate();
  liveupdate_ioctl_create_session.encode(view, { size: bytes.byteLength, name: Buffer.from('kept') });
  const request = retrieve ? LIVEUPDATE_IOCTL_RETRIEVE_SESSION : LIVEUPDATE_IOCTL_CREATE_SESSION;
  const result = process.ioctl(device, request.number, bytes);
  process.close(device);
  if (result < 0) throw new Error(`session: ${result}`);
  return liveupdate_ioctl_create_session.get(view, 'fd');
}

function preserve(process: SimulatedProcess, fd: number): void {
  const values = { size: liveupdate_session_preserve_fd.size, fd, token: 1n };
  const { result } = issue(process, session(process, false), LIVEUPDATE_SESSION_PRESERVE_FD, values);
  if (result < 0) throw new Error(`preserve: ${result}`);
}

/** The file out of the session, which is over then. */
function retrieved(process: SimulatedProcess): number {
  const incoming = session(process, true);
  const values = { size: liveupdate_session_preserve_fd.size, token: 1n };
  const { fd } = issue(process, incoming, LIVEUPDATE_SESSION_RETRIEVE_FD, values).values;
  process.close(incoming);
  return fd;
}

/** Brings A up without its reset methods, has it write three blocks, and keeps its memory. */
async function keep(host: SimulatedHost) {
  const process = host.process();
  const claimed = await claim(A, { kernel: process });
  process.writeText(sysfs(A, 'reset_method'), '\n');
  const device = openDevice(claimed);
  const memfd = process.memfdCreate('arena', MFD_ALLOW_SEALING | MFD_CLOEXEC);
  process.ftruncate(memfd, PAGES * PAGE);
  process.fcntl(memfd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
  const memory = useMemory(process, device, memfd);
  const queue = await bringUp(device, memory);
  for (let block = 0; block < 3; block++) {
    memory.fill(0x40 + block, DATA * PAGE, DATA * PAGE + 512);
    if ((await transfer(device, memory, queue, 1, block)) !== 0) throw new Error('write');
  }
  preserve(process, memfd);
  return { device, queue };
}

t.test('a controller goes on over a kexec', async t => {
  using host = machine();
  const { device, queue } = await keep(host);
  const configuration = device.bar(0).read32(Register.CC);
  host.landing = { overrides: { [A]: 'vfio-pci' } };
  for (let round = 0; round < 3; round++) {
    const process = replace(host, USUAL);
    t.equal(driverOf(process, B), 'nvme', 'the other one is with its own driver');
    t.equal(process.readText(sysfs(A, 'reset_method')), 'flr\n', 'the next kernel would reset it');
    process.writeText(sysfs(A, 'reset_method'), '\n');
    const kept = openDevice(A, { kernel: process });
    t.equal(kept.info.canReset, false);
    t.equal(kept.config.busMaster, false);
    t.equal(kept.bar(0).read32(Register.CSTS), 1, 'it was running all along');
    t.equal(kept.bar(0).read32(Register.CC), configuration);
    const memfd = retrieved(process);
    const memory = useMemory(process, kept, memfd);
    kept.config.busMaster = true;
    // Through the old queues, without a command to set them up.
    for (let block = 0; block < 3; block++) {
      memory.fill(0, DATA * PAGE, DATA * PAGE + 512);
      t.equal(await transfer(kept, memory, queue, 2, block), 0);
      t.ok(
        memory
          .subarray(DATA * PAGE, DATA * PAGE + 512)
          .every(byte => byte === 0x40 + block + (block === 2 ? round : 0)),
      );
    }
    memory.fill(0x42 + round + 1, DATA * PAGE, DATA * PAGE + 512);
    t.equal(await transfer(kept, memory, queue, 1, 2), 0, 'and it writes');
    preserve(process, memfd);
  }
});

t.test('a controller does not go on', async t => {
  const running = async (
    prepare: (host: SimulatedHost) => void,
    methods: string,
  ): Promise<[number, number]> => {
    using host = machine();
    await keep(host);
    prepare(host);
    const process = replace(host, USUAL);
    const claimed = await claim(A, { kernel: process });
    process.writeText(sysfs(A, 'reset_method'), methods);
    const device = openDevice(claimed);
    device.config.memory = true;
    const { CC, CSTS } = Register;
    return [device.bar(0).read32(CC), device.bar(0).read32(CSTS)];
  };
  const landed = (host: SimulatedHost): void => {
    host.landing = { overrides: { [A]: 'vfio-pci' } };
  };
  t.strictSame(await running(landed, '\n'), [0x46_0001, 1], 'it does when all is done');
  t.strictSame(await running(landed, 'default'), [0, 0], 'opening it has reset it');
  t.strictSame(await running(() => undefined, '\n'), [0, 0], 'the native driver has had it');
});
