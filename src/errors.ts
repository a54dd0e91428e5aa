/**
 * What can go wrong, as types. Rooms with errors of their own have them beside what they are about (`PageTableError`,
 * `StateError`, `NvmeError`).
 *
 * - {@link KernelError}: a system call refused. Carries what was asked, and a hint where the cause is known.
 * - {@link DeviceError}: the library itself found the device in a condition that it will not work with.
 * - {@link DisposedError}: an object was used after it was released.
 * - `TypeError` (kind) and `RangeError` (range): a wrong argument, thrown before any system call is made.
 *
 * @module
 */

import { constants } from 'node:os';
import { hex } from './hex.js';
import { hintFor } from './hints.js';

/** What a {@link KernelError} knows of the call that failed. */
export interface KernelErrorDetails {
  /** The system call: `'ioctl'`, `'open'`. */
  syscall: string;
  /** The ioctl request: `'IOMMU_IOAS_MAP'`. */
  request?: string;
  /** The file the call was about. */
  path?: string;
  /** The arguments that matter. */
  args?: Readonly<Record<string, unknown>>;
  /** What to do about it, where that is known better than the general table knows it. */
  hint?: string;
}

/** Where libuv has another name than the kernel, or none (asm-generic/errno.h, linux/errno.h). */
const kernelNames: Readonly<Record<number, string>> = {
  77: 'EBADFD',
  95: 'EOPNOTSUPP',
  109: 'ETOOMANYREFS',
  126: 'ENOKEY',
  129: 'EKEYREJECTED',
  524: 'ENOTSUPP',
};

/** Not `util.getSystemErrorName`, which knows libuv's names only and makes a sentence of every other. */
const systemNames = new Map(Object.entries(constants.errno).map(([name, errno]) => [errno, name]));
systemNames.set(constants.errno.EAGAIN, 'EAGAIN');

function errnoName(errno: number): string {
  const name = kernelNames[errno];
  if (name !== undefined) return name;
  return systemNames.get(errno) ?? `E${errno}`;
}

function show(value: unknown): string {
  if (typeof value === 'bigint') return hex(value);
  if (typeof value === 'string') return JSON.stringify(value);
  return String(value);
}

/** A system call that the kernel refused. */
export class KernelError extends Error {
  override readonly name = 'KernelError';
  /** The errno as a name, such as `'EEXIST'`. */
  readonly code: string;
  /** The errno as a positive number. */
  readonly errno: number;
  readonly syscall: string;
  readonly request: string | undefined;
  readonly path: string | undefined;
  readonly args: Readonly<Record<string, unknown>>;
  /** The likely cause and what to do about it, where known. */
  readonly hint: string | undefined;

  /** @param errno the positive errno */
  constructor(errno: number, details: KernelErrorDetails) {
    const code = errnoName(errno);
    const operation = details.request ?? details.syscall;
    const hint = details.hint ?? hintFor(operation, code, details.path);
    const args = Object.entries(details.args ?? {}).map(([key, value]) => `${key}=${show(value)}`);
    const about = [details.path, ...args].filter(part => part !== undefined).join(', ');
    super(`${operation}${about ? ` (${about})` : ''}: ${code}${hint ? `. ${hint}` : ''}`);
    this.code = code;
    this.errno = errno;
    this.syscall = details.syscall;
    this.request = details.request;
    this.path = details.path;
    this.args = details.args ?? {};
    this.hint = hint;
  }
}

/** The conditions a {@link DeviceError} reports. */
export const DeviceErrorCode = {
  /** The device has no IOMMU in front of it and the caller did not accept that. */
  NoIommu: 'NO_IOMMU',
  /** Nothing answers any more: removed, or its power or link is off. Registers read as all ones. */
  Gone: 'GONE',
  /** The device reports, or shows by its behaviour, that it cannot continue. */
  Fatal: 'FATAL',
  /** The device did not do something in the time it has for it. */
  Timeout: 'TIMEOUT',
  /** The device or the machine lacks something that is needed. */
  Unsupported: 'UNSUPPORTED',
  /** The device is in use by something that would be harmed. */
  Busy: 'BUSY',
} as const;
export type DeviceErrorCode = (typeof DeviceErrorCode)[keyof typeof DeviceErrorCode];

/** A device in a condition that the library will not, or cannot, work with. */
export class DeviceError extends Error {
  override readonly name: string = 'DeviceError';
  readonly code: DeviceErrorCode;
  /** The device's name, usually its PCI address. */
  readonly device: string;
  readonly hint: string | undefined;

  constructor(code: DeviceErrorCode, device: string, message: string, hint?: string) {
    super(`${device}: ${message}${hint ? `. ${hint}` : ''}`);
    this.code = code;
    this.device = device;
    this.hint = hint;
  }
}

/** An object was used after it was disposed of, closed or freed. */
export class DisposedError extends Error {
  override readonly name = 'DisposedError';
  readonly code = 'DISPOSED';
  /** What was released, such as `'Ioas 3'`. */
  readonly object: string;

  constructor(object: string) {
    super(`${object} was already released`);
    this.object = object;
  }
}

/**
 * Runs every step, then throws what failed: the error itself where one step failed, an `AggregateError` where
 * several did. For what must be tried to the end, such as disposal.
 */
export function runAll(steps: Iterable<() => void>): void {
  const errors: unknown[] = [];
  for (const step of steps) {
    try {
      step();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length === 1) throw errors[0];
  if (errors.length > 1) throw new AggregateError(errors, `${errors.length} steps failed`);
}

/** Undoes what was done before `error` came up, then throws it, together with what could not be undone. */
export function undo(error: unknown, steps: Iterable<() => void>): never {
  runAll([
    ...steps,
    () => {
      throw error;
    },
  ]);
  throw error;
}
