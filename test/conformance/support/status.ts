/** What a process is charged with, as /proc tells. @module */
import { holds } from './expect.js';
import type { Caller } from './ioctl.js';

/** In KiB. */
export interface AccountedMemory {
  /** `VmPin`: pinned for devices. */
  readonly pinned: number;
  /** `VmLck`: counted against RLIMIT_MEMLOCK. */
  readonly locked: number;
}

/** Of the process that asks. */
export function accountedMemory({ kernel }: Caller): AccountedMemory {
  const text = kernel.readText('/proc/self/status');
  holds(typeof text === 'string', () => `/proc/self/status: ${text}`);
  const value = (name: string): number => {
    const found = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text);
    holds(found !== null, () => `/proc/self/status has no ${name}`);
    return Number(found[1]);
  };
  return { pinned: value('VmPin'), locked: value('VmLck') };
}
