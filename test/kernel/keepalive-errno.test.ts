/**
 * What the kernel refuses of keepalive, and how the library takes it: no descriptors left, no memory to be had, a peer that
 * is gone, a session or a device that somebody else has. Each time the driver that has the device goes on, nobody else has
 * it, and nothing is left behind. This program runs once in each of two kernels; what it says in the first nobody hears,
 * unless it fails.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, unlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AddressSpaceSwap,
  Channel,
  claim,
  defaultKernel,
  FdStore,
  HandoffError,
  handOff,
  type Ioas,
  Iommufd,
  KeepAlive,
  LiveUpdate,
  openDevice,
  PageSize,
  preserve,
  RlimitMode,
  readStateFile,
  rebuild,
  resume,
  StoredKeepAlive,
  takeOver,
  writeStateFile,
} from 'iommufd';
import { NvmeController } from 'iommufd/nvme';
import t, { type Test } from 'tap';
import { F_DUPFD_CLOEXEC } from '../../bindings/uapi/fcntl.js';
import { SOCK_DGRAM } from '../../bindings/uapi/socket.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { createSealedMemfd } from '../../src/memory/memfd.js';
import { Lanes } from '../../src/testing/lanes.js';
import { address, guestEnv } from '../vm/topology.js';
import { ownership } from './support/kernel-disk.js';
import { goOver, type KexecDriver, restore, session as sessionOptions } from './support/kexec-driver.js';
import { nothingLeaked, snapshot } from './support/leaks.js';
import { isNoiommu, profile } from './support/profile.js';

const { nvmeA: A } = address;
const kernel = defaultKernel();
/** Of a session that has a state, and none of the memory that it tells of. */
const PARTIAL = 'partial';
/** Descriptors that this process may have: so few that they can be used up at once. */
const DESCRIPTORS = 512;
const STATE_TOKEN = 1n;

t.setTimeout(300_000);

async function begin(): Promise<KexecDriver> {
  const iommufd = Iommufd.open();
  // On the account of the process, which another one may not have room for.
  iommufd.rlimitMode = RlimitMode.Process;
  const device = openDevice(await claim(A), { space: iommufd.allocIoas(), noiommu: isNoiommu });
  const kept = KeepAlive.of(device);
  const controller = await NvmeController.open(device);
  kept.add(controller);
  return { kept, controller, lanes: Lanes.create(device.space, controller.namespace(1)) };
}

async function first(): Promise<never> {
  const { kept, lanes } = await begin();
  void lanes.start();
  await sleep(200);
  const bytes = kept.serialise([{ name: PARTIAL, tokens: new Map() }]);
  const fd = createSealedMemfd(kernel, 'partial', Math.ceil(bytes.length / 4096) * 4096, PageSize.Small);
  kernel.pwrite(fd, bytes, 0);
  {
    using liveUpdate = LiveUpdate.open();
    liveUpdate.createSession(PARTIAL).preserve(fd, STATE_TOKEN, 'a state');
  }
  return goOver(await preserve(kept, sessionOptions));
}

/** Does something when this process can have no more than `left` descriptors. */
async function withDescriptors<T>(left: number, action: () => Promise<T>): Promise<T> {
  const used: number[] = [];
  try {
    for (;;) used.push(openSync('/dev/null', 'r'));
  } catch {
    // That was the last.
  }
  for (const fd of used.splice(0, left)) closeSync(fd);
  try {
    return await action();
  } finally {
    for (const fd of used) closeSync(fd);
  }
}

/** What must be thrown: by name, and by code where there is one. */
interface Expected {
  readonly name: string;
  readonly code?: string | RegExp;
  readonly message?: RegExp;
}

/** That this is refused, in a way that helps, and leaves nothing behind. */
async function refused(t: Test, what: string, expected: Expected, action: () => unknown): Promise<void> {
  const before = snapshot();
  let error: unknown;
  try {
    await action();
  } catch (thrown) {
    error = thrown;
  }
  t.match(error, expected, what);
  const { message, hint } = (error ?? {}) as { message?: string; hint?: string };
  t.ok(hint, `${what}: ${message}`);
  await nothingLeaked(t, before, `${what}: nothing is left behind`);
}

/** The driver has its device, and verified I/O goes on. */
async function goesOn(t: Test, { kept, lanes }: KexecDriver, what: string): Promise<void> {
  const { told } = lanes;
  for (const end = Date.now() + 30_000; lanes.told < told + 40 && Date.now() < end; ) await sleep(2);
  t.ok(lanes.told >= told + 40 && !kept.frozen, `${what}: the driver goes on`);
  t.strictSame([lanes.failure, lanes.wrong], [undefined, 0]);
}

