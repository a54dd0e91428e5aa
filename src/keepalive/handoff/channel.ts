/** Messages with descriptors between two processes of one machine, over a Unix socket. @module */
import { setTimeout as sleep } from 'node:timers/promises';
import { defaultKernel } from '../../../bindings/kernel.js';
import { SCM_MAX_FD, socketAddress } from '../../../bindings/socket-arguments.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { EAGAIN, ECONNREFUSED, ECONNRESET, EMSGSIZE, ENOENT, EPIPE } from '../../../bindings/uapi/errno.js';
import { SOCK_SEQPACKET } from '../../../bindings/uapi/socket.js';
import { checkInteger } from '../../check.js';
import { DisposedError, KernelError, runAll, undo } from '../../errors.js';
import { check } from '../../ioctl.js';
import {
  ChannelMessage,
  closeAll,
  decodeMessage,
  encodeMessage,
  MAX_MESSAGE,
  type MessageFields,
} from './channel-message.js';
import { HandoffError, HandoffErrorCode } from './handoff-error.js';
import { type Wait, whenReadable } from './readable.js';

const CONNECT_MS = 5000;
/** There is nothing to wait on for a socket to appear, without a watch of its directory. */
const CONNECT_POLL_MS = 10;
/** The longest that a timer can be set for, in ms. */
export const MAX_TIMEOUT = 2 ** 31 - 1;

export interface ConnectOptions {
  kernel?: Syscalls;
  /** How long to wait for somebody to listen, in ms; 5000 by default. */
  timeout?: number;
}

/** One end of a connection. Messages arrive whole, in order and once, or not at all. */
export class Channel implements Disposable {
  readonly kernel: Syscalls;
  readonly #fd: number;
  readonly #buffer = new Uint8Array(MAX_MESSAGE);
  /** Messages whose descriptors nobody has taken. */
  readonly #messages = new Set<ChannelMessage>();
  #wait: Wait<ChannelMessage> | undefined;
  #closed = false;

  private constructor(kernel: Syscalls, fd: number) {
    this.kernel = kernel;
    this.#fd = fd;
  }

  /** Two ends that are connected: one to keep, one for a process that is about to be started. @throws KernelError */
  static pair(kernel: Syscalls = defaultKernel()): [Channel, Channel] {
    const pair = kernel.socketPair(SOCK_SEQPACKET);
    if (typeof pair === 'number') throw new KernelError(-pair, { syscall: 'socketpair' });
    return [new Channel(kernel, pair[0]), new Channel(kernel, pair[1])];
  }

  /** Takes over a connected socket of type SOCK_SEQPACKET, such as one that was inherited. */
  static adopt(fd: number, kernel: Syscalls = defaultKernel()): Channel {
    return new Channel(kernel, checkInteger('fd', fd, 0, 0x7fff_ffff));
  }

  /**
   * Connects to a {@link ChannelListener}, as soon as there is one. It need not have accepted when this resolves.
   *
   * @param path of the file system, or a name of the abstract namespace after `@`; 1 to 107 bytes
   * @throws HandoffError: TIMEOUT when nobody listens in time; KernelError: EACCES for a socket of another user.
   */
  static async connect(path: string, options: ConnectOptions = {}): Promise<Channel> {
    const { kernel = defaultKernel() } = options;
    const timeout = checkInteger('timeout', options.timeout ?? CONNECT_MS, 0, MAX_TIMEOUT);
    socketAddress(path);
    const deadline = Date.now() + timeout;
    for (;;) {
      const channel = tryConnect(kernel, path);
      if (channel !== undefined) return new Channel(kernel, channel);
      const left = deadline - Date.now();
      if (left <= 0) {
        throw new HandoffError(HandoffErrorCode.Timeout, `nobody listened at ${path} within ${timeout} ms`);
      }
      await sleep(Math.min(left, CONNECT_POLL_MS));
    }
  }

