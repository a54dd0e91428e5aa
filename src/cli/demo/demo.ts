/** `iommufd demo`: what the library does, on a simulated host: no device, no root, no special kernel. @module */
import type { DemoCommand } from '../arguments.js';
import { colours } from '../colours.js';
import { Failed } from '../errors.js';
import { toJson } from '../json.js';
import { print } from '../streams.js';
import { formatSeconds } from '../units.js';
import { complaints, type DemoReport } from './complaints.js';
import { showCrashes } from './crash.js';
import { showHandOffs } from './hand-off.js';
import { Lines } from './lines.js';
import { joinUpdates, showLiveUpdates } from './live-update.js';
import { type Mode, modes, type Narrator, runMode } from './mode.js';
import { Stage } from './stage.js';

/** @throws Failed when anything differs from what it must be */
export async function runDemo(command: DemoCommand, signal: AbortSignal): Promise<void> {
  const started = performance.now();
  const { bold } = colours(process.stdout);
  const say = async (text: string): Promise<void> => {
    if (!command.json) await print(`${text}\n`, signal);
  };
  const section = async <T>(title: string, show: (narrator: Narrator) => Promise<T>): Promise<T> => {
    await say(`\n${bold(title)}`);
    using narrator = new Lines(say);
    const result = await show(narrator);
    await narrator.said();
    return result;
  };
  const onStage = <T>(
    title: string,
    mode: Mode,
    show: (stage: Stage, narrator: Narrator, signal: AbortSignal) => Promise<T>,
  ): Promise<T> =>
    section(title, async narrator => {
      using stage = new Stage(mode);
      return await show(stage, narrator, signal);
    });

  await say(bold('A simulated host: Linux 7.3 with 2 GiB, an NVMe controller and an edu device'));
  const reports: DemoReport['modes'][number][] = [];
  for (const [mode, title] of Object.entries(modes) as [Mode, string][]) {
    reports.push(await section(title, narrator => runMode(mode, narrator, signal)));
  }
  const handoff = await onStage(
    'Hand-off (VT-d): another process goes on with the controller, which works all the while',
    'vtd',
    showHandOffs,
  );
  const crash = await onStage(
    'Crash (VT-d): the process is killed; the next one gets everything from the descriptor store',
    'vtd',
    showCrashes,
  );
  const updates = [
    await onStage(
      'Live update (VT-d): another kernel is started, and the controller stays as it is',
      'vtd',
      showLiveUpdates,
    ),
    await onStage(
      'Live update (without IOMMU): the same, and DMA memory stays at its physical addresses',
      'noiommu',
      showLiveUpdates,
    ),
  ];
  const report: DemoReport = { modes: reports, handoff, crash, liveupdate: joinUpdates(updates) };
  const wrong = complaints(report);
  const seconds = (performance.now() - started) / 1000;
  if (command.json) {
    await print(toJson({ host: 'simulated', kernel: '7.3', ...report, seconds, passed: wrong.length === 0 }));
  } else {
    await say(
      `\n${bold(wrong.length === 0 ? 'Everything is as it must be' : 'Something is wrong')}, after ${formatSeconds(seconds)}`,
    );
  }
  if (wrong.length > 0) throw new Failed(wrong.join('; '));
}
