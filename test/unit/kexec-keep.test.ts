// A controller that outlives the kernel, on the simulated host: kept running over kexecs, initialised again where it could
// not be, started cold where nothing is left, and what is refused before anything happens.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { NvmeController } from '../../src/drivers/nvme/index.js';
import {
  appendLanding,
  claim,
  type DmaArena,
  decodeState,
  encodeState,
  KEEPALIVE_CHANNEL,
  KeepAlive,
  type KeepAliveEvent,
  kexec,
  type LandingPlan,
  LiveUpdate,
  landingCommandLine,
  loadKernel,
  openDevice,
  type Preserved,
  type PreserveOptions,
  planLanding,
  preserve,
  preservedState,
  readStateFile,
  rebuild,
  resume,
  runningCommandLine,
  type State,
  writeStateFile,
} from '../../src/index.js';
import { NvmeModel, NvmeNamespaceModel } from '../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../src/sim/host.js';
import type { MachineProfile } from '../../src/sim/iommu/hardware.js';
import type { SimulatedProcess } from '../../src/sim/process/process.js';
import { ProcessEnded } from '../../src/sim/process/process-ended.js';
import { LANES_ARENA, Lanes } from '../../src/testing/lanes.js';
import { plainInitrd } from '../support/plain-initrd.js';
import { random } from '../support/random.js';

const A = '0000:00:04.0';
const B = '0000:00:05.0';
const SESSION = 'kept';
const IMAGE = '/boot/vmlinuz';
const PLAIN = '/boot/initrd-plain.img';
const LANDING = '/boot/initrd-landing.img';
const profiles = ['vtd', 'noiommu', 'amd'] as const;
/** Where the fixed data is: behind the blocks of the lanes. */
const FIXED_LBA = 8192;

class CountingNvme extends NvmeModel {
  resets = 0;

  override reset(): void {
    this.resets++;
    super.reset();
  }
}

const fixed = new Uint8Array(256 * 1024);
random(5).fill(fixed);

function machine(profile: MachineProfile) {
  const namespaces = [new NvmeNamespaceModel({ id: 1, blockSize: 512, size: 16 * 2 ** 20 })];
  const [model, other] = [new CountingNvme({ serial: 'a', namespaces }), new CountingNvme({ serial: 'b' })];
  const host = new SimulatedHost({
    profile,
    devices: [
      { address: A, function: model },
      { address: B, function: other },
    ],
  });
  host.install(PLAIN, plainInitrd.toString('latin1'));
  return { host, model, other };
}
type Machine = ReturnType<typeof machine>;

interface Driver {
  readonly kernel: SimulatedProcess;
  readonly kept: KeepAlive;
  readonly controller: NvmeController;
  readonly lanes: Lanes;
}

async function bringUp({ host }: Machine): Promise<Driver> {
  const kernel = host.process();
  const claimed = await claim(A, { kernel });
  const device = openDevice(claimed, { noiommu: host.profile === 'noiommu' });
  const kept = KeepAlive.of(device);
  const controller = await NvmeController.open(device, { ioQueues: 2 });
  kept.add(controller);
  const namespace = controller.namespace(1);
  await namespace.write(FIXED_LBA, fixed);
  return { kernel, kept, controller, lanes: Lanes.create(device.space, namespace) };
}

/** What the script of a plan does, which a simulated initrd cannot run. */
function landing(plan: LandingPlan) {
  const addresses = plan.devices.map(({ address }) => address);
  return {
    overrides: Object.fromEntries(addresses.map(address => [address, 'vfio-pci'])),
    withoutReset: addresses,
  };
}

/** Starts the next kernel, with a landing. */
async function goOver({ host }: Machine, { kernel, kept }: Driver, options: Partial<PreserveOptions> = {}) {
  const preserved = await preserve(kept, { session: SESSION, ...options });
  const plan = planLanding(preserved.state, { kernel });
  host.install(LANDING, appendLanding(plainInitrd, plan).toString('latin1'));
  host.landing = landing(plan);
  const commandLine = landingCommandLine(plan, runningCommandLine(kernel));
  start(() => preserved.kexec({ image: IMAGE, initrd: LANDING, commandLine }));
}

