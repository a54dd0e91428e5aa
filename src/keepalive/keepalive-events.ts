/**
 * What keepalive does, as it does it, for whoever subscribes to the diagnostics channel `iommufd:keepalive`
 * (`node:diagnostics_channel`). Nothing here prints.
 *
 * @module
 */
import { channel } from 'node:diagnostics_channel';
import type { DeviceOutcome } from './outcome.js';

/** The name of the channel. */
export const KEEPALIVE_CHANNEL = 'iommufd:keepalive';

/** What is published on {@link KEEPALIVE_CHANNEL}. Times are in ms. */
export type KeepAliveEvent =
  | { readonly kind: 'kept'; readonly devices: readonly string[]; readonly arenas: number }
  | { readonly kind: 'frozen' | 'thawed'; readonly devices: readonly string[] }
  | {
      readonly kind: 'offered' | 'verified' | 'committed' | 'taken-back';
      readonly devices: readonly string[];
      readonly descriptors: number;
    }
  | { readonly kind: 'taken-over'; readonly devices: readonly string[]; readonly descriptors: number }
  | { readonly kind: 'stored'; readonly names: readonly string[]; readonly removed: readonly string[] }
  | {
      readonly kind: 'recovered';
      readonly devices: readonly string[];
      /** Of mappings that the predecessor had not written down. */
      readonly strayBytes: bigint;
    }
  | {
      readonly kind: 'released';
      readonly devices: readonly string[];
      /** Of memory that nobody claimed. */
      readonly bytes: number;
    }
  | {
      readonly kind: 'preserved';
      readonly session: string;
      readonly arenas: number;
      /** Who keeps each device. */
      readonly keepers: readonly string[];
    }
  | { readonly kind: 'rebuilt'; readonly devices: readonly string[]; readonly mappings: number }
  | ({ readonly kind: 'device' } & DeviceOutcome)
  | {
      readonly kind: 'swapped';
      readonly device: string;
      /** How long the kernel took. */
      readonly milliseconds: number;
      /** How long drivers issued nothing; 0 when none was settled. */
      readonly paused: number;
      /** DMA of the device that faulted meanwhile, and was told of; `undefined` where that cannot be known. */
      readonly faults: number | undefined;
    };

const events = channel(KEEPALIVE_CHANNEL);

export function publish(event: KeepAliveEvent): void {
  if (events.hasSubscribers) events.publish(event);
}
