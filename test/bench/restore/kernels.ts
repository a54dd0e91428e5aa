/** Simulated kernels that answer at once, or say how long they took. @module */
import type { Syscalls } from '../../../bindings/syscalls.js';
import { IOMMU_IOAS_MAP_FILE, IOMMU_IOAS_UNMAP } from '../../../bindings/uapi/iommufd.js';
import type { SimulatedProcess } from '../../../src/sim/process/process.js';

type Method = (...args: readonly unknown[]) => unknown;

/** Every call with something done to it. No proxy: that would take longer than the calls. */
function wrapped(process: SimulatedProcess, wrap: (method: Method) => Method): Syscalls {
  const calls: Record<string, Method> = {};
  const names = Object.getOwnPropertyNames(Object.getPrototypeOf(process)) as (keyof SimulatedProcess)[];
  for (const name of names) {
    const value = name === ('constructor' as string) ? undefined : process[name];
    if (typeof value === 'function') calls[name] = wrap((value as Method).bind(process));
  }
  return calls as unknown as Syscalls;
}

/** Mappings cost it nothing, and are not made. */
export function instantKernel(process: SimulatedProcess): Syscalls {
  return {
    ...wrapped(process, method => method),
    ioctl: (fd, request, argument) =>
      request === IOMMU_IOAS_MAP_FILE.number || request === IOMMU_IOAS_UNMAP.number
        ? 0
        : process.ioctl(fd, request, argument),
  };
}

export interface TimedKernel {
  readonly kernel: Syscalls;
  /** In ns, of all calls so far, the measuring of them not counted. */
  readonly spent: () => number;
}

export function timedKernel(process: SimulatedProcess): TimedKernel {
  let spent = 0;
  let calls = 0;
  const cost = clockCost();
  const kernel = wrapped(process, method => (...args) => {
    const start = performance.now();
    const result = method(...args);
    spent += performance.now() - start;
    calls++;
    return result;
  });
  return { kernel, spent: () => Math.max(spent - calls * cost, 0) * 1e6 };
}

/** What of one look at the clock falls between two of them, in ms. */
function clockCost(): number {
  const count = 200_000;
  const start = performance.now();
  for (let i = 0; i < count; i++) performance.now();
  return (performance.now() - start) / count;
}
