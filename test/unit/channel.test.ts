// Channels: messages with descriptors between processes, on the running kernel and between simulated processes, which
// must do the same; and what comes of everything that is not as it should be.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { linux } from '../../bindings/linux.js';
import type { Syscalls } from '../../bindings/syscalls.js';
import { EACCES, EIO, EMFILE, ENOMEM, EPIPE, ETXTBSY } from '../../bindings/uapi/errno.js';
import { F_GETFD, FD_CLOEXEC } from '../../bindings/uapi/fcntl.js';
import { MFD_CLOEXEC } from '../../bindings/uapi/memfd.js';
import { SOCK_SEQPACKET } from '../../bindings/uapi/socket.js';
import { DisposedError, KernelError } from '../../src/errors.js';
import { Channel } from '../../src/keepalive/handoff/channel.js';
import { ChannelListener } from '../../src/keepalive/handoff/channel-listener.js';
import { HandoffError } from '../../src/keepalive/handoff/handoff-error.js';
import { type FdtNode, writeFdt } from '../../src/keepalive/state/fdt.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { allFailures, faulty, SimulatedHost } from '../../src/testing/index.js';
import { nodeCommand } from '../support/node-command.js';
import { runScript } from './support/child.js';
import { openDescriptors } from './support/holdings.js';

const FOREVER = 60_000;
const moduleOf = (path: string): string => JSON.stringify(new URL(`../../${path}`, import.meta.url).href);

/** Two processes on one kernel. On the running one both are this process. */
interface Ends {
  readonly a: Syscalls;
  readonly b: Syscalls;
  /** Where sockets can be made. */
  readonly directory: string;
  /** Something in the file system that is no socket. */
  readonly file: string;
  /** Gives a channel of `a` to `b`. */
  give(channel: Channel): Channel;
  /** How many descriptors there are. */
  held(): number;
}

const worlds: Record<string, () => Ends & Disposable> = {
  running() {
    const directory = mkdtempSync(join(tmpdir(), 'channel-'));
    const file = join(directory, 'file');
    writeFileSync(file, 'precious');
    const kernel = linux();
    return {
      a: kernel,
      b: kernel,
      directory,
      file,
      give: channel => channel,
      held: openDescriptors,
      [Symbol.dispose]: () => rmSync(directory, { recursive: true }),
    };
  },
  simulated() {
    const host = new SimulatedHost({ memory: { size: 2 ** 26 } });
    const [a, b] = [host.process(), host.process()];
    return {
      a,
      b,
      directory: '/run',
      file: '/proc/sys/vm/nr_hugepages',
      give(channel) {
        const given = Channel.adopt(a.share(channel.fd, b), b);
        channel[Symbol.dispose]();
        return given;
      },
      held: () => a.openFiles.size + b.openFiles.size,
      [Symbol.dispose]: () => host[Symbol.dispose](),
    };
  },
};

function pair({ a, give }: Ends): [Channel, Channel] {
  const [one, other] = Channel.pair(a);
  return [one, give(other)];
}

function memfd(kernel: Syscalls, text: string): number {
  const fd = kernel.memfdCreate('passed', MFD_CLOEXEC);
  kernel.pwrite(fd, Buffer.from(text), 0);
  return fd;
}

function textOf(kernel: Syscalls, fd: number): string {
  const bytes = new Uint8Array(64);
  return Buffer.from(bytes.subarray(0, kernel.pread(fd, bytes, 0))).toString();
}

const fields = (entries: Record<string, string>): Map<string, Uint8Array> =>
  new Map(Object.entries(entries).map(([name, value]) => [name, FdtValue.string(value)]));

/** The bytes of a device tree with these children. */
function tree(compatible: string | undefined, children: readonly FdtNode[]): Uint8Array {
  const properties = new Map(compatible === undefined ? [] : [['compatible', FdtValue.string(compatible)]]);
  return writeFdt({ root: { name: '', properties, children }, reservations: [], bootCpu: 0 });
}

