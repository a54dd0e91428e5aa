/** The descriptors of a process, and what they refer to. @module */
import { EBADF, EINVAL, EMFILE } from '../../../bindings/uapi/errno.js';
import { F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, FD_CLOEXEC } from '../../../bindings/uapi/fcntl.js';
import type { OpenFile } from './open-file.js';

/** 0 to 2 are the standard streams, which the simulation has no part in. */
const FIRST = 3;
/** RLIMIT_NOFILE */
const LIMIT = 1024 * 1024;

interface Descriptor {
  readonly file: OpenFile;
  closeOnExec: boolean;
}

export class DescriptorTable {
  readonly #descriptors: (Descriptor | undefined)[] = [];

  get(fd: number): OpenFile | undefined {
    return this.#descriptors[fd]?.file;
  }

  /** Descriptors in use, in order. */
  get files(): Map<number, OpenFile> {
    const files = new Map<number, OpenFile>();
    for (const [fd, descriptor] of this.#descriptors.entries()) {
      if (descriptor !== undefined) files.set(fd, descriptor.file);
    }
    return files;
  }

  /** The lowest free descriptor from `from` on. Takes over the caller's reference. @returns minus EMFILE: it is put */
  install(file: OpenFile, closeOnExec: boolean, from = FIRST): number {
    let fd = Math.max(from, FIRST);
    while (this.#descriptors[fd] !== undefined) fd++;
    if (fd >= LIMIT) {
      file.put();
      return -EMFILE;
    }
    this.#descriptors[fd] = { file, closeOnExec };
    return fd;
  }

  /** @returns 0, or minus EBADF */
  close(fd: number): number {
    const file = this.get(fd);
    if (file === undefined) return -EBADF;
    this.#descriptors[fd] = undefined;
    file.put();
    return 0;
  }

  /** What `fcntl(2)` does to a descriptor rather than to its file. @returns undefined for other commands */
  control(fd: number, command: number, argument: number): number | undefined {
    const descriptor = this.#descriptors[fd];
    if (descriptor === undefined) return -EBADF;
    if (command === F_GETFD) return descriptor.closeOnExec ? FD_CLOEXEC : 0;
    if (command === F_SETFD) {
      descriptor.closeOnExec = (argument & FD_CLOEXEC) !== 0;
      return 0;
    }
    if (command !== F_DUPFD_CLOEXEC) return undefined;
    return argument < 0 || argument >= LIMIT ? -EINVAL : this.install(descriptor.file.get(), true, argument);
  }

  /** Forgets all of them: nothing is closed. */
  forget(): void {
    this.#descriptors.length = 0;
  }
}
