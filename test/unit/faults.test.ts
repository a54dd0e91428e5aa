// The kernel that lies: which calls fail, what is noted, and the sweep over all calls of a scenario.
import t from 'tap';
import type { Syscalls } from '../../bindings/syscalls.js';
import { EBUSY, EIO, EMFILE, ENOMEM } from '../../bindings/uapi/errno.js';
import { F_DUPFD_CLOEXEC, F_GETFD } from '../../bindings/uapi/fcntl.js';
import { IOMMU_IOAS_ALLOC, iommu_ioas_alloc } from '../../bindings/uapi/iommufd.js';
import { LINUX_REBOOT_CMD_KEXEC } from '../../bindings/uapi/kexec.js';
import { MAP_SHARED, PROT_READ } from '../../bindings/uapi/mman.js';
import { SOCK_SEQPACKET } from '../../bindings/uapi/socket.js';
import { openIommufd } from '../../src/sim/iommufd/file.js';
import { PhysicalMemory } from '../../src/sim/machine/physical-memory.js';
import { Directory } from '../../src/sim/process/file-tree.js';
import { SimulatedProcess } from '../../src/sim/process/process.js';
import { allFailures, describeInjection, type FallibleCall, faulty } from '../../src/testing/faults.js';
import { processHost } from './support/sim-process-host.js';

function machine(): SimulatedProcess {
  const files = new Directory();
  files.directory('dev').set('iommu', { kind: 'device', open: openIommufd });
  files.directory('sys').set('value', { kind: 'text', read: () => 'x\n', write: () => 0 });
  return new SimulatedProcess(processHost(new PhysicalMemory({ size: 2 ** 28 }), files), 1);
}

function holdings(process: SimulatedProcess): string[] {
  return [
    ...[...process.openFiles].map(([fd, file]) => `${fd} ${file.name}`),
    ...process.memory.mappings.map(({ start }) => `mapping at ${start}`),
  ];
}

function allocIoas(kernel: SimulatedProcess | ReturnType<typeof faulty>, fd: number): number {
  const { bytes, view } = iommu_ioas_alloc.allocate();
  iommu_ioas_alloc.encode(view, { size: iommu_ioas_alloc.size });
  return kernel.ioctl(fd, IOMMU_IOAS_ALLOC.number, bytes);
}

t.test('the call that is meant fails, at the use that is meant', t => {
  const kernel = faulty(machine(), [
    { call: 'ioctl', request: IOMMU_IOAS_ALLOC, nth: 2, errno: ENOMEM },
    { file: /value$/, errno: EIO },
    { call: 'eventfd', nth: 1, errno: EMFILE },
  ]);
  const fd = kernel.open('/dev/iommu', 2);
  t.ok(fd > 0);
  t.equal(allocIoas(kernel, fd), 0);
  t.equal(allocIoas(kernel, fd), -ENOMEM);
  t.equal(allocIoas(kernel, fd), 0);
  t.equal(kernel.readText('/sys/value'), -EIO);
  t.equal(kernel.writeText('/sys/value', '1'), -EIO);
  t.equal(kernel.eventfd(0, 0), -EMFILE);
  t.ok(kernel.eventfd(0, 0) > 0);
  t.equal(kernel.calls, 8);
  t.same(
    kernel.injected.map(({ index, call, file, errno }) => [index, call, file, errno]),
    [
      [3, 'ioctl', '/dev/iommu', ENOMEM],
      [5, 'readText', '/sys/value', EIO],
      [6, 'writeText', '/sys/value', EIO],
      [7, 'eventfd', 'eventfd', EMFILE],
    ],
  );
  t.equal(kernel.log.split('\n')[0], '#3 ioctl 0x3b81 on /dev/iommu: errno 12');
  t.end();
});

t.test('by the file behind a descriptor', t => {
  const kernel = faulty(machine(), [{ file: 'memfd', errno: EBUSY }]);
  t.equal(kernel.memfdCreate('a', 0), -EBUSY);
  const other = faulty(machine(), [{ call: 'ftruncate', file: 'memfd', errno: EBUSY }]);
  const fd = other.memfdCreate('a', 0);
  t.equal(other.ftruncate(fd, 4096), -EBUSY);
  t.equal(other.mmap(4096, PROT_READ, MAP_SHARED, fd, 0) > 0n, true);
  t.end();
});

