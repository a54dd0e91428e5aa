// The service manager's descriptor store, against a keeper that does what systemd does, with programs that die.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readlinkSync } from 'node:fs';
import t from 'tap';
import { linux } from '../../bindings/linux.js';
import type { SyscallResult, Syscalls } from '../../bindings/syscalls.js';
import { EACCES, EAGAIN, EMFILE } from '../../bindings/uapi/errno.js';
import { F_GETFD, F_SETFD, FD_CLOEXEC } from '../../bindings/uapi/fcntl.js';
import { MFD_CLOEXEC } from '../../bindings/uapi/memfd.js';
import { SOCK_DGRAM } from '../../bindings/uapi/socket.js';
import { KernelError } from '../../src/errors.js';
import { HandoffError } from '../../src/keepalive/handoff/handoff-error.js';
import { inheritance, receiveInherited } from '../../src/keepalive/handoff/inheritance.js';
import { FdStore } from '../../src/keepalive/store/fd-store.js';
import { allFailures, faulty, SimulatedHost } from '../../src/testing/index.js';
import { nodeCommand } from '../support/node-command.js';
import { notifyKeeper } from '../support/notify-keeper.js';
import { DelegatingKernel } from './support/delegating-kernel.js';
import { openDescriptors } from './support/holdings.js';

const kernel = linux();
const BAD_NAMES = ['', 'a:b', 'line\n', 'tab\t', 'ü', 'x'.repeat(256), '\x7f'];

const moduleOf = (path: string): string => new URL(`../../${path}`, import.meta.url).href;

/** A program that can use the modules under test. */
const program = (body: string): [string, string[]] =>
  nodeCommand(
    '--input-type=module',
    '--eval',
    `import { writeSync, readSync } from 'node:fs';
  import { linux } from ${JSON.stringify(moduleOf('bindings/linux.js'))};
  import { FdStore } from ${JSON.stringify(moduleOf('src/keepalive/store/fd-store.js'))};
  import { receiveInherited } from ${JSON.stringify(moduleOf('src/keepalive/handoff/inheritance.js'))};
  const kernel = linux();
  const read = fd => {
    const bytes = Buffer.alloc(64);
    return bytes.toString('utf8', 0, readSync(fd, bytes, 0, 64, 0));
  };
  ${body}`,
  );

function memfd(text: string): number {
  const fd = kernel.memfdCreate('stored', MFD_CLOEXEC);
  kernel.write(fd, Buffer.from(text));
  return fd;
}

function storeAt(address: string, through: Syscalls = kernel): FdStore {
  const store = FdStore.fromEnvironment({ NOTIFY_SOCKET: address }, through);
  if (!store) throw new Error(`no store at ${address}`);
  return store;
}

/** Runs a child to its end. @returns what it wrote to its standard output, parsed */
async function outcome(child: ReturnType<typeof spawn>): Promise<unknown> {
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`the program ended with ${code}`);
  return JSON.parse(text);
}

t.test('where the manager listens', t => {
  t.equal(FdStore.fromEnvironment({}), undefined);
  t.equal(FdStore.fromEnvironment({ NOTIFY_SOCKET: '' }), undefined);
  for (const address of ['/run/systemd/notify', '@abstract']) {
    const store = FdStore.fromEnvironment({ NOTIFY_SOCKET: address });
    t.equal(store?.address, address);
    t.equal(store?.limit, undefined);
  }
  for (const address of ['vsock:2:1234', 'relative', '@', '/']) {
    t.throws(() => FdStore.fromEnvironment({ NOTIFY_SOCKET: address }), {
      name: 'HandoffError',
      code: 'UNSUPPORTED',
      message: /NOTIFY_SOCKET/,
    });
  }
  t.equal(FdStore.fromEnvironment({ NOTIFY_SOCKET: '/x', FDSTORE: '512' })?.limit, 512);
  t.equal(FdStore.fromEnvironment({ NOTIFY_SOCKET: '/x', FDSTORE: 'many' })?.limit, undefined);
  t.end();
});

