/** Standard output carries the result alone; what is said beside it goes to standard error. @module */
import type { Writable } from 'node:stream';
import { BrokenPipe } from './errors.js';

/**
 * Writes and waits until it is taken, however long the reader lets it wait.
 *
 * @throws BrokenPipe when there is no reader any more; the reason of `signal` once that is aborted
 */
export async function writeTo(
  stream: Writable,
  data: string | Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  signal?.throwIfAborted();
  let onAbort: (() => void) | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      onAbort = () => reject(signal?.reason);
      signal?.addEventListener('abort', onAbort, { once: true });
      stream.write(data, error => (error ? reject(error) : resolve()));
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') throw new BrokenPipe();
    throw error;
  } finally {
    if (onAbort) signal?.removeEventListener('abort', onAbort);
  }
}

/** Writes (part of) the result. */
export function print(data: string | Uint8Array, signal?: AbortSignal): Promise<void> {
  return writeTo(process.stdout, data, signal);
}

/** A remark. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Failures reach whoever writes; the event that repeats them would end the process. */
export function quietErrorEvents(): void {
  process.stdout.on('error', () => undefined);
  process.stderr.on('error', () => undefined);
}
