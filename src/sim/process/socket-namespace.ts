/** The names of sockets on one booted kernel: the abstract ones, and files in directories that take such. @module */
import { posix } from 'node:path';
import {
  EADDRINUSE,
  ECONNREFUSED,
  EINVAL,
  EISDIR,
  ENOENT,
  ENOTDIR,
  EPERM,
  EPROTOTYPE,
} from '../../../bindings/uapi/errno.js';
import { type DirectoryNode, type FileNode, resolve, ScratchDirectory } from './file-tree.js';
import type { UnixSocket } from './unix-socket.js';

interface Place {
  readonly directory: DirectoryNode;
  readonly name: string;
  readonly node: FileNode | undefined;
}

export class SocketNamespace {
  readonly #root: DirectoryNode;
  /** By type and name, as the kernel's table has it: sockets of different types do not see each other. */
  readonly #abstract = new Map<string, UnixSocket>();

  constructor(root: DirectoryNode) {
    this.#root = root;
  }

  /** `bind(2)`, of a path that a socket may have. @returns 0, or minus the errno */
  bind(socket: UnixSocket, path: string): number {
    if (path.startsWith('@')) {
      if (socket.bound) return -EINVAL;
      const key = keyOf(socket, path);
      if (this.#abstract.has(key)) return -EADDRINUSE;
      this.#abstract.set(key, socket);
      socket.bindTo(() => this.#abstract.delete(key));
      return 0;
    }
    const place = this.#place(path);
    if (typeof place === 'number') return place;
    if (place.node !== undefined) return -EADDRINUSE;
    if (!(place.directory instanceof ScratchDirectory)) return -EPERM;
    if (socket.bound) return -EINVAL;
    // The file stays when the socket goes.
    place.directory.set(place.name, { kind: 'socket', socket });
    socket.bindTo(() => undefined);
    return 0;
  }

  /** The socket of a name, for one that wants to connect to it. @returns minus the errno where there is none */
  find(seeker: UnixSocket, path: string): UnixSocket | number {
    if (path.startsWith('@')) return this.#abstract.get(keyOf(seeker, path)) ?? -ECONNREFUSED;
    const node = resolve(this.#root, path);
    if (typeof node === 'number') return node;
    if (node.kind !== 'socket' || node.socket.closed) return -ECONNREFUSED;
    return node.socket.type === seeker.type ? node.socket : -EPROTOTYPE;
  }

  /** `unlink(2)`. @returns 0, or minus the errno */
  unlink(path: string): number {
    const place = this.#place(path);
    if (typeof place === 'number') return place;
    if (place.node === undefined) return -ENOENT;
    if (place.node.kind === 'directory') return -EISDIR;
    if (!(place.directory instanceof ScratchDirectory)) return -EPERM;
    place.directory.delete(place.name);
    return 0;
  }

  #place(path: string): Place | number {
    const name = posix.basename(path);
    const directory = resolve(this.#root, posix.dirname(path));
    if (typeof directory === 'number') return directory;
    if (directory.kind !== 'directory') return -ENOTDIR;
    return { directory, name, node: name === '' ? directory : directory.entry(name) };
  }
}

function keyOf({ type }: UnixSocket, path: string): string {
  return `${type}${path}`;
}
