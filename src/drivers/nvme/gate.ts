/** Where commands wait while none may be issued. @module */

/** Why none may be. */
export type GateReason =
  /** The device is left alone for a while. */
  | 'frozen'
  /** What is in flight is waited for. */
  | 'settling'
  /** New commands must not overtake those of the predecessor, which the application may be about to issue again. */
  | 'inherited';

export class Gate {
  readonly #reasons = new Set<GateReason>();
  readonly #waiting = new Set<() => void>();

  get isShut(): boolean {
    return this.#reasons.size > 0;
  }

  /** Somebody waits here. */
  get hasWaiting(): boolean {
    return this.#waiting.size > 0;
  }

  shut(reason: GateReason): void {
    this.#reasons.add(reason);
  }

  open(reason: GateReason): void {
    if (this.#reasons.delete(reason)) this.wake();
  }

  /** Lets everybody look again at how things are. */
  wake(): void {
    for (const pass of [...this.#waiting]) pass();
  }

  /** Waits until a reason is gone, {@link wake} is called or `signal` aborted: the caller looks which. */
  wait(signal?: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      const pass = (): void => {
        this.#waiting.delete(pass);
        signal?.removeEventListener('abort', pass);
        resolve();
      };
      this.#waiting.add(pass);
      signal?.addEventListener('abort', pass, { once: true });
    });
  }
}
