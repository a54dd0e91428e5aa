/**
 * The two kinds of address space that memory is mapped into. Only this room tells them apart: drivers see device
 * addresses.
 *
 * @module
 */
import type { Syscalls } from '../../bindings/syscalls.js';
import type { Iova, IovaRange } from '../address.js';
import { DeviceError, DeviceErrorCode } from '../errors.js';
import { Ioas, type MapOptions } from '../iommufd/ioas.js';
import { Type1Container } from '../vfio/type1-container.js';
import { IovaSpace } from './iova-space.js';

export type AddressSpace = Ioas | Type1Container;

/** Memory to map: at an address in this process, and in a file when it is shared. */
export interface Backing {
  readonly address: bigint;
  readonly fd: number | undefined;
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

/** The legacy kernel interface leaves choosing an IOVA to the caller. */
const iovaSpaces = new WeakMap<Type1Container, IovaSpace>();
const PAGE = 4096n;

function iovaSpaceOf(container: Type1Container): IovaSpace {
  let space = iovaSpaces.get(container);
  if (!space) {
    space = new IovaSpace(container.iovaRanges().ranges.flatMap(wholePages));
    iovaSpaces.set(container, space);
  }
  return space;
}

/** The kernel leaves out what a device reserves, to the byte. */
function wholePages(range: IovaRange): IovaRange[] {
  const first = (range.first + PAGE - 1n) & -PAGE;
  const last = ((range.last + 1n) & -PAGE) - 1n;
  return first <= last ? [{ first: first as Iova, last: last as Iova }] : [];
}

/** Maps `backing` for DMA. @returns the IOVA @throws KernelError */
export function mapInto(space: AddressSpace, backing: Backing, options: MapOptions): Iova {
  if (space instanceof Ioas) {
    return backing.fd === undefined
      ? space.map(backing.address, backing.length, options)
      : space.mapFile({ fd: backing.fd, length: backing.length }, options);
  }
  const iovas = iovaSpaceOf(space);
  const { iova } = options;
  const chosen =
    iova === undefined
      ? iovas.allocate(backing.length, { alignment: alignmentFor(backing.length) })
      : iovas.allocateAt(iova, backing.length)
        ? iova
        : undefined;
  if (chosen === undefined) {
    const wanted = iova === undefined ? 'of that size' : `at 0x${iova.toString(16)}`;
    throw new DeviceError(DeviceErrorCode.Busy, 'address space', `no free IOVA range ${wanted}`);
  }
  try {
    space.map(backing.address, backing.length, chosen, options);
  } catch (error) {
    iovas.free(chosen);
    throw error;
  }
  return chosen;
}

/** Large mappings are aligned to a huge page, so that the IOMMU can use large entries. */
function alignmentFor(length: number): number {
  return length >= 2 ** 21 ? 2 ** 21 : 4096;
}

/** Undoes {@link mapInto}; does nothing when the address space itself is gone, and its mappings with it. */
export function unmapFrom(space: AddressSpace, iova: Iova, length: number): void {
  if (space instanceof Ioas) {
    if (space.alive) space.unmap(iova, length);
    return;
  }
  if (!space.open) return;
  space.unmap(iova, length);
  iovaSpaceOf(space).free(iova);
}
