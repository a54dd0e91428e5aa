/** What is wrong with an initial root file system. @module */

/** An initrd image that cannot be looked into, or that nothing can be added to. */
export class LandingImageError extends Error {
  override readonly name = 'LandingImageError';
  /** What to do about it, where that is known. */
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(`initrd: ${message}${hint ? `. ${hint}` : ''}`);
    this.hint = hint;
  }
}
