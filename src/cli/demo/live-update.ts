/** Live update, as the demonstration shows it: the kernel is replaced under an NVMe controller that stays as it is. @module */
import { setTimeout as sleep } from 'node:timers/promises';
import type { SimulatedHost } from '../../sim/host.js';
import type { SimulatedProcess } from '../../sim/process/process.js';
import { formatSize } from '../units.js';
import { Driver, type ReadBack } from './driver.js';
import { type LiveUpdateSummary, worstOutcome } from './keep-report.js';
import type { Mode, Narrator } from './mode.js';
import { replaceKernel, takeUp } from './next-kernel.js';
import { countMoved, countPages, drawFrames, type Frames, framesOf } from './physical-pages.js';
import { describeRelease } from './release.js';
import { describeTally, NVME, type Stage, seenSince, type Tally } from './stage.js';

/** In each mode. */
export const KEXECS = 3;
/** In each kernel. */
const WORK_MS = 30;

export interface LiveUpdateReport extends LiveUpdateSummary, Tally {
  readonly mode: Mode;
  /** Why the first outcome that is not the best is what it is. */
  readonly reason: string | undefined;
  /** Bytes that read back as something else than was written, at any time. */
  readonly bytesWrong: number;
  /** What was left behind when everything was released; nothing, if all is well. */
  readonly leaked: readonly string[];
}

/** In all modes together. */
export interface LiveUpdates extends LiveUpdateSummary {
  readonly modes: readonly LiveUpdateReport[];
}

export function joinUpdates(modes: readonly LiveUpdateReport[]): LiveUpdates {
  const sum = (of: (report: LiveUpdateReport) => number): number =>
    modes.reduce((total, report) => total + of(report), 0);
  return {
    kexecs: sum(({ kexecs }) => kexecs),
    outcome: worstOutcome(modes.map(({ outcome }) => outcome)),
    adminCommands: sum(({ adminCommands }) => adminCommands),
    bytesVerified: sum(({ bytesVerified }) => bytesVerified),
    pagesMoved: sum(({ pagesMoved }) => pagesMoved),
    modes,
  };
}

/** What a kernel has found. */
interface Found extends ReadBack {
  readonly frames: Frames;
  readonly outcome: string;
  readonly reason: string | undefined;
  readonly moved: number;
}

/** @throws whatever the library throws, and the reason of `signal` */
export async function showLiveUpdates(
  stage: Stage,
  narrator: Narrator,
  signal: AbortSignal,
): Promise<LiveUpdateReport> {
  const { host, mode } = stage;
  let process = host.process();
  let driver = await Driver.start(stage, process);
  /** @returns how many lanes do not go on, although they had time */
  const work = async (): Promise<number> => {
    driver.run();
    const stuck = await driver.progress(signal);
    await sleep(WORK_MS, undefined, { signal });
    return stuck;
  };
  try {
    let lost = (await work()) + (await driver.pause(signal));
    const first = await driver.verify();
    let frames = framesOf(driver.kept, process);
    narrator.step(
      'kernel 1',
      `${NVME} is up; ${describeReadBack(first, 'written and')}; ${countPages(frames)} pages of DMA memory`,
    );
    const kernels = [frames];
    const before = stage.seen;
    const updates: Found[] = [];
    while (updates.length < KEXECS) {
      lost += await work();
      // A lane that is stuck once is stuck for good.
      if (lost > 0) break;
      await replaceKernel(host, process, driver, () => {
        frames = framesOf(driver.kept, process);
      });
      process = host.process();
      driver = await takeUp(process);
      const found = await look(driver, process, frames);
      updates.push(found);
      kernels.push(found.frames);
      narrator.step(`kernel ${kernels.length}`, describeFound(found));
    }
    if (lost === 0) lost = (await work()) + (await driver.pause(signal));
    const sum = (of: (found: Found) => number): number => updates.reduce((all, each) => all + of(each), 0);
    const { ioCommands: ios } = stage.seen;
    const { adminCommands, resets } = seenSince(before, stage.seen);
    const asked = driver.told + first.reads + sum(({ reads }) => reads);
    const bytesWrong = driver.bytesWrong + first.bytesWrong + sum(each => each.bytesWrong);
    const unfinished = driver.lanes.working;
    // One that is stuck would not close either.
    if (lost === 0) await driver.close();
    const report: LiveUpdateReport = {
      mode,
      kexecs: updates.length,
      outcome: worstOutcome(updates.map(({ outcome }) => outcome)),
      reason: updates.find(({ reason }) => reason !== undefined)?.reason,
      bytesVerified: sum(({ bytes }) => bytes),
      pagesMoved: sum(({ moved }) => moved),
      lost: lost + Math.max(asked - ios, 0),
      repeated: Math.max(ios - asked - unfinished, 0),
      ...{ adminCommands, resets, ios, bytesWrong, leaked: leftBehind(host) },
    };
    narrator.step('device saw', describeTally(report));
    // There the device knows memory by these addresses.
    if (mode === 'noiommu') narrator.picture(drawKernels(kernels, host.physical.size, narrator.width));
    narrator.step(
      'release',
      describeRelease(report.leaked, 'the controller is with vfio-pci, where it landed'),
    );
    return report;
  } finally {
    driver.end();
  }
}

/** What has become of everything. @param before where DMA memory was */
async function look(driver: Driver, process: SimulatedProcess, before: Frames): Promise<Found> {
  const became = driver.kept.outcomes.find(({ device }) => device === NVME);
  const frames = framesOf(driver.kept, process);
  return {
    ...(await driver.verify()),
    frames,
    outcome: became?.outcome ?? 'unknown',
    reason: became?.reason,
    moved: countMoved(before, frames),
  };
}

function describeFound(found: Found): string {
  const { outcome, reason, frames, moved } = found;
  return [
    `${outcome}${reason === undefined ? '' : ` (${reason})`}`,
    describeReadBack(found, 'of the kernel before'),
    `${countPages(frames)} pages, ${moved} moved`,
  ].join('; ');
}

function describeReadBack({ bytes, bytesWrong }: ReadBack, what: string): string {
  const verdict = bytesWrong === 0 ? 'identical' : `${bytesWrong} bytes DIFFER`;
  return `${formatSize(bytes + bytesWrong)} ${what} read back: ${verdict}`;
}

/** A device is given back to whoever had it in this kernel: where it landed. */
function leftBehind(host: SimulatedHost): string[] {
  return host.leftovers().filter(left => left !== `${NVME} is with vfio-pci`);
}

/** Where DMA memory is, kernel by kernel: the lines are alike. @param size of physical memory, in bytes */
function drawKernels(kernels: readonly Frames[], size: number, width: number): string[] {
  const labels = kernels.map((_, index) => `kernel ${index + 1}  `);
  const columns = Math.max(16, Math.min(width, 100) - 6 - (labels[0] as string).length);
  return [
    `Where its DMA memory is in ${formatSize(size)} of physical memory; one cell is ${formatSize(size / columns)}:`,
    ...kernels.map((frames, index) => `${labels[index]}[${drawFrames(frames, size, columns)}]`),
  ];
}
