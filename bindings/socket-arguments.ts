/** What the calls on sockets can be given: checked before any is made, by whoever answers them. @module */
import { AF_UNIX, SOCK_DGRAM, SOCK_SEQPACKET } from './uapi/socket.js';

/** The most descriptors that a message can have (include/net/scm.h). */
export const SCM_MAX_FD = 253;
/** `sun_path` has 108 bytes, and one of them is the NUL after a path, or the one before an abstract name. */
const NAME_LIMIT = 107;
const FAMILY_SIZE = 2;

/** @throws TypeError or RangeError for what is neither `SOCK_SEQPACKET` nor `SOCK_DGRAM` */
export function checkSocketType(type: number): void {
  if (typeof type !== 'number') throw new TypeError(`type must be a number, got ${typeof type}`);
  if (type === SOCK_SEQPACKET || type === SOCK_DGRAM) return;
  throw new RangeError(`type must be SOCK_SEQPACKET or SOCK_DGRAM, got ${type}`);
}

/**
 * The `struct sockaddr_un` of a socket, of exactly the length that is to be passed with it (linux/un.h).
 *
 * @param path in the file system; in the abstract namespace when it begins with `@`
 * @throws TypeError for what is no string, RangeError for a path that does not fit or has a NUL
 */
export function socketAddress(path: string): Uint8Array {
  if (typeof path !== 'string') throw new TypeError(`path must be a string, got ${typeof path}`);
  const abstract = path.startsWith('@');
  const name = Buffer.from(abstract ? path.slice(1) : path, 'utf8');
  if (name.includes(0)) throw new RangeError('path must not contain NUL');
  if (name.length === 0 || name.length > NAME_LIMIT) {
    throw new RangeError(`the path of a socket has 1 to ${NAME_LIMIT} bytes, got ${name.length}`);
  }
  const address = new Uint8Array(FAMILY_SIZE + name.length + 1);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, FAMILY_SIZE + (abstract ? 1 : 0));
  return address;
}

/** @throws TypeError or RangeError for a message that cannot be sent */
export function checkMessage(bytes: Uint8Array, fds: readonly number[]): void {
  if (!(bytes instanceof Uint8Array)) throw new TypeError('bytes must be a Uint8Array');
  if (bytes.byteLength === 0) {
    throw new RangeError('bytes must not be empty: it would be taken for the end');
  }
  if (!Array.isArray(fds)) throw new TypeError('fds must be an array');
  if (fds.length > SCM_MAX_FD) {
    throw new RangeError(`a message has at most ${SCM_MAX_FD} descriptors, got ${fds.length}`);
  }
}