for (const address of [undefined, `@iommufd-test-${process.pid}`]) {
  t.test(`storing, ${address ?? 'by a path'}`, async t => {
    using keeper = notifyKeeper(address === undefined ? {} : { address });
    const before = openDescriptors();
    const store = storeAt(keeper.address);
    const [one, two, three] = [memfd('one'), memfd('two'), memfd('three')];
    await store.store('arena 1', one);
    await store.store('vectors', two, three);
    await store.notify('READY=1\nSTATUS=driving');
    await keeper.until(() => keeper.messages.length === 3);
    t.same(keeper.messages, [
      'FDSTORE=1\nFDNAME=arena 1\nFDPOLL=0',
      'FDSTORE=1\nFDNAME=vectors\nFDPOLL=0',
      'READY=1\nSTATUS=driving',
    ]);
    t.same(
      keeper.stored.map(({ name, fd }) => [name, readFileSync(`/proc/self/fd/${fd}`, 'utf8')]),
      [
        ['arena 1', 'one'],
        ['vectors', 'two'],
        ['vectors', 'three'],
      ],
    );
    await store.remove('vectors');
    await store.remove('nothing');
    await keeper.until(() => keeper.messages.length === 5);
    t.same(
      keeper.stored.map(({ name }) => name),
      ['arena 1'],
    );
    t.equal(keeper.messages[3], 'FDSTOREREMOVE=1\nFDNAME=vectors');
    await store.remove('arena 1');
    await keeper.until(() => keeper.stored.length === 0);
    for (const fd of [one, two, three]) kernel.close(fd);
    t.equal(openDescriptors(), before);
  });
}

t.test('arguments', async t => {
  const noting = new DelegatingKernel();
  const store = storeAt('/nowhere', noting);
  for (const name of BAD_NAMES) {
    await t.rejects(store.store(name, 0), RangeError, JSON.stringify(name));
    await t.rejects(store.remove(name), RangeError, JSON.stringify(name));
  }
  await t.rejects(store.store(7 as unknown as string, 0), TypeError);
  await t.rejects(store.remove(7 as unknown as string), TypeError);
  await t.rejects(store.store('a'), RangeError, 'no descriptor');
  await t.rejects(store.store('a', ...Array<number>(254).fill(0)), RangeError);
  await t.rejects(store.store('a', 0, -1), RangeError);
  await t.rejects(store.store('a', '0' as unknown as number), TypeError);
  await t.rejects(store.notify(''), RangeError);
  await t.rejects(store.notify(7 as unknown as string), TypeError);
  t.same(noting.calls, [], 'before any system call');
});

t.test('a manager that is not there, or refuses', async t => {
  const before = openDescriptors();
  const nowhere = storeAt('/nowhere/socket');
  await t.rejects(nowhere.notify('READY=1'), {
    code: 'ENOENT',
    path: '/nowhere/socket',
    hint: /not there/,
  });
  const gone = storeAt('@nobody-listens');
  await t.rejects(gone.store('a', 0), { code: 'ECONNREFUSED', hint: /not there/ });
  using keeper = notifyKeeper();
  const listening = openDescriptors();
  const refused = async (fault: Parameters<typeof faulty>[1][number], code: string): Promise<void> => {
    const store = storeAt(keeper.address, faulty(kernel, [fault]));
    await t.rejects(store.store('a', 0), { code });
  };
  await refused({ call: 'socket', errno: EMFILE }, 'EMFILE');
  await refused({ call: 'connect', errno: EACCES }, 'EACCES');
  await refused({ call: 'sendMessage', errno: EACCES }, 'EACCES');
  const store = storeAt(keeper.address);
  await t.rejects(store.store('a', 9999), { code: 'EBADF' });
  t.equal(openDescriptors(), listening);
  t.equal(listening, before + 1);
  t.same(keeper.messages, []);
});

t.test('a manager that is busy', async t => {
  const address = `@iommufd-busy-${process.pid}`;
  const socket = kernel.socket(SOCK_DGRAM);
  t.equal(kernel.bind(socket, address), 0);
  const before = openDescriptors();
  const store = storeAt(address);
  let sent = 0;
  const done = Promise.all(Array.from({ length: 1000 }, () => store.notify('X=1').then(() => sent++)));
  // As many as the socket takes went out at once; the rest waits.
  await new Promise(resolve => setImmediate(resolve));
  t.ok(sent > 0 && sent < 1000, `${sent} fit`);
  const buffer = new Uint8Array(16);
  let received = 0;
  const reader = setInterval(() => {
    while (typeof kernel.receiveMessage(socket, buffer) !== 'number') received++;
  }, 1);
  await done;
  await new Promise(resolve => setTimeout(resolve, 5));
  clearInterval(reader);
  t.equal(received, 1000, 'none is lost, none is sent twice');
  t.equal(openDescriptors(), before);
  kernel.close(socket);
});

