/**
 * The service manager keeps descriptors for a service that ends or dies, and gives them to its next run: systemd's file
 * descriptor store (sd_notify(3), sd_listen_fds_with_names(3)).
 *
 * @module
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { defaultKernel } from '../../../bindings/kernel.js';
import { SCM_MAX_FD } from '../../../bindings/socket-arguments.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { EAGAIN, ECONNREFUSED, ENOENT } from '../../../bindings/uapi/errno.js';
import { SOCK_DGRAM } from '../../../bindings/uapi/socket.js';
import { checkInteger } from '../../check.js';
import { KernelError } from '../../errors.js';
import { check } from '../../ioctl.js';
import { HandoffError, HandoffErrorCode } from '../handoff/handoff-error.js';

/** How long the manager may take to have room for a message, in ms. systemd's own limit for a service is 90 s. */
const SEND_MS = 10_000;
/** The same where the process can do nothing else meanwhile. */
const SEND_SYNC_MS = 1000;
/** A datagram socket that is full says nothing when it no longer is. */
const SEND_POLL_MS = 5;

/** @throws TypeError, RangeError for what cannot be the name of a descriptor */
export function checkFdName(name: string): void {
  if (typeof name !== 'string') throw new TypeError(`name must be a string, got ${typeof name}`);
  // What systemd accepts (fdname_is_valid), but for the empty one.
  if (!/^[ -9;-~]{1,255}$/.test(name)) {
    throw new RangeError(
      `the name of a descriptor has 1 to 255 printable ASCII characters and no ":", got ${JSON.stringify(name)}`,
    );
  }
}

/**
 * The descriptor store of the service manager that started this process.
 *
 * The unit must allow it: `FileDescriptorStoreMax=` of at least the descriptors stored, `NotifyAccess=main`, and
 * `Restart=on-failure` to be restarted. The manager answers nothing: what it has no room for, or does not accept, it
 * closes without a word; see {@link limit}. It keeps an open file once, whatever it is named later. It drops all when the
 * unit is stopped, unless there is `FileDescriptorStorePreserve=yes`.
 */
export class FdStore {
  readonly kernel: Syscalls;
  /** What `NOTIFY_SOCKET` says: a path, or an abstract name after `@`. */
  readonly address: string;
  /**
   * How many descriptors the manager keeps. Undefined when it does not say: systemd before 254 never does, later ones do
   * unless it is none.
   */
  readonly limit: number | undefined;

  private constructor(kernel: Syscalls, address: string, limit: number | undefined) {
    this.kernel = kernel;
    this.address = address;
    this.limit = limit;
  }

  /**
   * The store of this process's service manager.
   *
   * @returns undefined when there is no manager that listens (`NOTIFY_SOCKET` is not set)
   * @throws HandoffError: UNSUPPORTED when it listens on something else than a Unix socket.
   */
  static fromEnvironment(
    env: NodeJS.ProcessEnv = process.env,
    kernel: Syscalls = defaultKernel(),
  ): FdStore | undefined {
    const { NOTIFY_SOCKET: address, FDSTORE } = env;
    if (!address) return undefined;
    if (!/^[/@]./.test(address)) {
      throw new HandoffError(
        HandoffErrorCode.Unsupported,
        `NOTIFY_SOCKET is ${JSON.stringify(address)}: descriptors can be sent to a path or an abstract socket (@) only`,
      );
    }
    return new FdStore(
      kernel,
      address,
      FDSTORE !== undefined && /^\d+$/.test(FDSTORE) ? Number(FDSTORE) : undefined,
    );
  }

