/** Which kernel calls go to when nobody says so: the running one, unless another was put in its place. @module */
import { linux } from './linux.js';
import type { Syscalls } from './syscalls.js';

let replacement: Syscalls | undefined;

/**
 * The kernel that `claim`, `openDevice` and the others use unless they are given one.
 *
 * @throws Error as {@link linux}
 */
export function defaultKernel(): Syscalls {
  return replacement ?? linux();
}

/**
 * Puts another kernel in place of the running one, for all of this process: a simulated host, so that a driver runs
 * there as it is. `undefined` undoes it. What is open already stays with the kernel it was opened on.
 */
export function useKernel(kernel: Syscalls | undefined): void {
  replacement = kernel;
}
