/** Who is charged for pages that are pinned. @module */
import { ENOMEM } from '../../../bindings/uapi/errno.js';
import { PAGE } from '../machine/physical-memory.js';
import type { SimulatedProcess } from '../process/process.js';

/** What the limit RLIMIT_MEMLOCK is held against. */
export const AccountMode = {
  /** Nothing: the process may lock what it likes. */
  None: 0,
  /** What the user has pinned, over all processes. */
  User: 1,
  /** What the process has locked, as VFIO has always done. */
  Process: 2,
} as const;
export type AccountMode = (typeof AccountMode)[keyof typeof AccountMode];

/** Charges `pages` more. @returns 0, or minus ENOMEM, with nothing charged */
export function charge(process: SimulatedProcess, mode: AccountMode, pages: number): number {
  // Whoever has locked too much already may still lock nothing more.
  if (pages === 0) return 0;
  if (process.shouldFail()) return -ENOMEM;
  const limit = Math.floor(process.memlockLimit / PAGE);
  if (mode === AccountMode.User) {
    if (process.user.lockedPages + pages > limit) return -ENOMEM;
    process.user.lockedPages += pages;
  } else if (mode === AccountMode.Process) {
    if (process.lockedPages + pages > limit) return -ENOMEM;
    process.lockedPages += pages;
  }
  process.pinnedPages += pages;
  return 0;
}

/** Takes `pages` off the account again. */
export function uncharge(process: SimulatedProcess, mode: AccountMode, pages: number): void {
  if (mode === AccountMode.User) process.user.lockedPages -= pages;
  else if (mode === AccountMode.Process) process.lockedPages -= pages;
  process.pinnedPages -= pages;
}
