/** I/O address spaces: which memory a device may reach, and at which IOVA. @module */
import { EEXIST, EMSGSIZE, ENOENT } from '../../bindings/uapi/errno.js';
import {
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_NOIOMMU_GET_PA,
  IOMMU_IOAS_UNMAP,
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  iommu_iova_range,
} from '../../bindings/uapi/iommufd.js';
import { decodeList, encodeList } from '../../bindings/uapi/struct.js';
import type { Iova, IovaRange, PhysicalAddress } from '../address.js';
import { checkInteger, checkU64 } from '../check.js';
import { DeviceError, DeviceErrorCode, DisposedError, KernelError } from '../errors.js';
import { ioctl, transact, withPointer } from '../ioctl.js';
import type { Hwpt } from './hwpt.js';
import type { Iommufd } from './iommufd.js';
import { mapRows } from './map-rows.js';
import { MappingBook } from './mapping-book.js';
import type { MappingRows } from './mapping-rows.js';

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** What a device may do with a mapping. */
export interface MapOptions {
  /** The device may read it; true by default. */
  readable?: boolean;
  /** The device may write it; true by default. */
  writeable?: boolean;
}

/** What stands between a device and memory. */
export type Translation = 'iommu' | 'none';

/** Something with an open file, such as a `DmaArena`. */
export interface OpenFile {
  readonly fd: number;
}

/** The part of a file to map. */
export interface FileRange {
  /**
   * A memfd (or a dma-buf exported by vfio-pci): its descriptor, or the arena whose memory it is. What is to be kept
   * must be mapped as part of an arena: a number does not say whose file it is.
   */
  fd: number | OpenFile;
  /** In bytes from the start of the file; 0 by default. */
  offset?: number;
  /** In bytes. */
  length: number;
}

/** A mapping of an {@link Ioas}. */
export interface IoasMapping {
  readonly iova: Iova;
  /** In bytes. */
  readonly length: bigint;
  /** What is mapped; `undefined` for memory of a process. */
  readonly file: number | OpenFile | undefined;
  /** In bytes from the start of the file. */
  readonly offset: bigint;
  readonly readable: boolean;
  readonly writeable: boolean;
}

/** A run of physical memory. */
export interface PhysicalExtent {
  readonly address: PhysicalAddress;
  /** In bytes. */
  readonly length: bigint;
}

function mapFlags(options: MapOptions): number {
  const { readable = true, writeable = true } = options;
  if (!readable && !writeable) throw new RangeError('a mapping must be readable or writeable or both');
  return (
    IOMMU_IOAS_MAP_FIXED_IOVA |
    (readable ? IOMMU_IOAS_MAP_READABLE : 0) |
    (writeable ? IOMMU_IOAS_MAP_WRITEABLE : 0)
  );
}

function checkLength(value: bigint | number): bigint {
  const length = checkU64('length', value);
  if (length === 0n) throw new RangeError('length must not be 0');
  return length;
}

/**
 * An IOAS: a set of mappings that any number of devices and page tables share. Every mapping is made at a given IOVA;
 * the kernel is never asked to choose, so that a mapping can be made again, in the same place, by whoever comes next.
 * `allocateIova` finds a free one.
 */
export class Ioas implements Disposable {
  readonly iommufd: Iommufd;
  readonly #id: number;
  #destroyed = false;
  #devices = 0;
  #translation: Translation = 'iommu';
  #generation = 0;
  #allowedIovas: readonly IovaRange[] = [];
  readonly #mappings = new MappingBook();
  #changes = 0;
  readonly #hwpts = new Set<Hwpt>();
  /** @internal It is the other one of a swap. `AddressSpaceSwap` decides it; see `isSpare`. */
  spare = false;

  /** @internal Use {@link Iommufd.allocIoas}. */
  constructor(iommufd: Iommufd, id: number) {
    this.iommufd = iommufd;
    this.#id = id;
    iommufd.addIoas(this);
  }

  /** What is mapped, in order of IOVA. */
  get mappings(): Iterable<IoasMapping> {
    return this.#mappings;
  }

  /** @internal The same, without an object for each. */
  get mappingBook(): MappingBook {
    return this.#mappings;
  }

  /** How many mappings there are. */
  get mappingCount(): number {
    return this.#mappings.size;
  }

  /** The mapping that begins at `iova`. */
  mapping(iova: bigint): IoasMapping | undefined {
    return this.#mappings.get(iova);
  }

