/** A session that the kernel before this one left. @module */
import { ENOENT } from '../../../bindings/uapi/errno.js';
import type { MemoryObject } from '../machine/memory-object.js';
import type { PhysicalMemory } from '../machine/physical-memory.js';
import type { MemFd } from '../process/memfd.js';
import { restoreFile, restoreMemory } from './memory.js';
import type { PreservedMemory, PreservedSession } from './preserved.js';

interface IncomingFile {
  readonly preserved: PreservedMemory;
  /** Held until the file is retrieved, or nobody can any more. */
  readonly memory: MemoryObject;
  /** Once it was retrieved: the session has a reference until it is finished. */
  file: MemFd | undefined;
}

export class IncomingSession {
  readonly kind = 'incoming';
  readonly name: string;
  /** It has, or had, a descriptor. */
  retrieved = false;
  /** The files of all sessions. */
  readonly #taken: Set<MemFd>;
  readonly #files = new Map<bigint, IncomingFile>();

  constructor(session: PreservedSession, physical: PhysicalMemory, taken: Set<MemFd>) {
    this.name = session.name;
    this.#taken = taken;
    for (const { token, memory } of session.files) {
      this.#files.set(token, { preserved: memory, memory: restoreMemory(physical, memory), file: undefined });
    }
  }

  /** The file of that token, with a reference for the caller; the same one each time. @returns minus ENOENT */
  retrieve(token: bigint): MemFd | number {
    const entry = this.#files.get(token);
    if (entry === undefined) return -ENOENT;
    if (entry.file === undefined) {
      entry.file = restoreFile(entry.memory, entry.preserved);
      this.#taken.add(entry.file);
    }
    return entry.file.get();
  }

  /** Lets go of all files. Memory that nobody retrieved is free then. */
  finish(): void {
    for (const { file, memory } of [...this.#files.values()].reverse()) {
      if (file === undefined) {
        memory.put();
        continue;
      }
      this.#taken.delete(file);
      file.put();
    }
    this.#files.clear();
  }
}