/** A simulated process that starts another kernel is gone, and this one is not. */
function start(next: () => never): void {
  try {
    next();
  } catch (error) {
    if (!(error instanceof ProcessEnded)) throw error;
  }
}

/** Everything up to the driver. */
async function takeUp(kernel: SimulatedProcess) {
  using liveUpdate = LiveUpdate.open(kernel);
  const session = liveUpdate.retrieveSession(SESSION);
  const state = preservedState(session, kernel);
  return { session, state, kept: await resume(session, { kernel }) };
}

async function restore(kernel: SimulatedProcess, kept: KeepAlive): Promise<Driver> {
  const controller = await NvmeController.restore(kept.device(A), kept.record(A)!, {
    memory: token => kept.arena(token),
  });
  kept.add(controller);
  const arena = kept.arenas.find(({ name }) => name === LANES_ARENA) as DmaArena;
  return { kernel, kept, controller, lanes: Lanes.adopt(arena, controller.namespace(1)) };
}

async function work({ controller, lanes }: Driver, milliseconds = 20): Promise<void> {
  const running = lanes.start(controller.inherited);
  await sleep(milliseconds);
  lanes.stop();
  await running;
  if (lanes.failure !== undefined) throw lanes.failure;
}

/** What was written by predecessors reads as it was written. @returns bytes that were compared */
async function verify(t: Test, { controller, lanes }: Driver): Promise<number> {
  const namespace = controller.namespace(1);
  const read = (lba: number, bytes: number) => namespace.readBlocks(lba, bytes / namespace.blockSize);
  t.ok(Buffer.from(await read(FIXED_LBA, fixed.length)).equals(fixed), 'the fixed data');
  const expected = lanes.expected();
  for (const { lba, pattern } of expected) {
    const found = await read((lba * 4096) / namespace.blockSize, pattern.length);
    if (!Buffer.from(found).equals(pattern)) t.fail(`block ${lba} of the lanes differs`);
  }
  t.equal(lanes.wrong, 0, 'no lane has read anything else than it wrote');
  return fixed.length + expected.length * 4096;
}

const trace = ({ model }: Machine) => {
  const { adminCommands, registerWrites } = model.trace;
  return { adminCommands: adminCommands.length, registerWrites: registerWrites.length, resets: model.resets };
};

const driverOf = (kernel: SimulatedProcess, address: string): string | undefined => {
  const link = kernel.readLink(`/sys/bus/pci/devices/${address}/driver`);
  return typeof link === 'string' ? link.split('/').at(-1) : undefined;
};
const attribute = (kernel: SimulatedProcess, address: string, name: string) =>
  kernel.readText(`/sys/bus/pci/devices/${address}/${name}`);

/** Pages, by arena, as the kernel says where they are; nothing where there is an IOMMU. */
const pages = (state: State): string[] =>
  state.arenas.flatMap(({ token, extents = [] }) =>
    [...extents].flatMap(({ offset, address, length }) =>
      Array.from(
        { length: length / 4096 },
        (_, page) => `${token} ${offset + page * 4096} ${address + BigInt(page * 4096)}`,
      ),
    ),
  );

async function end(t: Test, { host }: Machine, { kept, controller }: Driver): Promise<void> {
  await controller.close();
  kept[Symbol.dispose]();
  t.strictSame(
    host.leftovers().filter(left => left !== `${A} is with vfio-pci`),
    [],
    'nothing is left but the device where it landed',
  );
}

function listen(): { events: KeepAliveEvent[] } & Disposable {
  const events: KeepAliveEvent[] = [];
  const note = (event: unknown): void => void events.push(event as KeepAliveEvent);
  subscribe(KEEPALIVE_CHANNEL, note);
  return { events, [Symbol.dispose]: () => void unsubscribe(KEEPALIVE_CHANNEL, note) };
}

