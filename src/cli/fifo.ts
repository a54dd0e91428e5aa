/**
 * Named pipes, and those that a shell makes of `<(…)` and `>(…)`, opened so that a wait for the other end can be
 * called off. An ordinary file operation on them would block a thread that the process cannot end without.
 *
 * @module
 */
import { closeSync, constants, openSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 50;

export async function isFifo(name: string): Promise<boolean> {
  try {
    return (await stat(name)).isFIFO();
  } catch {
    // Whoever opens it tells why not.
    return false;
  }
}

function wrap(fd: number, readable: boolean): Socket {
  try {
    return new Socket({ fd, readable, writable: !readable });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Does not wait: the first read does, until there is a writer. */
export function openFifoToRead(name: string): Socket {
  return wrap(openSync(name, constants.O_RDONLY | constants.O_NONBLOCK), true);
}

/** Waits for a reader, which the kernel has no event for. */
export async function openFifoToWrite(name: string, signal: AbortSignal): Promise<Socket> {
  for (;;) {
    signal.throwIfAborted();
    try {
      return wrap(openSync(name, constants.O_WRONLY | constants.O_NONBLOCK), false);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw error;
    }
    await sleep(POLL_MS, undefined, { signal });
  }
}
