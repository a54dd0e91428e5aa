/**
 * Live update: what outlives the kernel (Documentation/userspace-api/liveupdate.rst of Linux).
 *
 * A {@link LiveUpdate.createSession | session} is filled before a kexec and stays open through it; the next kernel has
 * it under the same name, and what is in it under the same tokens.
 *
 * @module
 */
import { constants } from 'node:fs';
import { defaultKernel } from '../../../bindings/kernel.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { ENOENT } from '../../../bindings/uapi/errno.js';
import {
  LIVEUPDATE_IOCTL_CREATE_SESSION,
  LIVEUPDATE_IOCTL_RETRIEVE_SESSION,
  LIVEUPDATE_SESSION_FINISH,
  LIVEUPDATE_SESSION_NAME_LENGTH,
  LIVEUPDATE_SESSION_PRESERVE_FD,
  LIVEUPDATE_SESSION_RETRIEVE_FD,
} from '../../../bindings/uapi/liveupdate.js';
import { checkInteger, checkU64 } from '../../check.js';
import { DisposedError, KernelError } from '../../errors.js';
import { check, openFile, transact } from '../../ioctl.js';

/** The kernel's node for live update. */
export const DEV_LIVEUPDATE = '/dev/liveupdate';

const MAX_NAME = LIVEUPDATE_SESSION_NAME_LENGTH - 1;

function sessionName(name: string): Uint8Array {
  if (typeof name !== 'string') throw new TypeError(`name must be a string, got ${typeof name}`);
  const bytes = Buffer.from(name, 'utf8');
  // A lone surrogate would come back as another name.
  const sound = !bytes.includes(0) && bytes.toString('utf8') === name;
  if (!sound || bytes.length === 0 || bytes.length > MAX_NAME) {
    const shown = JSON.stringify(name);
    throw new RangeError(`the name of a session is text of 1 to ${MAX_NAME} bytes without NUL, got ${shown}`);
  }
  return bytes;
}

/**
 * An open `/dev/liveupdate`, which one process at a time can have. Sessions do not need it any more: dispose of it as
 * soon as they are made.
 */
export class LiveUpdate implements Disposable {
  readonly kernel: Syscalls;
  readonly #fd: number;
  #closed = false;

  private constructor(kernel: Syscalls, fd: number) {
    this.kernel = kernel;
    this.#fd = fd;
  }

  /**
   * Opens `/dev/liveupdate`. The first time after a kexec, the kernel reads what the one before it left.
   *
   * @throws KernelError: ENOENT when the kernel has no live update or was booted without `liveupdate=on`, EBUSY while
   * somebody has it open, EIO when what the kernel before left cannot be read, EACCES without permission.
   */
  static open(kernel: Syscalls = defaultKernel()): LiveUpdate {
    return new LiveUpdate(kernel, openFile(kernel, DEV_LIVEUPDATE, constants.O_RDWR));
  }

