/** What can go wrong when an address space is replaced under a device. @module */

/** Why it was not. */
export const SwapErrorCode = {
  /** The two address spaces do not translate alike. */
  Different: 'DIFFERENT',
  /** Something else must end first: commands in flight, a reset, a hand-off. */
  Busy: 'BUSY',
  /** A step failed: the error's `cause` says why. */
  Failed: 'FAILED',
} as const;
export type SwapErrorCode = (typeof SwapErrorCode)[keyof typeof SwapErrorCode];

/** An address space that was not replaced, or not dropped. The message says what is attached. */
export class SwapError extends Error {
  override readonly name = 'SwapError';
  readonly code: SwapErrorCode;
  /** What is attached, and what to do. */
  readonly hint: string;

  constructor(code: SwapErrorCode, reason: string, hint: string, cause?: unknown) {
    super(`${reason}. ${hint}`, cause === undefined ? {} : { cause });
    this.code = code;
    this.hint = hint;
  }
}
