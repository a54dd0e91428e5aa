/** What became of a device that was kept. @module */

/** How far a device was kept: what the kernel and the device allowed. */
export const Outcome = {
  /** It never stopped: its own queues, its own memory, no reset. */
  KeptRunning: 'kept-running',
  /** Its memory was kept, and it was brought up again on it. */
  Reinitialised: 're-initialised',
  /** Nothing of it was kept but what is on it: new memory, brought up from nothing. */
  Cold: 'cold',
} as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

/** What became of one device. */
export interface DeviceOutcome {
  /** Its PCI address. */
  readonly device: string;
  readonly outcome: Outcome;
  /** Why no more of it was kept; undefined when it was kept running. */
  readonly reason: string | undefined;
}
