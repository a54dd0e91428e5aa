/** The kernel's command line, as far as live update depends on it. @module */
import { defaultKernel } from '../../../bindings/kernel.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { KernelError } from '../../errors.js';
import { isOn, parseCommandLine } from '../landing/command-line.js';
import { DEV_LIVEUPDATE } from './live-update.js';

const PROC_CMDLINE = '/proc/cmdline';

/** The command line that this kernel was booted with. @throws KernelError */
export function runningCommandLine(kernel: Syscalls = defaultKernel()): string {
  const text = kernel.readText(PROC_CMDLINE);
  if (typeof text === 'number') throw new KernelError(-text, { syscall: 'read', path: PROC_CMDLINE });
  return text.trimEnd();
}

/**
 * What a command line says of a parameter that is on or off.
 *
 * @returns undefined when it is not there, or has no such value. Given twice, the last counts
 */
export function kernelSwitch(commandLine: string, name: string): boolean | undefined {
  return isOn(parseCommandLine(commandLine), name);
}

/** Whether this kernel can hand anything to the next one. */
export interface LiveUpdateSupport {
  readonly available: boolean;
  /** Why not, and what to do about it. */
  readonly reason: string | undefined;
}

/** Whether this kernel has live update, and if not, why. Does not open anything. @throws KernelError */
export function liveUpdateSupport(kernel: Syscalls = defaultKernel()): LiveUpdateSupport {
  if (kernel.access(DEV_LIVEUPDATE, 0) === 0) return { available: true, reason: undefined };
  const reason = missing(runningCommandLine(kernel));
  return {
    available: false,
    reason: reason
      ? `this kernel was booted ${reason}`
      : 'this kernel has no live update: it takes Linux 7.3 or later with CONFIG_LIVEUPDATE, kho=on where that is ' +
        'not the default, and devtmpfs on /dev',
  };
}

/** What is wrong with a command line for live update. */
function missing(commandLine: string): string | undefined {
  if (kernelSwitch(commandLine, 'kho') === false) return 'with kho=off; live update needs kho=on';
  if (kernelSwitch(commandLine, 'liveupdate') !== true) return 'without liveupdate=on';
  return undefined;
}

/**
 * Refuses a command line with which the next kernel would lose what this one preserves. A kernel that got it would boot,
 * and the memory would be gone.
 *
 * @param running the command line of this kernel
 * @throws TypeError; RangeError saying what is missing.
 */
export function requireLiveUpdate(commandLine: string, running: string): void {
  if (typeof commandLine !== 'string') {
    throw new TypeError(`commandLine must be a string, got ${typeof commandLine}`);
  }
  const reason = missing(commandLine);
  if (reason) {
    throw new RangeError(`commandLine starts the next kernel ${reason}: what is preserved would be lost`);
  }
  // What the default of the next kernel is cannot be known.
  if (kernelSwitch(running, 'kho') && kernelSwitch(commandLine, 'kho') === undefined) {
    throw new RangeError(
      'commandLine lacks kho=on, with which this kernel was booted: what is preserved may be lost',
    );
  }
}
