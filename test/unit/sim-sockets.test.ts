/** Unix sockets: the same calls on the running kernel and between two simulated processes, which must answer alike. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { linux } from '../../bindings/linux.js';
import type { Syscalls } from '../../bindings/syscalls.js';
import {
  EADDRINUSE,
  EAGAIN,
  EBADF,
  ECONNREFUSED,
  ECONNRESET,
  EINVAL,
  EISCONN,
  EISDIR,
  EMSGSIZE,
  ENOENT,
  ENOTCONN,
  ENOTDIR,
  ENOTSOCK,
  EOPNOTSUPP,
  EPERM,
  EPIPE,
  EPROTOTYPE,
} from '../../bindings/uapi/errno.js';
import { EFD_NONBLOCK } from '../../bindings/uapi/eventfd.js';
import { F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, FD_CLOEXEC } from '../../bindings/uapi/fcntl.js';
import { MFD_CLOEXEC } from '../../bindings/uapi/memfd.js';
import { SOCK_DGRAM, SOCK_SEQPACKET } from '../../bindings/uapi/socket.js';
import { SimulatedHost } from '../../src/sim/host.js';
import { openDescriptors } from './support/holdings.js';

const O_RDONLY = 0;
const MANY = 253;
const TYPES = { SOCK_SEQPACKET, SOCK_DGRAM };

/** Two processes on one kernel. On the running one both are this process. */
interface Ends {
  readonly a: Syscalls;
  readonly b: Syscalls;
  /** Where sockets can be made. */
  readonly directory: string;
  /** Something to open that is no socket. */
  readonly file: string;
  /** Gives a descriptor of `a` to `b`. */
  give(fd: number): number;
  /** How many descriptors there are. */
  held(): number;
  /** @returns what was left behind */
  end(): string[];
}

function running(): Ends {
  const directory = mkdtempSync(join(tmpdir(), 'sockets-'));
  const kernel = linux();
  const before = openDescriptors();
  const end = (): string[] => {
    rmSync(directory, { recursive: true });
    return openDescriptors() === before ? [] : ['descriptors'];
  };
  return { a: kernel, b: kernel, directory, file: '/dev/null', give: fd => fd, held: openDescriptors, end };
}

function simulated(): Ends {
  const host = new SimulatedHost();
  const [a, b] = [host.process(), host.process()];
  const give = (fd: number): number => {
    const given = a.share(fd, b);
    a.close(fd);
    return given;
  };
  const held = (): number => a.openFiles.size + b.openFiles.size;
  return { a, b, directory: '/run', file: '/dev/iommu', give, held, end: () => host.leftovers() };
}

/** A name of the abstract namespace that nobody else has. */
let names = 0;
const abstract = (): string => `@sim-sockets-${process.pid}-${++names}`;

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A message as text, with its descriptors; `end`; or minus the errno. */
function receive(kernel: Syscalls, fd: number, room = 4096): number | 'end' | [string, ...number[]] {
  const buffer = new Uint8Array(room);
  const message = kernel.receiveMessage(fd, buffer);
  if (typeof message === 'number') return message;
  if (message.length === 0) return 'end';
  return [new TextDecoder().decode(buffer.subarray(0, message.length)), ...message.fds];
}

/** Both ends of a pair: one of `a`, one of `b`. */
function pair({ a, give }: Ends, type: number): [number, number] {
  const made = a.socketPair(type);
  if (typeof made === 'number') throw new Error(`socketPair: ${made}`);
  return [made[0], give(made[1])];
}

/** A listening socket of `a`. */
function listening({ a }: Ends, path: string, backlog = 8): number {
  const fd = a.socket(SOCK_SEQPACKET);
  for (const result of [a.bind(fd, path), a.listen(fd, backlog)]) {
    if (result < 0) throw new Error(`${path}: ${result}`);
  }
  return fd;
}

