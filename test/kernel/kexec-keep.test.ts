/**
 * A controller that is kept running over three kexecs, while the kernel drives another one. This program runs once in each
 * of four kernels; what it says before the last nobody hears, unless it fails. What QEMU saw meanwhile, the host compares:
 * see test/vm/kexec-kept.ts.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LandingError, preserve, runningCommandLine } from 'iommufd';
import t from 'tap';
import { random } from '../support/random.js';
import { address, guestEnv } from '../vm/topology.js';
import { kernelDisk, ownership, readDisk, registersOf, writeDisk } from './support/kernel-disk.js';
import {
  bringUp,
  goOver,
  image,
  initrd,
  type KexecDriver,
  movedPages,
  physicalPages,
  restore,
  session,
  takeUp,
  verifyData,
} from './support/kexec-driver.js';
import { mark } from './support/mark.js';

const KERNELS = 4;
/** Of verified I/O in each kernel. */
const WORK_MS = 1000;
const boot = Number(process.env[guestEnv.boot]);
const { nvmeA: A, nvmeB: B } = address;

/** What the host is told, of each kernel. */
export interface KexecReport {
  readonly registers: Readonly<Record<'a' | 'b', { bar: number; size: number }>>;
  readonly outcome: string;
  /** Bytes that predecessors wrote and that were read back. */
  readonly bytesVerified: number;
  readonly pages: number;
  readonly pagesMoved: number;
  /** Operations of the lanes, in all kernels so far. */
  readonly told: number;
  /** I/O commands of this kernel that are no lane's. */
  readonly otherCommands: number;
  readonly frames: readonly (readonly [string, readonly number[]])[];
  readonly queueEntries: number;
}

const file = (kernel: number): string =>
  join(process.env[guestEnv.results] ?? '/tmp', `kernel-${kernel}.json`);

const reportOf = (kernel: number): KexecReport =>
  JSON.parse(readFileSync(file(kernel), 'utf8')) as KexecReport;

async function work({ controller, lanes }: KexecDriver): Promise<void> {
  const running = lanes.start(controller.inherited);
  await sleep(WORK_MS);
  lanes.stop();
  await running;
  if (lanes.failure !== undefined) throw lanes.failure;
  assert.equal(lanes.wrong, 0, 'blocks that do not read back as they were written');
}

/** A mebibyte for each kernel, in a place of its own. */
function kernelData(kernel: number): Uint8Array {
  const bytes = new Uint8Array(2 ** 20);
  random(100 + kernel).fill(bytes);
  return bytes;
}

/** The other controller is the kernel's own, and has what the kernels before wrote. */
async function checkOther(): Promise<void> {
  const disk = await kernelDisk(B);
  const { driver, override, resetMethod } = ownership(B);
  assert.deepEqual({ driver, override }, { driver: 'nvme', override: '(null)' });
  assert.notEqual(resetMethod, '');
  for (let kernel = 1; kernel < boot; kernel++) {
    const expected = kernelData(kernel);
    const found = readDisk(disk, kernel * expected.length, expected.length);
    assert.ok(Buffer.compare(found, expected) === 0, `what kernel ${kernel} wrote`);
  }
  writeDisk(disk, boot * 2 ** 20, kernelData(boot));
}

/** A kernel in which the device might land elsewhere is not started, and everything goes on. */
async function refused(driver: KexecDriver): Promise<void> {
  const running = driver.lanes.start();
  const preserved = await preserve(driver.kept, session);
  const commandLine = `${runningCommandLine()} kho=on liveupdate=on vfio-pci.disable_idle_d3=1`;
  for (const options of [{ initrd }, {}]) {
    assert.throws(() => preserved.kexec({ image, commandLine, ...options }), LandingError);
  }
  assert.equal(readFileSync('/sys/kernel/kexec_loaded', 'utf8'), '0\n');
  assert.equal(ownership(A).resetMethod, '');
  const { told } = driver.lanes;
  preserved[Symbol.dispose]();
  assert.notEqual(ownership(A).resetMethod, '');
  await sleep(200);
  driver.lanes.stop();
  await running;
  assert.equal(driver.lanes.failure, undefined);
  assert.ok(driver.lanes.told > told, 'the lanes go on');
}

async function leave(driver: KexecDriver, report: Omit<KexecReport, 'told'>): Promise<never> {
  // At work until the last moment.
  void driver.lanes.start();
  await sleep(50);
  const preserved = await preserve(driver.kept, session);
  writeFileSync(file(boot), JSON.stringify({ ...report, told: driver.lanes.told }));
  return goOver(preserved);
}

const registers = { a: registersOf(A), b: registersOf(B) };

async function first(): Promise<never> {
  await checkOther();
  const driver = await bringUp(A);
  // The requests for events are in the controller's hands by then.
  await sleep(100);
  await mark('brought-up');
  await work(driver);
  await refused(driver);
  const frames = [...physicalPages(driver.kept)];
  return leave(driver, {
    ...{ registers, frames, bytesVerified: 0, pagesMoved: 0, otherCommands: 0 },
    outcome: driver.controller.outcome,
    pages: frames.reduce((sum, [, { length }]) => sum + length, 0),
    queueEntries: driver.controller.queueDepth + 1,
  });
}

async function next(): Promise<KexecReport & { driver: KexecDriver }> {
  const before = reportOf(boot - 1);
  const { session, kept } = await takeUp();
  const driver = await restore(kept, A);
  assert.deepEqual(kept.outcomes, [{ device: A, outcome: 'kept-running', reason: undefined }]);
  assert.notEqual(ownership(A).resetMethod, '', 'it can be reset again');
  assert.equal(driver.lanes.told, before.told, 'every operation that ended was told, and none was lost');
  assert.deepEqual(driver.controller.inherited, []);
  const frames = [...physicalPages(kept)];
  const { reads, bytes } = await verifyData(driver);
  session.finish();
  await checkOther();
  await work(driver);
  return {
    ...{ driver, registers, frames, bytesVerified: bytes, otherCommands: reads, told: driver.lanes.told },
    outcome: driver.controller.outcome,
    pages: frames.reduce((sum, [, { length }]) => sum + length, 0),
    pagesMoved: movedPages(new Map(before.frames), new Map(frames)),
    queueEntries: before.queueEntries,
  };
}

if (boot === 1) await first();
const { driver, ...report } = await next();
if (boot < KERNELS) await leave(driver, report);

await mark('end');
writeFileSync(file(boot), JSON.stringify(report));
const reports = Array.from({ length: KERNELS - 1 }, (_, index) => reportOf(index + 2));
t.strictSame(
  reports.map(({ outcome }) => outcome),
  Array(KERNELS - 1).fill('kept-running'),
);
t.strictSame(
  reports.map(({ pagesMoved }) => pagesMoved),
  Array(KERNELS - 1).fill(0),
  'pages that moved',
);
t.ok(reports.every(({ pages, bytesVerified }) => pages > 100 && bytesVerified > 2 ** 20));
t.comment(
  `verified ${reports.map(({ bytesVerified }) => bytesVerified)} bytes, ${report.told} operations, ${report.pages} pages`,
);
await driver.controller.close();
driver.kept[Symbol.dispose]();
t.match(
  ownership(A),
  { driver: undefined, override: 'vfio-pci' },
  'it is as it landed, and no other driver has it',
);
