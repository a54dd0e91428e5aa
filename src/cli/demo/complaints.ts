/** What the demonstration has shown, and what of it must not be. @module */
import { type CrashReport, KILLS } from './crash.js';
import { HANDOFFS, type HandOffReport } from './hand-off.js';
import { keepComplaints, none } from './keep-report.js';
import { KEXECS, type LiveUpdateReport, type LiveUpdates } from './live-update.js';
import type { ModeReport } from './mode.js';

/** A part of what `--json` prints. */
export interface DemoReport {
  readonly modes: readonly ModeReport[];
  readonly handoff: HandOffReport;
  readonly crash: CrashReport;
  readonly liveupdate: LiveUpdates;
}

/** What a report shows that must not be. */
export function complaints(report: DemoReport): string[] {
  const { modes, handoff, crash, liveupdate } = report;
  const kexecs = KEXECS * liveupdate.modes.length;
  return [
    ...modes.flatMap(ofMode),
    ...keepComplaints(report, { handoffs: HANDOFFS, kexecs }),
    ...ofHandOff(handoff),
    ...ofCrash(crash),
    ...liveupdate.modes.flatMap(ofLiveUpdate),
  ];
}

function ofMode(report: ModeReport): string[] {
  const { mode, bytesWrong, leaked, wildWrite, faultsCaught } = report;
  const confined = mode !== 'noiommu';
  return [
    ...(bytesWrong > 0 ? [`${mode}: ${bytesWrong} bytes read back differ from what was written`] : []),
    ...leftBehind(mode, leaked),
    ...(wildWrite.stopped !== confined
      ? [`${mode}: the wild write was ${confined ? 'not ' : ''}stopped`]
      : []),
    ...(faultsCaught > 0 !== confined ? [`${mode}: ${faultsCaught} faults were caught`] : []),
  ];
}

const leftBehind = (what: string, leaked: readonly string[]): string[] =>
  leaked.length > 0 ? [`${what}: left behind: ${leaked.join(', ')}`] : [];

function ofHandOff({ outcome, inherited, bytesWrong, leaked }: HandOffReport): string[] {
  return [
    ...(outcome === 'kept-running' ? [] : [`hand-offs: ${outcome}`]),
    ...(inherited > 0 ? [] : ['hand-offs: nothing was in flight']),
    ...none(bytesWrong, 'bytes read back differ from what was written, in hand-offs'),
    ...leftBehind('hand-offs', leaked),
  ];
}

function ofCrash(report: CrashReport): string[] {
  const { count, outcome, inherited, bytesWrong, lost, repeated, adminCommands, resets, leaked } = report;
  return [
    ...(count === KILLS ? [] : [`${count} kills, not ${KILLS}`]),
    ...(outcome === 'kept-running' ? [] : [`crashes: ${outcome}`]),
    ...(inherited > 0 ? [] : ['crashes: nothing was in flight']),
    ...none(lost, 'commands were lost in crashes'),
    ...none(repeated, 'commands were repeated in crashes'),
    ...none(resets, 'resets in crashes'),
    ...none(adminCommands, 'admin commands in crashes'),
    ...none(bytesWrong, 'bytes read back differ from what was written, in crashes'),
    ...leftBehind('crashes', leaked),
  ];
}

function ofLiveUpdate({
  mode,
  reason,
  bytesWrong,
  lost,
  repeated,
  resets,
  leaked,
}: LiveUpdateReport): string[] {
  const what = `live updates, ${mode}`;
  return [
    ...(reason === undefined ? [] : [`${what}: not kept running, since ${reason}`]),
    ...none(lost, `commands were lost in ${what}`),
    ...none(repeated, `commands were repeated in ${what}`),
    ...none(resets, `resets in ${what}`),
    ...none(bytesWrong, `bytes read back differ from what was written, in ${what}`),
    ...leftBehind(what, leaked),
  ];
}
