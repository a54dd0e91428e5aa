/** What ends a command other than success, and how it is told. @module */
import { DeviceError, DeviceErrorCode } from '../errors.js';
import { printable } from './printable.js';

/** What the exit code of the command means. */
export const ExitCode = {
  Ok: 0,
  /** The operation failed. */
  Failed: 1,
  /** The command line asks for nothing sensible, or lacks a confirmation. */
  Usage: 2,
  /** Nothing could be compared; that it could, and something differs, is 1. */
  Trouble: 2,
} as const;

/** The command line is wrong. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  /** The command whose `--help` helps, such as `nvme read`; empty for the command as a whole. */
  readonly topic: string | undefined;

  /** @param topic `undefined` when the help would add nothing */
  constructor(message: string, topic?: string) {
    super(message);
    this.topic = topic;
  }
}

/** A signal asked the command to end. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly signal: 'SIGINT' | 'SIGTERM' | 'SIGHUP';

  constructor(signal: 'SIGINT' | 'SIGTERM' | 'SIGHUP') {
    super(`interrupted by ${signal}`);
    this.signal = signal;
  }

  /** As a shell reports the death by that signal. */
  get exitCode(): number {
    return 128 + { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 }[this.signal];
  }
}

/** What was to be shown is not so. */
export class Failed extends Error {
  override readonly name = 'Failed';
}

/** Whoever reads our standard output has gone, having seen enough. */
export class BrokenPipe extends Error {
  override readonly name = 'BrokenPipe';
}

/** A transfer that ended early; the cause is why, the message how far it came. */
export class Incomplete extends Error {
  override readonly name = 'Incomplete';
}

/** The library speaks of its own options; at a shell they have other names. */
function commandLineHint(error: DeviceError): string | undefined {
  switch (error.code) {
    case DeviceErrorCode.NoIommu:
      return 'Pass --noiommu to accept that';
    case DeviceErrorCode.Busy:
      return error.message.includes('mounted') ? 'Unmount them first, or pass --force' : undefined;
    case DeviceErrorCode.Timeout:
      return error.hint?.includes('commandTimeout') ? 'It was aborted; --timeout gives it longer' : undefined;
    default:
      return undefined;
  }
}

/** One line, with the hint where there is one. */
export function describe(error: unknown): string {
  if (error instanceof Incomplete) return `${describe(error.cause)} (${error.message})`;
  if (error instanceof DeviceError) {
    const hint = commandLineHint(error);
    if (hint !== undefined && error.hint !== undefined) return error.message.replace(error.hint, () => hint);
  }
  if (error instanceof AggregateError) return error.errors.map(describe).join('; ');
  const text = error instanceof Error ? error.message || error.name : String(error);
  return printable(text.replace(/\s*\n\s*/g, ' '));
}

/** What `using` makes when disposal fails after something else had failed; older Node.js does not have the class. */
function isSuppressed(error: unknown): error is Error & { error: unknown; suppressed: unknown } {
  return error instanceof Error && error.name === 'SuppressedError' && 'suppressed' in error;
}

/** Everything that went wrong, first things first. */
export function flatten(error: unknown): unknown[] {
  if (isSuppressed(error)) return [...flatten(error.suppressed), ...flatten(error.error)];
  if (error instanceof AggregateError) return error.errors.flatMap(flatten);
  return [error];
}

/** The first error of a kind that `error` is, holds or was caused by. */
export function find<T extends Error>(error: unknown, kind: new (...args: never[]) => T): T | undefined {
  for (let each of flatten(error)) {
    for (; each instanceof Error; each = each.cause) if (each instanceof kind) return each;
  }
  return undefined;
}
