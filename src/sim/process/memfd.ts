/** `memfd_create(2)`: memory with a descriptor, which can be sealed. @module */
import { EBUSY, EINVAL, ENOMEM, EPERM } from '../../../bindings/uapi/errno.js';
import {
  F_ADD_SEALS,
  F_GET_SEALS,
  F_SEAL_EXEC,
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
} from '../../../bindings/uapi/fcntl.js';
import { MAP_SHARED, PROT_WRITE } from '../../../bindings/uapi/mman.js';
import { MemoryObject } from '../machine/memory-object.js';
import { PAGE } from '../machine/physical-memory.js';
import { type Mappable, newInode, OpenFile } from './open-file.js';
import type { SimulatedProcess } from './process.js';

const ALL_SEALS =
  F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_EXEC;
/** What nobody can seal away: a file system's limit on the size of a file. */
const MAX_SIZE = 2 ** 53 - 1;

export class MemFd extends OpenFile {
  override readonly name: string;
  override readonly inode = newInode();
  readonly memory: MemoryObject;
  /** Its mode has the bits for execution. */
  readonly executable: boolean;
  #seals: number;
  #writeableMappings = 0;
  /** Its content must stay as it is until a kexec: no size changes. */
  frozen = false;
  /** Where the next read or write begins, in bytes. */
  position = 0;

  /** Takes over the caller's reference to the memory. */
  constructor(name: string, memory: MemoryObject, seals: number, executable = true) {
    super();
    this.executable = executable;
    this.name = `/memfd:${name} (deleted)`;
    this.memory = memory;
    this.#seals = seals;
  }

  get seals(): number {
    return this.#seals;
  }

  /** Made of huge pages. */
  get huge(): boolean {
    return this.memory.pageSize > PAGE;
  }

  override fcntl(_process: SimulatedProcess, command: number, argument: number): number {
    if (command === F_GET_SEALS) return this.#seals;
    return command === F_ADD_SEALS ? this.addSeals(argument) : -EINVAL;
  }

  /** Adds F_SEAL_*. @returns 0, or minus the errno */
  addSeals(seals: number): number {
    if (seals & ~ALL_SEALS) return -EINVAL;
    if (this.#seals & F_SEAL_SEAL) return -EPERM;
    // What can be executed, and is to stay so, cannot be written either.
    if (seals & F_SEAL_EXEC && this.executable) {
      seals |= F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
    }
    if (seals & F_SEAL_WRITE && !(this.#seals & F_SEAL_WRITE)) {
      if (this.#writeableMappings > 0 || this.memory.pinned) return -EBUSY;
    }
    this.#seals |= seals;
    return 0;
  }

  override ftruncate(_process: SimulatedProcess, length: number): number {
    if (length > MAX_SIZE) return -EINVAL;
    if (length % this.memory.pageSize !== 0 && this.huge) return -EINVAL;
    if (length < this.memory.size && this.#seals & F_SEAL_SHRINK) return -EPERM;
    if (length > this.memory.size && this.#seals & F_SEAL_GROW) return -EPERM;
    if (length !== this.memory.size && this.frozen) return -EPERM;
    this.memory.resize(length);
    return 0;
  }

  override pread(_process: SimulatedProcess, buffer: Uint8Array, offset: number): number {
    const count = Math.max(0, Math.min(buffer.byteLength, this.memory.size - offset));
    buffer.set(this.memory.bytes.subarray(offset, offset + count));
    return count;
  }

  override pwrite(process: SimulatedProcess, buffer: Uint8Array, offset: number): number {
    if (buffer.byteLength === 0) return 0;
    if (this.huge) return -EINVAL;
    if (this.#seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) return -EPERM;
    const end = offset + buffer.byteLength;
    if (end > this.memory.size) {
      const grown = this.ftruncate(process, end);
      if (grown < 0) return grown;
    }
    this.memory.bytes.set(buffer, offset);
    return buffer.byteLength;
  }

  override read(process: SimulatedProcess, buffer: Uint8Array): number {
    const count = this.pread(process, buffer, this.position);
    this.position += count;
    return count;
  }

  override write(process: SimulatedProcess, buffer: Uint8Array): number {
    const count = this.pwrite(process, buffer, this.position);
    if (count > 0) this.position += count;
    return count;
  }

  override mmap(
    process: SimulatedProcess,
    length: number,
    protection: number,
    flags: number,
    offset: number,
  ): Mappable | number {
    const sealed = (this.#seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) !== 0;
    if (sealed && protection & PROT_WRITE && flags & MAP_SHARED) return -EPERM;
    if (this.huge) {
      if (offset % this.memory.pageSize !== 0) return -EINVAL;
      // Huge pages are promised when they are mapped, not when they are touched.
      if (!this.memory.populate(offset / PAGE, length / PAGE)) return -ENOMEM;
    }
    if (!(flags & MAP_SHARED)) {
      // Not copied page by page as they are written to, which nobody sees here, but all at once.
      const copy = new MemoryObject(process.host.physical, this.name, length, this.memory.pageSize);
      copy.bytes.set(this.memory.bytes.subarray(offset, offset + length));
      return { memory: copy, offset: 0 };
    }
    if (sealed) return { memory: this.memory.get(), offset };
    // Whatever it may do now: `mprotect` could make it writeable.
    this.#writeableMappings++;
    return { memory: this.memory.get(), offset, unmapped: () => this.#writeableMappings-- };
  }

  protected override release(): void {
    this.memory.put();
  }
}
