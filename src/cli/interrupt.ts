/** Turns signals into an abort, so that a device is never left behind. @module */
import { Interrupted } from './errors.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Listens for signals until it is disposed of. */
export interface Interrupts extends Disposable {
  readonly signal: AbortSignal;
}

/** The first signal aborts; the second, from someone who does not want to wait, ends the process as it is. */
export function interrupts(): Interrupts {
  const controller = new AbortController();
  const listeners = SIGNALS.map(name => {
    const listener = (): void => {
      const reason = new Interrupted(name);
      if (controller.signal.aborted) process.exit(reason.exitCode);
      controller.abort(reason);
    };
    process.on(name, listener);
    return { name, listener };
  });
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      for (const { name, listener } of listeners) process.off(name, listener);
    },
  };
}