t.test('calls on sockets', t => {
  const process = machine();
  const one = Uint8Array.of(1);
  const path = '@name';
  const calls: Partial<Record<FallibleCall, (kernel: Syscalls, fd: number, file: number) => unknown>> = {
    socket: kernel => kernel.socket(SOCK_SEQPACKET),
    socketPair: kernel => kernel.socketPair(SOCK_SEQPACKET),
    bind: (kernel, fd) => kernel.bind(fd, path),
    listen: (kernel, fd) => kernel.listen(fd, 1),
    accept: (kernel, fd) => kernel.accept(fd),
    connect: (kernel, fd) => kernel.connect(fd, path),
    sendMessage: (kernel, fd, file) => kernel.sendMessage(fd, one, [file]),
    receiveMessage: (kernel, fd) => kernel.receiveMessage(fd, one),
    unlink: kernel => kernel.unlink('/run/name'),
    kexecFileLoad: (kernel, _fd, file) => kernel.kexecFileLoad(file, -1, '', 4),
    reboot: kernel => kernel.reboot(LINUX_REBOOT_CMD_KEXEC),
  };
  const on: Partial<Record<FallibleCall, string | undefined>> = {
    bind: path,
    connect: path,
    unlink: '/run/name',
    kexecFileLoad: 'memfd',
    reboot: undefined,
  };
  for (const [name, run] of Object.entries(calls)) {
    const call = name as FallibleCall;
    const kernel = faulty(process, [{ call, errno: EBUSY }]);
    const fd = call === 'socket' ? -1 : kernel.socket(SOCK_SEQPACKET);
    const file = kernel.memfdCreate('x', 0);
    const before = holdings(process);
    t.equal(run(kernel, fd, file), -EBUSY, name);
    t.same(holdings(process), before, `${name} did not happen`);
    t.equal(kernel.injected[0]?.file, name in on ? on[call] : 'socket');
    for (const each of [fd, file]) kernel.close(each);
  }

  // What descriptors refer to is known whichever way they came.
  const kernel = faulty(process, [
    { call: 'fcntl', file: 'received', errno: EIO },
    { call: 'listen', file: 'socket', errno: EIO },
    { call: 'ftruncate', file: 'memfd', errno: EBUSY },
  ]);
  const [sender, receiver] = kernel.socketPair(SOCK_SEQPACKET) as [number, number];
  const memfd = kernel.memfdCreate('x', 0);
  kernel.sendMessage(sender, one, [memfd]);
  const message = kernel.receiveMessage(receiver, one);
  const [received = -1] = typeof message === 'number' ? [] : message.fds;
  t.equal(kernel.fcntl(received, F_GETFD, 0), -EIO);
  const copy = kernel.fcntl(memfd, F_DUPFD_CLOEXEC, 0);
  t.equal(kernel.ftruncate(copy, 0), -EBUSY);
  const listener = kernel.socket(SOCK_SEQPACKET);
  for (const fd of [sender, receiver, listener]) t.equal(kernel.listen(fd, 1), -EIO);
  kernel.bind(listener, path);
  process.listen(listener, 1);
  kernel.connect(kernel.socket(SOCK_SEQPACKET), path);
  const accepted = kernel.accept(listener);
  t.ok(accepted > 0);
  t.equal(kernel.listen(accepted, 1), -EIO);
  t.end();
});

t.test('what gives something back does so, and complains', t => {
  const process = machine();
  const kernel = faulty(process, [
    { call: 'close', errno: EIO },
    { call: 'munmap', errno: ENOMEM },
  ]);
  const fd = kernel.memfdCreate('a', 0);
  kernel.ftruncate(fd, 4096);
  const address = kernel.mmap(4096, PROT_READ, MAP_SHARED, fd, 0);
  t.equal(kernel.munmap(address, 4096), -ENOMEM);
  t.equal(kernel.close(fd), -EIO);
  t.same(holdings(process), []);
  t.equal(kernel.close(fd), -9, 'which is not there any more');
  t.end();
});

t.test('at random, the same for the same seed', t => {
  const run = (seed: number): string => {
    const kernel = faulty(machine(), [{ call: 'eventfd', oneIn: 4, errno: EMFILE }], seed);
    for (let i = 0; i < 200; i++) kernel.eventfd(0, 0);
    return kernel.log;
  };
  t.equal(run(7), run(7));
  t.not(run(7), run(8));
  const count = run(7).split('\n').length;
  t.ok(count > 20 && count < 90, `${count} of 200`);
  t.throws(() => faulty(machine(), [{ oneIn: 2, errno: 1 }]), RangeError);
  t.throws(() => faulty(machine(), [{ errno: 0 }]), RangeError);
  t.throws(() => faulty(machine(), [{ errno: 1, nth: 0 }]), RangeError);
  t.end();
});

t.test('the sweep finds what is left behind', async t => {
  const process = machine();
  // Forgets the memfd when it cannot be made longer.
  const stage = { kernel: process, holdings: () => holdings(process) };
  const runs = await allFailures(
    () => stage,
    kernel => {
      const fd = kernel.memfdCreate('leaky', 0);
      if (fd < 0) throw new Error('no memfd');
      if (kernel.ftruncate(fd, 4096) < 0) throw new Error('no room');
      kernel.close(fd);
    },
  );
  t.same(
    runs.map(({ injection, error, left }) => [
      injection.call,
      (error as Error | undefined)?.message,
      left.length,
    ]),
    [
      ['memfdCreate', 'no memfd', 0],
      ['ftruncate', 'no room', 1],
      ['close', undefined, 0],
    ],
  );
  t.match(describeInjection((runs[1] as (typeof runs)[0]).injection), /#2 ftruncate on memfd/);
  await t.rejects(
    allFailures(
      () => stage,
      () => Promise.reject(new Error('by itself')),
    ),
    { message: 'by itself' },
  );
  await t.rejects(
    allFailures(
      () => stage,
      kernel => {
        for (;;) if (kernel.eventfd(0, 0) < 0) throw new Error('enough');
      },
      { limit: 5 },
    ),
    { message: /new calls after 5/ },
  );
});