/** What the kernel before left, when something is in the way; and then all of it. */
async function takeUp(t: Test): Promise<KexecDriver> {
  const landed = ownership(A);
  t.match(landed, { override: 'vfio-pci', resetMethod: '' });
  const untouched = (what: string): void =>
    void t.strictSame(ownership(A), landed, `${what}: the device is as it landed`);
  const liveUpdate = LiveUpdate.open();
  await refused(t, 'no such session', { name: 'KernelError', code: 'ENOENT' }, () =>
    liveUpdate.retrieveSession('other'),
  );
  await refused(t, 'open already', { name: 'KernelError', code: 'EBUSY' }, () => LiveUpdate.open());
  const partial = liveUpdate.retrieveSession(PARTIAL);
  const session = liveUpdate.retrieveSession(sessionOptions.session);
  await refused(t, 'retrieved already', { name: 'KernelError', code: 'EINVAL' }, () =>
    liveUpdate.retrieveSession(PARTIAL),
  );
  liveUpdate[Symbol.dispose]();
  await refused(t, 'a session without the memory', { name: 'KernelError', code: 'ENOENT' }, () =>
    resume(partial),
  );
  untouched('a session without the memory');
  partial.finish();
  for (const left of [0, 2, 5]) {
    const what = `resume with ${left} descriptors`;
    await refused(t, what, { name: 'KernelError', code: 'EMFILE' }, () =>
      withDescriptors(left, () => resume(session)),
    );
    untouched(what);
  }
  const driver = await restore(await resume(session), A);
  t.equal(driver.controller.outcome, 'kept-running');
  session.finish();
  return driver;
}

/** Preserving, when it cannot be. */
async function preserving(t: Test, driver: KexecDriver): Promise<void> {
  const { kept } = driver;
  const before = ownership(A);
  const attempt = (): Promise<unknown> => preserve(kept, { ...sessionOptions, timeout: 60_000 });
  const check = async (what: string, expected: Expected, action: () => unknown): Promise<void> => {
    await refused(t, what, expected, action);
    t.strictSame(ownership(A), before, `${what}: the kernel may reset the device as before`);
    await goesOn(t, driver, what);
  };
  const liveUpdate = LiveUpdate.open();
  await check('preserve, and somebody has live update open', { name: 'KernelError', code: 'EBUSY' }, attempt);
  const taken = liveUpdate.createSession(sessionOptions.session);
  const fds = [kept.device(A).fd, (kept.iommufds[0] as Iommufd).fd];
  for (const fd of fds) {
    await check('preserve what this kernel cannot', { name: 'KernelError', code: 'ENOENT' }, () =>
      taken.preserve(fd, 7n, 'it'),
    );
  }
  liveUpdate[Symbol.dispose]();
  await check('preserve under a name that is taken', { name: 'KernelError', code: 'EEXIST' }, attempt);
  taken[Symbol.dispose]();
  for (const left of [0, 1]) {
    await check(`preserve with ${left} descriptors`, { name: 'KernelError', code: 'EMFILE' }, () =>
      withDescriptors(left, attempt),
    );
  }
  const arena = kept.arenas[0] as KeepAlive['arenas'][number];
  using again = LiveUpdate.open();
  const other = again.createSession('other');
  again[Symbol.dispose]();
  other.preserve(arena.fd, 7n, 'an arena');
  await check('preserve what is in a session already', { name: 'KernelError', code: 'EBUSY' }, attempt);
  other[Symbol.dispose]();
  const preserved = await preserve(kept, { ...sessionOptions, timeout: 60_000 });
  t.strictSame([...preserved.keepers], [[A, 'itself']], 'and then it is preserved');
  preserved[Symbol.dispose]();
  await goesOn(t, driver, 'called off');
}

