/**
 * Failing the n-th allocation that the kernel makes for this thread: `/proc/thread-self/fail-nth`
 * (Documentation/fault-injection).
 *
 * @module
 */
import type { Syscalls } from '../../../bindings/syscalls.js';
import { EFAULT } from '../../../bindings/uapi/errno.js';
import { equal, succeeds } from './expect.js';
import type { Caller } from './ioctl.js';

const FAIL_NTH = '/proc/thread-self/fail-nth';
const DEBUG = '/sys/kernel/debug';
const O_RDWR = 2;

/** Counts down to one failure, over everything in the kernel that may fail. */
export class FaultInjection implements Disposable {
  readonly #kernel: Syscalls;
  readonly #fd: number;

  /** Undefined where nothing can be made to fail. */
  static open({ kernel }: Caller): FaultInjection | undefined {
    const fd = kernel.open(FAIL_NTH, O_RDWR);
    if (fd < 0) return undefined;
    // Allocations that may wait are left alone otherwise, and those are nearly all.
    kernel.writeText(`${DEBUG}/failslab/ignore-gfp-wait`, 'N');
    const attributes = kernel.readDirectory(DEBUG);
    for (const name of typeof attributes === 'number' ? [] : attributes) {
      if (name.startsWith('fail')) kernel.writeText(`${DEBUG}/${name}/verbose`, '0');
    }
    return new FaultInjection(kernel, fd);
  }

  private constructor(kernel: Syscalls, fd: number) {
    this.#kernel = kernel;
    this.#fd = fd;
  }

  /** From now on the `nth` point (1: the first) fails. */
  arm(nth: number): void {
    const text = Buffer.from(String(nth));
    equal(this.#kernel.pwrite(this.#fd, text, 0), text.length, `fail-nth ${nth}`);
  }

  /** Nothing fails any more. @returns whether something did since {@link arm} */
  disarm(): boolean {
    const text = Buffer.alloc(16);
    const zero = Buffer.from('0');
    const count = this.#kernel.pread(this.#fd, text, 0);
    const written = this.#kernel.pwrite(this.#fd, zero, 0);
    // Both may be what fails, and what came before has succeeded then.
    if (written === -EFAULT) equal(this.#kernel.pwrite(this.#fd, zero, 0), 1, 'fail-nth 0');
    else equal(written, 1, 'fail-nth 0');
    if (count === -EFAULT || written === -EFAULT) return false;
    succeeds(count, 'reading fail-nth');
    return text.toString('latin1', 0, count) === '0\n';
  }

  [Symbol.dispose](): void {
    this.#kernel.close(this.#fd);
  }
}
