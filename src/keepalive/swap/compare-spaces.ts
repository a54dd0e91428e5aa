/** Whether two address spaces are the same to a device. @module */
import type { Ioas, IoasMapping } from '../../iommufd/ioas.js';
import { movedPages, physicalExtents } from '../extents.js';

/** The first mapping in which two address spaces differ. */
export interface SpaceDifference {
  readonly a: IoasMapping | undefined;
  readonly b: IoasMapping | undefined;
  readonly reason: string;
}

const ALONE = 'only one has this mapping';
const properties = ['length', 'file', 'offset', 'readable', 'writeable'] as const;

/** In what two mappings at the same IOVA differ; `undefined` when they are alike. */
export function reasonOf(a: IoasMapping | undefined, b: IoasMapping | undefined): string | undefined {
  if (a === undefined || b === undefined) return ALONE;
  const property = properties.find(name => a[name] !== b[name]);
  return property && `${property} differs`;
}

/**
 * Whether two address spaces map the same memory at the same IOVAs with the same permissions, mapping for mapping. Without
 * IOMMU also whether that is at the same physical addresses, as the kernel reports them; of an IOMMU's page tables it
 * reports nothing.
 *
 * @returns the difference with the lowest IOVA
 * @throws KernelError: without IOMMU as `Ioas.physicalExtent`, EOPNOTSUPP when one has neither device nor page table
 */
export function compareSpaces(a: Ioas, b: Ioas): SpaceDifference | undefined {
  const [left, right] = [a.mappings[Symbol.iterator](), b.mappings[Symbol.iterator]()];
  for (;;) {
    const one: IoasMapping | undefined = left.next().value;
    const other: IoasMapping | undefined = right.next().value;
    if (one === undefined && other === undefined) break;
    if (one?.iova !== other?.iova) {
      // Both are in order: the lower one has no counterpart.
      const isLeft = other === undefined || (one !== undefined && one.iova < other.iova);
      return { ...(isLeft ? { a: one, b: undefined } : { a: undefined, b: other }), reason: ALONE };
    }
    const reason = reasonOf(one, other);
    if (reason !== undefined) return { a: one, b: other, reason };
  }
  return a.translation === 'none' || b.translation === 'none' ? comparePlaces(a, b) : undefined;
}

/** The IOVA of a difference. */
export function placeOf({ a, b }: SpaceDifference): bigint {
  return (a ?? b)?.iova ?? 0n;
}

/** Where the memory of the same mappings lies. */
function comparePlaces(a: Ioas, b: Ioas): SpaceDifference | undefined {
  for (const one of a.mappings) {
    const length = Number(one.length);
    const moved = movedPages(physicalExtents(a, one.iova, length), physicalExtents(b, one.iova, length));
    if (moved) return { a: one, b: b.mapping(one.iova), reason: moved.text };
  }
  return undefined;
}
