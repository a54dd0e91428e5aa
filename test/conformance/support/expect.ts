/**
 * What a case expects: a check that fails throws, which ends the case. Made for checks by the thousand, in sweeps; a
 * message that costs something to make is given as a function.
 *
 * @module
 */
import { constants } from 'node:os';

type Message = string | (() => string);

/** What libuv does not name, or names otherwise. */
const otherNames: Readonly<Record<number, string>> = { 11: 'EAGAIN', 77: 'EBADFD', 95: 'EOPNOTSUPP' };
const names = new Map(Object.entries(constants.errno).map(([name, errno]) => [errno, name]));

/** A result of a system call, for people. */
export function outcome(result: number): string {
  return result < 0 ? (otherNames[-result] ?? names.get(-result) ?? `errno ${-result}`) : String(result);
}

function show(value: unknown): string {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
  // Nothing is negative here but the results of system calls.
  if (typeof value === 'number') return outcome(value);
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}

function fail(message: Message): never {
  throw new Error(typeof message === 'string' ? message : message());
}

/** `condition` holds. */
export function holds(condition: boolean, message: Message): asserts condition {
  if (!condition) fail(message);
}

/** Both are the same value. */
export function equal<T>(actual: T, expected: T, message: Message = 'value'): void {
  if (Object.is(actual, expected)) return;
  fail(() => `${typeof message === 'string' ? message : message()}: ${show(actual)}, not ${show(expected)}`);
}

/** Both hold the same bytes. */
export function sameBytes(actual: Uint8Array, expected: Uint8Array, message: Message = 'bytes'): void {
  if (Buffer.compare(actual, expected) === 0) return;
  fail(() => {
    const at = actual.findIndex((byte, i) => byte !== expected[i]);
    return `${typeof message === 'string' ? message : message()}: differ at ${at}: ${actual[at]}, not ${expected[at]}`;
  });
}

/** The system call succeeded. @returns its result */
export function succeeds(result: number, message: Message = 'call'): number {
  if (result < 0) fail(() => `${typeof message === 'string' ? message : message()}: ${outcome(result)}`);
  return result;
}

/** The system call was refused with `errno`. */
export function refused(result: number, errno: number, message: Message = 'call'): void {
  if (result === -errno) return;
  fail(
    () => `${typeof message === 'string' ? message : message()}: ${outcome(result)}, not ${outcome(-errno)}`,
  );
}