const node = (name: string, children: readonly FdtNode[] = []): FdtNode => ({
  name,
  properties: new Map(),
  children,
});

const protocol = { name: 'HandoffError', code: 'PROTOCOL' };
const timeout = { name: 'HandoffError', code: 'TIMEOUT' };
const peerGone = { name: 'HandoffError', code: 'PEER_GONE' };
const disposed = { code: 'DISPOSED' };

const scenarios: Record<string, (t: Test, ends: Ends) => Promise<void>> = {
  async 'messages with descriptors'(t, ends) {
    const { a, b, held } = ends;
    const before = held();
    {
      const made = pair(ends);
      using one = made[0];
      using other = made[1];
      const memory = memfd(a, 'content');
      one.send('offer', fields({ version: '1', 'a.b,c': 'ü' }), [memory, memory]);
      a.close(memory);
      one.send('end');
      using offer = await other.receive(FOREVER);
      t.equal(offer.kind, 'offer');
      t.strictSame(offer.fields, fields({ version: '1', 'a.b,c': 'ü' }));
      t.equal(offer.fds.length, 2);
      for (const fd of offer.fds) t.equal(b.fcntl(fd, F_GETFD, 0), FD_CLOEXEC);
      using end = await other.receive(0);
      t.equal(end.kind, 'end');
      t.strictSame(end.fields, new Map());
      t.strictSame(end.take(), []);
      const [first = -1, second = -1] = offer.take();
      t.equal(textOf(b, first), 'content');
      t.throws(() => offer.take(), disposed);
      offer[Symbol.dispose]();
      t.equal(textOf(b, second), 'content', 'what was taken stays');
      other.send('thanks', new Map([['size', FdtValue.u32(7)]]), [first]);
      b.close(first);
      b.close(second);
      using thanks = await one.receive(FOREVER);
      t.equal(FdtValue.readU32(thanks.fields.get('size') ?? new Uint8Array(0)), 7);
      t.equal(textOf(a, thanks.fds[0] ?? -1), 'content', 'and back');
    }
    t.equal(held(), before);
  },

  async 'descriptors that nobody takes are closed'(t, ends) {
    const { a, held } = ends;
    const before = held();
    const [one, other] = pair(ends);
    const memory = memfd(a, 'x');
    for (const kind of ['read', 'disposed', 'unread']) one.send(kind, new Map(), [memory, memory]);
    a.close(memory);
    const message = await other.receive(0);
    const disposedOf = await other.receive(0);
    t.equal(held(), before + 2 + 4);
    disposedOf[Symbol.dispose]();
    disposedOf[Symbol.dispose]();
    t.throws(() => disposedOf.take(), disposed);
    t.equal(held(), before + 2 + 2);
    other[Symbol.dispose]();
    other[Symbol.dispose]();
    t.throws(() => message.take(), disposed, 'those of a message go with the channel');
    one[Symbol.dispose]();
    t.equal(held(), before);
  },

  async 'as much as fits'(t, ends) {
    const { a } = ends;
    const made = pair(ends);
    using one = made[0];
    using other = made[1];
    const memory = memfd(a, 'x');
    const overhead = tree('iommufd,message-v1', [
      { name: 'k', properties: new Map([['v', new Uint8Array(0)]]), children: [] },
    ]).byteLength;
    // Values take multiples of four bytes.
    const room = Math.floor((65_536 - overhead) / 4) * 4;
    const value = new Uint8Array(room).fill(7);
    one.send('k', new Map([['v', value]]), Array<number>(253).fill(memory));
    using message = await other.receive(0);
    t.strictSame(message.fields.get('v'), value);
    t.equal(message.fds.length, 253);
    a.close(memory);

    const refused: (readonly [() => void, 'RangeError' | 'TypeError'])[] = [
      [() => one.send('k', new Map([['v', new Uint8Array(room + 1)]])), 'RangeError'],
      [() => one.send('k', new Map(), Array<number>(254).fill(0)), 'RangeError'],
      [() => one.send('k', new Map(), [-1]), 'RangeError'],
      [() => one.send('k', new Map(), [1.5]), 'RangeError'],
      [() => one.send('k', new Map(), ['0' as unknown as number]), 'TypeError'],
      [() => one.send(''), 'RangeError'],
      [() => one.send('two words'), 'RangeError'],
      [() => one.send('x'.repeat(256)), 'RangeError'],
      [() => one.send('k', fields({ 'a b': '' })), 'RangeError'],
      [() => one.send('k', new Map([['v', 'text' as unknown as Uint8Array]])), 'TypeError'],
    ];
    for (const [send, name] of refused) t.throws(send, { name });
    t.throws(() => one.send('k', new Map(), [9999]), { code: 'EBADF', syscall: 'sendmsg' });
    await t.rejects(other.receive(0), timeout, 'none of them was sent');
    let sent = 0;
    t.throws(
      () => {
        for (; sent < 100_000; sent++) one.send('more');
      },
      { code: 'EAGAIN', hint: /unread/ },
    );
    for (let received = 0; received < sent; received++) (await other.receive(0))[Symbol.dispose]();
    await t.rejects(other.receive(0), timeout, 'each arrives once');
  },

  async waiting(t, ends) {
    const made = pair(ends);
    using one = made[0];
    using other = made[1];
    await t.rejects(other.receive(0), { ...timeout, message: /within 0 ms/ });
    const began = Date.now();
    await t.rejects(other.receive(30), { ...timeout, message: /within 30 ms/ });
    t.ok(Date.now() - began >= 29);
    one.send('late');
    t.equal((await other.receive(0)).kind, 'late', 'what comes too late is there for the next');
    const first = other.receive(FOREVER);
    await t.rejects(other.receive(0), { message: /has not ended/ });
    setTimeout(() => one.send('first'), 5);
    t.equal((await first).kind, 'first');
    const second = other.receive(20);
    setTimeout(() => {
      one.send('in-time');
      // The event loop is busy until the deadline is over.
      const until = Date.now() + 40;
      while (Date.now() < until);
    }, 5);
    t.equal((await second).kind, 'in-time', 'arrived before the deadline, though nobody had looked');
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 31]) await t.rejects(other.receive(bad), RangeError);
    await t.rejects(other.receive('1' as unknown as number), TypeError);
    const pending = other.receive(FOREVER);
    other[Symbol.dispose]();
    await t.rejects(pending, disposed);
    await t.rejects(other.receive(0), disposed);
    t.throws(() => other.send('x'), disposed);
    t.throws(() => other.fd, DisposedError);
    await t.rejects(one.receive(FOREVER), peerGone);
  },

  async 'the other side goes away'(t, ends) {
    const { a, held } = ends;
    const before = held();
    {
      const [one, other] = pair(ends);
      const memory = memfd(a, 'x');
      one.send('last-words', new Map(), [memory]);
      a.close(memory);
      other.send('never-read');
      one[Symbol.dispose]();
      t.throws(() => other.send('x'), peerGone);
      t.equal((await other.receive(FOREVER)).kind, 'last-words');
      await t.rejects(other.receive(FOREVER), peerGone);
      await t.rejects(other.receive(0), peerGone, 'each time');
      t.throws(() => other.send('x'), peerGone);
      other[Symbol.dispose]();
    }
    {
      const [one, other] = pair(ends);
      one.send('last-words');
      other.send('never-read');
      one[Symbol.dispose]();
      t.equal((await other.receive(FOREVER)).kind, 'last-words', 'nothing was sent first');
      await t.rejects(other.receive(FOREVER), peerGone);
      other[Symbol.dispose]();
    }
    {
      const [one, other] = pair(ends);
      const waiting = other.receive(FOREVER);
      other.send('never-read');
      setTimeout(() => one[Symbol.dispose](), 5);
      await t.rejects(waiting, peerGone, 'while it is waited for');
      other[Symbol.dispose]();
    }
    t.equal(held(), before);
  },

  async 'what is no message'(t, ends) {
    const { a, held } = ends;
    const made = pair(ends);
    using one = made[0];
    using other = made[1];
    const before = held();
    const memory = memfd(a, 'x');
    const version = { name: 'HandoffError', code: 'VERSION', message: /iommufd,message-v2/ };
    const cases: readonly (readonly [Uint8Array, Record<string, unknown>])[] = [
      [Buffer.from('hello'), protocol],
      [new Uint8Array(65_536), protocol],
      [new Uint8Array(65_537), { ...protocol, hint: /RLIMIT_NOFILE/ }],
      [tree('iommufd,message-v1', [node('k')]).subarray(0, 60), protocol],
      [tree('iommufd,message-v2', [node('k')]), version],
      [tree('something,else', [node('k')]), { ...protocol, message: /something,else/ }],
      [tree(undefined, [node('k')]), protocol],
      [tree('iommufd,message-v1', []), protocol],
      [tree('iommufd,message-v1', [node('k'), node('l')]), protocol],
      [tree('iommufd,message-v1', [node('k', [node('l')])]), protocol],
    ];
    for (const [bytes, expected] of cases) {
      t.equal(a.sendMessage(one.fd, bytes, [memory, memory]), bytes.byteLength);
      await t.rejects(other.receive(FOREVER), expected as typeof protocol);
      t.equal(held(), before + 1, 'its descriptors are closed');
    }
    one.send('after-all');
    t.equal((await other.receive(0)).kind, 'after-all', 'the next is there');
    a.close(memory);
  },

  async 'by a path'(t, ends) {
    const { a, b, directory, held } = ends;
    const before = held();
    const path = join(directory, 'listener');
    const early = Channel.connect(path, { kernel: b, timeout: FOREVER });
    await sleep(20);
    {
      using listener = ChannelListener.listen(path, a);
      t.equal(listener.path, path);
      using accepted = await listener.accept(FOREVER);
      using connected = await early;
      connected.send('hello');
      t.equal((await accepted.receive(FOREVER)).kind, 'hello');

      await t.rejects(listener.accept(0), {
        ...timeout,
        message: /nobody connected to .*listener within 0 ms/,
      });
      await t.rejects(listener.accept(10), timeout);
      const waiting = listener.accept(FOREVER);
      await t.rejects(listener.accept(0), { message: /has not ended/ });
      using second = await Channel.connect(path, { kernel: b });
      using secondAccepted = await waiting;
      secondAccepted.send('you-are-second');
      t.equal((await second.receive(FOREVER)).kind, 'you-are-second');

      using pending = await Channel.connect(path, { kernel: b });
      const never = (async () => {
        for (;;) (await listener.accept(FOREVER))[Symbol.dispose]();
      })();
      await t.rejects(pending.receive(FOREVER), peerGone, 'accepted, and closed');
      using unaccepted = await Channel.connect(path, { kernel: b });
      listener[Symbol.dispose]();
      listener[Symbol.dispose]();
      await t.rejects(never, disposed);
      await t.rejects(unaccepted.receive(FOREVER), peerGone);
      await t.rejects(listener.accept(0), disposed);
      connected.send('still-there');
      t.equal((await accepted.receive(FOREVER)).kind, 'still-there', 'what was accepted stays');
      t.equal(a.access(path, 0), -2, 'the socket is removed');
    }
    t.equal(held(), before);
  },

  async 'a path at which nobody listens'(t, ends) {
    const { a, b, directory, file, held } = ends;
    const before = held();
    const path = join(directory, 'nobody');
    await t.rejects(Channel.connect(path, { kernel: b, timeout: 0 }), {
      ...timeout,
      message: /nobody listened at .*nobody within 0 ms/,
    });
    await t.rejects(Channel.connect(path, { kernel: b, timeout: 25 }), timeout);
    await t.rejects(Channel.connect(file, { kernel: b, timeout: 0 }), timeout);
    await t.rejects(Channel.connect('@iommufd-nobody', { kernel: b, timeout: 0 }), timeout);
    for (const bad of ['', '@', 'a\0b', `/${'x'.repeat(107)}`]) {
      await t.rejects(Channel.connect(bad, { kernel: b }), RangeError);
      t.throws(() => ChannelListener.listen(bad, a), RangeError);
    }
    await t.rejects(Channel.connect(7 as unknown as string, { kernel: b }), TypeError);
    t.throws(() => ChannelListener.listen(7 as unknown as string, a), TypeError);
    for (const bad of [-1, 0.5, 2 ** 31]) {
      await t.rejects(Channel.connect(path, { kernel: b, timeout: bad }), RangeError);
      using listener = ChannelListener.listen(path, a);
      await t.rejects(listener.accept(bad), RangeError);
    }
    t.equal(held(), before);
  },

  async 'a path that is taken'(t, ends) {
    const { a, b, directory, file, held } = ends;
    const before = held();
    t.throws(() => ChannelListener.listen('@iommufd-anybody', a), {
      name: 'RangeError',
      message: /abstract/,
    });
    t.throws(() => ChannelListener.listen(file, a), {
      code: 'EADDRINUSE',
      path: file,
      hint: /remove what is no socket/,
    });
    t.equal(a.access(file, 0), 0, 'a file is not removed');
    t.throws(() => ChannelListener.listen(join(directory, 'none/socket'), a), {
      code: 'ENOENT',
      hint: /directory/,
    });
    const path = join(directory, 'taken');
    {
      using listener = ChannelListener.listen(path, b);
      t.throws(() => ChannelListener.listen(path, a), { code: 'EADDRINUSE' });
      using connected = await Channel.connect(path, { kernel: a });
      using accepted = await listener.accept(FOREVER);
      connected.send('undisturbed');
      t.equal((await accepted.receive(FOREVER)).kind, 'undisturbed');
    }
    {
      // Bound, and not yet listening.
      const beginning = b.socket(SOCK_SEQPACKET);
      b.bind(beginning, path);
      t.throws(() => ChannelListener.listen(path, a), { code: 'EADDRINUSE' });
      b.close(beginning);
      t.equal(b.unlink(path), 0, 'it was left alone');
    }
    // As a process leaves it that is killed.
    const killed = b.socket(SOCK_SEQPACKET);
    b.bind(killed, path);
    b.listen(killed, 1);
    b.close(killed);
    t.equal(a.access(path, 0), 0);
    using listener = ChannelListener.listen(path, a);
    using connected = await Channel.connect(path, { kernel: b });
    using accepted = await listener.accept(FOREVER);
    accepted.send('anew');
    t.equal((await connected.receive(FOREVER)).kind, 'anew');
    t.equal(held(), before + 3);
  },

  async 'calls that fail'(t, ends) {
    const { a, directory, held } = ends;
    const before = held();
    const path = join(directory, 'failing');
    t.throws(() => Channel.pair(faulty(a, [{ call: 'socketPair', errno: EMFILE }])), {
      code: 'EMFILE',
      syscall: 'socketpair',
    });
    await t.rejects(Channel.connect(path, { kernel: faulty(a, [{ call: 'socket', errno: EMFILE }]) }), {
      code: 'EMFILE',
    });
    await t.rejects(Channel.connect(path, { kernel: faulty(a, [{ call: 'connect', errno: EACCES }]) }), {
      code: 'EACCES',
      path,
      hint: /another user/,
    });
    for (const call of ['socket', 'fchmod', 'bind', 'listen'] as const) {
      t.throws(
        () => ChannelListener.listen(path, faulty(a, [{ call, errno: ENOMEM }])),
        { code: 'ENOMEM' },
        call,
      );
      t.equal(a.access(path, 0), -2, `${call} fails: no socket is left`);
    }
    const refusing = (faults: Parameters<typeof faulty>[1]): [Channel, Channel] =>
      Channel.pair(faulty(a, faults));
    {
      const [one, other] = refusing([{ call: 'receiveMessage', errno: ENOMEM }]);
      await t.rejects(one.receive(FOREVER), { code: 'ENOMEM', syscall: 'recvmsg' });
      for (const each of [one, other]) each[Symbol.dispose]();
    }
    {
      const [one, other] = refusing([{ call: 'receiveMessage', errno: 104 }]);
      await t.rejects(one.receive(FOREVER), peerGone, 'ECONNRESET without end');
      for (const each of [one, other]) each[Symbol.dispose]();
    }
    {
      const [one, other] = refusing([{ call: 'watch', errno: ENOMEM }]);
      const refused = { name: 'KernelError', syscall: 'epoll_ctl', code: 'ENOMEM' };
      await t.rejects(one.receive(FOREVER), refused);
      await t.rejects(one.receive(FOREVER), refused, 'it was not begun');
      for (const each of [one, other]) each[Symbol.dispose]();
    }
    {
      const [one, other] = refusing([{ call: 'sendMessage', errno: EPIPE }]);
      t.throws(() => one.send('x'), peerGone);
      for (const each of [one, other]) each[Symbol.dispose]();
    }
    {
      const [one, other] = refusing([{ call: 'sendMessage', errno: 109 }]);
      t.throws(() => one.send('x'), { code: 'ETOOMANYREFS', hint: /RLIMIT_NOFILE/ });
      for (const each of [one, other]) each[Symbol.dispose]();
    }
    {
      const [one, other] = refusing([{ call: 'close', errno: EIO }]);
      t.throws(() => one[Symbol.dispose](), { code: 'EIO' });
      t.throws(() => other[Symbol.dispose](), { code: 'EIO' });
    }
    {
      const listener = ChannelListener.listen(path, faulty(a, [{ call: 'accept', errno: EMFILE }]));
      await t.rejects(listener.accept(FOREVER), { code: 'EMFILE', path });
      listener[Symbol.dispose]();
    }
    {
      const listener = ChannelListener.listen(path, faulty(a, [{ call: 'unlink', errno: ETXTBSY }]));
      t.throws(() => listener[Symbol.dispose](), { code: 'ETXTBSY' });
      a.unlink(path);
    }
    t.throws(() => Channel.adopt(-1, a), RangeError);
    t.throws(() => Channel.adopt('3' as unknown as number, a), TypeError);
    using adopted = Channel.adopt(memfd(a, 'x'), a);
    await t.rejects(adopted.receive(0), { code: 'ENOTSOCK' });
    t.equal(held(), before + 1);
  },
};

