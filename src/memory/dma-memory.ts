/**
 * DMA memory: mapped in this process and in an address space, carved into buffers.
 *
 * @module
 */

import { randomBytes } from 'node:crypto';
import type { Syscalls } from '../../bindings/syscalls.js';
import {
  MADV_DONTFORK,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE,
} from '../../bindings/uapi/mman.js';
import type { DeviceAddress, Iova } from '../address.js';
import { checkAligned, checkInteger, checkPowerOfTwo, checkRange, checkU64 } from '../check.js';
import { DeviceError, DeviceErrorCode, DisposedError, KernelError, runAll, undo } from '../errors.js';
import { hex } from '../hex.js';
import { check } from '../ioctl.js';
import { Ioas, type MapOptions, type OpenFile } from '../iommufd/ioas.js';
import {
  type AddressSpace,
  adoptMapping,
  checkSpace,
  kernelOf,
  mapInto,
  unmapFrom,
} from './address-space.js';
import { DEVICE_PAGE, DevicePages } from './device-pages.js';
import { DmaBuffer } from './dma-buffer.js';
import { IovaSpace } from './iova-space.js';
import { checkSealedMemfd, createSealedMemfd, PageSize } from './memfd.js';
import { Quarantine, type UnclaimedRange } from './quarantine.js';

const CACHE_LINE = 64;

/** Where DMA memory goes in the address space, and what a device may do with it. */
export interface DmaMemoryOptions extends MapOptions {
  /** The IOVA it must have; where there is room when left out. */
  iova?: Iova;
}

export interface DmaArenaOptions extends DmaMemoryOptions {
  /** Shows in `/proc/<pid>/maps`; `'iommufd'` by default. */
  name?: string;
  /**
   * Pages to take the memory from; small ones by default. Huge pages must have been reserved; without IOMMU they are
   * what makes long physically contiguous runs.
   */
  pageSize?: PageSize;
}

/** Memory of somebody else's to take over: {@link DmaArena.adopt}. */
export interface AdoptedArena extends MapOptions {
  readonly token: bigint;
  readonly name: string;
  readonly pageSize: PageSize;
  /** In bytes. */
  readonly size: number;
  readonly iova: Iova;
  /** It is mapped in the address space already. */
  readonly mapped: boolean;
}

export interface AllocateOptions {
  /**
   * Of the address that the device sees: a power of two in bytes; 64 by default, so that no two buffers share a cache
   * line. At most 4096 without IOMMU.
   */
  alignment?: number;
  /** The device must see it as one run of addresses. Always so behind an IOMMU; may not be had without. */
  contiguous?: boolean;
}

const memories = new WeakMap<AddressSpace, Set<DmaMemory>>();

/** The DMA memory that is mapped in an address space, in the order in which it was made. */
export function memoryOf(space: AddressSpace): ReadonlySet<DmaMemory> {
  return memories.get(space) ?? new Set();
}

/** What {@link DmaArena} and {@link EphemeralMemory} share. */
export abstract class DmaMemory implements Disposable {
  /** Whether the memory can outlive this process. */
  abstract readonly kind: 'kept' | 'ephemeral';
  #space: AddressSpace;
  /** In bytes. */
  readonly size: number;
  /** Where it is in the address space. */
  readonly iova: Iova;
  /** The memory, as this process sees it. Must not be touched after disposal: the process would end. */
  readonly #buffer: ArrayBuffer;
  readonly #address: bigint;
  readonly #fd: number | undefined;
  readonly #kernel: Syscalls;
  /** In IOVAs rather than offsets, so that an alignment is one of the address that the device sees. */
  readonly #iovas: IovaSpace;
  readonly #quarantine: Quarantine;
  #pages: DevicePages | undefined;
  #pagesGeneration: number | undefined;
  #disposed = false;

