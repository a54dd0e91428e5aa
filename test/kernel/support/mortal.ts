/** The running kernel, under which a process can be made to die at any system call. @module */
import { linux } from '../../../bindings/linux.js';
import type { Syscalls } from '../../../bindings/syscalls.js';

/** `kill -9`, on the spot. */
export function die(): never {
  process.kill(process.pid, 'SIGKILL');
  // Never got to: the signal is delivered before kill(2) returns.
  process.abort();
}

export interface Mortal {
  readonly kernel: Syscalls;
  /** Calls so far, twice: before each and after each is a moment. */
  readonly moments: number;
  /** Dies at a moment, from now on. @param call only such calls count */
  dieAt(moment: number, call?: keyof Syscalls): void;
}

export function mortal(): Mortal {
  let moments = 0;
  let left = Number.POSITIVE_INFINITY;
  let only: string | undefined;
  const pass = (call: string): void => {
    moments++;
    if ((only === undefined || only === call) && --left <= 0) die();
  };
  const real = linux();
  const calls = Object.entries(real).map(([name, call]) => {
    const counted = (...args: unknown[]): unknown => {
      pass(name);
      const result: unknown = Reflect.apply(call as (...args: unknown[]) => unknown, real, args);
      pass(name);
      return result;
    };
    return [name, counted];
  });
  return {
    kernel: Object.fromEntries(calls) as Syscalls,
    get moments() {
      return moments;
    },
    dieAt(moment, call) {
      left = moment;
      only = call;
    },
  };
}