t.test('a manager that hangs', async t => {
  using keeper = notifyKeeper();
  const store = storeAt(keeper.address, faulty(kernel, [{ call: 'sendMessage', errno: EAGAIN }]));
  const now = Date.now();
  // Each look at the clock is a second after the one before.
  let looks = 0;
  t.intercept(Date, 'now', { value: () => now + 1000 * looks++ });
  await t.rejects(store.notify('READY=1'), {
    name: 'HandoffError',
    code: 'TIMEOUT',
    message: /takes no messages/,
  });
  t.equal(looks, 11, 'after 10 s');
});

t.test('a program that is killed finds in its next run what it stored', async t => {
  using keeper = notifyKeeper({ limit: 3 });
  const body = `
    const before = process.env.LISTEN_FDNAMES;
    const given = receiveInherited();
    const store = FdStore.fromEnvironment();
    const texts = [...given].map(([name, fds]) => [name, fds.map(read)]);
    const flags = [...given.values()].flat().map(fd => kernel.fcntl(fd, ${F_GETFD}, 0));
    const left = Object.keys(process.env).filter(key => key.startsWith('LISTEN'));
    process.stdout.write(JSON.stringify({ before, texts, flags, left, again: receiveInherited().size, limit: store.limit }));
    if (given.size > 0) process.exit(0);
    for (const [name, text] of [['state', 'first'], ['arena', 'second'], ['arena', 'third'], ['late', 'fourth']]) {
      const fd = kernel.memfdCreate(name, 1);
      writeSync(fd, text);
      await store.store(name, fd);
    }
    process.kill(process.pid, 'SIGKILL');`;
  const outputs: string[] = [];
  const ends: unknown[] = [];
  await new Promise<void>(resolve => {
    const running = keeper.restart(
      ...program(body),
      (child, run) => {
        outputs[run] = '';
        child.stdout?.on('data', part => {
          outputs[run] += part;
        });
        child.once('close', (code, signal) => {
          ends.push([code, signal]);
          if (run < 2) return;
          running[Symbol.dispose]();
          resolve();
        });
      },
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
  });
  t.same(ends[0], [null, 'SIGKILL']);
  t.same(ends[1], [0, null]);
  t.same(JSON.parse(outputs[1] ?? ''), { texts: [], flags: [], left: [], again: 0, limit: 3 });
  t.same(JSON.parse(outputs[2] ?? ''), {
    before: 'arena:arena:state',
    texts: [
      ['arena', ['third', 'second']],
      ['state', ['first']],
    ],
    flags: [FD_CLOEXEC, FD_CLOEXEC, FD_CLOEXEC],
    left: [],
    again: 0,
    limit: 3,
  });
});

t.test('a child finds what its parent gives', async t => {
  const [one, two] = [memfd('one'), memfd('two')];
  const { stdio, env: given } = inheritance(
    new Map([
      ['a', [two]],
      ['b c', [one, two]],
    ]),
    { ...process.env, LISTEN_PID: '1', LISTEN_FDS: '1', LISTEN_FDNAMES: 'x', LISTEN_PIDFDID: '2' },
  );
  t.same(stdio, [two, one, two]);
  t.same(
    Object.keys(given).filter(key => key.includes('LISTEN')),
    ['IOMMUFD_LISTEN_FDNAMES'],
  );
  const body = `
    const texts = [...receiveInherited()].map(([name, fds]) => [name, fds.map(read)]);
    const left = Object.keys(process.env).filter(key => key.includes('LISTEN'));
    process.stdout.write(JSON.stringify({ texts, left, again: receiveInherited().size }));`;
  const child = spawn(...program(body), {
    env: given,
    stdio: ['ignore', 'pipe', 'inherit', ...stdio],
  });
  t.same(await outcome(child), {
    texts: [
      ['a', ['two']],
      ['b c', ['one', 'two']],
    ],
    left: [],
    again: 0,
  });
  t.equal(readlinkSync(`/proc/self/fd/${one}`), '/memfd:stored (deleted)', 'its own stay open');
  for (const fd of [one, two]) kernel.close(fd);
});

t.test('what cannot be given', t => {
  for (const name of BAD_NAMES) t.throws(() => inheritance(new Map([[name, [0]]])), RangeError);
  t.throws(() => inheritance(new Map([['a', [-1]]])), RangeError);
  t.throws(() => inheritance(new Map([['a', ['1' as unknown as number]]])), TypeError);
  t.same(inheritance(new Map(), { PATH: '/bin', IOMMUFD_LISTEN_FDNAMES: 'x' }), {
    stdio: [],
    env: { PATH: '/bin' },
  });
  t.end();
});

/** A process in which the descriptors below `open` are open. */
class Started extends DelegatingKernel {
  readonly flags: number[] = [];
  open_: number;

  constructor(open: number) {
    super();
    this.open_ = open;
  }

  override fcntl(fd: number, command: number, argument: number): SyscallResult {
    if (fd >= this.open_) return -9;
    if (command === F_SETFD) this.flags[fd] = argument;
    this.calls.push('fcntl');
    return 0;
  }
}

t.test('environments that make sense', t => {
  const pid = String(process.pid);
  const cases: readonly (readonly [NodeJS.ProcessEnv, Record<string, number[]>])[] = [
    [{}, {}],
    [{ LISTEN_PID: '1' }, {}],
    [{ LISTEN_FDS: '0', LISTEN_PID: pid, LISTEN_FDNAMES: '' }, {}],
    [{ LISTEN_FDS: '0' }, {}],
    [{ LISTEN_FDS: '2' }, { unknown: [3, 4] }],
    [
      { LISTEN_FDS: '3', LISTEN_PID: pid, LISTEN_FDNAMES: 'a:b:a' },
      { a: [3, 5], b: [4] },
    ],
    [
      { LISTEN_FDS: '2', LISTEN_FDNAMES: 'a:' },
      { a: [3], '': [4] },
    ],
    [{ IOMMUFD_LISTEN_FDNAMES: 'a:b' }, { a: [3], b: [4] }],
    [{ IOMMUFD_LISTEN_FDNAMES: 'a', LISTEN_FDS: '0' }, { a: [3] }],
  ];
  for (const [environment, expected] of cases) {
    const started = new Started(6);
    const copy = { PATH: '/bin', ...environment };
    t.same(Object.fromEntries(receiveInherited(copy, started)), expected, JSON.stringify(environment));
    for (const fd of Object.values(expected).flat()) t.equal(started.flags[fd], FD_CLOEXEC);
    if (Object.keys(expected).length > 0) t.same(copy, { PATH: '/bin' });
  }
  t.end();
});

t.test('environments that make none', t => {
  const pid = String(process.pid);
  const cases: readonly (readonly [NodeJS.ProcessEnv, RegExp])[] = [
    [{ LISTEN_FDS: '1', LISTEN_PID: '1' }, /LISTEN_PID is "1", and this is process \d+\. .*another process/],
    [{ LISTEN_FDS: '1', LISTEN_PID: 'x' }, /LISTEN_PID is "x"/],
    [{ LISTEN_FDS: '1', LISTEN_PID: `${pid} ` }, /LISTEN_PID/],
    [{ LISTEN_FDS: '' }, /LISTEN_FDS is ""/],
    [{ LISTEN_FDS: 'x' }, /LISTEN_FDS is "x"/],
    [{ LISTEN_FDS: '-1' }, /LISTEN_FDS is "-1"/],
    [{ LISTEN_FDS: '1.5' }, /LISTEN_FDS/],
    [{ LISTEN_FDS: '99999999999' }, /LISTEN_FDS/],
    [{ LISTEN_FDS: '2', LISTEN_FDNAMES: 'a' }, /1 names for 2 descriptors/],
    [{ LISTEN_FDS: '1', LISTEN_FDNAMES: 'a:b' }, /2 names for 1 descriptors/],
    [{ LISTEN_FDS: '4', LISTEN_FDNAMES: 'a:b:c:d' }, /descriptor 6 \(d\) .* is not open/],
    [{ LISTEN_FDS: '9999999' }, /descriptor 6 \(unknown\) .* is not open/],
    [{ IOMMUFD_LISTEN_FDNAMES: 'a:b:c:d' }, /descriptor 6 \(d\)/],
    [{ IOMMUFD_LISTEN_FDNAMES: '' }, /IOMMUFD_LISTEN_FDNAMES is ""/],
    [{ IOMMUFD_LISTEN_FDNAMES: 'a::b' }, /no names/],
    [{ IOMMUFD_LISTEN_FDNAMES: 'a', LISTEN_FDS: '1' }, /both set/],
  ];
  for (const [environment, message] of cases) {
    const started = new Started(6);
    const copy = { ...environment };
    t.throws(
      () => receiveInherited(copy, started),
      { name: 'HandoffError', code: 'PROTOCOL', message },
      JSON.stringify(environment),
    );
    t.same(copy, environment, 'the variables are as they were');
    t.same(started.flags, [], 'no descriptor was changed');
    t.notOk(started.calls.includes('close'));
  }
  t.throws(
    () =>
      receiveInherited(
        { LISTEN_FDS: '1' },
        faulty(new Started(6), [{ call: 'fcntl', nth: 2, errno: EACCES }]),
      ),
    {
      code: 'EACCES',
      message: /F_SETFD/,
    },
  );
  t.ok(new HandoffError('UNSUPPORTED', 'no').hint === undefined);
  t.end();
});

t.test('on a simulated machine', async t => {
  using host = new SimulatedHost({ memory: { size: 2 ** 26 } });
  const manager = host.process();
  const socket = manager.socket(SOCK_DGRAM);
  t.equal(manager.bind(socket, '/run/notify'), 0);
  const first = host.process();
  const file = first.memfdCreate('kept', MFD_CLOEXEC);
  first.write(file, Buffer.from('content'));
  await storeAt('/run/notify', first).store('arena', file);
  first.exit();

  const buffer = new Uint8Array(256);
  const message = manager.receiveMessage(socket, buffer);
  if (typeof message === 'number') throw new Error(`recvmsg: ${message}`);
  t.equal(Buffer.from(buffer.subarray(0, message.length)).toString(), 'FDSTORE=1\nFDNAME=arena\nFDPOLL=0');
  const second = host.process();
  t.equal(manager.share(message.fds[0] ?? -1, second), 3);
  t.throws(() => receiveInherited({ LISTEN_FDS: '2' }, second), {
    code: 'PROTOCOL',
    message: /descriptor 4/,
  });
  const given = receiveInherited({ LISTEN_FDS: '1', LISTEN_FDNAMES: 'arena' }, second);
  t.same([...given], [['arena', [3]]]);
  t.equal(second.fcntl(3, F_GETFD, 0), FD_CLOEXEC);
  t.equal(second.pread(3, buffer, 0), 7);
});

t.test('whichever call fails: stored or not, and nothing stays open', async t => {
  const runs = await allFailures(
    () => {
      const host = new SimulatedHost({ memory: { size: 2 ** 26 } });
      const manager = host.process();
      manager.bind(manager.socket(SOCK_DGRAM), '/run/notify');
      return { kernel: host.process(), holdings: () => host.leftovers() };
    },
    async through => {
      const file = through.memfdCreate('kept', MFD_CLOEXEC);
      if (file < 0) throw new KernelError(-file, { syscall: 'memfd_create' });
      try {
        const store = storeAt('/run/notify', through);
        await store.store('arena', file);
        await store.remove('arena');
      } finally {
        through.close(file);
      }
    },
  );
  t.same(
    runs.map(({ injection, error, left }) => [injection.call, error instanceof KernelError, left]),
    [
      ['memfdCreate', true, []],
      ...['store', 'remove'].flatMap(() => [
        ['socket', true, []],
        ['connect', true, []],
        ['sendMessage', true, []],
        // What was sent is sent.
        ['close', false, []],
      ]),
      ['close', false, []],
    ],
  );
});
