/** An eventfd that makes the kernel do something (virqfd). @module */
import { EBUSY } from '../../../bindings/uapi/errno.js';
import type { EventFd } from '../process/eventfd.js';
import type { SimulatedProcess } from '../process/process.js';
import { eventFd } from './argument.js';

/** Holds at most one eventfd; each time it is signalled its count is taken and the handler called. */
export class IrqEventFd {
  readonly #handler: () => void;
  #file: EventFd | undefined;
  #stop: (() => void) | undefined;

  constructor(handler: () => void) {
    this.#handler = handler;
  }

  /** @returns 0, or minus EBADF, EINVAL, or EBUSY while there is one that is open */
  enable(process: SimulatedProcess, fd: number): number {
    const file = eventFd(process, fd);
    if (typeof file === 'number') return file;
    if (this.#file !== undefined && this.#file.references > 0) return -EBUSY;
    this.disable();
    const count = new Uint8Array(8);
    this.#file = file;
    this.#stop = file.onReadable(() => {
      if (file.readable !== true) return;
      file.read(process, count);
      this.#handler();
    });
    // What it has counted already counts, and stays.
    if (file.readable === true) this.#handler();
    return 0;
  }

  disable(): void {
    this.#stop?.();
    this.#stop = undefined;
    this.#file = undefined;
  }
}
