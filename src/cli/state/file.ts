/** Reads the saved state that a command is about. @module */
import { decodeState } from '../../keepalive/state/decode-state.js';
import type { State } from '../../keepalive/state/saved-state.js';
import { StateError, StateErrorCode } from '../../keepalive/state/state-error.js';
import { MAX_STATE_FILE } from '../../keepalive/state/state-file.js';
import { type Input, openInput } from '../input.js';

/** Read at a time, in bytes. */
const PIECE = 1 << 20;

/** What a file is called in a message. */
export function titleOf(name: string): string {
  return name === '-' ? 'standard input' : name;
}

/** A saved state that cannot be used, and which of the files it is. */
export class BadState extends Error {
  override readonly name = 'BadState';
  override readonly cause: StateError;

  constructor(file: string, cause: StateError) {
    super(`${titleOf(file)}: ${cause.message}`);
    this.cause = cause;
  }
}

function tooLarge(): StateError {
  return new StateError(StateErrorCode.Damaged, {}, `it is larger than ${MAX_STATE_FILE} bytes`);
}

/** All of an input. */
async function readToEnd(input: Input): Promise<Uint8Array> {
  if ((input.size ?? 0) > MAX_STATE_FILE) throw tooLarge();
  const pieces: Uint8Array[] = [];
  for (let size = 0; ; ) {
    const piece = new Uint8Array(PIECE);
    const count = await input.fill(piece);
    pieces.push(piece.subarray(0, count));
    size += count;
    if (size > MAX_STATE_FILE) throw tooLarge();
    if (count < PIECE) return new Uint8Array(Buffer.concat(pieces));
  }
}

/** All of a file, or of standard input for `-`. @throws BadState when it is larger than a state can be */
export async function readBytes(name: string, signal: AbortSignal): Promise<Uint8Array> {
  await using input = await openInput(name, signal);
  // Awaited here: the input is closed on return.
  return await onState(name, () => readToEnd(input));
}

/** Says of a bad state which file it is. */
export async function onState<T>(name: string, use: () => T | Promise<T>): Promise<T> {
  try {
    return await use();
  } catch (error) {
    throw error instanceof StateError ? new BadState(name, error) : error;
  }
}

/** A state, checked. @throws BadState */
export async function readState(name: string, signal: AbortSignal): Promise<State> {
  const bytes = await readBytes(name, signal);
  return onState(name, () => decodeState(bytes));
}
