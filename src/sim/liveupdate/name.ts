/** The names of sessions, as their structs hold them. @module */
import { LIVEUPDATE_SESSION_NAME_LENGTH } from '../../../bindings/uapi/liveupdate.js';

/** A word of the kernel's, in bytes. */
const WORD = 8;

/** The name, one character for each byte; undefined when it is not terminated. */
export function nameOf(bytes: Uint8Array): string | undefined {
  const end = bytes.indexOf(0);
  return end < 0 ? undefined : Buffer.from(bytes.subarray(0, end)).toString('latin1');
}

/** Writes a name and zeroes up to the end of a word; what comes after stays, as the kernel has it. */
export function copyName(name: string, into: Uint8Array): void {
  const bytes = Buffer.from(name, 'latin1');
  const words = Math.ceil((bytes.byteLength + 1) / WORD) * WORD;
  into.fill(0, 0, Math.min(words, LIVEUPDATE_SESSION_NAME_LENGTH));
  into.set(bytes);
}
