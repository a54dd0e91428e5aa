/** A session of this kernel, which the next one gets. @module */
import { EBADF, EBUSY, EEXIST, ENOENT } from '../../../bindings/uapi/errno.js';
import type { PhysicalMemory } from '../machine/physical-memory.js';
import { MemFd } from '../process/memfd.js';
import type { OpenFile } from '../process/open-file.js';
import { PreservedFileMemory } from './memory.js';
import type { PreservedSession } from './preserved.js';

export class OutgoingSession {
  readonly kind = 'outgoing';
  readonly name: string;
  readonly #physical: PhysicalMemory;
  /** The files of all sessions. */
  readonly #taken: Set<MemFd>;
  readonly #files = new Map<bigint, PreservedFileMemory>();

  constructor(name: string, physical: PhysicalMemory, taken: Set<MemFd>) {
    this.name = name;
    this.#physical = physical;
    this.#taken = taken;
  }

  /**
   * Keeps the file under `token`.
   *
   * @returns minus EEXIST for a token in use, EBADF without a file, ENOENT for one that nobody can preserve, EBUSY for
   * one that is in a session, this or another, ENOMEM
   */
  preserve(token: bigint, file: OpenFile | undefined): number {
    if (this.#files.has(token)) return -EEXIST;
    if (file === undefined) return -EBADF;
    if (!(file instanceof MemFd) || file.huge) return -ENOENT;
    if (this.#taken.has(file)) return -EBUSY;
    const preserved = PreservedFileMemory.preserve(this.#physical, file);
    if (typeof preserved === 'number') return preserved;
    this.#taken.add(file);
    this.#files.set(token, preserved);
    return 0;
  }

  serialise(): PreservedSession {
    const files = Array.from(this.#files, ([token, file]) => ({ token, memory: file.serialise() }));
    return { name: this.name, files };
  }

  /** It was closed before a kexec: nothing of it is kept. */
  close(): void {
    for (const preserved of [...this.#files.values()].reverse()) {
      this.#taken.delete(preserved.file);
      preserved.unpreserve();
    }
    this.#files.clear();
  }
}