for (const profile of profiles) {
  t.test(`kept running over three kexecs, ${profile}`, async t => {
    const machinery = machine(profile);
    const { host } = machinery;
    let driver = await bringUp(machinery);
    await work(driver);
    const before = trace(machinery);
    const methods = attribute(driver.kernel, A, 'reset_method');
    let verified = 0;
    let moved = 0;
    for (let count = 1; count <= 3; count++) {
      const running = driver.lanes.start();
      await sleep(5);
      const { told } = driver.lanes;
      t.ok(told > 0);
      await goOver(machinery, driver);
      void running;
      const kernel = host.process();
      t.equal(driverOf(kernel, B), 'nvme');
      t.equal(attribute(kernel, B, 'driver_override'), '(null)\n');
      t.equal(attribute(kernel, B, 'reset_method'), 'flr\n');
      using heard = listen();
      const { session, state, kept } = await takeUp(kernel);
      driver = await restore(kernel, kept);
      t.equal(driver.controller.outcome, 'kept-running');
      t.strictSame(kept.outcomes, [{ device: A, outcome: 'kept-running', reason: undefined }]);
      t.match(heard.events, [
        { kind: 'kept' },
        { kind: 'rebuilt', devices: [A] },
        { kind: 'device', outcome: 'kept-running' },
      ]);
      t.equal(attribute(kernel, A, 'reset_method'), methods, 'it can be reset again');
      const now = new Set(pages(kept.capture()));
      moved += pages(state).filter(page => !now.has(page)).length;
      t.equal(now.size > 0, profile === 'noiommu');
      verified += await verify(t, driver);
      session.finish();
      await work(driver);
    }
    t.strictSame(trace(machinery), before, 'no admin command, no register written, no reset');
    t.equal(moved, 0, 'pages that moved');
    t.ok(verified > 3 * fixed.length, `${verified} bytes verified`);
    await end(t, machinery, driver);
  });

  t.test(`reset between the kernels, ${profile}`, async t => {
    const machinery = machine(profile);
    const first = await bringUp(machinery);
    await work(first);
    await goOver(machinery, first);
    const kernel = machinery.host.process();
    t.ok(kernel.writeText(`/sys/bus/pci/devices/${A}/reset_method`, 'default\n') >= 0);
    t.ok(kernel.writeText(`/sys/bus/pci/devices/${A}/reset`, '1\n') >= 0);
    const { session, state, kept } = await takeUp(kernel);
    const driver = await restore(kernel, kept);
    t.equal(driver.controller.outcome, 're-initialised');
    t.strictSame(kept.outcomes, [{ device: A, outcome: 're-initialised', reason: 'it is not ready' }]);
    t.strictSame(pages(kept.capture()), pages(state), 'on the same memory');
    await verify(t, driver);
    session.finish();
    await work(driver);
    await verify(t, driver);
    await end(t, machinery, driver);
  });

  t.test(`with commands in flight, ${profile}`, async t => {
    const machinery = machine(profile);
    const first = await bringUp(machinery);
    await work(first);
    machinery.model.throttle(0.1);
    void first.lanes.start();
    await sleep(20);
    await t.rejects(preserve(first.kept, { session: SESSION, timeout: 50 }), {
      code: 'BUSY',
      message: /still in flight after 50 ms/,
      hint: /force/,
    });
    t.notOk(first.kept.frozen, 'it goes on');
    const { told } = first.lanes;
    await goOver(machinery, first, { timeout: 50, force: true });
    const kernel = machinery.host.process();
    const { session, kept } = await takeUp(kernel);
    machinery.model.throttle(0);
    const driver = await restore(kernel, kept);
    t.match(kept.outcomes, [
      {
        device: A,
        outcome: 're-initialised',
        reason: 'commands were in flight when it was cut off from memory',
      },
    ]);
    const { inherited } = driver.controller;
    t.ok(inherited.length > 20, `${inherited.length} commands`);
    t.ok(inherited.every(({ submitted }) => submitted));
    t.equal(driver.lanes.told, told, 'none of them was told');
    await work(driver);
    t.equal(driver.lanes.counts.inherited, inherited.length, 'each was issued again, and ended');
    await verify(t, driver);
    session.finish();
    await end(t, machinery, driver);
  });

  t.test(`cold, ${profile}`, async t => {
    const machinery = machine(profile);
    const { host } = machinery;
    const first = await bringUp(machinery);
    await work(first);
    const file = join(t.testdir(), 'kept.state');
    const preserved = await preserve(first.kept, { session: SESSION });
    writeStateFile(file, encodeState(preserved.state));
    const tokens = new Set(first.kept.arenas.map(({ token }) => token));
    const told = first.lanes.expected();

    // A kernel without live update, in which the device has landed; then one in which it has not.
    const { kernel } = first;
    const plan = planLanding(preserved.state, { kernel });
    const commandLine = runningCommandLine(kernel).replace('liveupdate=on', '');
    for (const landed of [true, false]) {
      const before = host.process();
      host.landing = landed ? landing(plan) : {};
      loadKernel({ kernel: before, image: IMAGE, initrd: PLAIN, commandLine });
      start(() => kexec(before));
      const after = host.process();
      t.equal(driverOf(after, A), landed ? 'vfio-pci' : 'nvme');
      t.throws(() => LiveUpdate.open(after), { code: 'ENOENT', hint: /liveupdate=on/ });
      const { resets } = machinery.model;
      using heard = listen();
      const kept = await rebuild(decodeState(readStateFile(file)), {
        kernel: after,
        memory: () => undefined,
      });
      t.ok(machinery.model.resets > resets, 'opening it resets it');
      t.equal(attribute(after, A, 'reset_method'), 'flr\n');
      t.strictSame(new Set(kept.arenas.map(({ token }) => token)), tokens);
      t.ok(
        kept.arenas.every(({ buffer }) => new Uint8Array(buffer).every(byte => byte === 0)),
        'new memory',
      );
      const controller = await NvmeController.open(kept.device(A));
      kept.add(controller);
      const outcome = {
        device: A,
        outcome: 'cold',
        reason: /^its memory is lost: (?=.*nvme-io)(?=.*lanes)[a-z, -]+$/,
      };
      t.match(kept.outcomes, [outcome]);
      t.match(heard.events.at(-1), { kind: 'device', ...outcome });
      kept.releaseUnclaimed();
      t.strictSame(kept.unclaimed, []);
      const namespace = controller.namespace(1);
      t.ok(Buffer.from(await namespace.readBlocks(FIXED_LBA, fixed.length / 512)).equals(fixed));
      for (const { lba, pattern } of told) {
        if (!Buffer.from(await namespace.readBlocks(lba * 8, 8)).equals(pattern))
          t.fail(`block ${lba} differs`);
      }
      await controller.close();
      kept[Symbol.dispose]();
      t.equal(driverOf(after, A), landed ? 'vfio-pci' : 'nvme', 'it is back where it was');
    }
  });
}

