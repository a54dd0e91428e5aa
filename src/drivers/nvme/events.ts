/** Asynchronous events (Base Specification 2.0, 5.2.1). @module */

/** Kinds of event. */
export const EventType = {
  /** Error status: an invalid doorbell write, a persistent internal error … */
  Error: 0,
  /** SMART and health: reliability, temperature, spare. */
  Health: 1,
  /** Notices: a namespace or the firmware changed … */
  Notice: 2,
  /** Specific to the I/O command set. */
  CommandSet: 6,
  Vendor: 7,
} as const;
export type EventType = (typeof EventType)[keyof typeof EventType];

/** What a controller reports by itself. */
export interface NvmeEvent {
  readonly type: number;
  /** What exactly, depending on the type. */
  readonly info: number;
  /** The log page that tells more. */
  readonly logPage: number;
  /** That page's content, 512 bytes, when it could be read. Reading it lets the controller report the next such event. */
  readonly log: Uint8Array | undefined;
}

/** Decodes dword 0 of the completion of an Asynchronous Event Request. */
export function decodeEvent(result: number): { type: number; info: number; logPage: number } {
  return { type: result & 7, info: (result >>> 8) & 0xff, logPage: (result >>> 16) & 0xff };
}
