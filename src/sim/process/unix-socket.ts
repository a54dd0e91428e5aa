/**
 * Sockets of family `AF_UNIX` between the processes of one machine: messages with descriptors, over connections
 * (`SOCK_SEQPACKET`) or without (`SOCK_DGRAM`). Never blocks (net/unix/af_unix.c).
 *
 * @module
 */
import {
  EAGAIN,
  ECONNREFUSED,
  ECONNRESET,
  EINVAL,
  EISCONN,
  EMSGSIZE,
  ENOTCONN,
  EOPNOTSUPP,
  EPERM,
  EPIPE,
} from '../../../bindings/uapi/errno.js';
import { SOCK_SEQPACKET } from '../../../bindings/uapi/socket.js';
import { OpenFile } from './open-file.js';

/** What a sender may have on the way, in bytes (net.core.wmem_default). */
const SEND_BUFFER = 212_992;
/** What the kernel takes for itself of each message that is on the way, in bytes: some of a small one's. */
const OVERHEAD = 768;
/** How many messages wait at a socket that is not connected to their sender (net.unix.max_dgram_qlen). */
const DATAGRAMS = 10;
/** net.core.somaxconn */
const MAX_BACKLOG = 4096;

/** A message on its way. */
export interface Packet {
  readonly bytes: Uint8Array;
  /** Open files, with a reference each. */
  readonly files: readonly OpenFile[];
}

interface Queued extends Packet {
  readonly sender: UnixSocket;
}

let sockets = 0;

export class UnixSocket extends OpenFile {
  override readonly name: string;
  readonly type: number;
  #state: 'unconnected' | 'listening' | 'connected' = 'unconnected';
  #peer: UnixSocket | undefined;
  readonly #queue: Queued[] = [];
  /** Connections that nobody has accepted yet. */
  readonly #pending: UnixSocket[] = [];
  #backlog = 0;
  /** Bytes that this one sent and nobody has received. */
  #onTheWay = 0;
  /** To be reported once. */
  #error = 0;
  /** The other end of the connection is closed. */
  #hungUp = false;
  #closed = false;
  #unbind: (() => void) | undefined;

  constructor(type: number) {
    super();
    this.name = `socket:[${++sockets}]`;
    this.type = type;
  }

  /** Two sockets that are connected to each other. */
  static pair(type: number): [UnixSocket, UnixSocket] {
    const one = new UnixSocket(type);
    const other = new UnixSocket(type);
    one.#join(other);
    return [one, other];
  }

