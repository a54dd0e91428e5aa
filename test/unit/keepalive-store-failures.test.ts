// Every system call fails once of what keeps the descriptor store up to date, and of what takes over from it: the device
// goes on with whoever has it, and what is in the store is always enough to go on with.
import t from 'tap';
import type { Syscalls } from '../../bindings/syscalls.js';
import { IOMMU_IOAS_NOIOMMU_GET_PA } from '../../bindings/uapi/iommufd.js';
import { DmaArena } from '../../src/index.js';
import { HandoffError, HandoffErrorCode } from '../../src/keepalive/handoff/handoff-error.js';
import { receiveInherited } from '../../src/keepalive/handoff/inheritance.js';
import { FdStore } from '../../src/keepalive/store/fd-store.js';
import { recover, StoredKeepAlive } from '../../src/keepalive/store/stored.js';
import type { CallRecord } from '../../src/testing/faults.js';
import { ServiceManager } from '../../src/testing/service-manager.js';
import { InterruptKind } from '../../src/vfio/interrupts.js';
import { attempt, checkIo, holdsNothing, type Run, sweepFailures } from './support/failure-sweep.js';
import type { Driver } from './support/keepalive-stage.js';

t.setTimeout(300_000);

const storeOf = (keeper: ServiceManager, kernel: Syscalls): FdStore =>
  FdStore.fromEnvironment({ NOTIFY_SOCKET: keeper.address }, kernel) as FdStore;

/** The process ends as with SIGKILL, and its JavaScript with it. */
function kill(process: { exit(): void }, { controller }: Pick<Driver, 'controller'>): void {
  process.exit();
  controller.relinquish(new HandoffError(HandoffErrorCode.HandedOver, 'killed'));
}

/** A process that is started after another was killed, in which nothing fails, goes on with everything; then it ends. */
async function goOnFromStore(run: Run, keeper: ServiceManager, name: string): Promise<void> {
  const { stage } = run;
  const { process, kernel } = stage.process(name);
  const listened = keeper.listenTo(kernel);
  const recovered = recover(storeOf(keeper, listened), receiveInherited(keeper.give(process), kernel));
  if (recovered === undefined) {
    run.wrong('nothing is in the store');
    return;
  }
  const { kept } = recovered;
  const driver = await stage.goOn(kept);
  if (driver.controller.outcome !== 'kept-running') run.wrong(`${name}: ${driver.controller.outcome}`);
  await checkIo(run, driver);
  await stage.end(driver);
  for (const arena of [...kept.arenas]) arena[Symbol.dispose]();
  if (keeper.stored.length > 0) run.wrong(`${keeper.stored.map(({ name }) => name)} stayed in the store`);
  holdsNothing(run, name, process);
}

async function recoverOnce(run: Run): Promise<void> {
  const { stage, kernel } = run;
  const keeper = new ServiceManager(stage.host);
  const old = stage.process('old');
  const first = await stage.start(keeper.listenTo(old.kernel));
  StoredKeepAlive.keep(first.kept, storeOf(keeper, first.kept.kernel));
  const running = first.lanes.start();
  await stage.hold(first.lanes);
  kill(old.process, first);
  await running;
  const { resets } = stage.model;

  const next = stage.process('successor');
  const env = keeper.give(next.process);
  const successor = kernel.beside(keeper.listenTo(next.kernel), 'successor');
  kernel.counting = true;
  const inherited = await attempt(run, async () => receiveInherited(env, successor));
  const recovered =
    inherited && (await attempt(run, async () => recover(storeOf(keeper, successor), inherited)));
  const driver = recovered && (await attempt(run, () => stage.goOn(recovered.kept)));
  kernel.counting = false;
  stage.release();
  // What is inherited is there until it is received.
  if (inherited && !recovered) holdsNothing(run, 'successor', next.process);
  if (!recovered && stage.witness.by('successor').length > 0) run.wrong('the device was touched');
  if (driver) {
    await checkIo(run, driver);
    await stage.end(driver);
    if (keeper.stored.length > 0) run.wrong(`${keeper.stored.map(({ name }) => name)} stayed in the store`);
  } else {
    next.process.exit();
    await goOnFromStore(run, keeper, 'next successor');
  }
  if (stage.model.resets > resets + 1) run.wrong('the device was reset before its end');
  keeper.process.exit();
}

/** Whatever of it fails, the process goes on, and so does one that finds what is in the store. */
async function keepOnce(run: Run): Promise<void> {
  const { stage, kernel } = run;
  const keeper = new ServiceManager(stage.host);
  const old = stage.process('old');
  const driving = kernel.beside(keeper.listenTo(old.kernel), 'old');
  const first = await stage.start(driving);
  const running = first.lanes.start();
  await stage.hold(first.lanes);
  const { device } = first.controller;

  kernel.counting = true;
  const stored = await attempt(run, async () =>
    StoredKeepAlive.keep(first.kept, storeOf(keeper, first.kept.kernel)),
  );
  if (stored === undefined && keeper.stored.length > 0) {
    run.wrong(`${keeper.stored.map(({ name }) => name)} are in the store`);
  }
  const spare = await attempt(run, async () => DmaArena.create(device.space, 4096, { name: 'spare' }));
  await attempt(run, async () => device.interrupts.enable(InterruptKind.Request));
  await attempt(run, async () => device.interrupts.disable(InterruptKind.Request));
  await attempt(run, async () => spare?.[Symbol.dispose]());
  await attempt(run, async () => stored?.checkpoint());
  kernel.counting = false;
  stage.release();
  if (stored === undefined) {
    await checkIo(run, first, running);
    await stage.end(first);
  } else {
    const { told } = first.lanes;
    while (first.lanes.told < told + 40 && first.lanes.failure === undefined) await stage.turn();
    kill(old.process, first);
    await running;
    if (first.lanes.failure !== undefined) run.wrong(`I/O failed: ${first.lanes.failure}`);
    await goOnFromStore(run, keeper, 'successor');
  }
  holdsNothing(run, 'old', old.process);
  keeper.process.exit();
}

t.test('recovery from the descriptor store', async t => {
  t.ok((await sweepFailures(t, { profile: 'vtd', play: recoverOnce })) > 80);
  const where = ({ request }: CallRecord): boolean => request === IOMMU_IOAS_NOIOMMU_GET_PA.number;
  t.ok((await sweepFailures(t, { profile: 'noiommu', play: recoverOnce, where })) > 5);
});

t.test('the descriptor store kept up to date', async t => {
  t.ok((await sweepFailures(t, { profile: 'vtd', play: keepOnce })) > 100);
});
