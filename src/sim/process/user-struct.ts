/**
 * Structs in user memory that may grow: the caller's own `size` comes first, and the kernel takes shorter ones (the
 * rest is zero) and longer ones (if their rest is zero).
 *
 * @module
 */
import { E2BIG } from '../../../bindings/uapi/errno.js';
import { type UserArgument, viewOf } from './user-argument.js';

/** The `size` that the struct begins with. @returns minus EFAULT where there is none */
export function readSize(argument: UserArgument): number {
  const size = argument.read(0, 4);
  return typeof size === 'number' ? size : viewOf(size).getUint32(0, true);
}

/** In bytes; no struct has as many, and what is not zero is likely within the first ones. */
const STEP = 4096;

/**
 * A copy of a struct of which the kernel knows `known` bytes and the caller has `given`.
 *
 * @returns minus E2BIG if what the kernel does not know is not zero, minus EFAULT if it is not there
 */
export function copyStruct(
  argument: UserArgument,
  known: number,
  given: number,
): Uint8Array<ArrayBuffer> | number {
  for (let at = known; at < given; at += STEP) {
    const length = Math.min(STEP, given - at);
    const piece = argument.read(at, length);
    const failure = typeof piece === 'number' ? findFailure(argument, at, length) : 0;
    if (failure < 0) return failure;
    if (typeof piece !== 'number' && piece.some(byte => byte !== 0)) return -E2BIG;
  }
  const bytes = argument.read(0, Math.min(known, given));
  if (typeof bytes === 'number') return bytes;
  const struct = new Uint8Array(new ArrayBuffer(known));
  struct.set(bytes);
  return struct;
}

/** Where something is missing, what comes before it may not be zero: the kernel goes from front to back. */
function findFailure(argument: UserArgument, from: number, length: number): number {
  for (let at = from; at < from + length; at++) {
    const byte = argument.read(at, 1);
    if (typeof byte === 'number') return byte;
    if (byte[0] !== 0) return -E2BIG;
  }
  return 0;
}
