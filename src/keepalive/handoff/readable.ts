/** Waits until there is something to read, or time is up. @module */
import type { Syscalls, Watch } from '../../../bindings/syscalls.js';
import { watchFile } from '../../ioctl.js';

/** Begun by {@link whenReadable}. */
export interface Wait<T> {
  readonly result: Promise<T>;
  /** Ends it with `error`; does nothing when it has ended. */
  cancel(error: Error): void;
}

/**
 * Calls `attempt` now, and each time that `fd` is readable, until it returns something or throws. Keeps the process
 * alive meanwhile.
 *
 * @param timeout in ms, at most 2^31-1; 0 is for one attempt
 * @param expired makes the error for when they are over
 */
export function whenReadable<T>(
  kernel: Syscalls,
  fd: number,
  timeout: number,
  attempt: () => T | undefined,
  expired: () => Error,
): Wait<T> {
  let watch: Watch | undefined;
  let timer: NodeJS.Timeout | undefined;
  let ended = false;
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: unknown) => void = () => undefined;
  const result = new Promise<T>((onValue, onError) => {
    resolve = onValue;
    reject = onError;
  });
  const end = (): void => {
    ended = true;
    watch?.[Symbol.dispose]();
    clearTimeout(timer);
  };
  const fail = (error: unknown): void => {
    if (ended) return;
    end();
    reject(error);
  };
  const look = (): void => {
    if (ended) return;
    try {
      const value = attempt();
      if (value === undefined) return;
      end();
      resolve(value);
    } catch (error) {
      fail(error);
    }
  };
  const expire = (): void => {
    // Timers come before descriptors in a turn of the event loop: it may be there, and only nobody has looked.
    look();
    fail(expired());
  };

  look();
  if (!ended && timeout === 0) fail(expired());
  if (!ended) {
    try {
      watch = watchFile(kernel, fd, 'socket', look);
      timer = setTimeout(expire, timeout);
    } catch (error) {
      fail(error);
    }
  }
  return { result, cancel: fail };
}
