/** `/proc/self`, as far as the library and its tests read it. @module */
import { PAGE } from '../machine/physical-memory.js';
import { Directory, type FileNode, type TextNode } from './file-tree.js';
import type { SimulatedProcess } from './process.js';

const kibibytes = (pages: number): string => `${(pages * PAGE) / 1024} kB`;

const status: TextNode = {
  kind: 'text',
  read: process =>
    [
      'Name:\tnode',
      `Pid:\t${process.pid}`,
      `VmLck:\t${kibibytes(process.lockedPages)}`,
      `VmPin:\t${kibibytes(process.pinnedPages)}`,
      '',
    ].join('\n'),
};

/** What `/proc/self/fd` and `/proc/self/fdinfo` have of a descriptor. */
export function descriptorFile(process: SimulatedProcess, path: string): FileNode | undefined {
  const [, directory, number] = /^\/proc\/self\/(fd|fdinfo)\/(\d+)$/.exec(path) ?? [];
  const file = number === undefined ? undefined : process.file(Number(number));
  if (file === undefined) return undefined;
  if (directory === 'fd') return { kind: 'link', target: () => file.name };
  const lines = ['pos:\t0', 'flags:\t02000002', 'mnt_id:\t1', `ino:\t${file.inode}`, ...file.details, ''];
  return { kind: 'text', read: () => lines.join('\n') };
}

/** The files of whichever process looks. */
export const processFiles = new Directory()
  .set('status', status)
  .set('mountinfo', { kind: 'text', read: () => '' });
