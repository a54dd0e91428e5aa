/** Where a process can be found by one that it does not know: the path of a socket. @module */
import { constants } from 'node:fs';
import { defaultKernel } from '../../../bindings/kernel.js';
import { socketAddress } from '../../../bindings/socket-arguments.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { EADDRINUSE, EAGAIN, ECONNREFUSED, ENOENT, ENXIO } from '../../../bindings/uapi/errno.js';
import { SOCK_DGRAM, SOCK_SEQPACKET } from '../../../bindings/uapi/socket.js';
import { checkInteger } from '../../check.js';
import { DisposedError, runAll, undo } from '../../errors.js';
import { check } from '../../ioctl.js';
import { Channel, MAX_TIMEOUT } from './channel.js';
import { HandoffError, HandoffErrorCode } from './handoff-error.js';
import { type Wait, whenReadable } from './readable.js';

/** Connections that wait to be accepted; a successor is one. */
const BACKLOG = 4;
const OWNER_ONLY = 0o600;

/**
 * Listens at a path for {@link Channel.connect}.
 *
 * Who connects may be given devices. What protects them is the mode of the socket's file, 0600 from the moment it is
 * there: this user and root can connect, and nobody else. The directory must be one in which others cannot put a socket
 * of their own in its place, such as one below `/run` (`RuntimeDirectory=`). Abstract names have no owner, and are
 * refused.
 */
export class ChannelListener implements Disposable {
  readonly kernel: Syscalls;
  readonly path: string;
  readonly #fd: number;
  #wait: Wait<Channel> | undefined;
  #closed = false;

  private constructor(kernel: Syscalls, path: string, fd: number) {
    this.kernel = kernel;
    this.path = path;
    this.#fd = fd;
  }

  /**
   * Makes a socket at `path` and listens. What a process that was killed has left there is removed; a socket at which
   * somebody listens is not, nor is anything else.
   *
   * @param path 1 to 107 bytes
   * @throws TypeError, RangeError; KernelError: EADDRINUSE when there is something, EACCES, ENOENT for a directory.
   */
  static listen(path: string, kernel: Syscalls = defaultKernel()): ChannelListener {
    socketAddress(path);
    if (path.startsWith('@')) {
      throw new RangeError(`${path} is an abstract name, which anybody could connect to; use a path`);
    }
    const fd = check(kernel.socket(SOCK_SEQPACKET), 'socket');
    try {
      // The file gets the mode of the socket.
      check(kernel.fchmod(fd, OWNER_ONLY), 'fchmod');
      let bound = kernel.bind(fd, path);
      if (bound === -EADDRINUSE && isAbandoned(kernel, path)) {
        remove(kernel, path);
        bound = kernel.bind(fd, path);
      }
      check(bound, 'bind', { path });
    } catch (error) {
      undo(error, [() => void check(kernel.close(fd), 'close', { path })]);
    }
    const listener = new ChannelListener(kernel, path, fd);
    try {
      check(kernel.listen(fd, BACKLOG), 'listen', { path });
      return listener;
    } catch (error) {
      undo(error, [() => listener[Symbol.dispose]()]);
    }
  }

  /**
   * Waits for somebody to connect. One call at a time. Disposing of the listener meanwhile ends it with a DisposedError.
   *
   * @param timeout in ms; 0 is for who has connected already
   * @throws HandoffError: TIMEOUT; KernelError
   */
  async accept(timeout: number): Promise<Channel> {
    checkInteger('timeout', timeout, 0, MAX_TIMEOUT);
    if (this.#closed) throw new DisposedError(`ChannelListener ${this.path}`);
    if (this.#wait) throw new Error('an accept on this listener has not ended');
    const expired = (): Error =>
      new HandoffError(HandoffErrorCode.Timeout, `nobody connected to ${this.path} within ${timeout} ms`);
    this.#wait = whenReadable(this.kernel, this.#fd, timeout, () => this.#tryAccept(), expired);
    try {
      return await this.#wait.result;
    } finally {
      this.#wait = undefined;
    }
  }

  #tryAccept(): Channel | undefined {
    const accepted = this.kernel.accept(this.#fd);
    if (accepted === -EAGAIN) return undefined;
    return Channel.adopt(check(accepted, 'accept', { path: this.path }), this.kernel);
  }

  /** Stops listening, and removes the socket. Channels that were accepted stay; those who wait to be are refused. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#wait?.cancel(new DisposedError(`ChannelListener ${this.path}`));
    const { kernel, path } = this;
    runAll([() => remove(kernel, path), () => void check(kernel.close(this.#fd), 'close', { path })]);
  }
}

/** Removes the file of a socket, if it is there. */
function remove(kernel: Syscalls, path: string): void {
  const removed = kernel.unlink(path);
  if (removed !== -ENOENT) check(removed, 'unlink', { path });
}

/** There is a socket at `path`, and no process has it open. */
function isAbandoned(kernel: Syscalls, path: string): boolean {
  // A socket is the one thing that is there and cannot be opened this way. Connecting would not tell it from a file.
  const opened = kernel.open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  if (opened >= 0) kernel.close(opened);
  if (opened !== -ENXIO) return false;
  // Of another type, so that a listener is not disturbed: it is EPROTOTYPE as long as anybody has it.
  const probe = check(kernel.socket(SOCK_DGRAM), 'socket');
  const refused = kernel.connect(probe, path) === -ECONNREFUSED;
  kernel.close(probe);
  return refused;
}