t.test('a driver that goes on although its memory is lost', async t => {
  const machinery = machine('vtd');
  const first = await bringUp(machinery);
  await work(first);
  const state = first.kept.capture();
  machinery.host.kexec();
  const kernel = machinery.host.process();
  const kept = await rebuild(state, { kernel, memory: () => undefined });
  const { controller } = await restore(kernel, kept);
  t.match(kept.outcomes, [{ outcome: 'cold', reason: /memory is lost/ }], 'whatever the driver thinks of it');
  t.ok(Buffer.from(await controller.namespace(1).readBlocks(FIXED_LBA, fixed.length / 512)).equals(fixed));
  await controller.close();
  kept[Symbol.dispose]();
});

t.test('the session is gone', async t => {
  const machinery = machine('noiommu');
  const first = await bringUp(machinery);
  await work(first);
  await goOver(machinery, first);
  const kernel = machinery.host.process();
  const { session, state, kept } = await takeUp(kernel);
  const driver = await restore(kernel, kept);
  session.finish();
  await end(t, machinery, driver);
  using liveUpdate = LiveUpdate.open(kernel);
  t.throws(() => liveUpdate.retrieveSession(SESSION), { code: 'ENOENT' });
  await t.rejects(resume(session, { kernel }), { name: 'DisposedError' });
  const again = await rebuild(state, { kernel, memory: () => undefined });
  const controller = await NvmeController.open(again.device(A));
  again.add(controller);
  t.match(again.outcomes, [{ outcome: 'cold' }]);
  await controller.close();
  again[Symbol.dispose]();
});

