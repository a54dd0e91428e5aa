/**
 * `struct msghdr` of one message with descriptors, as `sendmsg(2)` and `recvmsg(2)` want it: header, one `struct iovec`
 * and one control message in one piece of memory (linux/socket.h, 64-bit).
 *
 * @module
 */
import { SCM_MAX_FD } from './socket-arguments.js';
import { MSG_CTRUNC, MSG_TRUNC, SCM_RIGHTS, SOL_SOCKET } from './uapi/socket.js';

const Header = { iov: 16, iovCount: 24, control: 32, controlLength: 40, flags: 48 } as const;
const IOV = 56;
const IOV_LENGTH = IOV + 8;
const CONTROL = IOV + 16;
const Control = { length: 0, level: 8, type: 12, data: 16 } as const;
const FD_SIZE = 4;
const aligned = (length: number): number => (length + 7) & ~7;
const CONTROL_SPACE = aligned(Control.data + SCM_MAX_FD * FD_SIZE);

/** Used for one call after the other: what a call needs is reachable until the next. */
export class Message {
  /** The `struct msghdr`. */
  readonly header = new Uint8Array(CONTROL + CONTROL_SPACE);
  readonly #view = new DataView(this.header.buffer);
  readonly #addressOf: (bytes: Uint8Array) => bigint;
  readonly #address: bigint;
  /** The header has its address only. */
  protected payload: Uint8Array | undefined;

  constructor(addressOf: (bytes: Uint8Array) => bigint) {
    this.#addressOf = addressOf;
    this.#address = addressOf(this.header);
  }

  /** @param fds at most `SCM_MAX_FD` */
  toSend(payload: Uint8Array, fds: readonly number[]): void {
    const length = Control.data + fds.length * FD_SIZE;
    this.#prepare(payload, fds.length === 0 ? 0 : aligned(length));
    if (fds.length === 0) return;
    this.#view.setBigUint64(CONTROL + Control.length, BigInt(length), true);
    this.#view.setInt32(CONTROL + Control.level, SOL_SOCKET, true);
    this.#view.setInt32(CONTROL + Control.type, SCM_RIGHTS, true);
    for (const [i, fd] of fds.entries()) {
      this.#view.setInt32(CONTROL + Control.data + i * FD_SIZE, fd, true);
    }
  }

  toReceive(buffer: Uint8Array): void {
    this.#prepare(buffer, CONTROL_SPACE);
  }

  /** After a call: lets go of the payload. */
  done(): void {
    this.payload = undefined;
  }

  /** After receiving: something of the message is missing. */
  get truncated(): boolean {
    return (this.#view.getInt32(Header.flags, true) & (MSG_TRUNC | MSG_CTRUNC)) !== 0;
  }

  /** After receiving: the descriptors that came. */
  get fds(): number[] {
    const fds: number[] = [];
    const end = CONTROL + this.#length(Header.controlLength);
    for (let at = CONTROL; at + Control.data <= end; ) {
      const length = this.#length(at + Control.length);
      if (length < Control.data || at + length > end) break;
      const level = this.#view.getInt32(at + Control.level, true);
      const type = this.#view.getInt32(at + Control.type, true);
      if (level === SOL_SOCKET && type === SCM_RIGHTS) {
        for (let fd = at + Control.data; fd + FD_SIZE <= at + length; fd += FD_SIZE) {
          fds.push(this.#view.getInt32(fd, true));
        }
      }
      at += aligned(length);
    }
    return fds;
  }

  #prepare(payload: Uint8Array, control: number): void {
    this.payload = payload;
    this.header.fill(0, 0, CONTROL);
    this.#view.setBigUint64(Header.iov, this.#address + BigInt(IOV), true);
    this.#view.setBigUint64(Header.iovCount, 1n, true);
    if (control > 0) this.#view.setBigUint64(Header.control, this.#address + BigInt(CONTROL), true);
    this.#view.setBigUint64(Header.controlLength, BigInt(control), true);
    // What is empty has no address.
    if (payload.byteLength > 0) this.#view.setBigUint64(IOV, this.#addressOf(payload), true);
    this.#view.setBigUint64(IOV_LENGTH, BigInt(payload.byteLength), true);
  }

  #length(at: number): number {
    return Number(this.#view.getBigUint64(at, true));
  }
}
