// Live-update sessions on the simulated host: what they carry into the next kernel, what is refused, and that nothing is
// freed by accident.
import t from 'tap';
import { EACCES, EBUSY, EFBIG, EINVAL, EIO, ENOMEM, EOPNOTSUPP } from '../../bindings/uapi/errno.js';
import {
  LIVEUPDATE_IOCTL_RETRIEVE_SESSION,
  LIVEUPDATE_SESSION_FINISH,
  LIVEUPDATE_SESSION_PRESERVE_FD,
  LIVEUPDATE_SESSION_RETRIEVE_FD,
} from '../../bindings/uapi/liveupdate.js';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../bindings/uapi/mman.js';
import type { Request } from '../../bindings/uapi/request.js';
import { DisposedError, KernelError } from '../../src/errors.js';
import { LiveUpdate } from '../../src/keepalive/liveupdate/live-update.js';
import { createSealedMemfd, PageSize } from '../../src/memory/memfd.js';
import { allFailures, faulty, SimulatedHost, type SimulatedProcess } from '../../src/testing/index.js';

const PAGE = 4096;

/** A machine that is small enough to be made often. */
const machine = (): SimulatedHost => new SimulatedHost({ profile: 'noiommu', memory: { size: 2 ** 26 } });

function memfd(kernel: SimulatedProcess, text: string): number {
  const fd = createSealedMemfd(kernel, 'kept', PAGE, PageSize.Small);
  const address = kernel.mmap(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  Buffer.from(kernel.view(address, PAGE)).write(text);
  kernel.munmap(address, PAGE);
  return fd;
}

function textIn(kernel: SimulatedProcess, fd: number): string {
  const address = kernel.mmap(PAGE, PROT_READ, MAP_SHARED, fd, 0);
  const text = Buffer.from(kernel.view(address, PAGE).slice(0)).toString();
  kernel.munmap(address, PAGE);
  return text.slice(0, text.indexOf('\0'));
}

t.test('what is preserved is there in the next kernel, and in the one after', t => {
  using host = machine();
  const first = host.process();
  const liveUpdate = LiveUpdate.open(first);
  const outgoing = liveUpdate.createSession('drivers');
  t.equal(outgoing.name, 'drivers');
  const fd = memfd(first, 'hello');
  outgoing.preserve(fd, 1n, 'the state');
  outgoing.preserve(memfd(first, 'queues'), 0xffff_ffff_ffff_ffffn, 'an arena');
  first.close(fd);
  liveUpdate[Symbol.dispose]();
  host.kexec();

  const second = host.process();
  const again = LiveUpdate.open(second);
  const incoming = again.retrieveSession('drivers');
  t.same([...incoming.retrieved], []);
  const state = incoming.retrieve(1n);
  t.equal(textIn(second, state), 'hello');
  const twice = incoming.retrieve(1n);
  t.not(twice, state, 'as often as asked for');
  const arena = incoming.retrieve(0xffff_ffff_ffff_ffffn);
  t.equal(textIn(second, arena), 'queues');
  t.same([...incoming.retrieved], [1n, 0xffff_ffff_ffff_ffffn]);

  const next = again.createSession('drivers');
  t.throws(() => next.preserve(arena, 7n, 'an arena'), { code: 'EBUSY', hint: /not finished/ });
  t.notOk(incoming.finished);
  incoming.finish();
  t.ok(incoming.finished);
  next.preserve(arena, 7n, 'an arena');
  host.kexec();

  const third = host.process();
  using last = LiveUpdate.open(third);
  t.throws(() => last.retrieveSession('drivers').retrieve(1n), { code: 'ENOENT' }, 'not preserved again');
  t.end();
});

t.test('an outgoing session takes all back when it is disposed of', t => {
  using host = machine();
  const kernel = host.process();
  using liveUpdate = LiveUpdate.open(kernel);
  const fd = memfd(kernel, 'x');
  {
    using session = liveUpdate.createSession('a');
    session.preserve(fd, 1n, 'memory');
    session[Symbol.dispose]();
    t.throws(() => session.fd, DisposedError);
    t.throws(() => session.preserve(fd, 2n, 'memory'), {
      code: 'DISPOSED',
      message: /^live-update session a /,
    });
  }
  using same = liveUpdate.createSession('a');
  same.preserve(fd, 1n, 'memory');
  t.ok(same.tryPreserve(memfd(kernel, 'y'), 2n, 'more memory'));
  t.end();
});

t.test('names', t => {
  using host = machine();
  const real = host.process();
  const kernel = faulty(real, []);
  using liveUpdate = LiveUpdate.open(kernel);
  const { calls } = kernel;
  for (const bad of ['', 'x'.repeat(64), 'ü'.repeat(32), 'a\0b', 'lone \ud800 surrogate']) {
    t.throws(() => liveUpdate.createSession(bad), RangeError, JSON.stringify(bad));
    t.throws(() => liveUpdate.retrieveSession(bad), RangeError, JSON.stringify(bad));
  }
  for (const bad of [undefined, null, 7, Buffer.from('a')]) {
    t.throws(() => liveUpdate.createSession(bad as unknown as string), TypeError);
    t.throws(() => liveUpdate.retrieveSession(bad as unknown as string), TypeError);
  }
  t.equal(kernel.calls, calls, 'before any system call');
  for (const good of ['a', 'x'.repeat(63), `ü${'x'.repeat(61)}`, ' ', '../a:b\n']) {
    using session = liveUpdate.createSession(good);
    t.equal(session.name, good);
  }
  t.end();
});

t.test('the device', t => {
  using host = machine();
  const kernel = host.process();
  const liveUpdate = LiveUpdate.open(kernel);
  t.throws(() => LiveUpdate.open(host.process()), {
    code: 'EBUSY',
    path: '/dev/liveupdate',
    hint: /One process at a time/,
  });
  using session = liveUpdate.createSession('a');
  t.throws(() => liveUpdate.createSession('a'), { code: 'EEXIST', hint: /another name/ });
  liveUpdate[Symbol.dispose]();
  liveUpdate[Symbol.dispose]();
  t.throws(() => liveUpdate.fd, DisposedError);
  t.throws(() => liveUpdate.createSession('b'), DisposedError);
  session.preserve(memfd(kernel, 'x'), 1n, 'memory');

  using legacy = new SimulatedHost({ profile: 'legacy', memory: { size: 2 ** 26 } });
  t.throws(() => LiveUpdate.open(legacy.process()), { code: 'ENOENT', hint: /liveupdate=on/ });
  for (const [errno, hint] of [
    [EIO, /cannot be read/],
    [EACCES, /root/],
  ] as const) {
    const refusing = faulty(kernel, [{ call: 'open', file: '/dev/liveupdate', errno }]);
    t.throws(() => LiveUpdate.open(refusing), { message: hint, errno });
  }
  t.end();
});

t.test('what cannot be preserved', t => {
  using host = machine();
  const kernel = host.process();
  using liveUpdate = LiveUpdate.open(kernel);
  using session = liveUpdate.createSession('a');
  using other = liveUpdate.createSession('b');
  const fd = memfd(kernel, 'x');
  for (const bad of [-1, 1.5, 2 ** 31, Number.NaN]) {
    t.throws(() => session.preserve(bad, 1n, 'memory'), RangeError);
  }
  t.throws(() => session.preserve('3' as unknown as number, 1n, 'memory'), TypeError);
  t.throws(() => session.preserve(fd, -1n, 'memory'), RangeError);
  t.throws(() => session.preserve(fd, 2n ** 64n, 'memory'), RangeError);
  t.throws(() => session.preserve(fd, '1' as unknown as bigint, 'memory'), TypeError);

  session.preserve(fd, 1n, 'memory');
  const another = memfd(kernel, 'y');
  t.throws(() => session.preserve(another, 1n, 'the journal'), {
    code: 'EEXIST',
    request: 'LIVEUPDATE_SESSION_PRESERVE_FD',
    message: /what="the journal", token=0x1\)/,
    hint: /token/,
  });
  t.throws(() => session.preserve(fd, 2n, 'memory'), { code: 'EBUSY', hint: /in a session already/ });
  t.throws(() => other.tryPreserve(fd, 2n, 'memory'), { code: 'EBUSY' });
  t.throws(() => session.preserve(9999, 2n, 'memory'), { code: 'EBADF' });

  const iommufd = kernel.open('/dev/iommu', 2);
  t.throws(() => session.preserve(iommufd, 2n, 'iommufd'), { code: 'ENOENT', hint: /memfds/ });
  t.equal(session.tryPreserve(iommufd, 2n, 'iommufd'), false);
  t.equal(session.tryPreserve(another, 2n, 'the journal'), true, 'the token is free');
  t.end();
});

