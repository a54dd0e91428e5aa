/** What keepalive needs of the driver of a device. @module */
import { runAll } from '../errors.js';
import type { Device } from '../vfio/device.js';
import type { Outcome } from './outcome.js';
import type { SavedDriver } from './state/saved-state.js';

/** What a driver writes down of itself: of {@link SavedDriver} all but the device. */
export type DriverRecord = Pick<SavedDriver, 'compatible' | 'properties' | 'children'>;

/**
 * A driver whose device can outlive it.
 *
 * Its record says how things are laid out and changes with them only; what changes with every command is in memory that
 * is kept (a journal in an arena), where a successor finds it however this process ended. While it is frozen it makes no
 * access to the device, its registers and its memory, whatever its users ask of it: they wait.
 */
export interface KeepableDriver {
  readonly device: Device;
  /** How it came to drive the device: from nothing, or where a predecessor ended. */
  readonly outcome: 'started' | Exclude<Outcome, 'cold'>;
  /** Why it could not keep running the device that it had from a predecessor; undefined where it could, or had none. */
  readonly stoppedBecause: string | undefined;
  /**
   * How it goes on: memory and layout, no contents.
   *
   * @throws DisposedError when it is closed, or about to be; DeviceError when it cannot be kept now, saying why
   */
  record(): DriverRecord;
  /** Stops touching the device; commands stay in flight. Idempotent. */
  freeze(): void;
  /** Goes on after {@link freeze}, and looks after what happened meanwhile. */
  thaw(): void;
  /**
   * Issues nothing new, waits until the device has nothing in flight that it would answer by DMA, and freezes.
   *
   * @param deadline as `performance.now()` counts
   * @returns false when the deadline came first; it is frozen then, too, with commands in flight
   */
  settle(deadline: number): Promise<boolean>;
  /**
   * The device is somebody else's now: ends without a word to it. What was in flight, and what waited, ends with `error`
   * for its callers here; the successor gets to know of what was in flight.
   */
  relinquish(error: Error): void;
}

/**
 * Waits until each has settled or cannot: one that still waits would freeze after it was let go on.
 *
 * @returns of each whether it settled in time
 * @throws what one of them throws; the others are frozen then
 */
export async function settleAll(drivers: readonly KeepableDriver[], deadline: number): Promise<boolean[]> {
  const ends = await Promise.allSettled(drivers.map(async driver => driver.settle(deadline)));
  runAll(
    ends.map(end => () => {
      if (end.status === 'rejected') throw end.reason;
    }),
  );
  return ends.map(end => end.status === 'fulfilled' && end.value);
}