/** The other side of a hand-off goes away at each step of it. */
async function peersThatGo(t: Test, driver: KexecDriver): Promise<void> {
  const hello = new Map([['versions', FdtValue.u32s([1])]]);
  const drain = async (channel: Channel, count: number): Promise<void> => {
    for (let done = 0; done < count; done++) (await channel.receive(30_000))[Symbol.dispose]();
  };
  const steps: readonly (readonly [what: string, go: (channel: Channel) => unknown])[] = [
    ['before it said anything', () => undefined],
    ['after it said hello', channel => channel.send('hello', hello)],
    [
      'with the offer unread',
      async channel => {
        channel.send('hello', hello);
        await sleep(50);
      },
    ],
    [
      'with the offer and no descriptors',
      async channel => {
        channel.send('hello', hello);
        await drain(channel, 1);
      },
    ],
    [
      'with everything, and no word',
      async channel => {
        channel.send('hello', hello);
        await drain(channel, 2);
      },
    ],
  ];
  for (const [what, go] of steps) {
    await refused(t, `the successor goes ${what}`, { name: 'HandoffError', code: 'PEER_GONE' }, async () => {
      const [mine, theirs] = Channel.pair();
      const gone = (async () => go(theirs))().finally(() => theirs[Symbol.dispose]());
      try {
        await handOff(driver.kept, mine, { timeout: 30_000 });
      } finally {
        await gone;
        mine[Symbol.dispose]();
      }
    });
    await goesOn(t, driver, what);
  }
}

/** Both sides of a hand-off in this process. @returns how it ended for the one and for the other */
async function handOnHere({ kept }: KexecDriver): Promise<PromiseSettledResult<unknown>[]> {
  const [mine, theirs] = Channel.pair();
  const ends = await Promise.allSettled([
    handOff(kept, mine, { timeout: 30_000 }),
    takeOver(theirs, { timeout: 30_000 }),
  ]);
  mine[Symbol.dispose]();
  theirs[Symbol.dispose]();
  return ends;
}

/** A successor without room for what it is given. */
async function narrowSuccessors(t: Test, driver: KexecDriver): Promise<void> {
  for (const left of [2, 3, 6]) {
    const what = `a hand-off with ${left} descriptors`;
    const before = snapshot();
    const ends = await withDescriptors(left, () => handOnHere(driver));
    for (const end of ends) {
      const reason = end.status === 'rejected' ? end.reason : undefined;
      t.ok(reason?.hint, `${what}: ${reason?.message ?? 'it went through'}`);
    }
    await nothingLeaked(t, before, `${what}: nothing is left behind`);
    await goesOn(t, driver, what);
  }
}

/** A predecessor that goes away leaves the successor with nothing. */
async function predecessorsThatGo(t: Test, driver: KexecDriver): Promise<void> {
  await refused(t, 'the predecessor is gone', { name: 'HandoffError', code: 'PEER_GONE' }, async () => {
    const [mine, theirs] = Channel.pair();
    mine[Symbol.dispose]();
    try {
      await takeOver(theirs, { timeout: 30_000 });
    } finally {
      theirs[Symbol.dispose]();
    }
  });
  await refused(t, 'the predecessor goes with its offer', { name: 'HandoffError' }, async () => {
    const [mine, theirs] = Channel.pair();
    const taken = takeOver(theirs, { timeout: 30_000 });
    (await mine.receive(30_000))[Symbol.dispose]();
    const fd = createSealedMemfd(kernel, 'offer', 4096, PageSize.Small);
    const { u32 } = FdtValue;
    mine.send(
      'offer',
      new Map([
        ['version', u32(1)],
        ['descriptors', u32(9)],
        ['manifest-bytes', u32(4096)],
      ]),
      [fd],
    );
    kernel.close(fd);
    mine[Symbol.dispose]();
    try {
      await taken;
    } finally {
      theirs[Symbol.dispose]();
    }
  });
  await goesOn(t, driver, 'others that went');
}

/** Somebody else has the device, or there is no room for the state. */
async function others(t: Test, driver: KexecDriver): Promise<void> {
  const { kept } = driver;
  const before = ownership(A);
  await refused(t, 'open a second time', { name: 'KernelError', code: 'EINVAL' }, () =>
    openDevice(A, { noiommu: isNoiommu }),
  );
  await refused(t, 'rebuild what is in use', { name: 'KernelError', code: 'EINVAL' }, () =>
    rebuild(kept.capture(), {
      memory: ({ token }) => kernel.fcntl(kept.arena(token)?.fd ?? -1, F_DUPFD_CLOEXEC, 0),
    }),
  );
  t.strictSame(ownership(A), before, 'the kernel may reset the device as before');
  await goesOn(t, driver, 'somebody else wanted it');

  mkdirSync('/run/full', { recursive: true });
  t.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', '/run/full']).status, 0);
  const file = '/run/full/kept.state';
  const bytes = kept.serialise();
  writeStateFile(file, bytes);
  t.throws(() => writeStateFile(file, new Uint8Array(2 ** 20)), { code: 'ENOSPC' }, 'no room for a state');
  t.strictSame(Buffer.from(readStateFile(file)), Buffer.from(bytes), 'the file has what it had');
  t.equal(spawnSync('umount', ['/run/full']).status, 0);
}

