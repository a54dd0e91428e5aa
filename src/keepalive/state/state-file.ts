/** Saved states in files. A file holds the old state or the new one at any moment, also when power fails. @module */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  openSync,
  readSync,
  realpathSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { runAll, undo } from '../../errors.js';
import { MAX_SIZE } from './fdt-tree.js';
import { StateError, StateErrorCode } from './state-error.js';

/** Of a file with a state, in bytes: no state is larger. */
export const MAX_STATE_FILE = MAX_SIZE;

/** Says where all memory of a driver is: for its owner alone. */
const MODE = 0o600;

/**
 * Reads a file, for `decodeState`.
 *
 * @throws StateError (DAMAGED) when it is no regular file, or larger than 1 GiB; an error of `node:fs` when it cannot be
 * read.
 */
export function readStateFile(path: string): Uint8Array {
  // A pipe must not make this wait.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const status = fstatSync(fd);
    if (!status.isFile()) throw new StateError(StateErrorCode.Damaged, {}, `${path} is no regular file`);
    if (status.size > MAX_STATE_FILE) {
      throw new StateError(StateErrorCode.Damaged, {}, `${path} is larger than ${MAX_STATE_FILE} bytes`);
    }
    const bytes = new Uint8Array(status.size);
    let done = 0;
    while (done < bytes.length) {
      const count = readSync(fd, bytes, done, bytes.length - done, null);
      if (count === 0) break;
      done += count;
    }
    return bytes.subarray(0, done);
  } finally {
    closeSync(fd);
  }
}

/** The file to replace: what a symbolic link leads to. @throws when there is something else than a regular file. */
function regular(path: string): string {
  if (!statSync(path, { throwIfNoEntry: false })) return path;
  const target = realpathSync(path);
  if (statSync(target).isFile()) return target;
  throw new RangeError(`${path} is no regular file, and is not replaced; name another`);
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done);
}

/** So that the new name lasts. */
function syncDirectory(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  runAll([() => fsyncSync(fd), () => closeSync(fd)]);
}

/**
 * Writes a file, such as from `encodeState`, or replaces it. Only its owner may read it. When it returns, the state will
 * survive a power failure; when it throws, the file is as it was, unless the last step, to make its name last, failed.
 *
 * @throws RangeError when there are more than 1 GiB, or `path` is something else than a regular file; an error of
 * `node:fs` when it cannot be written.
 */
export function writeStateFile(path: string, bytes: Uint8Array): void {
  if (!(bytes instanceof Uint8Array)) throw new TypeError('a saved state must be a Uint8Array');
  if (bytes.length > MAX_STATE_FILE) {
    throw new RangeError(`a saved state must be of at most ${MAX_STATE_FILE} bytes, got ${bytes.length}`);
  }
  const target = regular(path);
  const directory = dirname(target);
  const temporary = join(directory, `.${basename(target)}.${randomBytes(6).toString('hex')}`);
  const fd = openSync(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, MODE);
  const remove = (): void => unlinkSync(temporary);
  try {
    writeAll(fd, bytes);
    fsyncSync(fd);
  } catch (error) {
    undo(error, [() => closeSync(fd), remove]);
  }
  try {
    closeSync(fd);
    renameSync(temporary, target);
  } catch (error) {
    undo(error, [remove]);
  }
  syncDirectory(directory);
}