  /** @internal How often mappings and claims have changed: they are the same as long as this is. */
  get changes(): number {
    return this.#changes;
  }

  /** The page tables that were made from it on purpose. */
  get hwpts(): ReadonlySet<Hwpt> {
    return this.#hwpts;
  }

  /** @internal A page table calls it when it is made. */
  addHwpt(hwpt: Hwpt): void {
    this.#hwpts.add(hwpt);
  }

  /** @internal A page table calls it when it is gone. */
  removeHwpt(hwpt: Hwpt): void {
    this.#hwpts.delete(hwpt);
    this.iommufd.noteChange();
  }

  #note(
    iova: bigint,
    length: bigint,
    file: number | OpenFile | undefined,
    offset: bigint,
    { readable = true, writeable = true }: MapOptions,
  ): void {
    this.#changes++;
    this.#mappings.add({ iova: iova as Iova, length, file, offset, readable, writeable });
  }

  /**
   * @internal What whoever handed the address space over had mapped.
   *
   * @param files by the indexes that the rows have
   */
  noteMappings(rows: MappingRows, files: readonly OpenFile[]): void {
    this.#changes++;
    this.#mappings.addAll(rows, files);
  }

  /** Its id in the context. @throws DisposedError */
  get id(): number {
    if (this.#destroyed) throw new DisposedError(`Ioas ${this.#id}`);
    return this.#id;
  }

  /** False once it, or its context, is released: its mappings are gone then. */
  get alive(): boolean {
    return !this.#destroyed && this.iommufd.open;
  }

  /**
   * How attached devices reach memory: at the IOVAs mapped here, or, without IOMMU, at physical addresses, whatever
   * is mapped. `undefined` while no device is attached.
   */
  get translation(): Translation | undefined {
    return this.#devices === 0 ? undefined : this.#translation;
  }

  /**
   * Counts the times that the address space went from no device to some. Physical addresses asked for in another
   * generation are worthless: the memory was not pinned in between.
   */
  get generation(): number {
    return this.#generation;
  }

  /** @internal `Device` calls it around an attach. @throws DeviceError (UNSUPPORTED) */
  checkTranslation(translation: Translation, device: string): void {
    if (this.#devices === 0 || this.#translation === translation) return;
    throw new DeviceError(
      DeviceErrorCode.Unsupported,
      device,
      'devices with and without IOMMU cannot share an address space',
      'Give it an Ioas of its own',
    );
  }

  /** @internal `Device` calls it after an attach (1) and a detach (-1). */
  noteAttached(translation: Translation, change: 1 | -1): void {
    if (this.#devices === 0) this.#generation++;
    this.#translation = translation;
    this.#devices += change;
  }

  /**
   * Maps `length` bytes of this process's memory at `address`. Such memory dies with the process: for memory that
   * can be kept use {@link mapFile}.
   *
   * @throws KernelError: EEXIST on overlap, EINVAL when misaligned or reserved, ENOMEM over the locked-memory
   * limit, EFAULT when there is no memory there. Until a device is attached nothing is pinned, and
   * ENOMEM and EFAULT come from the attach.
   */
  map(address: bigint, length: bigint | number, iova: Iova, options: MapOptions = {}): void {
    if (this.iommufd.kept) {
      throw new DeviceError(
        DeviceErrorCode.Unsupported,
        'address space',
        'is kept alive, and memory of a process ends with it',
        'Use a DmaArena (Ioas.mapFile), or another iommufd context for ephemeral memory',
      );
    }
    const values = {
      flags: mapFlags(options),
      ioas_id: this.id,
      user_va: checkU64('address', address),
      length: checkLength(length),
      iova: checkU64('iova', iova),
    };
    transact(this.iommufd.kernel, this.iommufd.fd, IOMMU_IOAS_MAP, values);
    this.#note(values.iova, values.length, undefined, 0n, options);
  }

  /**
   * Maps part of a memfd. The mapping refers to the file, not to a process: it can be handed to another one.
   *
   * @throws KernelError: as {@link map}, and EBADF for a bad descriptor; EINVAL also for a file that is no memfd or
   * is too short.
   */
  mapFile(file: FileRange, iova: Iova, options: MapOptions = {}): void {
    const values = {
      flags: mapFlags(options),
      ioas_id: this.id,
      fd: checkInteger('fd', typeof file.fd === 'object' ? file.fd.fd : file.fd, -1, 0x7fff_ffff),
      start: checkU64('offset', file.offset ?? 0),
      length: checkLength(file.length),
      iova: checkU64('iova', iova),
    };
    transact(this.iommufd.kernel, this.iommufd.fd, IOMMU_IOAS_MAP_FILE, values);
    this.#note(values.iova, values.length, file.fd, values.start, options);
  }

  /**
   * @internal {@link mapFile} for many: stops at the first that fails.
   *
   * @param rows good ones, of memfds
   * @param files by the indexes that the rows have
   */
  mapFiles(rows: MappingRows, files: readonly OpenFile[]): void {
    const fds = files.map(({ fd }) => fd);
    mapRows(this.iommufd, this.id, rows, fds, count => {
      rows.length = count;
      this.#mappings.addAll(rows, files);
    });
  }

  /**
   * Maps here, at `iova`, what `source` maps at `sourceIova`, without pinning the memory a second time.
   *
   * @throws KernelError: ENOENT when the source range is not mapped, EPERM to widen read-only, EEXIST on overlap.
   * @throws TypeError when `source` belongs to another iommufd context.
   */
  copy(source: Ioas, sourceIova: Iova, length: bigint | number, iova: Iova, options: MapOptions = {}): void {
    if (!(source instanceof Ioas) || source.iommufd !== this.iommufd) {
      throw new TypeError('source must be an Ioas of the same Iommufd');
    }
    const values = {
      flags: mapFlags(options),
      dst_ioas_id: this.id,
      src_ioas_id: source.id,
      length: checkLength(length),
      dst_iova: checkU64('iova', iova),
      src_iova: checkU64('sourceIova', sourceIova),
    };
    transact(this.iommufd.kernel, this.iommufd.fd, IOMMU_IOAS_COPY, values);
    for (const part of source.#mappings.within(values.src_iova, values.length)) {
      this.#note(
        values.dst_iova + (part.iova - values.src_iova),
        part.length,
        part.file,
        part.offset,
        options,
      );
    }
  }

  /** @internal Whether all of a range is mapped, in whatever pieces. Nothing changes. @throws KernelError */
  isMapped(iova: Iova, length: bigint | number): boolean {
    const values = {
      flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
      dst_ioas_id: this.id,
      src_ioas_id: this.id,
      length: checkLength(length),
      dst_iova: checkU64('iova', iova),
      src_iova: iova,
    };
    try {
      // A copy of what is there to where it is: it cannot be made, and why tells what is there.
      transact(this.iommufd.kernel, this.iommufd.fd, IOMMU_IOAS_COPY, values);
    } catch (error) {
      if (error instanceof KernelError && error.errno === EEXIST) return true;
      if (error instanceof KernelError && error.errno === ENOENT) return false;
      throw error;
    }
    throw new Error('a range was copied onto itself');
  }

  /**
   * Removes every mapping that lies wholly within the range.
   *
   * @returns the bytes unmapped
   * @throws KernelError: ENOENT when nothing is mapped there or the range cuts through a mapping.
   */
  unmap(iova: Iova, length: bigint | number): bigint {
    const values = { ioas_id: this.id, iova: checkU64('iova', iova), length: checkLength(length) };
    const unmapped = transact(this.iommufd.kernel, this.iommufd.fd, IOMMU_IOAS_UNMAP, values).length;
    this.#changes++;
    this.#mappings.delete(values.iova, values.length);
    return unmapped;
  }

  /** Removes every mapping; fine when there is none. @returns the bytes unmapped */
  unmapAll(): bigint {
    return this.unmap(0n as Iova, U64_MAX);
  }

  /**
   * The IOVAs that may be mapped, and the alignment that mappings must have, in bytes. Both change when a device is
   * attached or detached.
   */
  iovaRanges(): { ranges: IovaRange[]; alignment: bigint } {
    const { kernel } = this.iommufd;
    const argument = IOMMU_IOAS_IOVA_RANGES.argument;
    const { bytes, view } = argument.allocate();
    for (let capacity = 16; ; ) {
      const list = new Uint8Array(capacity * iommu_iova_range.size);
      const result = withPointer(kernel, list, allowed_iovas => {
        argument.encode(view, { size: argument.size, ioas_id: this.id, num_iovas: capacity, allowed_iovas });
        return kernel.ioctl(this.iommufd.fd, IOMMU_IOAS_IOVA_RANGES.number, bytes);
      });
      const count = argument.get(view, 'num_iovas');
      if (result === -EMSGSIZE && count > capacity) {
        capacity = count;
        continue;
      }
      if (result < 0) {
        throw new KernelError(-result, {
          syscall: 'ioctl',
          request: IOMMU_IOAS_IOVA_RANGES.name,
          args: { ioas_id: this.#id },
        });
      }
      const ranges = decodeList(new DataView(list.buffer), iommu_iova_range, count).map(range => ({
        first: range.start as Iova,
        last: range.last as Iova,
      }));
      return { ranges, alignment: argument.get(view, 'out_iova_alignment') };
    }
  }

  /**
   * Claims `ranges` for mappings; an empty list lifts the claim. A later attach that would take part of them away
   * fails instead, and `allocateIova` and DMA memory keep to them. The kernel does not hold other mappings to them.
   *
   * @throws KernelError: EINVAL for empty or overlapping ranges, EADDRINUSE when part of them is reserved already.
   */
  allowIovas(ranges: readonly IovaRange[]): void {
    const { kernel } = this.iommufd;
    const list = new Uint8Array(Math.max(ranges.length, 1) * iommu_iova_range.size);
    encodeList(
      new DataView(list.buffer),
      iommu_iova_range,
      ranges.map(range => ({ start: checkU64('first', range.first), last: checkU64('last', range.last) })),
    );
    const argument = IOMMU_IOAS_ALLOW_IOVAS.argument;
    const { bytes, view } = argument.allocate();
    withPointer(kernel, list, allowed_iovas => {
      argument.encode(view, {
        size: argument.size,
        ioas_id: this.id,
        num_iovas: ranges.length,
        allowed_iovas,
      });
      const shown = { ioas_id: this.#id, ranges: ranges.length };
      ioctl(kernel, this.iommufd.fd, IOMMU_IOAS_ALLOW_IOVAS, bytes, shown);
    });
    this.#changes++;
    this.#allowedIovas = ranges.map(({ first, last }) => ({ first, last }));
  }

  /** @internal What whoever handed the address space over had claimed. */
  noteAllowedIovas(ranges: readonly IovaRange[]): void {
    this.#allowedIovas = ranges;
  }

  /** What {@link allowIovas} was last given. */
  get allowedIovas(): readonly IovaRange[] {
    return this.#allowedIovas;
  }

  /** Whether mappings may use huge I/O pages; true unless switched off. */
  get hugePages(): boolean {
    return this.#option(IOMMU_OPTION_OP_GET, 0n).val64 !== 0n;
  }

  /** @throws KernelError: EINVAL once both mappings and page tables exist. */
  set hugePages(enabled: boolean) {
    this.#option(IOMMU_OPTION_OP_SET, enabled ? 1n : 0n);
  }

  #option(op: number, val64: bigint) {
    const values = { option_id: IOMMU_OPTION_HUGE_PAGES, op, object_id: this.id, val64 };
    return transact(this.iommufd.kernel, this.iommufd.fd, IOMMU_OPTION, values);
  }

  /**
   * The physical memory behind `iova`, for a device without IOMMU: the address, and how many of `length` bytes
   * follow it contiguously within one mapping. The kernel keeps it pinned while the device is attached and the
   * mapping exists. The kernel checks page by page: ask once, and remember.
   *
   * @throws KernelError: EPERM without CAP_SYS_RAWIO, ENOENT when not mapped, EOPNOTSUPP when no noiommu device is
   * attached, ENOTTY before Linux 7.3.
   */
  physicalExtent(iova: Iova, length: bigint | number): PhysicalExtent {
    const values = { ioas_id: this.id, iova: checkU64('iova', iova), length: checkLength(length) };
    const result = transact(this.iommufd.kernel, this.iommufd.fd, IOMMU_IOAS_NOIOMMU_GET_PA, values);
    return { address: result.out_phys as PhysicalAddress, length: result.length };
  }

  /**
   * Destroys the address space and everything it maps. Idempotent.
   *
   * @throws KernelError: EBUSY while a device or page table uses it; it is then still there.
   */
  [Symbol.dispose](): void {
    if (this.#destroyed) return;
    if (this.iommufd.open) this.iommufd.destroy(this.#id);
    this.relinquish();
  }

  /** @internal It is somebody else's now, or gone with its context. */
  relinquish(): void {
    this.#destroyed = true;
    this.#mappings.clear();
    this.iommufd.removeIoas(this);
  }
}
