/** Why devices might not land where they must. @module */
import type { PciAddress } from '../../pci/address.js';

/** One reason, and what to do about it. */
export interface LandingProblem {
  /** The device that it is about, unless it is about all of them. */
  readonly device?: PciAddress;
  readonly problem: string;
  /** What to do. */
  readonly remedy: string;
}

/** It cannot be guaranteed that devices land with VFIO and only there. */
export class LandingError extends Error {
  override readonly name = 'LandingError';
  readonly problems: readonly LandingProblem[];

  constructor(problems: readonly LandingProblem[]) {
    super(`landing cannot be guaranteed: ${problems.map(describeProblem).join('; ')}`);
    this.problems = problems;
  }
}

/** In one line. */
export function describeProblem({ device, problem, remedy }: LandingProblem): string {
  return `${device === undefined ? '' : `${device}: `}${problem}. ${remedy}`;
}