  /**
   * Has the manager keep the files behind `fds` until they are removed, or the unit is stopped. Keep the descriptors
   * open until this resolves.
   *
   * @param name 1 to 255 printable ASCII characters without `:`. Several files can have one name, and come back in any
   * order
   * @throws KernelError, HandoffError as {@link notify}
   */
  async store(name: string, ...fds: number[]): Promise<void> {
    checkFdName(name);
    checkInteger('the number of descriptors', fds.length, 1, SCM_MAX_FD);
    for (const fd of fds) checkInteger('fd', fd, 0, 0x7fff_ffff);
    // Without FDPOLL=0 the manager drops what signals EPOLLHUP or EPOLLERR, such as a socket whose peer is gone. What is
    // stored here is to stay until it is removed. systemd before 246 has no such thing, and ignores it.
    await this.#send(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, fds);
  }

  /**
   * {@link store} of one descriptor, for what must be kept before anything else happens: blocks the process while the
   * manager has no room for the message, for at most a second.
   *
   * @throws KernelError; HandoffError: TIMEOUT
   */
  storeSync(name: string, fd: number): void {
    checkFdName(name);
    checkInteger('fd', fd, 0, 0x7fff_ffff);
    this.#sendSync(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, [fd]);
  }

  /** {@link remove}, which blocks as {@link storeSync} does. @throws as {@link storeSync} */
  removeSync(name: string): void {
    checkFdName(name);
    this.#sendSync(`FDSTOREREMOVE=1\nFDNAME=${name}`, []);
  }

  #sendSync(text: string, fds: readonly number[]): void {
    const bytes = Buffer.from(text, 'utf8');
    const never = new Int32Array(new SharedArrayBuffer(4));
    for (let waited = 0; !this.#trySend(bytes, fds); waited += SEND_POLL_MS) {
      if (waited >= SEND_SYNC_MS) throw this.#hangs();
      Atomics.wait(never, 0, 0, SEND_POLL_MS);
    }
  }

  #hangs(): HandoffError {
    return new HandoffError(
      HandoffErrorCode.Timeout,
      `the service manager at ${this.address} takes no messages`,
    );
  }

  /** Has the manager close everything it keeps under a name; fine when that is nothing. @throws as {@link notify} */
  async remove(name: string): Promise<void> {
    checkFdName(name);
    await this.#send(`FDSTOREREMOVE=1\nFDNAME=${name}`, []);
  }

  /**
   * Tells the manager something: `READY=1`, `STATUS=…`, `MAINPID=…` (sd_notify(3)), with a newline between assignments.
   *
   * @throws KernelError: ENOENT, ECONNREFUSED when nobody listens, EACCES; HandoffError: TIMEOUT when the manager takes
   * no message for 10 s.
   */
  async notify(text: string): Promise<void> {
    if (typeof text !== 'string') throw new TypeError(`text must be a string, got ${typeof text}`);
    if (text === '') throw new RangeError('text must not be empty');
    await this.#send(text, []);
  }

  async #send(text: string, fds: readonly number[]): Promise<void> {
    const bytes = Buffer.from(text, 'utf8');
    const deadline = Date.now() + SEND_MS;
    while (!this.#trySend(bytes, fds)) {
      if (Date.now() >= deadline) throw this.#hangs();
      await sleep(SEND_POLL_MS);
    }
  }

  /** Sends from a socket of its own: the manager may be another one than a moment ago. @returns false when it is full */
  #trySend(bytes: Uint8Array, fds: readonly number[]): boolean {
    const { kernel, address } = this;
    const fd = check(kernel.socket(SOCK_DGRAM), 'socket');
    try {
      this.#check(kernel.connect(fd, address), 'connect');
      const sent = kernel.sendMessage(fd, bytes, fds);
      if (sent === -EAGAIN) return false;
      this.#check(sent, 'sendmsg');
      return true;
    } finally {
      kernel.close(fd);
    }
  }

  #check(result: number, syscall: string): void {
    if (result >= 0) return;
    const gone = result === -ENOENT || result === -ECONNREFUSED;
    throw new KernelError(-result, {
      syscall,
      path: this.address,
      ...(gone && { hint: 'The service manager that NOTIFY_SOCKET names is not there' }),
    });
  }
}
