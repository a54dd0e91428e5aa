/** What a run of the suite leaves behind, for the table. @module */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { guestEnv } from '../../vm/topology.js';
import type { Case } from './case.js';

export type Outcome = 'pass' | 'fail' | 'skip';

export interface CaseResult {
  readonly source: string;
  readonly fixture: string;
  readonly name: string;
  readonly variant: string | undefined;
  /** The machine it ran on. */
  readonly profile: string;
  readonly outcome: Outcome;
  /** Why it failed, or did not run. */
  readonly reason: string | undefined;
}

/** The results of one run, as they are stored. */
export interface RunResults {
  readonly host: 'kernel' | 'simulator';
  readonly results: readonly CaseResult[];
}

export function resultOf(each: Case, profile: string, outcome: Outcome, reason?: string): CaseResult {
  const { source, fixture, name, variant } = each;
  return { source, fixture, name, variant, profile, outcome, reason };
}

/**
 * Stores what a run found: in a VM in the directory that its host reads, anywhere else in the file that
 * `IOMMUFD_CONFORMANCE_RESULTS` names, if it does.
 */
export function storeResults(results: readonly CaseResult[]): void {
  const inGuest = process.env[guestEnv.profile] !== undefined;
  const directory = process.env[guestEnv.results];
  const file =
    inGuest && directory !== undefined
      ? join(directory, 'conformance.json')
      : process.env.IOMMUFD_CONFORMANCE_RESULTS;
  if (file === undefined) return;
  const content: RunResults = { host: inGuest ? 'kernel' : 'simulator', results };
  writeFileSync(file, `${JSON.stringify(content, undefined, 1)}\n`);
}

/** `iommu/iommufd.c: iommufd_ioas.area (mock_domain)` */
export function titleOf({
  source,
  fixture,
  name,
  variant,
}: Pick<Case, 'source' | 'fixture' | 'name' | 'variant'>): string {
  return `${source}: ${fixture}.${name}${variant === undefined ? '' : ` (${variant})`}`;
}