const scenarios: Record<string, (t: Test, ends: Ends) => void | Promise<void>> = {
  'the mode of what is open': (t, { a, directory }) => {
    const fd = a.socket(SOCK_SEQPACKET);
    for (const mode of [0, 0o600, 0o7777]) t.equal(a.fchmod(fd, mode), 0);
    for (const bad of [-1, 0o10000, 0.5, Number.NaN]) t.throws(() => a.fchmod(fd, bad), RangeError);
    t.throws(() => a.fchmod(fd, '600' as unknown as number), TypeError);
    for (const bad of [-2, 0.5]) t.throws(() => a.fchmod(bad, 0o600), RangeError);
    const path = join(directory, 'mode');
    t.equal(a.bind(fd, path), 0);
    a.close(fd);
    t.equal(a.fchmod(fd, 0o600), -EBADF);
    t.equal(a.unlink(path), 0);
  },

  'descriptors pass both ways': (t, ends) => {
    const { a, b, held } = ends;
    const before = held();
    for (const [name, type] of Object.entries(TYPES)) {
      const [one, other] = pair(ends, type);
      const memfd = a.memfdCreate('passed', MFD_CLOEXEC);
      const eventfd = a.eventfd(5, EFD_NONBLOCK);
      a.pwrite(memfd, encode('content'), 0);
      t.equal(a.sendMessage(one, encode('take these'), [memfd, eventfd, memfd]), 10);
      // They are on their way, and stay although the sender closes its own.
      a.close(memfd);
      a.close(eventfd);
      const [text, ...fds] = receive(b, other) as [string, ...number[]];
      t.equal(text, 'take these', name);
      t.equal(fds.length, 3);
      const [received = -1, counter = -1, again = -1] = fds;
      for (const fd of fds) t.equal(b.fcntl(fd, F_GETFD, 0), FD_CLOEXEC);
      const content = new Uint8Array(7);
      t.equal(b.pread(received, content, 0), 7);
      t.strictSame(content, encode('content'));
      b.pwrite(again, encode('C'), 0);
      b.pread(received, content, 0);
      t.strictSame(content, encode('Content'), 'the same open file');
      const count = new Uint8Array(8);
      t.equal(b.read(counter, count), 8);
      t.equal(count[0], 5);
      t.equal(b.sendMessage(other, encode('back'), [counter]), 4);
      const [back, returned = -1] = receive(a, one) as [string, number];
      t.equal(back, 'back');
      t.equal(a.read(returned, count), -EAGAIN, 'that one reads, too');
      t.equal(receive(a, one), -EAGAIN);
      for (const fd of fds) b.close(fd);
      for (const fd of [returned, one]) a.close(fd);
      b.close(other);
    }
    t.equal(held(), before);
  },

  'messages keep their order and their bounds': (t, ends) => {
    const { a, b } = ends;
    for (const type of Object.values(TYPES)) {
      const [one, other] = pair(ends, type);
      for (const text of ['first', 'second', 'x'.repeat(5000)]) {
        t.equal(a.sendMessage(one, encode(text), []), text.length);
      }
      t.strictSame(receive(b, other), ['first']);
      t.strictSame(receive(b, other), ['second']);
      t.strictSame(receive(b, other, 5000), ['x'.repeat(5000)]);
      t.equal(receive(b, other), -EAGAIN);
      a.close(one);
      b.close(other);
    }
  },

  'a message that does not fit is gone, with its descriptors': (t, ends) => {
    const { a, b, held } = ends;
    const [one, other] = pair(ends, SOCK_SEQPACKET);
    const memfd = a.memfdCreate('long', MFD_CLOEXEC);
    const before = held();
    for (const room of [9, 1, 0]) {
      a.sendMessage(one, encode('0123456789'), [memfd, memfd]);
      t.equal(receive(b, other, room), -EMSGSIZE);
      t.equal(held(), before, `room for ${room}`);
    }
    a.sendMessage(one, encode('0123456789'), []);
    t.equal(receive(b, other, 9), -EMSGSIZE);
    a.sendMessage(one, encode('next'), []);
    t.strictSame(receive(b, other, 4), ['next'], 'the next one is whole');
    t.equal(a.sendMessage(one, new Uint8Array(2 ** 24), []), -EMSGSIZE, 'longer than any can be');
    t.equal(receive(b, other), -EAGAIN);
    for (const fd of [one, memfd]) a.close(fd);
    b.close(other);
  },

  'as many descriptors as a message can have': (t, ends) => {
    const { a, b, held } = ends;
    const [one, other] = pair(ends, SOCK_SEQPACKET);
    const memfd = a.memfdCreate('many', MFD_CLOEXEC);
    const before = held();
    t.equal(a.sendMessage(one, encode('many'), new Array<number>(MANY).fill(memfd)), 4);
    const [text, ...fds] = receive(b, other) as [string, ...number[]];
    t.equal(text, 'many');
    t.equal(new Set(fds).size, MANY);
    for (const fd of fds) t.equal(b.close(fd), 0);
    t.throws(() => a.sendMessage(one, encode('more'), new Array<number>(MANY + 1).fill(memfd)), RangeError);
    for (const bad of [-1, 0x7fff_ffff]) {
      t.equal(a.sendMessage(one, encode('bad'), [memfd, bad]), -EBADF);
    }
    t.equal(receive(b, other), -EAGAIN, 'nothing was sent');
    // Nobody ever receives these.
    t.equal(a.sendMessage(one, encode('lost'), [memfd, one]), 4);
    for (const fd of [one, memfd]) a.close(fd);
    b.close(other);
    t.equal(held(), before - 3);
  },

  'the other end is closed': (t, ends) => {
    const { a, b } = ends;
    const [one, other] = pair(ends, SOCK_SEQPACKET);
    a.sendMessage(one, encode('last words'), []);
    a.close(one);
    t.strictSame(receive(b, other), ['last words'], 'what was sent arrives');
    for (let i = 0; i < 3; i++) t.equal(receive(b, other), 'end');
    for (let i = 0; i < 3; i++) t.equal(b.sendMessage(other, encode('x'), []), -EPIPE);
    b.close(other);

    const [left, right] = pair(ends, SOCK_SEQPACKET);
    a.sendMessage(left, encode('unread too'), []);
    b.sendMessage(right, encode('unread'), []);
    a.close(left);
    t.equal(receive(b, right), -ECONNRESET, 'something was lost, which is said once');
    t.strictSame(receive(b, right), ['unread too']);
    t.equal(receive(b, right), 'end');
    b.close(right);
    const [from, to] = pair(ends, SOCK_SEQPACKET);
    b.sendMessage(to, encode('unread'), []);
    a.close(from);
    t.equal(b.sendMessage(to, encode('x'), []), -ECONNRESET);
    t.equal(b.sendMessage(to, encode('x'), []), -EPIPE);
    b.close(to);

    const [here, there] = pair(ends, SOCK_DGRAM);
    a.sendMessage(here, encode('datagram'), []);
    a.close(here);
    t.strictSame(receive(b, there), ['datagram']);
    t.equal(receive(b, there), -EAGAIN, 'datagrams have no end');
    t.equal(b.sendMessage(there, encode('x'), []), -ECONNREFUSED);
    t.equal(b.sendMessage(there, encode('x'), []), -ENOTCONN);
    b.close(there);
  },

  'a queue is full': (t, ends) => {
    const { a, b } = ends;
    for (const type of Object.values(TYPES)) {
      const [one, other] = pair(ends, type);
      let sent = 0;
      while (sent < 1_000_000 && a.sendMessage(one, encode(String(sent)), []) > 0) sent++;
      t.ok(sent > 10 && sent < 100_000, `${sent} messages fit`);
      const memfd = a.memfdCreate('full', MFD_CLOEXEC);
      t.equal(a.sendMessage(one, encode('x'), [memfd]), -EAGAIN);
      t.equal(b.sendMessage(other, encode('reply'), []), 5, 'the other way is free');
      for (let i = 0; i < sent; i++) {
        if (String(i) !== (receive(b, other) as string[])[0]) t.fail(`message ${i}`);
      }
      t.equal(receive(b, other), -EAGAIN);
      t.equal(a.sendMessage(one, encode('room'), []), 4);
      for (const fd of [one, memfd]) a.close(fd);
      b.close(other);
    }
  },

  'listening, connecting and accepting': (t, ends) => {
    const { a, b, directory, held } = ends;
    const before = held();
    for (const path of [abstract(), join(directory, 'listener')]) {
      const listener = listening(ends, path);
      t.equal(a.accept(listener), -EAGAIN);
      const client = b.socket(SOCK_SEQPACKET);
      t.equal(b.connect(client, path), 0);
      t.equal(b.sendMessage(client, encode('early'), []), 5, 'before it is accepted');
      t.equal(b.connect(client, path), -EISCONN);
      const server = a.accept(listener);
      t.ok(server >= 0);
      t.equal(a.fcntl(server, F_GETFD, 0), FD_CLOEXEC);
      t.equal(a.accept(listener), -EAGAIN);
      t.strictSame(receive(a, server), ['early']);
      t.equal(receive(a, server), -EAGAIN, 'it does not block');
      t.equal(a.sendMessage(server, encode('reply'), []), 5);
      t.strictSame(receive(b, client), ['reply']);
      t.equal(a.bind(server, abstract()), -EINVAL, 'it has the name of the listener');
      b.close(client);
      t.equal(receive(a, server), 'end');
      a.close(server);
      a.close(listener);
    }
    t.equal(a.unlink(join(directory, 'listener')), 0);
    t.equal(held(), before);
  },

  'a listener that leaves': (t, ends) => {
    const { a, b } = ends;
    const path = abstract();
    const listener = listening(ends, path);
    const client = b.socket(SOCK_SEQPACKET);
    b.connect(client, path);
    b.sendMessage(client, encode('never read'), []);
    a.close(listener);
    t.equal(receive(b, client), -ECONNRESET);
    t.equal(receive(b, client), 'end');
    t.equal(b.sendMessage(client, encode('x'), []), -EPIPE);
    b.close(client);
    const late = b.socket(SOCK_SEQPACKET);
    t.equal(b.connect(late, path), -ECONNREFUSED);
    const next = listening(ends, path);
    t.equal(b.connect(late, path), 0, 'the name is free again, and so is the socket');
    b.close(late);
    const orphan = a.accept(next);
    t.equal(receive(a, orphan), 'end', 'a client that has left can be accepted');
    a.close(orphan);
    a.close(next);
  },

  'as many connections as were asked for': (t, ends) => {
    const { a, b } = ends;
    for (const backlog of [0, 2]) {
      const path = abstract();
      const listener = listening(ends, path, backlog);
      const clients = Array.from({ length: backlog + 2 }, () => b.socket(SOCK_SEQPACKET));
      const results = clients.map(client => b.connect(client, path));
      t.strictSame(results, [...new Array<number>(backlog + 1).fill(0), -EAGAIN]);
      a.close(a.accept(listener));
      t.equal(b.connect(clients.at(-1) as number, path), 0);
      for (const client of clients) b.close(client);
      a.close(listener);
    }
    const path = abstract();
    const listener = listening(ends, path, -1);
    const clients = Array.from({ length: 200 }, () => b.socket(SOCK_SEQPACKET));
    t.ok(
      clients.every(client => b.connect(client, path) === 0),
      'a negative number is the most',
    );
    for (const client of clients) b.close(client);
    a.close(listener);
  },

  names: (t, ends) => {
    const { a, b, directory, file } = ends;
    const path = join(directory, 'name');
    const [one, other] = [a.socket(SOCK_SEQPACKET), b.socket(SOCK_SEQPACKET)];
    t.equal(b.connect(other, path), -ENOENT);
    t.equal(b.connect(other, file), -ECONNREFUSED, 'a file that is no socket');
    t.equal(b.connect(other, `${file}/below`), -ENOTDIR);
    t.equal(a.bind(one, join(directory, 'none/name')), -ENOENT);
    t.equal(a.bind(one, directory), -EADDRINUSE);
    t.equal(a.bind(one, path), 0);
    t.equal(b.access(path, 0), 0);
    t.ok((b.readDirectory(directory) as string[]).includes('name'));
    t.equal(b.connect(other, path), -ECONNREFUSED, 'it does not listen');
    t.equal(b.bind(other, path), -EADDRINUSE);
    t.equal(a.bind(one, join(directory, 'second')), -EINVAL, 'it has a name');
    t.equal(a.bind(one, abstract()), -EINVAL);
    t.equal(a.listen(one, 1), 0);
    t.equal(a.listen(one, 5), 0);
    const datagram = b.socket(SOCK_DGRAM);
    t.equal(b.connect(datagram, path), -EPROTOTYPE);
    t.equal(b.connect(other, path), 0);
    a.close(one);
    const late = b.socket(SOCK_SEQPACKET);
    t.equal(b.connect(late, path), -ECONNREFUSED, 'the file stays when the socket is closed');
    t.equal(b.bind(late, path), -EADDRINUSE);
    t.equal(b.unlink(path), 0);
    t.equal(b.unlink(path), -ENOENT);
    t.equal(b.unlink(directory), -EISDIR);
    t.equal(b.unlink(`${file}/below`), -ENOTDIR);
    t.equal(b.unlink(''), -ENOENT);
    t.equal(b.connect(late, path), -ENOENT);
    t.equal(b.bind(late, path), 0);
    t.equal(b.unlink(path), 0, 'the name goes before the socket does');
    for (const fd of [other, datagram, late]) b.close(fd);

    const name = abstract();
    const longest = `@${'n'.repeat(107)}`;
    const holders = [name, longest].map(each => {
      const holder = a.socket(SOCK_SEQPACKET);
      t.equal(a.bind(holder, each), 0);
      return holder;
    });
    const seeker = b.socket(SOCK_SEQPACKET);
    t.equal(b.bind(seeker, name), -EADDRINUSE);
    t.equal(b.bind(seeker, longest), -EADDRINUSE);
    t.equal(b.bind(seeker, longest.slice(0, -1)), 0, 'one that begins like it is another');
    const elsewhere = b.socket(SOCK_DGRAM);
    t.equal(b.connect(elsewhere, name), -ECONNREFUSED, 'each type has names of its own');
    t.equal(b.bind(elsewhere, name), 0);
    for (const fd of holders) a.close(fd);
    for (const fd of [seeker, elsewhere]) b.close(fd);
  },

  datagrams: (t, ends) => {
    const { a, b, directory } = ends;
    const path = join(directory, 'notify');
    const service = a.socket(SOCK_DGRAM);
    t.equal(a.bind(service, path), 0);
    const [one, other] = [b.socket(SOCK_DGRAM), b.socket(SOCK_DGRAM)];
    t.equal(b.sendMessage(one, encode('x'), []), -ENOTCONN);
    t.equal(b.sendMessage(one, encode('x'), [-1]), -EBADF);
    t.equal(b.connect(one, path), 0);
    t.equal(b.connect(other, path), 0);
    const memfd = b.memfdCreate('stored', MFD_CLOEXEC);
    t.equal(b.sendMessage(one, encode('FDSTORE=1'), [memfd]), 9);
    t.equal(b.sendMessage(other, encode('READY=1'), []), 7);
    const [text, stored = -1] = receive(a, service) as [string, number];
    t.equal(text, 'FDSTORE=1');
    t.equal(a.close(stored), 0);
    t.strictSame(receive(a, service), ['READY=1'], 'from whoever has the name');
    t.equal(a.sendMessage(service, encode('reply'), []), -ENOTCONN);
    let sent = 0;
    while (sent < 1_000_000 && b.sendMessage(one, encode('x'), []) > 0) sent++;
    t.ok(sent > 1 && sent < 100_000, `${sent} wait at a socket`);
    t.equal(b.sendMessage(other, encode('x'), []), -EAGAIN, 'whoever they are from');
    for (let i = 0; i < sent; i++) t.strictSame(receive(a, service), ['x']);
    t.equal(b.connect(one, path), 0, 'once more');
    const [mine, partner] = pair(ends, SOCK_DGRAM);
    t.equal(a.bind(mine, join(directory, 'taken')), 0);
    t.equal(b.connect(other, join(directory, 'taken')), -EPERM, 'that one hears its peer alone');
    t.equal(a.listen(service, 1), -EOPNOTSUPP);
    t.equal(a.accept(service), -EOPNOTSUPP);
    a.close(service);
    t.equal(b.sendMessage(one, encode('x'), []), -ECONNREFUSED);
    t.equal(b.sendMessage(one, encode('x'), []), -ENOTCONN);
    a.unlink(path);
    a.unlink(join(directory, 'taken'));
    a.close(mine);
    for (const fd of [one, other, memfd, partner]) b.close(fd);
  },

  'calls at the wrong time, and on what is no socket': (t, ends) => {
    const { a, file } = ends;
    const plain = a.open(file, O_RDONLY);
    for (const [fd, errno] of [
      [plain, ENOTSOCK],
      [-1, EBADF],
      [0x7fff_ffff, EBADF],
    ] as const) {
      t.equal(a.bind(fd, abstract()), -errno);
      t.equal(a.listen(fd, 1), -errno);
      t.equal(a.accept(fd), -errno);
      t.equal(a.connect(fd, abstract()), -errno);
      t.equal(a.sendMessage(fd, encode('x'), []), -errno);
      t.equal(receive(a, fd), -errno);
    }
    a.close(plain);
    const fd = a.socket(SOCK_SEQPACKET);
    t.equal(a.fcntl(fd, F_GETFD, 0), FD_CLOEXEC);
    t.equal(a.listen(fd, 1), -EINVAL, 'it has no name');
    t.equal(a.accept(fd), -EINVAL);
    t.equal(a.sendMessage(fd, encode('x'), []), -ENOTCONN);
    t.equal(a.sendMessage(fd, encode('x'), [-1]), -ENOTCONN);
    t.equal(receive(a, fd), -ENOTCONN);
    const path = abstract();
    a.bind(fd, path);
    a.listen(fd, 1);
    t.equal(receive(a, fd), -ENOTCONN);
    t.equal(a.sendMessage(fd, encode('x'), []), -ENOTCONN);
    t.equal(a.connect(fd, path), -EINVAL, 'it listens itself');
    t.equal(a.connect(fd, abstract()), -ECONNREFUSED);
    a.close(fd);
    const [one, other] = a.socketPair(SOCK_SEQPACKET) as [number, number];
    t.equal(a.listen(one, 1), -EINVAL);
    t.equal(a.bind(one, abstract()), 0, 'a connected socket can have a name');
    t.equal(a.listen(one, 1), -EINVAL, 'and does not listen for that');
    for (const end of [one, other]) {
      t.equal(a.fcntl(end, F_GETFD, 0), FD_CLOEXEC);
      a.close(end);
    }
  },

  'what becomes readable': async (t, ends) => {
    const { a, b } = ends;
    const happened: string[] = [];
    const settle = async (): Promise<string[]> => {
      for (let i = 0; i < 5; i++) await turn();
      return happened.splice(0);
    };
    const path = abstract();
    const listener = listening(ends, path);
    const accepting = a.watch(listener, () => {
      happened.push('connection');
      a.close(a.accept(listener));
    });
    t.strictSame(await settle(), []);
    const client = b.socket(SOCK_SEQPACKET);
    b.connect(client, path);
    t.strictSame(await settle(), ['connection']);
    accepting[Symbol.dispose]();
    a.close(listener);
    b.close(client);

    for (const lost of [false, true]) {
      const [one, other] = pair(ends, SOCK_SEQPACKET);
      const watch = b.watch(other, () => {
        const received = receive(b, other);
        happened.push(String(received));
        if (received === 'end') watch[Symbol.dispose]();
      });
      t.strictSame(await settle(), []);
      a.sendMessage(one, encode('one'), []);
      a.sendMessage(one, encode('two'), []);
      t.strictSame(await settle(), ['one', 'two']);
      if (lost) b.sendMessage(other, encode('unread'), []);
      a.sendMessage(one, encode('three'), []);
      a.close(one);
      const expected = lost ? [String(-ECONNRESET), 'three', 'end'] : ['three', 'end'];
      t.strictSame(await settle(), expected);
      b.close(other);
    }
    const datagram = a.socket(SOCK_DGRAM);
    const name = abstract();
    a.bind(datagram, name);
    const watch = a.watch(datagram, () => happened.push(String(receive(a, datagram))));
    const sender = b.socket(SOCK_DGRAM);
    b.connect(sender, name);
    t.strictSame(await settle(), []);
    b.sendMessage(sender, encode('READY=1'), []);
    t.strictSame(await settle(), ['READY=1']);
    watch[Symbol.dispose]();
    a.close(datagram);
    b.close(sender);
  },

  'what becomes of descriptors at exec': (t, { a }) => {
    const [kept, closed] = [a.memfdCreate('kept', 0), a.eventfd(0, EFD_NONBLOCK)];
    t.equal(a.fcntl(kept, F_GETFD, 0), 0);
    t.equal(a.fcntl(closed, F_GETFD, 0), 0);
    t.equal(a.fcntl(kept, F_SETFD, FD_CLOEXEC), 0);
    t.equal(a.fcntl(kept, F_GETFD, 0), FD_CLOEXEC);
    t.equal(a.fcntl(kept, F_SETFD, 0), 0);
    t.equal(a.fcntl(kept, F_GETFD, 0), 0);
    const copy = a.fcntl(kept, F_DUPFD_CLOEXEC, 500);
    t.equal(copy, 500);
    t.equal(a.fcntl(copy, F_GETFD, 0), FD_CLOEXEC);
    t.equal(a.fcntl(kept, F_GETFD, 0), 0, 'flags are those of a descriptor, not of its file');
    const next = a.fcntl(kept, F_DUPFD_CLOEXEC, 500);
    t.equal(next, 501);
    a.pwrite(copy, encode('shared'), 0);
    a.close(copy);
    const content = new Uint8Array(6);
    t.equal(a.pread(kept, content, 0), 6);
    t.strictSame(content, encode('shared'));
    t.equal(a.fcntl(kept, F_DUPFD_CLOEXEC, -1), -EINVAL);
    t.equal(a.fcntl(kept, F_DUPFD_CLOEXEC, 0x7fff_ffff), -EINVAL);
    for (const command of [F_GETFD, F_SETFD, F_DUPFD_CLOEXEC]) t.equal(a.fcntl(copy, command, 0), -EBADF);
    for (const fd of [kept, closed, next]) a.close(fd);
  },

  'arguments that cannot be passed': (t, { a, held }) => {
    const [one, other] = a.socketPair(SOCK_SEQPACKET) as [number, number];
    const before = held();
    const x = encode('x');
    const wrong = <T>(value: unknown): T => value as T;
    for (const bad of [0, 1, 3, SOCK_SEQPACKET | 0o4000, Number.NaN, -1]) {
      t.throws(() => a.socket(bad), RangeError);
      t.throws(() => a.socketPair(bad), RangeError);
    }
    for (const path of ['', '@', 'n'.repeat(108), `@${'n'.repeat(108)}`, 'é'.repeat(54), 'a\0b', '@\0']) {
      t.throws(() => a.bind(one, path), RangeError, `bind ${JSON.stringify(path)}`);
      t.throws(() => a.connect(one, path), RangeError, `connect ${JSON.stringify(path)}`);
    }
    t.throws(() => a.unlink('a\0b'), RangeError);
    t.throws(() => a.sendMessage(one, new Uint8Array(0), []), RangeError);
    for (const fd of [0.5, -2, 2 ** 31, Number.NaN]) {
      t.throws(() => a.bind(fd, '@x'), RangeError);
      t.throws(() => a.listen(fd, 1), RangeError);
      t.throws(() => a.accept(fd), RangeError);
      t.throws(() => a.connect(fd, '@x'), RangeError);
      t.throws(() => a.sendMessage(fd, x, []), RangeError);
      t.throws(() => a.sendMessage(one, x, [fd]), RangeError);
      t.throws(() => a.receiveMessage(fd, x), RangeError);
    }
    t.throws(() => a.listen(one, 0.5), RangeError);
    for (const bad of [undefined, null, '1', 1n, {}]) {
      t.throws(() => a.socket(wrong(bad)), TypeError);
      t.throws(() => a.socketPair(wrong(bad)), TypeError);
      t.throws(() => a.bind(wrong(bad), '@x'), TypeError);
      t.throws(() => a.listen(wrong(bad), 1), TypeError);
      t.throws(() => a.listen(one, wrong(bad)), TypeError);
      t.throws(() => a.accept(wrong(bad)), TypeError);
      t.throws(() => a.connect(wrong(bad), '@x'), TypeError);
      t.throws(() => a.sendMessage(wrong(bad), x, []), TypeError);
      t.throws(() => a.sendMessage(one, wrong(bad), []), TypeError);
      t.throws(() => a.sendMessage(one, x, wrong(bad)), TypeError);
      t.throws(() => a.sendMessage(one, x, wrong([bad])), TypeError);
      t.throws(() => a.receiveMessage(wrong(bad), x), TypeError);
      t.throws(() => a.receiveMessage(one, wrong(bad)), TypeError);
    }
    for (const bad of [undefined, null, 1, x]) {
      t.throws(() => a.bind(one, wrong(bad)), TypeError);
      t.throws(() => a.connect(one, wrong(bad)), TypeError);
      t.throws(() => a.unlink(wrong(bad)), TypeError);
    }
    t.equal(receive(a, other), -EAGAIN, 'nothing was sent');
    t.equal(held(), before);
    for (const fd of [one, other]) a.close(fd);
  },
};

