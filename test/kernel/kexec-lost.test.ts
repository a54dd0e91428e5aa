/**
 * A controller that cannot be kept running over a kexec: initialised again on its memory, when it was reset or had commands
 * in flight; started cold, when its memory is gone. This program runs once in each of four kernels; what it says before the
 * last nobody hears, unless it fails.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  decodeState,
  encodeState,
  type KeepAlive,
  kexec,
  LiveUpdate,
  loadKernel,
  preserve,
  readStateFile,
  rebuild,
  runningCommandLine,
  writeStateFile,
} from 'iommufd';
import { NvmeController } from 'iommufd/nvme';
import t from 'tap';
import { expectedBlocks, LANES } from '../../src/testing/lanes.js';
import { monitor } from '../vm/monitor.js';
import { address, guestEnv, nvmeA } from '../vm/topology.js';
import { kernelDisk, ownership } from './support/kernel-disk.js';
import {
  bringUp,
  goOver,
  image,
  initrd,
  type KexecDriver,
  movedPages,
  physicalPages,
  restore,
  session as sessionOptions,
  takeUp,
  verifyData,
} from './support/kexec-driver.js';

const KERNELS = 4;
const WORK_MS = 500;
const { nvmeA: A } = address;
const results = process.env[guestEnv.results] ?? '/tmp';
const stateFile = join(results, 'kept.state');
/** Text that is on the command line of kernels with live update. */
const LIVE_UPDATE = /\bliveupdate=on\b/g;

interface Left {
  readonly told: readonly number[];
  /** At least so many commands; none when it is 0. */
  readonly inFlight: number;
  readonly frames: readonly (readonly [string, readonly number[]])[];
}
const file = (kernel: number): string => join(results, `kernel-${kernel}.json`);
const boot = Number(process.env[guestEnv.boot]);
const leftBy = (kernel: number): Left => JSON.parse(readFileSync(file(kernel), 'utf8')) as Left;

function leave({ kept, lanes }: KexecDriver, inFlight = 0): void {
  const left: Left = { told: lanes.toldByLane, inFlight, frames: [...physicalPages(kept)] };
  writeFileSync(file(boot), JSON.stringify(left));
}

async function work({ controller, lanes }: KexecDriver): Promise<void> {
  const running = lanes.start(controller.inherited);
  await sleep(WORK_MS);
  lanes.stop();
  await running;
  if (lanes.failure !== undefined) throw lanes.failure;
  assert.equal(lanes.wrong, 0, 'blocks that do not read back as they were written');
}

/** Of I/O to the first namespace, per second; 0 for no limit. */
const throttle = (iops: number): Promise<unknown> =>
  monitor('block_set_io_throttle', {
    device: nvmeA.namespaces[0].disk,
    ...{ bps: 0, bps_rd: 0, bps_wr: 0, iops, iops_rd: 0, iops_wr: 0 },
  });

/** Takes up what the kernel before left, which must be all of its memory, and goes on. */
async function initialiseAgain(reason: RegExp) {
  const before = leftBy(boot - 1);
  const { session, kept } = await takeUp();
  assert.equal(movedPages(new Map(before.frames), physicalPages(kept)), 0, 'the memory is where it was');
  const driver = await restore(kept, A);
  const [outcome] = kept.outcomes;
  assert.equal(outcome?.outcome, 're-initialised', outcome?.reason);
  assert.match(outcome.reason ?? '', reason);
  assert.deepEqual(driver.lanes.toldByLane, before.told, 'no operation was told that nobody was told of');
  const { length } = driver.controller.inherited;
  assert.ok(before.inFlight === 0 ? length === 0 : length >= before.inFlight, `${length} commands in flight`);
  return { session, driver };
}

async function first(): Promise<never> {
  const driver = await bringUp(A);
  await work(driver);
  const preserved = await preserve(driver.kept, sessionOptions);
  leave(driver);
  return goOver(preserved);
}

/** Somebody resets the function before it is taken up; then it is left with commands in flight. */
async function second(): Promise<never> {
  const device = `/sys/bus/pci/devices/${A}`;
  assert.equal(ownership(A).resetMethod, '', 'the landing keeps it from being reset');
  writeFileSync(`${device}/reset_method`, 'default');
  writeFileSync(`${device}/reset`, '1');
  const { session, driver } = await initialiseAgain(/^it is not ready$/);
  await verifyData(driver);
  session.finish();
  await work(driver);
  await verifyData(driver);

  const { kept, lanes } = driver;
  await throttle(1);
  void lanes.start();
  await sleep(200);
  await assert.rejects(preserve(kept, { ...sessionOptions, timeout: 300 }), {
    name: 'DeviceError',
    code: 'BUSY',
  });
  assert.ok(!kept.frozen && ownership(A).resetMethod !== '', 'it goes on as before');
  const preserved = await preserve(kept, { ...sessionOptions, timeout: 300, force: true });
  // A few have ended while the others were waited for.
  leave(driver, LANES - 8);
  return goOver(preserved);
}

/** What was in flight is issued again; then all is given up, and started cold. */
async function third(): Promise<never> {
  const { session, driver } = await initialiseAgain(/^commands were in flight/);
  assert.ok(driver.controller.inherited.every(({ submitted }) => submitted));
  await throttle(0);
  const issuedAgain = driver.controller.inherited.length;
  await work(driver);
  assert.equal(driver.lanes.counts.inherited, issuedAgain, 'each of them has ended');
  await verifyData(driver);
  session.finish();

  writeStateFile(stateFile, encodeState(driver.kept.capture()));
  leave(driver, issuedAgain);
  await driver.controller.close();
  driver.kept[Symbol.dispose]();
  {
    using liveUpdate = LiveUpdate.open();
    assert.throws(() => liveUpdate.retrieveSession(sessionOptions.session), { code: 'ENOENT' });
  }
  await startCold();

  const commandLine = runningCommandLine().replaceAll(LIVE_UPDATE, '');
  loadKernel({ image, initrd, commandLine });
  return kexec();
}

/** From the file, with nothing else. @returns bytes that are on the disk as they must be */
async function startCold(): Promise<number> {
  const kept: KeepAlive = await rebuild(decodeState(readStateFile(stateFile)), { memory: () => undefined });
  const controller = await NvmeController.open(kept.device(A));
  kept.add(controller);
  const [outcome] = kept.outcomes;
  assert.equal(outcome?.outcome, 'cold');
  assert.match(outcome.reason ?? '', /^its memory is lost: /);
  kept.releaseUnclaimed();
  const { told } = leftBy(3);
  const { bytes } = await verifyData({ controller, lanes: { expected: () => expectedBlocks(told) } });
  await controller.close();
  kept[Symbol.dispose]();
  return bytes;
}

if (boot === 1) await first();
if (boot === 2) await second();
if (boot === 3) await third();

t.equal(boot, KERNELS);
t.throws(() => LiveUpdate.open(), { code: 'ENOENT', hint: /liveupdate=on/ });
await kernelDisk(A);
t.match(ownership(A), { driver: 'nvme', override: '(null)' }, 'it has not landed anywhere');
const bytes = await startCold();
t.ok(bytes > 2 ** 20, `${bytes} bytes are on the disk`);
t.ok(leftBy(3).inFlight >= LANES - 8, `${leftBy(3).inFlight} commands were issued again`);
await kernelDisk(A);
t.match(ownership(A), { driver: 'nvme', override: '(null)' }, 'the kernel has it again');
