/** Requests that a controller completes when it has something to report, and what becomes of its reports. @module */
import { checkFunction } from '../../check.js';
import { AdminOpcode } from './command.js';
import { NEVER } from './command-engine.js';
import { decodeEvent, type NvmeEvent } from './events.js';
import type { Pending, QueuePair } from './queue-pair.js';

const MAX_REQUESTS = 4;

/** What requests for events need of the driver. */
export interface EventHost {
  readonly admin: QueuePair;
  /** Requests that the controller takes at a time. */
  readonly limit: number;
  /** The controller is in use, and not being reset. */
  readonly isLive: boolean;
  /** The device is somebody else's. */
  readonly isRelinquished: boolean;
  /** The page's content, when it could be read. */
  readLog(page: number): Promise<Uint8Array | undefined>;
  /** The event that was in a slot of the admin queue was reported. */
  noteTold(slot: number): void;
  unlessFrozen(action: () => void): void;
}

export class EventRequests {
  readonly #host: EventHost;
  readonly #listeners = new Set<(event: NvmeEvent) => void>();

  constructor(host: EventHost) {
    this.#host = host;
  }

  listen(listener: (event: NvmeEvent) => void): Disposable {
    checkFunction('listener', listener);
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** Issues as many requests as the controller takes, and are of use. */
  request(): void {
    const { admin, limit } = this.#host;
    let there = 0;
    for (const { holdsSlot } of admin.inFlight()) if (holdsSlot) there++;
    for (; there < Math.min(MAX_REQUESTS, limit); there++) {
      const slot = admin.tryAcquire();
      if (slot < 0) return;
      admin.submit(this.pendingIn(slot));
    }
  }

  /** A request in a slot of the admin queue. The slot stays taken until the event was reported: a successor has to, otherwise. */
  pendingIn(slot: number): Pending {
    return {
      queue: this.#host.admin,
      slot,
      command: { opcode: AdminOpcode.AsynchronousEventRequest },
      transfer: undefined,
      tag: 0n,
      internal: true,
      holdsSlot: true,
      timeout: NEVER,
      deadline: NEVER,
      aborting: undefined,
      reissue: false,
      resets: 0,
      complete: (status, result) => {
        // An error (the limit was less than announced, say) would only repeat itself.
        if (status === 0 && this.#host.isLive) void this.report(result, slot);
        else this.#host.noteTold(slot);
      },
      cancel: () => undefined,
    };
  }

  /** Reports the event with which the request in a slot was completed. */
  async report(result: number, slot: number): Promise<void> {
    const host = this.#host;
    const event = decodeEvent(result);
    const log = await host.readLog(event.logPage);
    if (host.isRelinquished) return;
    host.noteTold(slot);
    host.unlessFrozen(() => {
      if (host.isLive) this.request();
    });
    for (const listener of this.#listeners) listener({ ...event, log });
  }
}
