/**
 * Runs the cases in two halves: the first ones, a kexec, the second ones. Inside a test VM, which must have
 * `liveupdate=on` on its kernel command line, this program runs once in each kernel; anywhere else it runs on the
 * simulated host.
 *
 * Results go where those of `run.test.ts` go.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { guestEnv } from '../vm/topology.js';
import { cases } from './cases/index.js';
import type { Case, ConformanceHost } from './support/case.js';
import { type CaseResult, resultOf, storeResults, titleOf } from './support/result.js';

/** By title: why a first half failed; null when it did not. */
type FirstHalves = Record<string, string | null>;

const guestProfile = process.env[guestEnv.profile];
const results: CaseResult[] = [];
const halves = cases.filter(each => each.afterKexec !== undefined);

/** Not as a subtest: what a test says in the first kernel, nobody hears in the second. */
async function before(host: ConformanceHost): Promise<FirstHalves> {
  const outcomes: FirstHalves = {};
  for (const each of halves) {
    try {
      await each.run?.(t, host);
      outcomes[titleOf(each)] = null;
    } catch (error) {
      outcomes[titleOf(each)] = error instanceof Error ? error.message : String(error);
    }
  }
  return outcomes;
}

async function afterwards(host: ConformanceHost, outcomes: FirstHalves): Promise<void> {
  for (const each of halves) await t.test(titleOf(each), t => second(t, host, each, outcomes[titleOf(each)]));
}

async function second(
  t: Test,
  host: ConformanceHost,
  each: Case,
  firstFailure: string | null | undefined,
): Promise<void> {
  let reason: string | undefined;
  if (firstFailure !== null) reason = `before the kexec: ${firstFailure ?? 'it did not run'}`;
  else {
    try {
      await each.afterKexec?.(t, host);
    } catch (error) {
      reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
    }
  }
  if (reason === undefined) t.pass('both halves');
  else t.fail(reason);
  const outcome = reason === undefined && t.passing() ? 'pass' : 'fail';
  results.push(resultOf(each, host.profile, outcome, reason));
}

async function inGuest(profile: string): Promise<void> {
  const { kernelHost } = await import('./support/kernel-host.js');
  const passedOn = join(process.env[guestEnv.results] ?? '/tmp', 'before-kexec.json');
  using host = kernelHost(profile);
  if (process.env[guestEnv.boot] === '1') {
    writeFileSync(passedOn, JSON.stringify(await before(host)));
    const { kexec } = await import('./support/kexec.js');
    kexec();
  }
  const outcomes = existsSync(passedOn) ? (JSON.parse(readFileSync(passedOn, 'utf8')) as FirstHalves) : {};
  await afterwards(host, outcomes);
}

async function onSimulator(): Promise<void> {
  const { simulatorHost } = await import('./support/simulator-host.js');
  using host = simulatorHost('noiommu');
  const outcomes = await before(host);
  using next = host.kexec();
  await afterwards(next, outcomes);
}

t.setTimeout(0);
if (guestProfile === undefined) await onSimulator();
else await inGuest(guestProfile);
storeResults(results);