for (const [world, make] of Object.entries(worlds)) {
  for (const [name, scenario] of Object.entries(scenarios)) {
    t.test(`${name}, ${world}`, async t => {
      using ends = make();
      const before = ends.held();
      await scenario(t, ends);
      t.equal(ends.held(), before, 'nothing is left open');
    });
  }
}

t.test('whichever call fails: nothing stays, and the error is one that says what to do', async t => {
  const runs = await allFailures(
    () => {
      const host = new SimulatedHost({ memory: { size: 2 ** 26 } });
      return { kernel: host.process(), holdings: () => host.leftovers() };
    },
    async kernel => {
      // What was there before, so that the way around it is gone, too.
      const killed = kernel.socket(SOCK_SEQPACKET);
      if (killed < 0) throw new KernelError(-killed, { syscall: 'socket' });
      const bound = kernel.bind(killed, '/run/a');
      kernel.close(killed);
      if (bound < 0) throw new KernelError(-bound, { syscall: 'bind' });
      using listener = ChannelListener.listen('/run/a', kernel);
      using connected = await Channel.connect('/run/a', { kernel, timeout: 100 });
      using accepted = await listener.accept(100);
      const memory = kernel.memfdCreate('x', MFD_CLOEXEC);
      if (memory < 0) throw new KernelError(-memory, { syscall: 'memfd_create' });
      try {
        connected.send('hello', new Map(), [memory]);
      } finally {
        kernel.close(memory);
      }
      using message = await accepted.receive(100);
      for (const fd of message.take()) kernel.close(fd);
      using _unread = await accepted.receive(0).catch((error: unknown) => {
        if (!(error instanceof HandoffError && error.code === 'TIMEOUT')) throw error;
        return undefined;
      });
    },
  );
  t.ok(runs.length > 20, `${runs.length} calls`);
  for (const { injection, error, left } of runs) {
    t.same(left, [], `${injection.call} fails (#${injection.index})`);
    const known = error === undefined || error instanceof KernelError || error instanceof HandoffError;
    const watching = injection.call === 'watch';
    t.ok(known || watching, `${injection.call} fails (#${injection.index}): ${error}`);
  }
});

