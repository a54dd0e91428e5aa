/**
 * Descriptors that a process finds open when it starts: from the service manager (sd_listen_fds_with_names(3)), or from
 * a predecessor that started it.
 *
 * @module
 */
import { defaultKernel } from '../../../bindings/kernel.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { F_GETFD, F_SETFD, FD_CLOEXEC } from '../../../bindings/uapi/fcntl.js';
import { checkInteger } from '../../check.js';
import { check } from '../../ioctl.js';
import { checkFdName } from '../store/fd-store.js';
import { HandoffError, HandoffErrorCode } from './handoff-error.js';

/** The first descriptor after standard input, output and error (`SD_LISTEN_FDS_START`). */
const FIRST = 3;

/**
 * The names of the descriptors from 3 on that a predecessor gave, as `LISTEN_FDNAMES` has those of the service manager.
 * It is another variable because `LISTEN_PID` belongs to that one, and a process that spawns another does not know its
 * id beforehand.
 */
const OUR_NAMES = 'IOMMUFD_LISTEN_FDNAMES';

/** What the service manager sets for descriptors. */
const LISTEN = ['LISTEN_PID', 'LISTEN_PIDFDID', 'LISTEN_FDS', 'LISTEN_FDNAMES'] as const;

function malformed(reason: string, hint: string): HandoffError {
  return new HandoffError(HandoffErrorCode.Protocol, reason, { hint });
}

/** The names of what was given by a predecessor, from 3 on. */
function namesFromPredecessor(text: string): string[] {
  const names = text.split(':');
  for (const name of names) {
    try {
      checkFdName(name);
    } catch (cause) {
      const hint = 'Start this program with what inheritance() returns';
      const reason = `${OUR_NAMES} is ${JSON.stringify(text)}, which are no names of descriptors`;
      throw new HandoffError(HandoffErrorCode.Protocol, reason, { hint, cause });
    }
  }
  return names;
}

/** The names of what was given by the service manager, from 3 on. */
function namesFromManager(env: NodeJS.ProcessEnv): string[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count, LISTEN_FDNAMES: text } = env;
  if (count === undefined) return [];
  if (pid !== undefined && pid !== String(process.pid)) {
    throw malformed(
      `LISTEN_PID is ${JSON.stringify(pid)}, and this is process ${process.pid}`,
      'The descriptors are for another process: have the service manager start this one itself (in a shell, with ' +
        'exec), or unset LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES',
    );
  }
  const number = /^\d{1,7}$/.test(count) ? Number(count) : Number.NaN;
  if (Number.isNaN(number)) {
    throw malformed(`LISTEN_FDS is ${JSON.stringify(count)}, which is no number of descriptors`, 'Unset it');
  }
  const names =
    text === undefined ? Array<string>(number).fill('unknown') : number === 0 ? [] : text.split(':');
  if (names.length !== number) {
    throw malformed(
      `LISTEN_FDNAMES has ${names.length} names for ${number} descriptors`,
      'See what sets these variables: LISTEN_FDNAMES has one name for each, with ":" between them',
    );
  }
  return names;
}

/**
 * The descriptors that this process was started with, by name: those that the service manager has kept for it, or those
 * that a predecessor gave with {@link inheritance}. From now on they are the caller's, and close-on-exec; the variables
 * are removed from `env`, so that no child takes them for its own and a second call finds none.
 *
 * Nothing proves that a descriptor is what its name says: see what it is before it is used, or closed.
 *
 * @returns none when nobody gave any. Of one name, they are in the order of {@link inheritance}; systemd has no order
 * @throws HandoffError (PROTOCOL) when the variables make no sense, are for another process, or speak of descriptors
 * that are not open. Nothing has changed then.
 */
export function receiveInherited(
  env: NodeJS.ProcessEnv = process.env,
  kernel: Syscalls = defaultKernel(),
): Map<string, number[]> {
  const ours = env[OUR_NAMES];
  const managers = namesFromManager(env);
  if (ours !== undefined && managers.length > 0) {
    throw malformed(
      `${OUR_NAMES} and LISTEN_FDS are both set, and both are about descriptor ${FIRST}`,
      'Start this program with the environment that inheritance() returns, as it is',
    );
  }
  const names = ours === undefined ? managers : namesFromPredecessor(ours);
  for (const [index, name] of names.entries()) {
    if (kernel.fcntl(FIRST + index, F_GETFD, 0) >= 0) continue;
    throw malformed(
      `descriptor ${FIRST + index} (${name}) was to be given to this process, and is not open`,
      'See what started this process: the descriptors must follow standard error without a gap',
    );
  }
  const given = new Map<string, number[]>();
  for (const [index, name] of names.entries()) {
    const fd = FIRST + index;
    check(kernel.fcntl(fd, F_SETFD, FD_CLOEXEC), 'fcntl', { args: { command: 'F_SETFD', fd } });
    const same = given.get(name);
    if (same) same.push(fd);
    else given.set(name, [fd]);
  }
  for (const variable of [OUR_NAMES, ...LISTEN]) delete env[variable];
  return given;
}

/** What {@link inheritance} returns. */
export interface Inheritance {
  /** For `stdio`, after the three of standard input, output and error. */
  readonly stdio: readonly number[];
  /** For `env`. */
  readonly env: NodeJS.ProcessEnv;
}

/**
 * How to start a program that finds descriptors with {@link receiveInherited}:
 *
 * ```ts
 * const { stdio, env } = inheritance(new Map([['channel', [channel.fd]]]));
 * spawn(process.execPath, ['successor.js'], { env, stdio: ['inherit', 'inherit', 'inherit', ...stdio] });
 * ```
 *
 * The program gets descriptors of its own; those of this process stay open.
 *
 * @param fds by name: 1 to 255 printable ASCII characters without `:`
 * @param env to which the names are added; what the service manager gave to this process alone is left out
 */
export function inheritance(
  fds: ReadonlyMap<string, readonly number[]>,
  env: NodeJS.ProcessEnv = process.env,
): Inheritance {
  const names: string[] = [];
  const stdio: number[] = [];
  for (const [name, group] of fds) {
    checkFdName(name);
    for (const fd of group) {
      names.push(name);
      stdio.push(checkInteger('fd', fd, 0, 0x7fff_ffff));
    }
  }
  const child: NodeJS.ProcessEnv = { ...env };
  for (const variable of [OUR_NAMES, ...LISTEN]) delete child[variable];
  if (names.length > 0) child[OUR_NAMES] = names.join(':');
  return { stdio, env: child };
}
