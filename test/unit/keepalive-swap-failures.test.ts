// Every system call of an address-space swap fails once, on the simulated host, with I/O going on: the device has one of
// the two address spaces at every moment, and whoever asked knows which.
import t from 'tap';
import { AddressSpaceSwap, type Ioas } from '../../src/index.js';
import { attempt, checkIo, isIo, type Run, sweepFailures } from './support/failure-sweep.js';

t.setTimeout(300_000);

async function swapOnce(run: Run): Promise<void> {
  const { stage, kernel } = run;
  const driver = await stage.start(kernel);
  const { device } = driver.controller;
  const running = driver.lanes.start();
  await stage.turn();
  const { resets } = stage.model;
  const admin = stage.model.trace.adminCommands.length;
  const attachedTo = (): Ioas | undefined => {
    const { attached } = device;
    return attached && 'ioas' in attached ? attached.ioas : attached;
  };

  kernel.counting = true;
  const swap = await attempt(run, async () => AddressSpaceSwap.prepare(device.space as Ioas));
  for (const way of ['there', 'back']) {
    if (swap === undefined) break;
    const before = swap.current;
    const done = await attempt(run, () => swap.switch());
    if (attachedTo() !== swap.current || device.space !== swap.current) {
      run.wrong(`${way}: the device is not attached where the swap says that it is`);
    }
    if (done && swap.current === before) run.wrong(`${way}: nothing was switched`);
    // When it was not, I/O goes on all the same; so it does in between.
    const { told } = driver.lanes;
    for (let turns = 0; driver.lanes.told < told + 32 && turns < 20_000; turns++) await stage.turn();
    if (driver.lanes.told < told + 32) run.wrong(`${way}: I/O does not go on`);
  }
  // Its driver has asked for no address again; but it has not written any into the device either.
  await attempt(run, async () => swap?.drop(stage.profile === 'noiommu'));
  kernel.counting = false;
  if (stage.model.resets > resets) run.wrong('the device was reset');
  if (stage.model.trace.adminCommands.length > admin) run.wrong('there was an admin command');
  if (swap?.spare?.alive) swap.drop(true);
  await checkIo(run, driver, running);
  await stage.end(driver);
}

for (const profile of ['vtd', 'noiommu'] as const) {
  t.test(`swap, ${profile}`, async t => {
    const calls = await sweepFailures(t, { profile, play: swapOnce, where: call => !isIo(call) });
    t.ok(calls > 15);
  });
}
