// Every system call fails once of preserving for the next kernel, of starting it, and of going on under it, on the
// simulated host: before the kexec the driver goes on, after it everything can be tried again.
import t from 'tap';
import type { Syscalls } from '../../bindings/syscalls.js';
import { IOMMU_DESTROY, IOMMU_HWPT_ALLOC, IOMMU_IOAS_NOIOMMU_GET_PA } from '../../bindings/uapi/iommufd.js';
import {
  appendLanding,
  decodeState,
  type IncomingSession,
  LiveUpdate,
  landingCommandLine,
  type Preserved,
  planLanding,
  preserve,
  rebuild,
  resume,
  runningCommandLine,
} from '../../src/index.js';
import { ProcessEnded } from '../../src/sim/process/process-ended.js';
import type { CallRecord } from '../../src/testing/faults.js';
import { plainInitrd } from '../support/plain-initrd.js';
import { attempt, checkIo, holdsNothing, isIo, type Run, sweepFailures } from './support/failure-sweep.js';
import { ADDRESS, type Driver, holdings } from './support/keepalive-stage.js';

t.setTimeout(300_000);

const SESSION = 'kept';
const IMAGE = '/boot/vmlinuz';
const INITRD = '/boot/initrd-landing.img';
const landing = { overrides: { [ADDRESS]: 'vfio-pci' }, withoutReset: [ADDRESS] };

/** How the device is reset could not be written. */
const mayLeave = ({ call, file }: CallRecord): boolean =>
  call === 'writeText' && file?.endsWith('/reset_method') === true;

/** A driver whose I/O is going on. */
async function working(run: Run): Promise<{ driver: Driver; running: Promise<void> }> {
  const driver = await run.stage.start(run.kernel);
  // Once it was told, no state asks the device for it again.
  driver.kept.serialise();
  const running = driver.lanes.start();
  for (let turns = 0; turns < 10; turns++) await run.stage.turn();
  return { driver, running };
}

/** Everything is as it was before anything was preserved. */
async function goesOn(run: Run, driver: Driver, running: Promise<void>): Promise<void> {
  const { stage, injection } = run;
  // What could not be written stays as it is, and whoever called was told how to put it right.
  if (injection && mayLeave(injection)) stage.setResetMethods();
  if (!stage.sysfs().endsWith(stage.before.slice(stage.before.indexOf('resets')))) run.wrong(stage.sysfs());
  const other = stage.host.process();
  const liveUpdate = LiveUpdate.open(other);
  try {
    liveUpdate.createSession(SESSION)[Symbol.dispose]();
  } catch (error) {
    run.wrong(`the session is there still: ${error}`);
  }
  other.exit();
  await checkIo(run, driver, running);
  await stage.end(driver);
}

async function preserveOnce(run: Run): Promise<void> {
  const { driver, running } = await working(run);
  const { resets } = run.stage.model;
  run.kernel.counting = true;
  const preserved = await attempt(run, () => preserve(driver.kept, { session: SESSION }));
  await attempt(run, async () => preserved?.[Symbol.dispose]());
  run.kernel.counting = false;
  if (run.stage.model.resets > resets) run.wrong('the device was reset');
  await goesOn(run, driver, running);
}

/** Takes up what was preserved, in a process in which nothing fails. */
async function goOnUnderNext(run: Run): Promise<void> {
  const { kernel } = run.stage.process('after');
  const session = retrieve(kernel);
  const kept = await resume(session, { kernel });
  const driver = await run.stage.goOn(kept);
  if (driver.controller.outcome !== 'kept-running') run.wrong(driver.controller.outcome);
  session.finish();
  await checkIo(run, driver);
  await run.stage.end(driver);
}

function retrieve(kernel: Syscalls): IncomingSession {
  const liveUpdate = LiveUpdate.open(kernel);
  try {
    return liveUpdate.retrieveSession(SESSION);
  } finally {
    kernel.close(liveUpdate.fd);
  }
}

/** @returns false when this kernel is still there */
function boot(run: Run, preserved: Preserved): boolean {
  const plan = planLanding(preserved.state, { kernel: run.stage.host.process() });
  run.stage.host.install(INITRD, appendLanding(plainInitrd, plan).toString('latin1'));
  run.stage.host.landing = landing;
  const commandLine = landingCommandLine(plan, runningCommandLine(run.stage.host.process()));
  run.kernel.counting = true;
  try {
    preserved.kexec({ image: IMAGE, initrd: INITRD, commandLine });
  } catch (error) {
    if (error instanceof ProcessEnded) return true;
    run.threw(error);
    return false;
  } finally {
    run.kernel.counting = false;
  }
}