  /** The socket. @throws DisposedError */
  get fd(): number {
    if (this.#closed) throw new DisposedError('Channel');
    return this.#fd;
  }

  /**
   * Sends a message, with descriptors that the receiver gets as its own. Returns when it is with the kernel: the receiver
   * gets it even if this process ends now.
   *
   * @param kind 1 to 255 of the characters `0-9A-Za-z,._+*#?@-`
   * @param fds at most 253
   * @throws TypeError, RangeError, also for more than 64 KiB; HandoffError: PEER_GONE; KernelError: EAGAIN when the
   * receiver has left too much unread, EBADF, ETOOMANYREFS. Nothing is sent then.
   */
  send(kind: string, fields: MessageFields = new Map(), fds: readonly number[] = []): void {
    const bytes = encodeMessage(kind, fields);
    checkInteger('the number of descriptors', fds.length, 0, SCM_MAX_FD);
    for (const fd of fds) checkInteger('fd', fd, 0, 0x7fff_ffff);
    const sent = this.kernel.sendMessage(this.fd, bytes, fds);
    if (sent === -EPIPE || sent === -ECONNRESET) throw gone();
    check(sent, 'sendmsg', { args: { kind, descriptors: fds.length } });
  }

  /**
   * Waits for the next message. One call at a time. A message that comes too late is there for the next.
   *
   * @param timeout in ms; 0 is for what has arrived already
   * @throws HandoffError: TIMEOUT, PEER_GONE when the other side is closed and everything it sent was received, PROTOCOL
   * and VERSION for what is no message of this version, which is dropped; DisposedError when the channel is disposed of
   * meanwhile; KernelError
   */
  async receive(timeout: number): Promise<ChannelMessage> {
    checkInteger('timeout', timeout, 0, MAX_TIMEOUT);
    const { fd } = this;
    if (this.#wait) throw new Error('a receive on this channel has not ended');
    const expired = (): Error =>
      new HandoffError(HandoffErrorCode.Timeout, `the other side sent nothing within ${timeout} ms`);
    this.#wait = whenReadable(this.kernel, fd, timeout, () => this.#tryReceive(), expired);
    try {
      return await this.#wait.result;
    } finally {
      this.#wait = undefined;
    }
  }

  #tryReceive(): ChannelMessage | undefined {
    const { kernel } = this;
    let received = kernel.receiveMessage(this.#fd, this.#buffer);
    // The other side closed and had not read everything. That is told once, and what it had sent before is still there.
    if (received === -ECONNRESET) received = kernel.receiveMessage(this.#fd, this.#buffer);
    if (received === -EAGAIN) return undefined;
    if (received === -ECONNRESET) throw gone();
    if (received === -EMSGSIZE) {
      throw new HandoffError(
        HandoffErrorCode.Protocol,
        `the other side sends more than ${MAX_MESSAGE} bytes, or more descriptors than this process may have`,
        { hint: 'See what the other side is, and what RLIMIT_NOFILE (ulimit -n) is here' },
      );
    }
    if (typeof received === 'number') throw new KernelError(-received, { syscall: 'recvmsg' });
    const { length, fds } = received;
    if (length === 0 && fds.length === 0) throw gone();
    try {
      const content = { ...decodeMessage(this.#buffer.subarray(0, length)), fds };
      const message = new ChannelMessage(kernel, content, each => this.#messages.delete(each));
      if (fds.length > 0) this.#messages.add(message);
      return message;
    } catch (error) {
      undo(error, [() => closeAll(kernel, fds)]);
    }
  }

  /** Closes it: the other side gets what was sent, and then PEER_GONE. A receive that waits ends. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#wait?.cancel(new DisposedError('Channel'));
    runAll([
      () => void check(this.kernel.close(this.#fd), 'close', { path: 'channel' }),
      ...[...this.#messages].map(message => () => message[Symbol.dispose]()),
    ]);
  }
}

function gone(): HandoffError {
  return new HandoffError(HandoffErrorCode.PeerGone, 'the other side closed the channel');
}

/** @returns undefined when nobody listens there, yet */
function tryConnect(kernel: Syscalls, path: string): number | undefined {
  const fd = check(kernel.socket(SOCK_SEQPACKET), 'socket');
  const connected = kernel.connect(fd, path);
  if (connected >= 0) return fd;
  kernel.close(fd);
  // EAGAIN: as many as it takes wait to be accepted.
  if (connected === -ENOENT || connected === -ECONNREFUSED || connected === -EAGAIN) return undefined;
  throw new KernelError(-connected, { syscall: 'connect', path });
}