  #join(other: UnixSocket): void {
    this.#peer = other;
    other.#peer = this;
    this.#state = 'connected';
    other.#state = 'connected';
  }

  get closed(): boolean {
    return this.#closed;
  }

  get bound(): boolean {
    return this.#unbind !== undefined;
  }

  /** It has a name from now on; `unbind` is called when it is closed. */
  bindTo(unbind: () => void): void {
    this.#unbind = unbind;
  }

  /** `listen(2)`. */
  listen(backlog: number): number {
    if (this.type !== SOCK_SEQPACKET) return -EOPNOTSUPP;
    if (!this.bound || this.#state === 'connected') return -EINVAL;
    this.#backlog = backlog < 0 ? MAX_BACKLOG : Math.min(backlog, MAX_BACKLOG);
    this.#state = 'listening';
    return 0;
  }

  /** `connect(2)` to a socket of the same type. */
  connect(other: UnixSocket): number {
    return this.type === SOCK_SEQPACKET ? this.#connectStream(other) : this.#connectDatagram(other);
  }

  #connectStream(listener: UnixSocket): number {
    if (listener.#state !== 'listening') return -ECONNREFUSED;
    if (listener.#pending.length > listener.#backlog) return -EAGAIN;
    if (this.#state !== 'unconnected') return this.#state === 'connected' ? -EISCONN : -EINVAL;
    const accepted = new UnixSocket(this.type);
    accepted.bindTo(() => undefined);
    this.#join(accepted);
    listener.#pending.push(accepted);
    listener.wake();
    return 0;
  }

  #connectDatagram(other: UnixSocket): number {
    if (!this.#maySendTo(other)) return -EPERM;
    this.#peer = other;
    this.#state = 'connected';
    return 0;
  }

  /** A datagram socket that is connected hears its peer alone. */
  #maySendTo(other: UnixSocket): boolean {
    return other.#peer === undefined || other.#peer === this;
  }

  /** `accept4(2)`. @returns a socket with one reference, or minus the errno */
  accept(): UnixSocket | number {
    if (this.type !== SOCK_SEQPACKET) return -EOPNOTSUPP;
    if (this.#state !== 'listening') return -EINVAL;
    return this.#pending.shift() ?? -EAGAIN;
  }

  /**
   * `sendmsg(2)`.
   *
   * @param collect takes references to the files of the message, once they are wanted; minus EBADF when it cannot
   * @returns the bytes sent, or minus the errno: then no reference is kept
   */
  send(bytes: Uint8Array, collect: () => OpenFile[] | number): number {
    if (this.type === SOCK_SEQPACKET) {
      const error = this.#takeError();
      if (error < 0) return error;
      if (this.#state !== 'connected') return -ENOTCONN;
    }
    const files = collect();
    if (typeof files === 'number') return files;
    const result = this.#deliver({ bytes: bytes.slice(), files });
    if (result < 0) for (const file of files) file.put();
    return result;
  }

  #deliver(packet: Packet): number {
    const length = packet.bytes.byteLength;
    const peer = this.#peer;
    if (peer === undefined) return -ENOTCONN;
    if (length > SEND_BUFFER - 32) return -EMSGSIZE;
    const error = this.#takeError();
    if (error < 0) return error;
    if (this.#hungUp) return -EPIPE;
    if (this.#onTheWay >= SEND_BUFFER) return -EAGAIN;
    if (!this.#maySendTo(peer)) return -EPERM;
    if (peer.#closed) {
      this.#peer = undefined;
      this.#state = 'unconnected';
      return -ECONNREFUSED;
    }
    // A pair is limited by what its ends send; others are limited by what waits at them.
    if (peer.#peer !== this && peer !== this && peer.#queue.length > DATAGRAMS) return -EAGAIN;
    this.#onTheWay += length + OVERHEAD;
    peer.#queue.push({ ...packet, sender: this });
    peer.wake();
    return length;
  }

  /** `recvmsg(2)`. @returns a message, whose references are the caller's; undefined at the end; minus the errno */
  receive(): Packet | undefined | number {
    if (this.type === SOCK_SEQPACKET && this.#state !== 'connected') return -ENOTCONN;
    const error = this.#takeError();
    if (error < 0) return error;
    const packet = this.#take();
    return packet ?? (this.#hungUp ? undefined : -EAGAIN);
  }

  #take(): Packet | undefined {
    const packet = this.#queue.shift();
    if (packet !== undefined) packet.sender.#onTheWay -= packet.bytes.byteLength + OVERHEAD;
    return packet;
  }

  #takeError(): number {
    const error = this.#error;
    this.#error = 0;
    return -error;
  }

  override get readable(): boolean {
    if (this.#queue.length > 0 || this.#pending.length > 0 || this.#error !== 0) return true;
    // Without a connection it counts as hung up.
    return this.#hungUp || (this.type === SOCK_SEQPACKET && this.#state === 'unconnected');
  }

  protected override release(): void {
    this.#close(this.#queue.length > 0);
  }

  /** @param lost something that the peer has sent was not received, and never will be */
  #close(lost: boolean): void {
    this.#closed = true;
    this.#unbind?.();
    const peer = this.#peer;
    if (peer !== undefined && this.type === SOCK_SEQPACKET) {
      peer.#hungUp = true;
      if (lost) peer.#error = ECONNRESET;
      peer.wake();
    }
    for (let packet = this.#take(); packet !== undefined; packet = this.#take()) {
      for (const file of packet.files) file.put();
    }
    for (const connection of this.#pending.splice(0)) connection.#close(true);
  }
}
