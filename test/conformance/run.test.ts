/**
 * Runs the conformance suite: inside a test VM on its kernel, anywhere else on the simulated host.
 *
 * An argument is a regular expression that the titles of the cases to run match. Results go to the directory that the
 * VM's host reads, or to the file that `IOMMUFD_CONFORMANCE_RESULTS` names.
 */
import t from 'tap';
import { profileNames } from '../vm/profiles.js';
import { guestEnv } from '../vm/topology.js';
import { cases } from './cases/index.js';
import type { Case } from './support/case.js';
import type { RunnableHost } from './support/host.js';
import { type CaseResult, resultOf, storeResults, titleOf } from './support/result.js';

// One subtest after the other: the limit is the VM's, or the caller's.
t.setTimeout(0);

const wanted = new RegExp(process.argv[2] ?? '');
// Cases in two halves, with a kexec between them, are those of `kexec.test.ts`.
const chosen = cases.filter(each => each.afterKexec === undefined && wanted.test(titleOf(each)));
const guestProfile = process.env[guestEnv.profile];
const results: CaseResult[] = [];

/** Of what a case left open, this much is shown. */
const SHOWN = 3;

/** What a case left open or pinned; the descriptors are closed, so that the next one starts afresh. */
function leftovers(host: RunnableHost, before: ReadonlyMap<number, string>): string[] {
  const open = [...host.descriptors()].filter(([fd, name]) => before.get(fd) !== name);
  for (const [fd] of open) host.kernel.close(fd);
  const left = open.slice(0, SHOWN).map(([fd, name]) => `descriptor ${fd} is still open: ${name}`);
  if (open.length > SHOWN) left.push(`and ${open.length - SHOWN} more`);
  const pinned = host.pinnedPages();
  if (pinned !== 0) left.push(`${pinned} pages are still pinned`);
  return left;
}

async function runCase(host: RunnableHost, each: Case): Promise<void> {
  const title = titleOf(each);
  const reason = each.notApplicable ?? each.unavailable?.(host);
  if (each.run === undefined || reason !== undefined) {
    results.push(resultOf(each, host.profile, 'skip', reason));
    await t.test(title, { skip: reason ?? true }, () => {});
    return;
  }
  const { run } = each;
  await t.test(title, async t => {
    const before = host.descriptors();
    let failure: unknown;
    try {
      await run(t, host);
    } catch (error) {
      failure = original(error);
    }
    const left = leftovers(host, before);
    if (failure === undefined && left.length > 0) failure = new Error(left.join('; '));
    const passed = failure === undefined && t.passing();
    if (failure !== undefined) t.error(failure as Error);
    else t.pass('nothing is left behind');
    const outcome = passed ? 'pass' : 'fail';
    results.push(resultOf(each, host.profile, outcome, passed ? undefined : messageOf(failure)));
  });
}

/** What went wrong first, where releasing things failed as well (`SuppressedError`). */
function original(error: unknown): unknown {
  let first = error;
  while (first instanceof Error && 'suppressed' in first) first = first.suppressed;
  return first;
}

function messageOf(failure: unknown): string {
  if (failure === undefined) return 'a check failed';
  return failure instanceof Error ? failure.message : String(failure);
}

/** The cases for a machine; those that run on any run on the first only where all machines are at hand. */
function casesFor(profile: string, allAtHand: boolean): readonly Case[] {
  return chosen.filter(({ profiles }) =>
    profiles === undefined ? !allAtHand || profile === profileNames[0] : profiles.includes(profile),
  );
}

async function runOn(host: RunnableHost, some: readonly Case[]): Promise<void> {
  t.comment(`${some.length} cases on the ${host.name}, ${host.profile}`);
  for (const each of some) await runCase(host, each);
}

if (guestProfile !== undefined) {
  const { kernelHost } = await import('./support/kernel-host.js');
  using host = kernelHost(guestProfile);
  await runOn(host, casesFor(guestProfile, false));
} else {
  const { simulatorHost } = await import('./support/simulator-host.js');
  for (const profile of profileNames) {
    const some = casesFor(profile, true);
    if (some.length === 0) continue;
    using host = simulatorHost(profile);
    await runOn(host, some);
  }
}

storeResults(results);