async function kexecOnce(run: Run): Promise<void> {
  const { driver, running } = await working(run);
  const preserved = await preserve(driver.kept, { session: SESSION });
  const { resets } = run.stage.model;
  if (boot(run, preserved)) {
    await goOnUnderNext(run);
    if (run.stage.model.resets > resets + 1) run.wrong('the device was reset before its end');
    // Its driver takes it, as in a kernel that nothing was left to.
    run.stage.host.kexec();
    return;
  }
  preserved[Symbol.dispose]();
  await goesOn(run, driver, running);
}

async function resumeOnce(run: Run): Promise<void> {
  const { stage, kernel } = run;
  const { driver: first } = await working(run);
  await preserve(first.kept, { session: SESSION });
  stage.host.kexec(landing);
  const { resets } = stage.model;
  const admin = stage.model.trace.adminCommands.length;
  const next = stage.process('next');
  const after = kernel.beside(next.kernel, 'next');

  kernel.counting = true;
  let session = await attempt(run, async () => retrieve(after));
  const held = holdings(next.process);
  const kept = session && (await attempt(run, () => resume(session as IncomingSession, { kernel: after })));
  if (session && !kept) {
    // The session alone.
    if (holdings(next.process).join() !== held.join()) run.wrong(`it holds ${holdings(next.process)}`);
    if (stage.witness.by('next').some(({ what }) => what.includes('write')))
      run.wrong('the device was written to');
  }
  const driver = kept && (await attempt(run, () => stage.goOn(kept)));
  if (driver) await attempt(run, async () => session?.finish());
  kernel.counting = false;

  // What failed is tried again.
  const again = stage.process('next').process;
  if (session === undefined) {
    holdsNothing(run, 'next kernel', next.process);
    session = retrieve(after);
  }
  const rebuilt = kept ?? (await resume(session, { kernel: after }));
  const going = driver ?? (await stage.goOn(rebuilt));
  if (stage.model.resets > resets) run.wrong('the device was reset');
  if (kept && going.controller.outcome === 'kept-running' && stage.model.trace.adminCommands.length > admin) {
    run.wrong('there was an admin command');
  }
  session.finish();
  await checkIo(run, going);
  await stage.end(going);
  holdsNothing(run, 'next kernel', next.process);
  again.exit();
  stage.host.kexec();
}

/** Nothing but the state is left: memory is made anew. */
async function rebuildOnce(run: Run): Promise<void> {
  const { driver } = await working(run);
  driver.lanes.stop();
  await driver.kept.settle(1000);
  const state = decodeState(driver.kept.serialise());
  run.stage.host.kexec(landing);
  const next = run.stage.process('next');
  const after = run.kernel.beside(next.kernel, 'next');
  run.kernel.counting = true;
  const kept = await attempt(run, () => rebuild(state, { kernel: after, memory: () => undefined }));
  run.kernel.counting = false;
  kept?.[Symbol.dispose]();
  holdsNothing(run, 'next kernel', next.process);
  run.stage.host.kexec();
}

t.test('preserving, and calling it off', async t => {
  const calls = await sweepFailures(t, { profile: 'vtd', play: preserveOnce, where: call => !isIo(call) });
  t.ok(calls > 25);
});

t.test('starting the next kernel', async t => {
  t.ok((await sweepFailures(t, { profile: 'vtd', play: kexecOnce })) > 5);
});

t.test('going on under the next kernel', async t => {
  t.ok((await sweepFailures(t, { profile: 'vtd', play: resumeOnce })) > 80);
  // Without IOMMU it is a matter of where memory lies, besides.
  const places = new Set(
    [IOMMU_HWPT_ALLOC, IOMMU_IOAS_NOIOMMU_GET_PA, IOMMU_DESTROY].map(({ number }) => number),
  );
  const where = ({ request }: CallRecord): boolean => request !== undefined && places.has(request);
  t.ok((await sweepFailures(t, { profile: 'noiommu', play: resumeOnce, where })) > 5);
});

t.test('rebuilding from a state alone', async t => {
  // All else is as above.
  const where = ({ call }: CallRecord): boolean => ['memfdCreate', 'ftruncate', 'fcntl'].includes(call);
  t.ok((await sweepFailures(t, { profile: 'vtd', play: rebuildOnce, where })) > 8);
});
