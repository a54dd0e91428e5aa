/** What can go wrong between the processes that hand devices on. @module */

/** Why a hand-off did not happen. */
export const HandoffErrorCode = {
  /** The other side did not do its part in time. */
  Timeout: 'TIMEOUT',
  /** The other side is gone. */
  PeerGone: 'PEER_GONE',
  /** What the other side, or the environment, says is not what it must be. */
  Protocol: 'PROTOCOL',
  /** The other side is of a version that this one does not understand. */
  Version: 'VERSION',
  /** The other side says no. */
  Refused: 'REFUSED',
  /** The object belongs to a successor now. */
  HandedOver: 'HANDED_OVER',
  /** This way of handing on is not one that the library knows. */
  Unsupported: 'UNSUPPORTED',
} as const;
export type HandoffErrorCode = (typeof HandoffErrorCode)[keyof typeof HandoffErrorCode];

/** Absent: the message says it. */
const hints: Readonly<Partial<Record<HandoffErrorCode, string>>> = {
  TIMEOUT: 'See whether the other process runs and is not busy, then try again',
  PEER_GONE: 'See why the other process ended or gave up, then try again',
  PROTOCOL: 'See what the other side is: it must use this library, too',
  REFUSED: 'Nothing has changed; see to what it says, then try again',
  VERSION: 'Run a version of the library that both sides have',
  HANDED_OVER: 'Use it in the process that has it now',
};

/** A hand-off, or a step of one, that did not happen. */
export class HandoffError extends Error {
  override readonly name = 'HandoffError';
  readonly code: HandoffErrorCode;
  /** What to do about it. */
  readonly hint: string | undefined;

  constructor(code: HandoffErrorCode, reason: string, options: { hint?: string; cause?: unknown } = {}) {
    const { hint = hints[code], cause } = options;
    super(`${reason}${hint ? `. ${hint}` : ''}`, cause === undefined ? {} : { cause });
    this.code = code;
    this.hint = hint;
  }
}
