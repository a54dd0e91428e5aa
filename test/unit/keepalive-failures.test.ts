// Every system call of a hand-off fails once, on the simulated host, with commands in flight all along: there is one owner
// afterwards or none, never two, and nothing is left behind.
import t from 'tap';
import { IOMMU_IOAS_NOIOMMU_GET_PA } from '../../bindings/uapi/iommufd.js';
import { Channel } from '../../src/keepalive/handoff/channel.js';
import { handOff, takeOver } from '../../src/keepalive/handoff/handoff.js';
import type { KeepAlive } from '../../src/keepalive/keep-alive.js';
import type { CallRecord } from '../../src/testing/faults.js';
import { attempt, checkIo, holdsNothing, type Run, sweepFailures } from './support/failure-sweep.js';
import type { Driver } from './support/keepalive-stage.js';

t.setTimeout(300_000);

async function handOffOnce(run: Run): Promise<void> {
  const { stage, kernel } = run;
  const { witness, model } = stage;
  const first = await stage.start(kernel);
  const running = first.lanes.start();
  await stage.hold(first.lanes);
  const next = stage.process('successor');
  const [mine, other] = Channel.pair(kernel);
  const theirs = Channel.adopt(stage.pass(other.fd, next.process), kernel.beside(next.kernel, 'successor'));
  other[Symbol.dispose]();
  const { resets } = model;
  const admin = model.trace.adminCommands.length;

  kernel.counting = true;
  let taken: KeepAlive | undefined;
  let wasHandedOver = false;
  const give = async (): Promise<void> => {
    try {
      await handOff(first.kept, mine, { timeout: 1000 });
      wasHandedOver = true;
    } catch (error) {
      run.threw(error);
      wasHandedOver = (error as { code?: unknown }).code === 'HANDED_OVER';
    } finally {
      await attempt(run, async () => mine[Symbol.dispose]());
    }
  };
  const take = async (): Promise<Driver | undefined> => {
    taken = await attempt(run, () => takeOver(theirs, { timeout: 1000 }));
    await attempt(run, async () => theirs[Symbol.dispose]());
    return taken && (await attempt(run, () => stage.goOn(taken as KeepAlive)));
  };
  const [, driver] = await Promise.all([give(), take()]);
  kernel.counting = false;

  const committed = witness.committed ?? witness.touches.length;
  if (witness.by('successor').length > witness.by('successor', committed).length) {
    run.wrong('the successor touched the device before it was its own');
  }
  if (witness.by('predecessor', committed).length > 0) {
    run.wrong('the predecessor touched the device after it was handed over');
  }
  if (wasHandedOver !== (taken !== undefined)) {
    run.wrong(wasHandedOver ? 'nobody has the device' : 'two have the device');
  }
  stage.release();
  if (taken === undefined) {
    holdsNothing(run, 'successor', next.process);
    await checkIo(run, first, running);
    await stage.end(first);
    if (model.trace.adminCommands.length === admin) run.wrong('the end of the driver had no admin command');
  } else {
    await running;
    // A driver that could not go on at once can try again.
    const again = driver ?? (await attempt(run, () => stage.goOn(taken as KeepAlive)));
    if (again === undefined) run.wrong('the driver could not be restored again');
    else {
      if (driver !== undefined && model.resets > resets) run.wrong('the device was reset');
      await checkIo(run, again);
      await stage.end(again);
    }
    holdsNothing(run, 'successor', next.process);
  }
}

t.test('hand-off', async t => {
  t.ok((await sweepFailures(t, { profile: 'vtd', play: handOffOnce })) > 80);
  // Without IOMMU it is a matter of where memory lies, besides.
  const where = ({ request }: CallRecord): boolean => request === IOMMU_IOAS_NOIOMMU_GET_PA.number;
  t.ok((await sweepFailures(t, { profile: 'noiommu', play: handOffOnce, where })) > 5);
});
