/** The kinds of sequences. @module */
import { iommufdSteps } from './domains/iommufd.js';
import { liveupdateSteps } from './domains/liveupdate.js';
import { noiommuSteps } from './domains/noiommu.js';
import { vfioSteps } from './domains/vfio.js';
import { Pick } from './pick.js';
import type { Sequence, Step } from './step.js';

export interface Domain {
  /** Machines that it needs, the first of which is used unless told. */
  readonly profiles: readonly [string, ...string[]];
  /** Added to the kernel command line. */
  readonly append?: string;
  /** It opens real devices. */
  readonly devices?: boolean;
  steps(g: Pick, count: number): Step[];
}

export const domains = {
  iommufd: { profiles: ['vtd', 'noiommu', 'amd'], steps: iommufdSteps },
  liveupdate: { profiles: ['noiommu', 'vtd'], append: 'liveupdate=on', steps: liveupdateSteps },
  noiommu: { profiles: ['noiommu'], devices: true, steps: noiommuSteps },
  vfio: { profiles: ['vtd', 'noiommu', 'amd'], devices: true, steps: vfioSteps },
} as const satisfies Readonly<Record<string, Domain>>;
export type DomainName = keyof typeof domains;

/** Whether the sequences of a domain open real devices. */
export function needsDevices(domain: string): boolean {
  const found: Domain | undefined = domains[domain as DomainName];
  return found?.devices === true;
}

const CALLS = 50;

/** Sequence `index` of all those of a seed. */
export function sequence(domain: DomainName, seed: number, index: number): Sequence {
  const steps = domains[domain].steps(new Pick(seed, index), CALLS);
  return { domain, name: `${seed}:${index}`, steps };
}
