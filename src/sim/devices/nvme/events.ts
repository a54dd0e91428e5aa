/** Asynchronous events (Base Specification 2.0, 5.2): requests that wait for them, events that wait for requests. @module */
import type { Controller } from './controller.js';
import { MAX_EVENT_REQUESTS, Status } from './protocol.js';
import type { Request } from './request.js';

export const EventType = { ERROR: 0, SMART: 1, NOTICE: 2 } as const;

/** Log pages that tell more, and clear the event. */
const LOG_ERROR = 0x01;
const LOG_SMART = 0x02;
const TEMPERATURE_INFO = 1;
/** Bit of the event configuration, and of SMART's critical warnings. */
export const TEMPERATURE_BIT = 1 << 1;
/** What is wrong with a doorbell write. */
export const DoorbellError = { REGISTER: 0, VALUE: 1 } as const;
/** Events that are kept until there is a request; later ones are lost. */
const MAX_QUEUED = 64;

interface Event {
  readonly type: number;
  readonly info: number;
  readonly log: number;
}

export class Events {
  readonly #controller: Controller;
  readonly #requests: Request[] = [];
  #queue: Event[] = [];
  /** Types that were reported, and whose log was not read since. */
  #masked = 0;

  constructor(controller: Controller) {
    this.#controller = controller;
  }

  /** An Asynchronous Event Request. @returns a status, or undefined: it completes when there is an event */
  request(request: Request): number | undefined {
    if (this.#requests.length === MAX_EVENT_REQUESTS) return Status.ASYNC_EVENT_LIMIT;
    this.#requests.push(request);
    this.#report();
    return undefined;
  }

  /** Takes back the request with this command identifier; undefined when there is none. */
  withdraw(id: number): Request | undefined {
    const index = this.#requests.findIndex(request => request.id === id);
    return index < 0 ? undefined : this.#requests.splice(index, 1)[0];
  }

  temperature(): void {
    if (this.#controller.features.events & TEMPERATURE_BIT) {
      this.#add({ type: EventType.SMART, info: TEMPERATURE_INFO, log: LOG_SMART });
    }
  }

  /** A doorbell write made no sense. Nobody is told unless a request waits. */
  badDoorbell(info: number): void {
    if (this.#requests.length > 0) this.#add({ type: EventType.ERROR, info, log: LOG_ERROR });
  }

  #add(event: Event): void {
    if (this.#queue.length === MAX_QUEUED) return;
    this.#queue.push(event);
    this.#report();
  }

  /** The log of a type was read: the next event of it may be reported. */
  clear(type: number): void {
    this.#masked &= ~(1 << type);
    this.#report();
  }

  #report(): void {
    this.#queue = this.#queue.filter(event => {
      const bit = 1 << event.type;
      if (this.#masked & bit) return true;
      // The latest request is served first.
      const request = this.#requests.pop();
      if (request === undefined) return true;
      this.#masked |= bit;
      request.result = event.type | (event.info << 8) | (event.log << 16);
      this.#controller.complete(request, Status.SUCCESS);
      return false;
    });
  }

  reset(): void {
    this.#requests.length = 0;
    this.#queue = [];
    this.#masked = 0;
  }
}
