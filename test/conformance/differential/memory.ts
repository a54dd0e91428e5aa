/**
 * The memory that sequences point into: the same for every sequence, and at addresses of the same alignment on every
 * kernel, since where the kernel puts a mapping depends on that.
 *
 * @module
 */
import type { Syscalls } from '../../../bindings/syscalls.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC, MFD_HUGE_2MB, MFD_HUGETLB } from '../../../bindings/uapi/memfd.js';
import {
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE,
} from '../../../bindings/uapi/mman.js';

const PAGE = 4096;
/** In bytes; windows begin at multiples of it. */
const WINDOW = 2 ** 21;
/** Beyond the end of a file, and so of a window, an access is a fault. */
export const MAPPED = 2 * WINDOW;
/** An address that no process has. */
export const NOWHERE = 0xffff_8880_0000_0000n;

export interface Window {
  readonly address: bigint;
  /** The file behind it. */
  readonly fd: number | undefined;
}

interface Shape {
  /** Of the file. */
  readonly pages: number;
  readonly protection?: number;
  readonly anonymous?: boolean;
  readonly huge?: boolean;
}

/** Windows of 2 MiB. What comes after one is known as well: nothing, or more of the same. */
const shapes: Readonly<Record<string, Shape>> = {
  /** The usual one. */
  shared: { pages: 512 },
  anonymous: { pages: 512, anonymous: true },
  readonly: { pages: 512, protection: PROT_READ },
  /** Behind its fourth page the file has nothing. */
  short: { pages: 4 },
  huge: { pages: 1024, huge: true },
  /** For what requests point at: in and out. */
  scratch: { pages: 512 },
};

/** What the interpreter keeps in `scratch`: so much room for each pointer of a call, in bytes. */
export const SCRATCH_SLOT = 2 ** 19;

/** What `shared` holds when a sequence begins. */
const pattern = Uint8Array.from({ length: 16 * PAGE }, (_, i) => (i * 7 + (i >> 12)) & 0xff);

export class Memories {
  readonly #kernel: Syscalls;
  readonly #windows = new Map<string, Window>();

  constructor(kernel: Syscalls) {
    this.#kernel = kernel;
    for (const [name, shape] of Object.entries(shapes)) this.#windows.set(name, this.#make(name, shape));
  }

  #make(name: string, shape: Shape): Window {
    const { protection = PROT_READ | PROT_WRITE } = shape;
    if (shape.anonymous) {
      const at = this.#map(3 * WINDOW, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1);
      const window = BigInt(WINDOW);
      return { address: ((at + window - 1n) / window) * window, fd: undefined };
    }
    const huge = shape.huge ? MFD_HUGETLB + MFD_HUGE_2MB : 0;
    const fd = this.#check(this.#kernel.memfdCreate(name, MFD_CLOEXEC + MFD_ALLOW_SEALING + huge));
    this.#check(this.#kernel.ftruncate(fd, shape.pages * PAGE));
    return { address: this.#mapAligned(protection, fd), fd };
  }

  /** Maps a file from its beginning, at a multiple of the size of a window. */
  #mapAligned(protection: number, fd: number): bigint {
    let upwards = false;
    let last = 0n;
    for (let tries = 0; tries < 16; tries++) {
      const address = this.#map(MAPPED, protection, MAP_SHARED, fd);
      const beyond = Number(address % BigInt(WINDOW));
      if (beyond === 0) return address;
      // Where the filler went elsewhere, this stays, and fills the hole.
      if (address !== last) this.#check(this.#kernel.munmap(address, MAPPED));
      last = address;
      // Something in its place moves the next one to where it should be. Kernels go downwards, or (with a page between
      // any two, and never to the same place again) upwards. It is so long that it fits into no smaller hole.
      const missing = upwards ? (2 * WINDOW - beyond - 2 * PAGE) % WINDOW : beyond;
      const filler = this.#map(4 * WINDOW + missing, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1);
      upwards = filler > address;
    }
    throw new Error('no mapping of a file is aligned as it should be');
  }

  #map(length: number, protection: number, flags: number, fd: number): bigint {
    const address = this.#kernel.mmap(length, protection, flags, fd, 0);
    if (address < 0n) throw new Error(`mmap: ${address}`);
    return address;
  }

  #check(result: number): number {
    if (result < 0) throw new Error(`memory for sequences: errno ${-result}`);
    return result;
  }

  get(name: string): Window {
    const window = this.#windows.get(name);
    if (window === undefined) throw new Error(`no memory is called ${name}`);
    return window;
  }

  /** Puts in what a sequence finds. */
  reset(): void {
    this.write('shared', 0, pattern);
  }

  write(name: string, offset: number, bytes: Uint8Array): void {
    const { fd = -1 } = this.get(name);
    this.#check(this.#kernel.pwrite(fd, bytes, offset));
  }

  read(name: string, offset: number, length: number): Uint8Array {
    const { fd = -1 } = this.get(name);
    const bytes = new Uint8Array(length);
    this.#check(this.#kernel.pread(fd, bytes, offset));
    return bytes;
  }
}