for (const [name, scenario] of Object.entries(scenarios)) {
  for (const [where, make] of Object.entries({ 'running kernel': running, simulated })) {
    t.test(`${where}: ${name}`, async t => {
      const ends = make();
      await scenario(t, ends);
      t.strictSame(ends.end(), []);
    });
  }
}

t.test('simulated: hosts and kernels have names of their own', async t => {
  using host = new SimulatedHost();
  using other = new SimulatedHost();
  const [one, two] = [host.process(), other.process()];
  for (const path of ['@name', '/run/name', '/tmp/name']) {
    for (const process of [one, two]) t.equal(process.bind(process.socket(SOCK_SEQPACKET), path), 0, path);
  }
  t.equal(one.bind(one.socket(SOCK_SEQPACKET), '/sys/name'), -EPERM);
  t.equal(one.unlink('/sys/bus/pci/drivers_probe'), -EPERM);
  t.equal(one.open('/run/name', O_RDONLY), -6, 'ENXIO: a socket cannot be opened');
  t.equal(one.readText('/run/name'), -6);
  host.kexec();
  const next = host.process();
  t.strictSame(next.readDirectory('/run'), []);
  for (const path of ['@name', '/run/name']) t.equal(next.bind(next.socket(SOCK_SEQPACKET), path), 0);
});