/** Nobody is there to keep what is to be stored. */
async function stores(t: Test, driver: KexecDriver): Promise<void> {
  const { kept } = driver;
  const path = '/run/notify';
  const store = FdStore.fromEnvironment({ NOTIFY_SOCKET: path }) as FdStore;
  const check = async (what: string, expected: Expected, action: () => unknown): Promise<void> => {
    await refused(t, what, expected, action);
    await goesOn(t, driver, what);
  };
  const keep = (): unknown => StoredKeepAlive.keep(kept, store);
  await check('no service manager', { name: 'KernelError', code: 'ENOENT' }, keep);
  const manager = kernel.socket(SOCK_DGRAM);
  t.equal(kernel.bind(manager, path), 0);
  await check('no descriptors to ask it with', { name: 'KernelError', code: 'EMFILE' }, () =>
    withDescriptors(0, async () => keep()),
  );
  const other = kernel.socket(SOCK_DGRAM);
  t.equal(kernel.connect(other, path), 0);
  while (kernel.sendMessage(other, Buffer.from('STATUS=x'), []) > 0);
  await check('a service manager that does not read', { name: 'HandoffError', code: 'TIMEOUT' }, keep);
  kernel.close(other);
  kernel.close(manager);
  await check('a service manager that ended', { name: 'KernelError', code: 'ECONNREFUSED' }, keep);
  unlinkSync(path);
}

/** Another address space, with nothing to spare. */
async function swaps(t: Test, driver: KexecDriver): Promise<void> {
  const space = driver.kept.device(A).space as Ioas;
  const before = snapshot();
  const { switched, faults } = await withDescriptors(0, async () => {
    using swap = AddressSpaceSwap.prepare(space);
    const report = await swap.switch({ timeout: 60_000 });
    return { switched: true, faults: report.faults };
  });
  t.ok(
    switched,
    `a swap takes no descriptors; faults: ${faults === undefined ? 'not known' : JSON.stringify(faults)}`,
  );
  await nothingLeaked(t, before, 'a swap leaves nothing behind');
  await goesOn(t, driver, 'swapped');
}

if (process.env[guestEnv.boot] === '1') await first();

t.test(`errno of the kernel, ${profile}`, async t => {
  t.equal(spawnSync('prlimit', ['--pid', String(process.pid), `--nofile=${DESCRIPTORS}:`]).status, 0);
  t.match(readFileSync('/proc/self/limits', 'utf8'), new RegExp(`Max open files +${DESCRIPTORS} `));
  // Node.js has some eventfds of its own.
  const { descriptors: ofNode } = snapshot();
  let driver: KexecDriver | undefined;
  await t.test('after a kexec', async t => {
    driver = await takeUp(t);
  });
  if (driver === undefined) return;
  const current = driver as KexecDriver;
  const running = current.lanes.start(current.controller.inherited);
  await t.test('preserve', t => preserving(t, current));
  await t.test('successors that go', t => peersThatGo(t, current));
  await t.test('successors without room', t => narrowSuccessors(t, current));
  await t.test('predecessors that go', t => predecessorsThatGo(t, current));
  await t.test('others', t => others(t, current));
  await t.test('stores', t => stores(t, current));
  await t.test('swaps', t => swaps(t, current));

  await t.test('what is in order goes through', async t => {
    const [given, taken] = await handOnHere(current);
    await running;
    t.equal(given?.status, 'fulfilled');
    if (taken?.status !== 'fulfilled') throw new HandoffError('REFUSED', String(taken?.reason));
    const next = await restore(taken.value as KeepAlive, A);
    t.equal(next.controller.outcome, 'kept-running');
    const going = next.lanes.start(next.controller.inherited);
    await goesOn(t, next, 'a hand-off');
    next.lanes.stop();
    await going;
    await next.controller.close();
    next.kept[Symbol.dispose]();
    const { descriptors, mappings, pinned } = snapshot();
    t.strictSame(
      { descriptors, mappings, pinned },
      { descriptors: ofNode, mappings: [], pinned: 0 },
      'nothing is left',
    );
  });
});
