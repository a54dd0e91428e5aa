/**
 * The two kinds of address space that memory is mapped into, and where in them. Only this room tells them apart:
 * drivers see device addresses.
 *
 * @module
 */
import type { Syscalls } from '../../bindings/syscalls.js';
import { type Iova, type IovaRange, iova } from '../address.js';
import { DeviceError, DeviceErrorCode } from '../errors.js';
import { Ioas, type MapOptions, type OpenFile } from '../iommufd/ioas.js';
import { Type1Container } from '../vfio/type1-container.js';
import { IovaBlockKind, IovaSpace, type Placement } from './iova-space.js';

export type AddressSpace = Ioas | Type1Container;

/** Memory to map: at an address in this process, and in a file when it is shared. */
export interface Backing {
  readonly address: bigint;
  readonly file: OpenFile | undefined;
  /** In bytes. */
  readonly length: number;
}

export function checkSpace(space: AddressSpace): void {
  if (!(space instanceof Ioas || space instanceof Type1Container)) {
    throw new TypeError('space must be an Ioas or a Type1Container, such as Device.space');
  }
}

export function kernelOf(space: AddressSpace): Syscalls {
  return space instanceof Ioas ? space.iommufd.kernel : space.kernel;
}

const PAGE = 4096;

/**
 * What x86 machines reserve, whatever the device: the MSI window, and AMD's HyperTransport range. The kernel leaves
 * them out once a device is attached; a mapping made there before would make that attach fail.
 */
const reservedOnX86 = [
  { first: 0xfee0_0000n, size: 0x10_0000n },
  { first: 0xfd_0000_0000n, size: 0x3_0000_0000n },
];

interface Allocator {
  /** What it was built from: the kernel's ranges change as devices come and go. */
  readonly ranges: readonly IovaRange[];
  readonly granule: number;
  readonly iovas: IovaSpace;
}

const allocators = new WeakMap<AddressSpace, Allocator>();

function isBuiltFrom(allocator: Allocator, ranges: readonly IovaRange[], granule: number): boolean {
  return (
    allocator.granule === granule &&
    allocator.ranges.length === ranges.length &&
    allocator.ranges.every(
      ({ first, last }, index) => first === ranges[index]?.first && last === ranges[index]?.last,
    )
  );
}

/** What is in both lists; both are sorted. */
function intersection(some: readonly IovaRange[], others: readonly IovaRange[]): IovaRange[] {
  const later = (a: Iova, b: Iova): Iova => (a < b ? b : a);
  const earlier = (a: Iova, b: Iova): Iova => (a < b ? a : b);
  return some.flatMap(a =>
    others
      .map(b => ({ first: later(a.first, b.first), last: earlier(a.last, b.last) }))
      .filter(({ first, last }) => first <= last),
  );
}

/** What of the ranges consists of whole granules: neither the kernel nor a claim needs to end at one. */
function wholeGranules(ranges: readonly IovaRange[], granule: bigint): IovaRange[] {
  const down = (address: bigint): bigint => address - (address % granule);
  return ranges
    .map(range => ({
      first: down(range.first + granule - 1n) as Iova,
      last: (down(range.last + 1n) - 1n) as Iova,
    }))
    .filter(({ first, last }) => first <= last);
}

/** Where mappings may go, in order. */
function usableRanges(space: AddressSpace): { ranges: readonly IovaRange[]; granule: number } {
  const { ranges, alignment } = space.iovaRanges();
  const granule = Math.max(PAGE, Number(alignment));
  const allowed = space instanceof Ioas ? space.allowedIovas : [];
  const sorted = allowed.toSorted((a, b) => (a.first < b.first ? -1 : 1));
  const usable = sorted.length === 0 ? ranges : intersection(ranges, sorted);
  return { ranges: wholeGranules(usable, BigInt(granule)), granule };
}

/** The books as they are; what is given back needs no new ranges. */
function recordsOf(space: AddressSpace): IovaSpace {
  return allocators.get(space)?.iovas ?? allocatorOf(space);
}