t.test('only the owner can connect, whatever the umask', t => {
  using ends = worlds.running?.() as Ends & Disposable;
  const path = join(ends.directory, 'private');
  const umask = process.umask(0);
  try {
    using _listener = ChannelListener.listen(path);
    t.equal(statSync(path).mode & 0o7777, 0o600);
    t.same(readdirSync(ends.directory), ['file', 'private']);
  } finally {
    process.umask(umask);
  }
  t.end();
});

t.test('between this process and another', async t => {
  using ends = worlds.running?.() as Ends & Disposable;
  const before = openDescriptors();
  const path = join(ends.directory, 'socket');
  const source = `
    import { writeSync } from 'node:fs';
    import { Channel } from ${moduleOf('src/keepalive/handoff/channel.js')};
    import { linux } from ${moduleOf('bindings/linux.js')};
    const kernel = linux();
    const channel = process.argv[1] === undefined ? Channel.adopt(3) : await Channel.connect(process.argv[1]);
    const memory = kernel.memfdCreate('child', 1);
    writeSync(memory, 'from the child');
    channel.send('offer', new Map(), [memory]);
    kernel.close(memory);
    const message = await channel.receive(20000);
    channel.send('echo', message.fields, message.fds);
    await channel.receive(20000);`;
  const start = (args: string[], stdio: number[]) =>
    spawn(...nodeCommand('--input-type=module', '--eval', source, ...args), {
      stdio: ['ignore', 'inherit', 'inherit', ...stdio],
    });

  const talk = async (channel: Channel, child: ReturnType<typeof spawn>): Promise<void> => {
    {
      using offer = await channel.receive(20_000);
      const [fd = -1] = offer.fds;
      t.equal(textOf(linux(), fd), 'from the child');
      t.equal(readlinkSync(`/proc/self/fd/${fd}`), '/memfd:child (deleted)');
      channel.send('back', fields({ text: 'to and fro' }), [fd]);
    }
    {
      using echo = await channel.receive(20_000);
      t.strictSame(echo.fields, fields({ text: 'to and fro' }));
      t.equal(textOf(linux(), echo.fds[0] ?? -1), 'from the child');
    }
    const exit = once(child, 'exit');
    child.kill('SIGKILL');
    await t.rejects(channel.receive(20_000), peerGone, 'killed');
    t.same(await exit, [null, 'SIGKILL']);
  };

  {
    using listener = ChannelListener.listen(path);
    const child = start([path], []);
    using channel = await listener.accept(20_000);
    await talk(channel, child);
  }
  {
    const [kept, given] = Channel.pair();
    using channel = kept;
    const child = start([], [given.fd]);
    given[Symbol.dispose]();
    await talk(channel, child);
  }
  t.equal(openDescriptors(), before);
});

t.test('a receive keeps the process alive, and nothing else does', async t => {
  const source = (body: string): string => `
    import { Channel } from ${moduleOf('src/keepalive/handoff/channel.js')};
    const [one, other] = Channel.pair();
    ${body}
    process.on('exit', () => console.log('at the end'));`;
  const waits = await runScript(source(`other.receive(100).catch(error => console.log(error.code));`));
  t.match(waits, { code: 0, stdout: 'TIMEOUT\nat the end\n', stderr: '' });
  const ends = await runScript(
    source(`other.receive(600000).catch(error => console.log(error.code)); other[Symbol.dispose]();`),
  );
  t.match(ends, { code: 0, stdout: 'DISPOSED\nat the end\n', stderr: '' });
  const idle = await runScript(source(''));
  t.match(idle, { code: 0, stdout: 'at the end\n', stderr: '' });
});