t.test('refusals of every errno are explained', t => {
  using host = machine();
  const real = host.process();
  const refusing = (request: Request, errno: number) => faulty(real, [{ request, errno }]);
  const fd = memfd(real, 'x');
  for (const [errno, hint] of [
    [EOPNOTSUPP, /seal/],
    [EFBIG, /pages/],
    [EINVAL, /make a new one/],
    [ENOMEM, /memory/],
  ] as const) {
    using liveUpdate = LiveUpdate.open(refusing(LIVEUPDATE_SESSION_PRESERVE_FD, errno));
    using session = liveUpdate.createSession('a');
    t.throws(() => session.preserve(fd, 1n, 'memory'), { message: hint, errno });
    t.throws(
      () => session.tryPreserve(fd, 1n, 'memory'),
      { message: hint, errno },
      'only ENOENT means that it cannot be',
    );
  }
  {
    using liveUpdate = LiveUpdate.open(real);
    liveUpdate.createSession('a').preserve(fd, 1n, 'memory');
    // Left open: it goes over.
  }
  host.kexec();
  const next = host.process();
  {
    using liveUpdate = LiveUpdate.open(
      faulty(next, [{ request: LIVEUPDATE_IOCTL_RETRIEVE_SESSION, errno: ENOMEM }]),
    );
    t.throws(() => liveUpdate.retrieveSession('a'), { code: 'ENOMEM' });
  }
  using liveUpdate = LiveUpdate.open(
    faulty(next, [
      { request: LIVEUPDATE_SESSION_RETRIEVE_FD, errno: EIO, nth: 1 },
      { request: LIVEUPDATE_SESSION_RETRIEVE_FD, errno: EOPNOTSUPP, nth: 2 },
      { request: LIVEUPDATE_SESSION_FINISH, errno: EBUSY, nth: 1 },
    ]),
  );
  t.throws(() => liveUpdate.retrieveSession('b'), { code: 'ENOENT', hint: /left no session/ });
  const session = liveUpdate.retrieveSession('a');
  t.throws(() => liveUpdate.retrieveSession('a'), { code: 'EINVAL', hint: /already/ });
  t.throws(() => session.retrieve(1n), { code: 'EIO', hint: /start cold/ });
  t.throws(() => session.retrieve(1n), { code: 'EOPNOTSUPP', hint: /does not know/ });
  t.throws(() => session.retrieve(2n), { code: 'ENOENT', hint: /token/ });
  t.throws(() => session.retrieve(-1n), RangeError);
  t.throws(() => session.retrieve('1' as unknown as bigint), TypeError);
  t.same([...session.retrieved], [], 'what failed was not retrieved');
  const retrieved = session.retrieve(1n);
  t.throws(() => session.finish(), { code: 'EBUSY', message: /session="a"/, hint: /try again/ });
  t.notOk(session.finished);
  session.finish();
  session.finish();
  t.throws(() => session.fd, DisposedError);
  t.throws(() => session.retrieve(1n), DisposedError);
  t.equal(textIn(next, retrieved), 'x', 'what was retrieved is not freed');
  t.end();
});