t.test('sessions that are of something else', async t => {
  const machinery = machine('vtd');
  const first = await bringUp(machinery);
  const { kernel } = first;
  const liveUpdate = LiveUpdate.open(kernel);
  const put = (name: string, text: Uint8Array | undefined): void => {
    const fd = kernel.memfdCreate(name, 3);
    kernel.pwrite(fd, text ?? new Uint8Array(1), 0);
    liveUpdate.createSession(name).preserve(fd, text === undefined ? 2n : 1n, name);
  };
  put('theirs', first.kept.serialise([{ name: 'ours', tokens: new Map() }]));
  put('none', first.kept.serialise());
  put('noise', new Uint8Array(5000).fill(7));
  put('empty', undefined);
  machinery.host.kexec({ overrides: { [A]: 'vfio-pci' } });
  const next = machinery.host.process();
  using again = LiveUpdate.open(next);
  const before = trace(machinery);
  for (const [name, expected] of [
    ['theirs', { name: 'StateError', message: /it is of "ours", not of "theirs"/ }],
    ['none', { name: 'StateError', message: /it is of no session, not of "none"/ }],
    ['noise', { name: 'StateError' }],
    ['empty', { code: 'ENOENT' }],
  ] as const) {
    await t.rejects(resume(again.retrieveSession(name), { kernel: next }), expected, name);
  }
  t.strictSame(trace(machinery), before, 'the device was not touched');
});

t.test('a kernel that would not let the device land is not started', async t => {
  const machinery = machine('vtd');
  const { host } = machinery;
  const driver = await bringUp(machinery);
  const { kernel, kept, lanes } = driver;
  const running = lanes.start();
  await sleep(5);
  const methods = attribute(kernel, A, 'reset_method');
  const preserved = await preserve(kept, { session: SESSION });
  const plan = planLanding(preserved.state, { kernel });
  const good = landingCommandLine(plan, runningCommandLine(kernel));
  host.install(LANDING, appendLanding(plainInitrd, plan).toString('latin1'));
  for (const [what, options] of [
    ['no landing script', { initrd: PLAIN, commandLine: good }],
    ['no initrd', { commandLine: good }],
    ['no such initrd', { initrd: '/boot/none.img', commandLine: good }],
    ['no live update', { initrd: LANDING, commandLine: good.replaceAll('liveupdate=on', '') }],
  ] as const) {
    t.throws(() => preserved.kexec({ image: IMAGE, ...options }), { name: 'LandingError' }, what);
  }
  t.throws(() => preserved.kexec({ image: '/dev/iommu', initrd: LANDING, commandLine: good }), {
    code: 'EINVAL',
  });
  t.equal(kernel.readText('/sys/kernel/kexec_loaded'), '0\n', 'nothing was loaded');
  t.equal(attribute(kernel, A, 'reset_method'), '');
  const { told } = lanes;
  await sleep(5);
  t.equal(lanes.told, told, 'it is at rest');
  preserved[Symbol.dispose]();
  t.equal(attribute(kernel, A, 'reset_method'), methods);
  await sleep(5);
  lanes.stop();
  await running;
  t.equal(lanes.failure, undefined);
  t.ok(lanes.told > told, 'it goes on');
  const again = await preserve(kept, { session: SESSION });
  again[Symbol.dispose]();
  await verify(t, driver);
  const device = kept.device(A);
  await driver.controller.close();
  kept[Symbol.dispose]();
  device[Symbol.dispose]();
  lanes.arena[Symbol.dispose]();
  t.strictSame(host.leftovers(), [`${A} is with vfio-pci`]);
});

t.test('another driver has had the device: refused, and with what is left of it', async t => {
  const machinery = machine('vtd');
  const { host } = machinery;
  const first = await bringUp(machinery);
  await work(first);
  const preserved: Preserved = await preserve(first.kept, { session: SESSION });
  t.equal(preserved.session.name, SESSION);
  host.kexec();
  const kernel = host.process();
  const liveUpdate = LiveUpdate.open(kernel);
  const session = liveUpdate.retrieveSession(SESSION);
  liveUpdate[Symbol.dispose]();
  await t.rejects(resume(session, { kernel }), { code: 'BUSY', message: /has landed with the driver nvme/ });
  t.equal(driverOf(kernel, A), 'nvme');
  const claimed = await claim(A, { kernel });
  t.equal(claimed.previousDriver, 'nvme');
  const kept = await resume(session, { kernel });
  const driver = await restore(kernel, kept);
  t.match(kept.outcomes, [{ outcome: 're-initialised', reason: 'it is not ready' }]);
  await verify(t, driver);
  session.finish();
  await work(driver);
  await end(t, machinery, driver);
});
