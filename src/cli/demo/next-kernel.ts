/** From one kernel of the simulated host to the next, with a controller that lands where its driver finds it. @module */
import { packCpio, program } from '../../keepalive/landing/cpio.js';
import { appendLanding } from '../../keepalive/landing/initrd.js';
import { planLanding } from '../../keepalive/landing/plan.js';
import { landingCommandLine } from '../../keepalive/landing/verify.js';
import { runningCommandLine } from '../../keepalive/liveupdate/command-line.js';
import { LiveUpdate } from '../../keepalive/liveupdate/live-update.js';
import { preserve } from '../../keepalive/liveupdate/preserve.js';
import { resume } from '../../keepalive/liveupdate/resume.js';
import type { SimulatedHost } from '../../sim/host.js';
import type { SimulatedProcess } from '../../sim/process/process.js';
import { ProcessEnded } from '../../sim/process/process-ended.js';
import { Driver } from './driver.js';

const SESSION = 'driver';
const IMAGE = '/boot/vmlinuz';
const INITRD = '/boot/initrd-landing.img';
/** An initial root file system that would run scripts, and has none yet. */
const plainInitrd = packCpio([program('init', Buffer.from('#!/bin/sh\nrun_scripts /scripts/init-top\n'))]);

/**
 * Preserves all that the driver has, and starts the next kernel: no process is left then.
 *
 * @param atRest called when the driver is at rest
 */
export async function replaceKernel(
  host: SimulatedHost,
  process: SimulatedProcess,
  driver: Driver,
  atRest: () => void,
): Promise<void> {
  const preserved = await preserve(driver.kept, { session: SESSION });
  atRest();
  const plan = planLanding(preserved.state, { kernel: process });
  host.install(INITRD, appendLanding(plainInitrd, plan).toString('latin1'));
  // What the script of the plan does: a simulated kernel runs none.
  const addresses = plan.devices.map(({ address }) => address);
  host.landing = {
    overrides: Object.fromEntries(addresses.map(address => [address, 'vfio-pci'])),
    withoutReset: addresses,
  };
  const commandLine = landingCommandLine(plan, runningCommandLine(process));
  try {
    preserved.kexec({ image: IMAGE, initrd: INITRD, commandLine });
  } catch (error) {
    // Where a real process would be gone.
    if (!(error instanceof ProcessEnded)) throw error;
  }
  driver.end();
}

/** Goes on with what the kernel before has left. */
export async function takeUp(process: SimulatedProcess): Promise<Driver> {
  using liveUpdate = LiveUpdate.open(process);
  const session = liveUpdate.retrieveSession(SESSION);
  const driver = await Driver.goOn(await resume(session, { kernel: process }));
  session.finish();
  return driver;
}
