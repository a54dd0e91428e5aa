/** Memory of the process that a case runs in: mapped, from a memfd or not, in pages of 4 KiB or huge ones. @module */
import type { Syscalls } from '../../../bindings/syscalls.js';
import { MFD_CLOEXEC, MFD_HUGETLB } from '../../../bindings/uapi/memfd.js';
import {
  MAP_ANONYMOUS,
  MAP_HUGETLB,
  MAP_POPULATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE,
} from '../../../bindings/uapi/mman.js';
import { equal, holds, outcome, succeeds } from './expect.js';
import type { Caller } from './ioctl.js';

/** In bytes, on every machine of the suite. */
export const PAGE = 4096;
/** In bytes. */
export const HUGE_PAGE = 2 ** 21;

/** Memory with an address. Its bytes dangle once it is disposed. */
export interface Memory extends Disposable {
  readonly kernel: Syscalls;
  readonly address: bigint;
  /** In bytes. */
  readonly length: number;
  readonly bytes: Uint8Array;
}

/** The memory of a memfd, and its descriptor. */
export interface FileMemory extends Memory {
  readonly fd: number;
}

class Mapping implements FileMemory {
  readonly kernel: Syscalls;
  readonly fd: number;
  readonly address: bigint;
  readonly length: number;
  readonly #start: bigint;
  readonly #mapped: number;
  #bytes: Uint8Array | undefined;

  constructor(
    kernel: Syscalls,
    length: number,
    { fd = -1, flags, alignment = PAGE }: { fd?: number; flags: number; alignment?: number },
  ) {
    this.kernel = kernel;
    this.fd = fd;
    this.length = length;
    // An address is the kernel's to choose; a mapping that is large enough has an aligned one inside it.
    this.#mapped = alignment > PAGE ? length + alignment : length;
    const address = kernel.mmap(this.#mapped, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (address < 0n && fd !== -1) kernel.close(fd);
    holds(address >= 0n, () => `mmap of ${this.#mapped} bytes: ${outcome(Number(address))}`);
    this.#start = address;
    const over = Number(address % BigInt(alignment));
    this.address = address + BigInt(over === 0 ? 0 : alignment - over);
  }

  /** Only on demand: the larger ones are for devices, and nobody looks. */
  get bytes(): Uint8Array {
    this.#bytes ??= new Uint8Array(
      this.kernel.view(this.#start, this.#mapped),
      Number(this.address - this.#start),
      this.length,
    );
    return this.#bytes;
  }

  [Symbol.dispose](): void {
    this.#bytes = undefined;
    equal(this.kernel.munmap(this.#start, this.#mapped), 0, 'munmap');
    if (this.fd !== -1) equal(this.kernel.close(this.fd), 0, 'close of a memfd');
  }
}

/** Anonymous memory, as shared as a child by `fork` would have it. `alignment` in bytes. */
export function anonymous({ kernel }: Caller, length: number, alignment = PAGE): Memory {
  return new Mapping(kernel, length, { flags: MAP_SHARED | MAP_ANONYMOUS, alignment });
}

/** Anonymous memory in pages of 2 MiB, all of them there. */
export function anonymousHuge({ kernel }: Caller, length: number): Memory {
  const flags = MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE;
  return new Mapping(kernel, length, { flags });
}

/** A memfd of `length` bytes, mapped. */
export function memfd({ kernel }: Caller, length: number, { huge = false } = {}): FileMemory {
  const fd = succeeds(kernel.memfdCreate('buffer', MFD_CLOEXEC | (huge ? MFD_HUGETLB : 0)), 'memfd_create');
  succeeds(kernel.ftruncate(fd, length), 'ftruncate');
  return mapMemfd({ kernel }, fd, length);
}

/** Maps a memfd of `length` bytes, taking over the descriptor. */
export function mapMemfd({ kernel }: Caller, fd: number, length: number): FileMemory {
  return new Mapping(kernel, length, { fd, flags: MAP_SHARED });
}
