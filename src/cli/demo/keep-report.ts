/** What demonstrations tell of hand-offs and live updates, here as on a real kernel, and what of it must not be. @module */
import { Outcome } from '../../keepalive/outcome.js';

export interface HandOffSummary {
  readonly count: number;
  /** Commands that were told of and not executed, and lanes that did not go on. */
  readonly lost: number;
  /** Commands that were executed, or told of, more often than they were asked for. */
  readonly repeated: number;
  /** Of the controller and of the function, by whatever way. */
  readonly resets: number;
  /** As the device saw them. */
  readonly adminCommands: number;
  /** Between the last command that ended in one process and the first in the next. */
  readonly gapMs: { readonly p50: number; readonly max: number };
}

export interface LiveUpdateSummary {
  readonly kexecs: number;
  /** The worst of them. */
  readonly outcome: string;
  /** As the device saw them. */
  readonly adminCommands: number;
  /** Of what was written before a kexec, read back after it and found to be so. */
  readonly bytesVerified: number;
  /** Physical pages of DMA memory. */
  readonly pagesMoved: number;
}

/** A part of what `--json` prints. */
export interface KeepReport {
  readonly handoff: HandOffSummary;
  readonly liveupdate: LiveUpdateSummary;
}

/** How much was to be shown. */
export interface KeepCounts {
  readonly handoffs: number;
  readonly kexecs: number;
}

/** What there must be none of. */
export const none = (count: number, what: string): string[] => (count === 0 ? [] : [`${count} ${what}`]);

/** What a report shows that must not be; why an outcome is what it is, is not said here. */
export function keepComplaints(
  { handoff, liveupdate }: KeepReport,
  { handoffs, kexecs }: KeepCounts,
): string[] {
  return [
    ...(handoff.count === handoffs ? [] : [`${handoff.count} hand-offs, not ${handoffs}`]),
    ...none(handoff.lost, 'commands were lost in hand-offs'),
    ...none(handoff.repeated, 'commands were repeated in hand-offs'),
    ...none(handoff.resets, 'resets in hand-offs'),
    ...none(handoff.adminCommands, 'admin commands in hand-offs'),
    ...(liveupdate.kexecs === kexecs ? [] : [`${liveupdate.kexecs} kexecs, not ${kexecs}`]),
    ...(liveupdate.outcome === Outcome.KeptRunning ? [] : [`after a live update: ${liveupdate.outcome}`]),
    ...none(liveupdate.adminCommands, 'admin commands in live updates'),
    ...none(liveupdate.pagesMoved, 'pages of DMA memory have moved'),
    ...(liveupdate.bytesVerified > 0 ? [] : ['nothing was read back after the live updates']),
  ];
}

/** The worst of some outcomes: one that nobody knows is worse than to be kept running. */
export function worstOutcome(outcomes: readonly string[]): string {
  const worst = [Outcome.Cold, Outcome.Reinitialised].find(each => outcomes.includes(each));
  return worst ?? outcomes.find(each => each !== Outcome.KeptRunning) ?? Outcome.KeptRunning;
}
