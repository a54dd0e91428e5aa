/** Why something cannot be kept, or is not what was kept. @module */

/** What a {@link KeepAliveError} is about. */
export const KeepAliveErrorCode = {
  /** Something in the context cannot be kept. */
  CannotBeKept: 'CANNOT_BE_KEPT',
  /** It is not what was saved: another device, other memory, other descriptors. */
  Different: 'DIFFERENT',
  /** It is handed over or on its way, and this process may not use it. */
  NotOurs: 'NOT_OURS',
} as const;
export type KeepAliveErrorCode = (typeof KeepAliveErrorCode)[keyof typeof KeepAliveErrorCode];

/** Something is in the way of keeping, or of taking over what was kept. Nothing was changed. */
export class KeepAliveError extends Error {
  override readonly name = 'KeepAliveError';
  readonly code: KeepAliveErrorCode;
  /** Each thing that is in the way. */
  readonly reasons: readonly string[];
  /** What to do about it. */
  readonly hint: string;

  constructor(code: KeepAliveErrorCode, reasons: readonly string[], hint: string) {
    super(`${reasons.join('; ')}. ${hint}`);
    this.code = code;
    this.reasons = reasons;
    this.hint = hint;
  }
}