t.test('an incoming session is freed by nothing but finish', t => {
  using host = machine();
  {
    const kernel = host.process();
    using liveUpdate = LiveUpdate.open(kernel);
    liveUpdate.createSession('a').preserve(memfd(kernel, 'x'), 1n, 'memory');
  }
  host.kexec();
  const kernel = host.process();
  const before = host.physical.usedPages;
  const session = (() => {
    using liveUpdate = LiveUpdate.open(kernel);
    return liveUpdate.retrieveSession('a');
  })();
  t.notOk(Symbol.dispose in session, 'using cannot end it');
  t.equal(host.physical.usedPages, before, 'its memory is kept');
  session.finish();
  t.equal(host.physical.usedPages, before - 1, 'its memory is free');
  t.end();
});

t.test('whichever call fails: one session or none', async t => {
  const runs = await allFailures(
    () => {
      const host = machine();
      const kernel = host.process();
      return { kernel, holdings: () => host.leftovers() };
    },
    kernel => {
      const fd = createSealedMemfd(kernel, 'kept', PAGE, PageSize.Small);
      try {
        using liveUpdate = LiveUpdate.open(kernel);
        using session = liveUpdate.createSession('a');
        session.preserve(fd, 1n, 'memory');
      } finally {
        kernel.close(fd);
      }
    },
  );
  t.ok(runs.length >= 8);
  for (const { injection, error, left } of runs) {
    t.ok(error instanceof KernelError || injection.call === 'close', injection.call);
    t.same(left, [], `${injection.call} failed`);
  }
});
