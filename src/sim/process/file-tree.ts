/** The files of the simulated machine: `/dev`, `/sys`, `/proc`, as a tree of nodes that are made when looked at. @module */
import { posix } from 'node:path';
import { EACCES, EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO } from '../../../bindings/uapi/errno.js';
import type { OpenFile } from './open-file.js';
import type { SimulatedProcess } from './process.js';
import type { UnixSocket } from './unix-socket.js';

/** A directory, whose entries may come and go. */
export interface DirectoryNode {
  readonly kind: 'directory';
  /** The names in it. */
  names(): Iterable<string>;
  entry(name: string): FileNode | undefined;
}

/** A small text file, such as an attribute in sysfs. */
export interface TextNode {
  readonly kind: 'text';
  /** The text, or minus the errno. Absent: not readable (EACCES). */
  read?(process: SimulatedProcess): string | number;
  /** 0 or more, or minus the errno. Absent: not writeable (EACCES). */
  write?(process: SimulatedProcess, text: string): number;
}

export interface LinkNode {
  readonly kind: 'link';
  /** As `readlink` gives it. */
  target(): string;
}

/** A file that is opened as what it is: a device node, or an attribute that is no text. */
export interface DeviceNode {
  readonly kind: 'device';
  /** An open file with one reference, or minus the errno. */
  open(process: SimulatedProcess, flags: number): OpenFile | number;
}

/** The file of a socket, which stays when the socket is closed. */
export interface SocketNode {
  readonly kind: 'socket';
  readonly socket: UnixSocket;
}

export type FileNode = DirectoryNode | TextNode | LinkNode | DeviceNode | SocketNode;

/** A directory whose entries are put in and taken out. */
export class Directory implements DirectoryNode {
  readonly kind = 'directory';
  readonly #entries = new Map<string, FileNode>();

  names(): string[] {
    return [...this.#entries.keys()];
  }

  entry(name: string): FileNode | undefined {
    return this.#entries.get(name);
  }

  set(name: string, node: FileNode): this {
    this.#entries.set(name, node);
    return this;
  }

  delete(name: string): void {
    this.#entries.delete(name);
  }

  /** The directory at `path` below this one; it and those on the way are made where they do not exist. */
  directory(path: string): Directory {
    let at: Directory = this;
    for (const name of path.split('/').filter(part => part !== '')) {
      const found = at.entry(name);
      const next = found instanceof Directory ? found : new Directory();
      if (next !== found) at.set(name, next);
      at = next;
    }
    return at;
  }
}

/** A directory such as `/run`, in which processes may make sockets and unlink what is there. */
export class ScratchDirectory extends Directory {}

/** A text that does not change, with a line end. */
export function constant(text: string): TextNode {
  return { kind: 'text', read: () => `${text}\n` };
}

/** Puts a file with a text, as it is, into a tree. */
export function putText(root: Directory, path: string, text: string): void {
  const { dir, base } = posix.parse(path);
  root.directory(dir).set(base, { kind: 'text', read: () => text });
}

/** A link to `target`. */
export function link(target: string): LinkNode {
  return { kind: 'link', target: () => target };
}

const MAX_LINKS = 40;

/**
 * The node at an absolute path.
 *
 * @param follow whether a link at the very end is followed
 * @returns minus the errno where there is none
 */
export function resolve(root: DirectoryNode, path: string, follow = true): FileNode | number {
  let links = 0;
  let rest = path.split('/').filter(part => part !== '');
  let at: FileNode = root;
  let place: string[] = [];
  const parents: FileNode[] = [root];
  while (rest.length > 0) {
    const name = rest.shift() as string;
    if (name === '.') continue;
    if (name === '..') {
      if (parents.length > 1) parents.pop();
      place = place.slice(0, -1);
      at = parents.at(-1) as FileNode;
      continue;
    }
    if (at.kind !== 'directory') return -ENOTDIR;
    const next: FileNode | undefined = at.entry(name);
    if (next === undefined) return -ENOENT;
    if (next.kind === 'link' && (follow || rest.length > 0)) {
      if (++links > MAX_LINKS) return -ELOOP;
      const target = posix.resolve(`/${place.join('/')}`, next.target());
      rest = [...target.split('/').filter(part => part !== ''), ...rest];
      at = root;
      place = [];
      parents.splice(1);
      continue;
    }
    at = next;
    place.push(name);
    parents.push(at);
  }
  return at;
}

/** The text of a node. */
export function readNode(process: SimulatedProcess, node: FileNode): string | number {
  if (node.kind === 'directory') return -EISDIR;
  if (node.kind === 'socket') return -ENXIO;
  if (node.kind !== 'text' || node.read === undefined) return -EACCES;
  return node.read(process);
}
