/** The system calls on sockets, as a process makes them. @module */
import { EBADF, EMSGSIZE, ENOTSOCK } from '../../../bindings/uapi/errno.js';
import type { OpenFile } from './open-file.js';
import type { SimulatedProcess } from './process.js';
import { UnixSocket } from './unix-socket.js';

/** The socket behind a descriptor. @returns minus EBADF or ENOTSOCK */
export function socketOf(process: SimulatedProcess, fd: number): UnixSocket | number {
  const file = process.file(fd);
  if (file === undefined) return -EBADF;
  return file instanceof UnixSocket ? file : -ENOTSOCK;
}

/** `socketpair(2)`. */
export function makePair(process: SimulatedProcess, type: number): readonly [number, number] | number {
  const [one, other] = UnixSocket.pair(type);
  const first = process.install(one);
  if (first < 0) {
    other.put();
    return first;
  }
  const second = process.install(other);
  if (second >= 0) return [first, second];
  process.close(first);
  return second;
}

/** `sendmsg(2)`. */
export function sendMessage(
  process: SimulatedProcess,
  fd: number,
  bytes: Uint8Array,
  fds: readonly number[],
): number {
  const socket = socketOf(process, fd);
  if (typeof socket === 'number') return socket;
  return socket.send(bytes, () => {
    const files = fds.map(each => process.file(each));
    if (!files.every(file => file !== undefined)) return -EBADF;
    return files.map(file => file.get());
  });
}

/** `recvmsg(2)`. */
export function receiveMessage(
  process: SimulatedProcess,
  fd: number,
  buffer: Uint8Array,
): { readonly length: number; readonly fds: readonly number[] } | number {
  const socket = socketOf(process, fd);
  if (typeof socket === 'number') return socket;
  const packet = socket.receive();
  if (packet === undefined) return { length: 0, fds: [] };
  if (typeof packet === 'number') return packet;
  const { bytes, files } = packet;
  buffer.set(bytes.subarray(0, buffer.byteLength));
  const fds = installAll(process, files);
  const complete = bytes.byteLength <= buffer.byteLength && fds.length === files.length;
  if (complete) return { length: bytes.byteLength, fds };
  for (const each of fds) process.close(each);
  return -EMSGSIZE;
}

/** As many as the process may have; the others are put. */
function installAll(process: SimulatedProcess, files: readonly OpenFile[]): number[] {
  const fds: number[] = [];
  for (const file of files) {
    const fd = process.install(file);
    if (fd >= 0) fds.push(fd);
  }
  return fds;
}
