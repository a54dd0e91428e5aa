/**
 * What can go wrong, as types.
 *
 * - {@link KernelError}: a system call refused. Carries what was asked, and a hint where the cause is known.
 * - {@link DeviceError}: the library itself found the device in a condition that it will not work with.
 * - {@link PageTableError}: a page table is not what it should be, or cannot do what was asked of it.
 * - {@link StateError}: a saved state cannot be used.
 * - {@link DisposedError}: an object was used after it was released.
 * - `TypeError` (kind) and `RangeError` (range): a wrong argument, thrown before any system call is made.
 *
 * @module
 */
import { constants } from 'node:os';
import type { Iova, PhysicalAddress } from './address.js';
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
const kernelNames: Readonly<Record<number, string>> = { 77: 'EBADFD', 95: 'EOPNOTSUPP', 524: 'ENOTSUPP' };

/** Not `util.getSystemErrorName`, which knows libuv's names only and makes a sentence of every other. */
const systemNames = new Map(Object.entries(constants.errno).map(([name, errno]) => [errno, name]));
systemNames.set(constants.errno.EAGAIN, 'EAGAIN');

function errnoName(errno: number): string {
  const name = kernelNames[errno];
  if (name !== undefined) return name;
  return systemNames.get(errno) ?? `E${errno}`;
}

function show(value: unknown): string {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
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

/** The conditions a {@link PageTableError} reports. */
export const PageTableErrorCode = {
  /** Something in the range is mapped already. */
  Exists: 'EXISTS',
  /** The table memory has too few free pages for the tables that are needed. */
  NoMemory: 'NO_MEMORY',
  /** The format cannot do that. */
  Unsupported: 'UNSUPPORTED',
  /** A table pointer leads to a page that is neither loaded nor in use. */
  OutsideMemory: 'OUTSIDE_MEMORY',
  /** A table is reached twice: a loop, or two entries that point to one table. */
  SharedTable: 'SHARED_TABLE',
  /** An entry that means nothing at its level. */
  IllegalEntry: 'ILLEGAL_ENTRY',
  /** Bits that must be zero are set, such as those of a large page's address below its size. */
  ReservedBits: 'RESERVED_BITS',
  /** The entries that repeat one leaf are not the same. */
  ReplicasDiffer: 'REPLICAS_DIFFER',
} as const;
export type PageTableErrorCode = (typeof PageTableErrorCode)[keyof typeof PageTableErrorCode];

/** One entry of a page table. */
export interface PageTablePlace {
  /** The first IOVA that the entry is for. */
  readonly iova: Iova;
  /** The level of the entry; 0 maps 4 KiB. The root's own address counts as one above the top. */
  readonly level: number;
  /** The entry as it is. */
  readonly value: bigint;
  /** The table that holds the entry; undefined for the root's own address. */
  readonly table: PhysicalAddress | undefined;
  /** The entry's index in that table. */
  readonly index: number;
}

/** A page table that is corrupt, or that cannot do what was asked. */
export class PageTableError extends Error {
  override readonly name = 'PageTableError';
  readonly code: PageTableErrorCode;
  /** The first IOVA concerned; undefined where no IOVA is. */
  readonly iova: Iova | undefined;
  /** The level of the entry at fault; 0 maps 4 KiB. */
  readonly level: number | undefined;
  /** The entry at fault, where one is. */
  readonly where: PageTablePlace | undefined;

  constructor(code: PageTableErrorCode, message: string, where?: PageTablePlace) {
    super(where === undefined ? message : `${message}: ${describePlace(where)}`);
    this.code = code;
    this.iova = where?.iova;
    this.level = where?.level;
    this.where = where;
  }
}

function describePlace({ iova, level, value, table, index }: PageTablePlace): string {
  if (table === undefined) return `the root, ${show(value)}`;
  return `IOVA ${show(iova)}, level ${level}, entry ${index} of the table at ${show(table)} is ${show(value)}`;
}

/** Why a saved state cannot be used. */
export const StateErrorCode = {
  /** It is not what was written: cut off, changed, or something else altogether. */
  Damaged: 'DAMAGED',
  /** It is intact, and says something that this version of the library does not understand and must. */
  Unsupported: 'UNSUPPORTED',
  /** It is intact, and contradicts itself. */
  Invalid: 'INVALID',
} as const;
export type StateErrorCode = (typeof StateErrorCode)[keyof typeof StateErrorCode];

/** Where in a saved state a {@link StateError} was found. */
export interface StatePlace {
  /** The node, such as `'/iommufd-0/ioas-1'`. */
  path?: string | undefined;
  /** The property of that node. */
  property?: string | undefined;
  /** In bytes from the start of the state. */
  offset?: number | undefined;
}

const stateHints: Readonly<Record<StateErrorCode, string>> = {
  DAMAGED: 'Use another copy of it, or start cold: reset the devices and map their memory anew',
  UNSUPPORTED: 'Restore with the version that wrote it or a later one, or start cold',
  INVALID: 'What wrote it is at fault; start cold: reset the devices and map their memory anew',
};

/** A saved state, or a flattened device tree, that cannot be used. Nothing of it was taken over. */
export class StateError extends Error {
  override readonly name = 'StateError';
  readonly code: StateErrorCode;
  readonly path: string | undefined;
  readonly property: string | undefined;
  readonly offset: number | undefined;
  /** What to do about it. */
  readonly hint: string;

  constructor(code: StateErrorCode, place: StatePlace, reason: string, hint = stateHints[code]) {
    const { path, property, offset } = place;
    const where = [
      path,
      property && `property ${property}`,
      offset === undefined ? undefined : `byte ${offset}`,
    ].filter(part => part !== undefined);
    super(`saved state${where.length > 0 ? ` (${where.join(', ')})` : ''}: ${reason}. ${hint}`);
    this.code = code;
    this.path = path;
    this.property = property;
    this.offset = offset;
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
