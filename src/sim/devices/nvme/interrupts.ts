/** Interrupts of a simulated NVMe controller: a message per vector, or the pin. @module */
import type { FunctionPort } from '../pci-function.js';
import type { Controller } from './controller.js';
import { Register } from './protocol.js';
import type { CompletionQueue } from './request.js';

export class CqInterrupts {
  readonly #controller: Controller;
  readonly #port: () => FunctionPort | undefined;
  /** Vectors that the pin is to tell of; bit 0 is vector 0. */
  #pending = 0;
  #asserted = false;

  constructor(controller: Controller, port: () => FunctionPort | undefined) {
    this.#controller = controller;
    this.#port = port;
  }

  /** There is something in a completion queue. */
  raise(queue: CompletionQueue): void {
    if (!queue.interrupts) return;
    const port = this.#port();
    if (port === undefined) return;
    if (port.interruptMode !== 'intx') {
      port.message(queue.vector);
      return;
    }
    this.#pending |= 1 << queue.vector;
    this.update();
  }

  /** A completion queue is empty again. */
  lower(queue: CompletionQueue): void {
    if (!queue.interrupts) return;
    // Every queue shares the pin.
    for (const other of this.#controller.completionQueues.values()) {
      if (other.interrupts && !other.empty) return;
    }
    this.#pending &= ~(1 << queue.vector);
    this.update();
  }

  /** The pin follows what is pending and not masked; after a reset, nothing is. */
  update(): void {
    if (this.#controller.completionQueues.size === 0) this.#pending = 0;
    const port = this.#port();
    if (port === undefined) {
      this.#asserted = false;
      return;
    }
    const masks = this.#controller.registers.getUint32(Register.INTMS, true);
    const asserted = port.interruptMode === 'intx' && (this.#pending & ~masks) !== 0;
    if (asserted === this.#asserted) return;
    this.#asserted = asserted;
    port.pin(asserted);
  }
}
