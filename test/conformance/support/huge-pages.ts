/** Huge pages of 2 MiB, more of them than a machine has set aside. @module */
import { equal, holds } from './expect.js';
import type { Caller } from './ioctl.js';

const NUMBER_OF_HUGE_PAGES = '/proc/sys/vm/nr_hugepages';
/** Set aside in any machine, for whoever else wants some. */
const USUAL = 8;

/** Sees to it that `count` huge pages can be had beyond the usual ones, until disposed. */
export function withHugePages({ kernel }: Caller, count: number): Disposable {
  const before = kernel.readText(NUMBER_OF_HUGE_PAGES);
  holds(typeof before === 'string', 'the number of huge pages can be read');
  const set = (wanted: number): void => {
    holds(kernel.writeText(NUMBER_OF_HUGE_PAGES, String(wanted)) > 0, 'the number of huge pages can be set');
    equal(kernel.readText(NUMBER_OF_HUGE_PAGES), `${wanted}\n`, 'number of huge pages');
  };
  const enough = Number(before) >= USUAL + count;
  if (!enough) set(USUAL + count);
  return { [Symbol.dispose]: () => !enough && set(Number(before)) };
}
