/** What a user can choose, for a controller and for a command. @module */
import { checkAligned, checkInteger } from '../../check.js';
import { DEVICE_PAGE } from '../../memory/device-pages.js';
import type { DmaArena } from '../../memory/dma-memory.js';

export interface NvmeOptions {
  /** I/O queue pairs; fewer when the controller grants fewer. 1 by default. */
  ioQueues?: number;
  /** Entries of each I/O queue: one more than commands in flight. 64 by default; less when the controller says so. */
  queueEntries?: number;
  /** How long a command may take, in ms, before it is aborted. 30000 by default. */
  commandTimeout?: number;
  /** How long an abort may take, in ms, before the controller is reset. 2000 by default. */
  abortTimeout?: number;
  /** Largest transfer of one command, in bytes; 4 MiB by default, less when the controller says so. */
  maxTransfer?: number;
  /** Memory for transfers to and from ordinary (not DMA) memory, in bytes; 16 MiB by default. */
  bounceSize?: number;
}

/** To go on where a predecessor ended. */
export interface NvmeRestoreOptions {
  /**
   * Gives the arenas of the predecessor by their tokens, mapped in the address space of the device where they were. Those
   * of the driver itself are the controller's from then on; it disposes of them when it is closed.
   */
  memory: (token: bigint) => DmaArena | undefined;
  /** When the controller does not run any more, it is reset and brought up again. True by default. */
  allowReinitialise?: boolean;
}

/** For one command. */
export interface CommandOptions {
  /**
   * Aborts the command. The promise then rejects with the signal's reason, unless the command completed first. A
   * controller that does not let go of the command within {@link NvmeOptions.abortTimeout} is reset.
   */
  signal?: AbortSignal | undefined;
  /** How long it may take, in ms, before it is aborted; {@link NvmeOptions.commandTimeout} by default. */
  timeout?: number | undefined;
  /**
   * What the application knows the command by, from 1 to 2^64-1. When the driver is replaced while the device goes on, its
   * successor has it in {@link InheritedCommand.tag}. A long transfer that is split has it with each part.
   */
  tag?: bigint | undefined;
}

/** @throws TypeError, RangeError */
export function completeOptions(options: NvmeOptions): Required<NvmeOptions> {
  const settings = {
    ioQueues: checkInteger('ioQueues', options.ioQueues ?? 1, 1, 1024),
    queueEntries: checkInteger('queueEntries', options.queueEntries ?? 64, 2, 65536),
    commandTimeout: checkInteger('commandTimeout', options.commandTimeout ?? 30_000, 1),
    abortTimeout: checkInteger('abortTimeout', options.abortTimeout ?? 2_000, 1),
    maxTransfer: checkInteger('maxTransfer', options.maxTransfer ?? 4 * 2 ** 20, DEVICE_PAGE),
    bounceSize: checkInteger('bounceSize', options.bounceSize ?? 16 * 2 ** 20, DEVICE_PAGE),
  };
  checkAligned('maxTransfer', settings.maxTransfer, DEVICE_PAGE);
  checkAligned('bounceSize', settings.bounceSize, DEVICE_PAGE);
  return settings;
}
