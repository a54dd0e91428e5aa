/**
 * Doorbells of a simulated NVMe controller: registers, and once the driver has said so (Doorbell Buffer Config) memory
 * that the controller looks at by itself.
 *
 * @module
 */
import type { Controller } from './controller.js';
import { DoorbellError } from './events.js';
import type { CompletionQueue, ShadowDoorbell, SubmissionQueue } from './request.js';

const DOORBELL_BYTES = 4;

export class Doorbells {
  readonly #controller: Controller;
  #buffers: { readonly doorbells: bigint; readonly eventIndexes: bigint } | undefined;

  constructor(controller: Controller) {
    this.#controller = controller;
  }

  /** A register was written. @param index in the order of the registers */
  ring(index: number, value: number): void {
    const { submissionQueues, completionQueues, events } = this.#controller;
    const id = index >>> 1;
    const queue = index & 1 ? completionQueues.get(id) : submissionQueues.get(id);
    if (queue === undefined) events.badDoorbell(DoorbellError.REGISTER);
    else if (value >= queue.size) events.badDoorbell(DoorbellError.VALUE);
    else {
      if ('vector' in queue) this.#ringCompletions(queue, value);
      else this.#ringSubmissions(queue, value);
      // Drivers use the registers for the admin queue whatever they have said.
      if (id === 0 && queue.shadow !== undefined) this.#write(queue.shadow.doorbell, value);
    }
  }

  #ringSubmissions(queue: SubmissionQueue, tail: number): void {
    queue.tail = tail;
    this.#controller.mark(queue);
  }

  #ringCompletions(queue: CompletionQueue, head: number): void {
    if (queue.full) this.#controller.mark(queue);
    queue.head = head;
    if (queue.empty) this.#controller.interrupts.lower(queue);
  }

  /** From now on they are in memory. */
  moveToMemory(doorbells: bigint, eventIndexes: bigint): void {
    this.#buffers = { doorbells, eventIndexes };
    const { submissionQueues, completionQueues } = this.#controller;
    for (const queue of [...submissionQueues.values(), ...completionQueues.values()]) this.attach(queue);
  }

  /** A queue gets its place in memory, if they are there. */
  attach(queue: SubmissionQueue | CompletionQueue): void {
    if (this.#buffers === undefined) return;
    const ofCompletions = 'vector' in queue;
    const offset = BigInt((2 * queue.id + (ofCompletions ? 1 : 0)) * DOORBELL_BYTES);
    const { doorbells, eventIndexes } = this.#buffers;
    queue.shadow = { doorbell: doorbells + offset, eventIndex: eventIndexes + offset };
    this.#write(queue.shadow.doorbell, ofCompletions ? queue.head : queue.tail);
  }

  followTail(queue: SubmissionQueue): void {
    if (queue.shadow !== undefined) queue.tail = this.#follow(queue.shadow, queue.tail, queue.size);
  }

  followHead(queue: CompletionQueue): void {
    if (queue.shadow !== undefined) queue.head = this.#follow(queue.shadow, queue.head, queue.size);
  }

  /** Says how far the controller has looked, and looks again. */
  #follow({ doorbell, eventIndex }: ShadowDoorbell, now: number, size: number): number {
    this.#write(eventIndex, now);
    const bytes = new Uint8Array(DOORBELL_BYTES);
    if (!this.#controller.dma.read(doorbell, bytes)) return now;
    const value = new DataView(bytes.buffer).getUint32(0, true);
    return value < size ? value : now;
  }

  #write(address: bigint, value: number): void {
    const bytes = new Uint8Array(DOORBELL_BYTES);
    new DataView(bytes.buffer).setUint32(0, value, true);
    this.#controller.dma.write(address, bytes);
  }

  reset(): void {
    this.#buffers = undefined;
  }
}
