/** Text that others wrote, made fit for a terminal. @module */

/** Control characters, which move the cursor and worse, and those that turn the direction of text around. */
const unprintable = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** The same text, such characters as `\u{1b}`. */
export function printable(text: string): string {
  return text.replace(unprintable, character => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}
