/** Waiting for a descriptor, as `poll(2)` does. @module */
import type { Caller } from './ioctl.js';

const PATIENCE_MS = 1000;

/** Resolves when `fd` can be read; fails after a second without. */
export async function readable({ kernel }: Caller, fd: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const settle = (settled: () => void): void => {
      clearTimeout(timer);
      watch[Symbol.dispose]();
      settled();
    };
    const late = new Error(`descriptor ${fd} did not become readable`);
    const timer = setTimeout(() => settle(() => reject(late)), PATIENCE_MS);
    const watch = kernel.watch(fd, () => settle(resolve));
  });
}
