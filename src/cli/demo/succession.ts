/** One driver after the other, of a controller that works all the while; and the account of it. @module */
import { setTimeout as sleep } from 'node:timers/promises';
import type { KeepAlive } from '../../keepalive/keep-alive.js';
import { percentile } from '../../testing/percentile.js';
import { Driver } from './driver.js';
import { worstOutcome } from './keep-report.js';
import type { Narrator } from './mode.js';
import { NVME, type Stage, seenSince, type Tally } from './stage.js';

/** Between two drivers, once every lane has gone on. */
const BETWEEN_MS = 5;

export interface Succession extends Tally {
  /** How often another driver took the place of one. */
  readonly count: number;
  /** The worst of them. */
  readonly outcome: string;
  /** Commands that a driver was told of although its predecessor had been. */
  readonly toldTwice: number;
  /** Between the last command that ended with one driver and the first with the next. */
  readonly gapMs: { readonly p50: number; readonly max: number };
  /** Commands that a predecessor had in flight, and that completed to its successor. */
  readonly inherited: number;
  /** Bytes that read back as something else than was written. */
  readonly bytesWrong: number;
}

/**
 * Runs `first`, and in its place the next driver, so many times; in the end everything is shut down in an orderly way.
 *
 * @param replace takes a driver away while it works. @returns what is kept, wherever it is now
 * @throws what `replace` and drivers throw, and the reason of `signal`
 */
export async function succession(
  stage: Stage,
  first: Driver,
  replace: (driver: Driver) => Promise<KeepAlive>,
  count: number,
  narrator: Narrator,
  signal: AbortSignal,
): Promise<Succession> {
  let driver = first;
  try {
    driver.run();
    let lost = await driver.progress(signal);
    narrator.step('controller', `${NVME} is up, with ${driver.lanes.working} commands in flight`);
    const before = stage.seen;
    const gaps: number[] = [];
    const outcomes: string[] = [];
    let toldTwice = 0;
    let inherited = 0;
    // A lane that is stuck once is stuck for good.
    while (gaps.length < count && lost === 0) {
      await sleep(BETWEEN_MS, undefined, { signal });
      const { toldByLane, times, lanes } = driver;
      driver = await Driver.goOn(await replace(driver));
      const began = driver.lanes.toldByLane;
      outcomes.push(driver.controller.outcome);
      driver.run();
      lost += await driver.progress(signal);
      if (lanes.failure !== undefined) throw lanes.failure;
      lost += toldByLane.filter((told, lane) => told > (began[lane] ?? 0)).length;
      gaps.push(driver.times.first - times.last);
      toldTwice += driver.lanes.counts.toldTwice;
      inherited += driver.lanes.counts.inherited - driver.lanes.counts.toldTwice;
    }
    if (lost === 0) lost = await driver.pause(signal);
    const { ioCommands: ios } = stage.seen;
    const { adminCommands, resets } = seenSince(before, stage.seen);
    const { told, bytesWrong } = driver;
    const unfinished = driver.lanes.working;
    // One that is stuck would not close either.
    if (lost === 0) await driver.close();
    return {
      count: gaps.length,
      outcome: worstOutcome(outcomes),
      lost: lost + Math.max(told - ios, 0),
      repeated: Math.max(ios - told - unfinished, 0),
      gapMs: { p50: percentile(gaps, 50), max: percentile(gaps, 100) },
      ...{ toldTwice, resets, adminCommands, ios, inherited, bytesWrong },
    };
  } finally {
    driver.end();
  }
}

/** For how long nothing ends, in a sentence. */
export function describeGap({ gapMs }: Pick<Succession, 'gapMs'>): string {
  return `nothing ends for ${gapMs.p50.toFixed(1)} ms (median), ${gapMs.max.toFixed(1)} ms at most`;
}

/** What became of commands in flight, in a sentence. */
export function describeInherited({ count, inherited }: Pick<Succession, 'count' | 'inherited'>): string {
  const each = Math.round(inherited / Math.max(count, 1));
  return `each time ${each} commands in flight ended at the successor`;
}