  /**
   * Takes `fd` over, also when it throws.
   *
   * @param adopted mapped at that IOVA already
   */
  protected constructor(
    space: AddressSpace,
    size: number,
    fd: number | undefined,
    options: DmaMemoryOptions,
    adopted?: Iova,
  ) {
    this.#space = space;
    this.size = size;
    this.#fd = fd;
    this.#kernel = kernelOf(space);
    const flags = fd === undefined ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    this.#address = this.#kernel.mmap(size, PROT_READ | PROT_WRITE, flags, fd ?? -1, 0);
    if (this.#address < 0n) {
      if (fd !== undefined) this.#kernel.close(fd);
      throw new KernelError(-Number(this.#address), { syscall: 'mmap', args: { size } });
    }
    let mapped: Iova | undefined;
    try {
      // A child would get copies of pinned private pages at fork; it has no use for them.
      if (fd === undefined) check(this.#kernel.madvise(this.#address, size, MADV_DONTFORK), 'madvise');
      this.#buffer = this.#kernel.view(this.#address, size);
      if (adopted === undefined) {
        const file = fd === undefined ? undefined : (this as unknown as OpenFile);
        mapped = mapInto(space, { address: this.#address, file, length: size }, options);
        this.iova = mapped;
      } else {
        adoptMapping(space, adopted, size);
        this.iova = adopted;
      }
      const last = (this.iova + BigInt(size - 1)) as Iova;
      // First fit, since arenas are made just as large as what is to be carved out of them.
      this.#iovas = new IovaSpace([{ first: this.iova, last }], { granule: CACHE_LINE, firstFit: true });
      this.#quarantine = new Quarantine(this.#iovas, this.iova, size);
    } catch (error) {
      if (mapped !== undefined) unmapFrom(space, mapped, size);
      this.#kernel.munmap(this.#address, size);
      if (fd !== undefined) this.#kernel.close(fd);
      throw error;
    }
  }

  /** Where it is mapped. Another one after the address space was swapped under it. */
  get space(): AddressSpace {
    return this.#space;
  }

  /**
   * @internal It is mapped in `space`, too, at the same place, where that is noted already, and belongs there from now on.
   * The same pages are pinned there, so that they have the addresses that they had. Makes no system call.
   */
  moveTo(space: Ioas): void {
    const before = this.#space;
    memories.get(before)?.delete(this);
    // Addresses of a time when another device was attached are worth nothing.
    if (before instanceof Ioas && this.#pagesGeneration === before.generation) {
      this.#pagesGeneration = space.generation;
    } else this.#pages = undefined;
    this.#space = space;
    this.#register();
  }

  #register(): void {
    const known = memories.get(this.#space) ?? new Set();
    memories.set(this.#space, known.add(this));
  }

  /** @internal It is complete: the address space knows it from now on. @param undone when somebody objects */
  protected announce(undone: () => void): this {
    try {
      this.#noteExists(true);
    } catch (error) {
      undo(error, [undone]);
    }
    return this;
  }

  #noteExists(exists: boolean): void {
    if (exists) this.#register();
    else memories.get(this.space)?.delete(this);
    if (this.space instanceof Ioas) this.space.iommufd.noteChange();
  }

  #require(): void {
    if (this.#disposed) throw new DisposedError(`DMA memory at IOVA ${hex(this.iova)}`);
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** All of it. @throws DisposedError */
  get buffer(): ArrayBuffer {
    this.#require();
    return this.#buffer;
  }

  /** The memfd, for memory that can be kept. */
  protected get file(): number | undefined {
    this.#require();
    return this.#fd;
  }

  /** Bytes that {@link allocate} has left, in all; each buffer takes whole cache lines. */
  get available(): number {
    return Number(this.#iovas.freeBytes);
  }

  /**
   * The address of each page as the device sees it. Valid while a device stays attached to the address space:
   * without IOMMU these are physical addresses, which nothing keeps in place afterwards.
   *
   * @throws DeviceError (UNSUPPORTED) when no device is attached; KernelError: EPERM without CAP_SYS_RAWIO.
   */
  get pages(): DevicePages {
    this.#require();
    const generation = this.#generation();
    if (!this.#pages || generation === undefined || this.#pagesGeneration !== generation) {
      this.#pages = this.#findPages();
      this.#pagesGeneration = generation;
    }
    return this.#pages;
  }

  /** Under which attachment addresses are good; `undefined` without one. */
  #generation(): number | undefined {
    const { space } = this;
    if (!(space instanceof Ioas)) return 0;
    return space.translation === undefined ? undefined : space.generation;
  }

  #findPages(): DevicePages {
    const { space } = this;
    if (!(space instanceof Ioas)) return DevicePages.contiguous(this.iova, this.size);
    switch (space.translation) {
      case 'iommu':
        return DevicePages.contiguous(this.iova, this.size);
      case 'none':
        return DevicePages.physical(space, this.iova, this.size);
      case undefined:
        throw new DeviceError(
          DeviceErrorCode.Unsupported,
          'DMA memory',
          'has no device addresses yet, since no device is attached to its address space',
          'Attach one first (Device.attach)',
        );
    }
  }

  /**
   * Carves a buffer out. Costs no system call. Its content is what was last there, zero at first.
   *
   * @param size in bytes
   * @throws DeviceError (BUSY) when there is no room, or no contiguous room.
   */
  allocate(size: number, options: AllocateOptions = {}): DmaBuffer {
    this.#require();
    checkInteger('size', size, 1, this.size);
    const alignment = checkPowerOfTwo('alignment', options.alignment ?? CACHE_LINE, 1, this.size);
    if (alignment > DEVICE_PAGE && this.space instanceof Ioas && this.space.translation === 'none') {
      throw new RangeError(`without IOMMU alignment is at most ${DEVICE_PAGE}, got ${alignment}`);
    }
    const offset = options.contiguous ? this.#findContiguous(size, alignment) : this.#carve(size, alignment);
    if (offset === undefined) {
      const kind = options.contiguous ? `contiguous bytes` : 'bytes';
      throw new DeviceError(
        DeviceErrorCode.Busy,
        'DMA memory',
        `no ${size} ${kind} left of ${this.size} (${this.available} free)`,
        options.contiguous && this.pages.scattered
          ? 'Without IOMMU use huge pages (DmaArena.create with pageSize)'
          : 'Free buffers, or make the arena larger',
      );
    }
    const start = (this.iova + BigInt(offset)) as Iova;
    return new DmaBuffer(this, offset, size, () => this.#iovas.free(start));
  }

  /**
   * Carves a buffer out at a given place, with what is in it: for a successor, who knows what is where.
   *
   * @param offset in bytes, a multiple of 64
   * @throws RangeError beyond the end; DeviceError (BUSY) when part of it is allocated
   */
  allocateAt(offset: number, size: number): DmaBuffer {
    this.#require();
    checkInteger('size', size, 1);
    checkRange('DMA memory', offset, size, this.size);
    checkAligned('offset', offset, CACHE_LINE);
    if (!this.#quarantine.claim(offset, size)) {
      throw new DeviceError(
        DeviceErrorCode.Busy,
        'DMA memory',
        `part of the ${size} bytes at offset ${offset} is allocated already`,
      );
    }
    const start = (this.iova + BigInt(offset)) as Iova;
    return new DmaBuffer(this, offset, size, () => this.#iovas.free(start));
  }

  /**
   * What was taken over from a predecessor and nobody has claimed by {@link allocateAt} yet. A device may still write
   * there: {@link allocate} leaves it alone.
   */
  get unclaimed(): readonly UnclaimedRange[] {
    this.#require();
    return this.#quarantine.unclaimed;
  }

  /** Lets {@link allocate} have what is {@link unclaimed}, all but what is held; that follows when it no longer is. */
  releaseUnclaimed(): void {
    this.#require();
    this.#quarantine.release();
  }

  /**
   * Keeps a part of what is {@link unclaimed} out of {@link releaseUnclaimed}, since a command in flight may still write
   * to it. Disposing the result ends that.
   */
  hold(offset: number, length: number): Disposable {
    this.#require();
    checkRange('DMA memory', offset, length, this.size);
    return this.#quarantine.hold(offset, length);
  }

  /** @internal All of it belongs to what a predecessor did. */
  protected quarantineAll(): void {
    this.#quarantine.fill();
  }

  #carve(size: number, alignment: number, lowest = 0, highest = this.size - 1): number | undefined {
    const placement = {
      alignment,
      lowest: this.iova + BigInt(lowest),
      highest: this.iova + BigInt(highest),
    };
    const found = this.#iovas.allocate(size, placement);
    return found === undefined ? undefined : Number(found - this.iova);
  }

  #findContiguous(size: number, alignment: number): number | undefined {
    for (const run of this.pages.segments(0, this.size)) {
      if (run.length < size) continue;
      const offset = this.#carve(size, alignment, run.offset, run.offset + run.length - 1);
      if (offset !== undefined) return offset;
    }
    return undefined;
  }

  /** The device's address of the byte at `offset`. What follows on the next page may be elsewhere: see {@link pages}. */
  deviceAddress(offset: number): DeviceAddress {
    checkRange('DMA memory', offset, 1, this.size);
    return this.pages.address(offset);
  }

  /**
   * Unmaps it from the address space and from this process, and frees it. Views of it must not be touched again.
   * Idempotent.
   *
   * @throws KernelError when part of it could not be undone.
   */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    // Whoever keeps books of it must not speak of it when it is no longer mapped.
    runAll([
      () => this.#noteExists(false),
      () => unmapFrom(this.space, this.iova, this.size),
      ...this.#own(),
    ]);
  }

  /** @internal It is somebody else's now, and stays mapped for the device: lets go of it here. */
  relinquish(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    runAll([() => this.#noteExists(false), ...this.#own()]);
  }

  /** Gives back what this process has of it. */
  #own(): (() => void)[] {
    return [
      () => check(this.#kernel.munmap(this.#address, this.size), 'munmap'),
      () => {
        if (this.#fd !== undefined) check(this.#kernel.close(this.#fd), 'close', { path: 'memfd' });
      },
    ];
  }
}

function checkArguments(space: AddressSpace, size: number, pageSize: number): void {
  checkSpace(space);
  checkInteger('size', size, 1);
  checkAligned('size', size, pageSize);
}

/** Random, so that arenas of different processes can come together in one. 0 and 1 are not among them. */
function newToken(): bigint {
  return randomBytes(8).readBigUInt64LE() | 2n;
}

/** DMA memory that can be kept: a sealed memfd, mapped by file, at an IOVA that is recorded. */
export class DmaArena extends DmaMemory {
  override readonly kind = 'kept';
  readonly pageSize: PageSize;
  /** By which it is known in saved states and live-update sessions, whatever process has it. */
  readonly token: bigint;
  /** Of its memfd. */
  readonly name: string;
  /** What devices may do with it, as it was mapped. */
  readonly access: Required<MapOptions>;

  private constructor(
    space: AddressSpace,
    size: number,
    fd: number,
    options: DmaArenaOptions & { readonly pageSize: PageSize; readonly name: string },
    token: bigint,
    adopted?: Iova,
  ) {
    super(space, size, fd, options, adopted);
    this.pageSize = options.pageSize;
    this.name = options.name;
    this.token = token;
    this.access = { readable: options.readable ?? true, writeable: options.writeable ?? true };
  }

  /**
   * @param space such as `Device.space`
   * @param size in bytes, a multiple of the page size
   * @throws KernelError: ENOMEM over the locked-memory limit, EEXIST and EINVAL for a given IOVA that does not suit.
   */
  static create(space: AddressSpace, size: number, options: DmaArenaOptions = {}): DmaArena {
    const pageSize = options.pageSize ?? PageSize.Small;
    if (!Object.values(PageSize).includes(pageSize)) {
      throw new RangeError(`pageSize must be one of ${Object.values(PageSize).join(', ')}, got ${pageSize}`);
    }
    checkArguments(space, size, pageSize);
    const name = options.name ?? 'iommufd';
    const fd = createSealedMemfd(kernelOf(space), name, size, pageSize);
    const arena = new DmaArena(space, size, fd, { ...options, name, pageSize }, newToken());
    return arena.announce(() => arena[Symbol.dispose]());
  }

  /**
   * Takes over what a predecessor had as an arena. All of it is {@link unclaimed} at first.
   *
   * @param fd its memfd, which is taken over, also when this throws
   * @throws DeviceError (UNSUPPORTED) when it is not what it is said to be: another size, other seals; KernelError
   */
  static adopt(space: AddressSpace, fd: number, arena: AdoptedArena): DmaArena {
    const { size, iova, token, mapped, ...options } = arena;
    const kernel = kernelOf(space);
    try {
      checkArguments(space, size, options.pageSize);
      checkU64('token', token);
      checkSealedMemfd(kernel, fd, size);
    } catch (error) {
      kernel.close(fd);
      throw error;
    }
    const made = new DmaArena(space, size, fd, { ...options, iova }, token, mapped ? iova : undefined);
    made.quarantineAll();
    return made.announce(() => (mapped ? made.relinquish() : made[Symbol.dispose]()));
  }

  /** The memfd. */
  get fd(): number {
    return this.file as number;
  }
}

/** DMA memory that ends with this process: anonymous pages. Keepalive refuses it. */
export class EphemeralMemory extends DmaMemory {
  override readonly kind = 'ephemeral';

  private constructor(space: AddressSpace, size: number, options: DmaMemoryOptions) {
    super(space, size, undefined, options);
  }

  /**
   * @param space such as `Device.space`
   * @param size in bytes, a multiple of 4096
   * @throws KernelError: as {@link DmaArena.create}
   */
  static create(space: AddressSpace, size: number, options: DmaMemoryOptions = {}): EphemeralMemory {
    checkArguments(space, size, PageSize.Small);
    const memory = new EphemeralMemory(space, size, options);
    return memory.announce(() => memory[Symbol.dispose]());
  }
}