  /** The open file. @throws DisposedError */
  get fd(): number {
    if (this.#closed) throw new DisposedError('LiveUpdate');
    return this.#fd;
  }

  /**
   * Makes a session for the next kernel.
   *
   * @param name 1 to 63 bytes of UTF-8
   * @throws RangeError for another name; KernelError: EEXIST when there is such a session.
   */
  createSession(name: string): OutgoingSession {
    const bytes = sessionName(name);
    const request = LIVEUPDATE_IOCTL_CREATE_SESSION;
    const { fd } = transact(this.kernel, this.fd, request, { name: bytes }, { name });
    return new OutgoingSession(this.kernel, fd, name);
  }

  /**
   * Takes up the session of that name that the kernel before this one left.
   *
   * What it holds stays in place for as long as nobody does this, and from then on for as long as the session is open:
   * do it when there is something to retrieve it for.
   *
   * @param name 1 to 63 bytes of UTF-8
   * @throws RangeError for another name; KernelError: ENOENT when there is no such session, EINVAL when it was taken up.
   */
  retrieveSession(name: string): IncomingSession {
    const bytes = sessionName(name);
    const request = LIVEUPDATE_IOCTL_RETRIEVE_SESSION;
    const { fd } = transact(this.kernel, this.fd, request, { name: bytes }, { name });
    return new IncomingSession(this.kernel, fd, name);
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    check(this.kernel.close(this.#fd), 'close', { path: DEV_LIVEUPDATE });
  }
}

/**
 * A session of this kernel, which the next one gets if it is open at the moment of the kexec. Disposing of it takes
 * everything out of it again, as does the end of the process.
 */
export class OutgoingSession implements Disposable {
  readonly kernel: Syscalls;
  readonly name: string;
  readonly #fd: number;
  #closed = false;

  /** @internal Use {@link LiveUpdate.createSession}. */
  constructor(kernel: Syscalls, fd: number, name: string) {
    this.kernel = kernel;
    this.#fd = fd;
    this.name = name;
  }

  /** The open session. @throws DisposedError */
  get fd(): number {
    if (this.#closed) throw new DisposedError(`live-update session ${this.name}`);
    return this.#fd;
  }

  /**
   * Puts an open file into the session. It is the file that is kept, not the descriptor, which may be closed. A memfd
   * is kept as it is at the moment of the kexec, at the same physical pages; from now on its size is fixed.
   *
   * @param token under which the next kernel gives it back; any number, of this session alone
   * @param what it is, for the error
   * @throws KernelError: ENOENT when this kernel cannot preserve such a file, EEXIST when the token is taken, EBUSY when
   * the file is in a session, EOPNOTSUPP for seals that cannot be kept, EFBIG, ENOMEM.
   */
  preserve(fd: number, token: bigint, what: string): void {
    checkInteger('fd', fd, 0, 0x7fff_ffff);
    const values = { fd, token: checkU64('token', token) };
    transact(this.kernel, this.fd, LIVEUPDATE_SESSION_PRESERVE_FD, values, { what, token: values.token });
  }

  /**
   * {@link preserve} where the kernel can. Linux 7.3 can preserve memfds without huge pages, and nothing else; whether a
   * kernel can preserve a device, say, is known by trying.
   *
   * @returns false when it cannot preserve files of this kind: nothing has changed
   * @throws KernelError for every other reason
   */
  tryPreserve(fd: number, token: bigint, what: string): boolean {
    try {
      this.preserve(fd, token, what);
      return true;
    } catch (error) {
      if (error instanceof KernelError && error.errno === ENOENT) return false;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    check(this.kernel.close(this.#fd), 'close', { path: `live-update session ${this.name}` });
  }
}

/**
 * A session that the kernel before this one left.
 *
 * Its end frees what was not retrieved, and a device may still write there. So the end is an act of its own,
 * {@link finish}, and no `using` or error on the way brings it about: this is not `Disposable` on purpose. An unfinished
 * session stays open until the process ends; who needs its memory to outlast the process gives {@link fd} to somebody
 * who lives on, such as the fd store.
 */
export class IncomingSession {
  readonly kernel: Syscalls;
  readonly name: string;
  readonly #fd: number;
  readonly #retrieved = new Set<bigint>();
  #finished = false;

  /** @internal Use {@link LiveUpdate.retrieveSession}. */
  constructor(kernel: Syscalls, fd: number, name: string) {
    this.kernel = kernel;
    this.#fd = fd;
    this.name = name;
  }

  /** The open session. @throws DisposedError once it is finished */
  get fd(): number {
    if (this.#finished) throw new DisposedError(`live-update session ${this.name}`);
    return this.#fd;
  }

  /** True once it is finished. */
  get finished(): boolean {
    return this.#finished;
  }

  /** The tokens whose files were retrieved. The kernel does not tell which others there are. */
  get retrieved(): ReadonlySet<bigint> {
    return this.#retrieved;
  }

  /**
   * Gives the file that was preserved under `token`, as often as it is asked for.
   *
   * @returns a descriptor of it, which is the caller's to close
   * @throws KernelError: ENOENT when there is nothing under this token. Other errors mean that the file cannot be
   * restored, and are the same at every attempt.
   */
  retrieve(token: bigint): number {
    const values = { token: checkU64('token', token) };
    const { fd } = transact(this.kernel, this.fd, LIVEUPDATE_SESSION_RETRIEVE_FD, values);
    this.#retrieved.add(values.token);
    return fd;
  }

  /**
   * Ends the session. Files that were retrieved stay with whoever has them open, and can be preserved anew; the memory
   * of all others is free. Idempotent.
   *
   * @throws KernelError when the kernel refuses: the session is as it was, and this can be tried again.
   */
  finish(): void {
    if (this.#finished) return;
    transact(this.kernel, this.#fd, LIVEUPDATE_SESSION_FINISH, {}, { session: this.name });
    this.#finished = true;
    check(this.kernel.close(this.#fd), 'close', { path: `live-update session ${this.name}` });
  }
}
