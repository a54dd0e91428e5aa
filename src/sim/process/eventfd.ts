/** `eventfd(2)`. @module */

import { EAGAIN, EINVAL } from '../../../bindings/uapi/errno.js';
import { EFD_NONBLOCK, EFD_SEMAPHORE } from '../../../bindings/uapi/eventfd.js';
import { OpenFile } from './open-file.js';
import type { SimulatedProcess } from './process.js';

const LIMIT = 0xffff_ffff_ffff_fffen;

let eventfds = 0;

/** A counter that interrupts and others add to, and a reader takes. */
export class EventFd extends OpenFile {
  override readonly name = 'anon_inode:[eventfd]';
  override readonly details = [`eventfd-id: ${++eventfds}`];
  #count: bigint;
  readonly #blocking: boolean;
  readonly #semaphore: boolean;

  constructor(initial: number, flags: number) {
    super();
    this.#count = BigInt(initial >>> 0);
    this.#blocking = (flags & EFD_NONBLOCK) === 0;
    this.#semaphore = (flags & EFD_SEMAPHORE) !== 0;
  }

  /** Adds one, as the kernel does for an interrupt: never fails, never overflows. */
  signal(): void {
    if (this.#count < LIMIT) this.#count++;
    this.wake();
  }

  override read(_process: SimulatedProcess, buffer: Uint8Array): number {
    if (buffer.byteLength < 8) return -EINVAL;
    if (this.#count === 0n) {
      if (this.#blocking) throw new Error('a blocking read of an eventfd would never return here');
      return -EAGAIN;
    }
    const taken = this.#semaphore ? 1n : this.#count;
    new DataView(buffer.buffer, buffer.byteOffset).setBigUint64(0, taken, true);
    this.#count -= taken;
    return 8;
  }

  override write(_process: SimulatedProcess, buffer: Uint8Array): number {
    if (buffer.byteLength !== 8) return -EINVAL;
    const value = new DataView(buffer.buffer, buffer.byteOffset).getBigUint64(0, true);
    if (value === 0xffff_ffff_ffff_ffffn) return -EINVAL;
    if (this.#count + value > LIMIT) {
      if (this.#blocking) throw new Error('a blocking write to an eventfd would never return here');
      return -EAGAIN;
    }
    this.#count += value;
    if (value > 0n) this.wake();
    return 8;
  }

  override get readable(): boolean {
    return this.#count > 0n;
  }

  protected override release(): void {}
}