/** The books, by the ranges that the kernel allows now. */
function allocatorOf(space: AddressSpace): IovaSpace {
  const { ranges, granule } = usableRanges(space);
  const known = allocators.get(space);
  if (known && isBuiltFrom(known, ranges, granule)) return known.iovas;
  const iovas = new IovaSpace(ranges, { granule });
  for (const { first, size } of reservedOnX86) iovas.reserve(iova(first), size);
  for (const block of known?.iovas ?? []) {
    if (block.kind === IovaBlockKind.Allocated) iovas.allocateAt(block.iova, block.size);
  }
  allocators.set(space, { ranges, granule, iovas });
  return iovas;
}

/**
 * Takes a free range of IOVAs of an address space, for a mapping of one's own. What {@link DmaArena} does by itself.
 * The lowest that fits: low IOVAs keep page tables small, and suit devices with short addresses.
 *
 * @param size in bytes; a multiple of 4096, or of a larger alignment that the address space demands
 * @throws DeviceError (BUSY) when nothing fits.
 */
export function allocateIova(space: AddressSpace, size: number | bigint, placement: Placement = {}): Iova {
  checkSpace(space);
  const found = allocatorOf(space).allocate(size, placement);
  if (found === undefined) {
    throw new DeviceError(
      DeviceErrorCode.Busy,
      'address space',
      `no ${size} free bytes of IOVA in a row, placed as asked`,
      'Free mappings, or ask for less alignment; Ioas.iovaRanges() shows what the devices leave',
    );
  }
  return found;
}

/**
 * Gives back what {@link allocateIova} returned, once it is unmapped.
 *
 * @returns its size in bytes
 * @throws RangeError when it is not the start of a range in use.
 */
export function freeIova(space: AddressSpace, iova: Iova): number | bigint {
  checkSpace(space);
  return recordsOf(space).free(iova);
}

/**
 * Maps `backing` for DMA: at `options.iova`, or where there is room.
 *
 * @returns the IOVA
 * @throws KernelError, DeviceError
 */
export function mapInto(
  space: AddressSpace,
  backing: Backing,
  options: MapOptions & { readonly iova?: Iova },
): Iova {
  const { iova: wanted, ...access } = options;
  const at = wanted ?? allocateIova(space, backing.length, { alignment: alignmentFor(backing.length) });
  try {
    if (space instanceof Ioas && backing.file !== undefined) {
      space.mapFile({ fd: backing.file, length: backing.length }, at, access);
    } else {
      space.map(backing.address, backing.length, at, access);
    }
  } catch (error) {
    if (wanted === undefined) freeIova(space, at);
    throw error;
  }
  // Of a wanted place the kernel is the judge. It may be taken here already: by whoever wants it, for this very use.
  if (wanted !== undefined) adoptMapping(space, at, backing.length);
  return at;
}

/** Notes a mapping that is there already: its place is taken. */
export function adoptMapping(space: AddressSpace, iova: Iova, length: number | bigint): void {
  allocatorOf(space).allocateAt(iova, length);
}

/**
 * The books of `from` are those of `to` as well: whoever took an IOVA there may go on with it here. For two address spaces
 * with the same mappings, of which one takes the place of the other. Makes no system call.
 */
export function shareBooks(from: AddressSpace, to: AddressSpace): void {
  const known = allocators.get(from);
  if (known) allocators.set(to, known);
  else allocators.delete(to);
}

/** Large mappings are aligned to a huge page, so that the IOMMU can use large entries. */
function alignmentFor(length: number): number {
  return [2 ** 30, 2 ** 21].find(size => length >= size) ?? PAGE;
}

/** Undoes {@link mapInto}; does nothing when the address space itself is gone, and its mappings with it. */
export function unmapFrom(space: AddressSpace, iova: Iova, length: number): void {
  if (!(space instanceof Ioas ? space.alive : space.open)) return;
  space.unmap(iova, length);
  // At a place that the user wanted there may be nothing to free: page 0, say, is nobody's.
  const iovas = recordsOf(space);
  const block = iovas.find(iova);
  if (block.kind === IovaBlockKind.Allocated && block.iova === iova) iovas.free(iova);
}
