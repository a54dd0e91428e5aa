/** Which IOVA a mapping gets when user mode leaves the choice to the kernel. @module */
import { EINVAL, ENOSPC, EOVERFLOW } from '../../../bindings/uapi/errno.js';
import { PAGE } from '../machine/physical-memory.js';
import { holes, type Interval, merged, U64_MAX } from './intervals.js';

const PAGE_BYTES = BigInt(PAGE);
/** No mapping is aligned to more than a huge page. */
const MAX_ALIGNMENT = 2n ** 21n;
/** Neither the first page nor the last. */
const CHOICE: Interval = { first: PAGE_BYTES, last: U64_MAX - PAGE_BYTES };

/** What there is to choose from. */
export interface IovaChoice {
  /** Only these may be chosen; all may when there is none. */
  readonly allowed: readonly Interval[];
  /** What is mapped, {@link merged}. */
  readonly mapped: readonly Interval[];
  readonly reserved: readonly Interval[];
  readonly alignment: bigint;
}

/**
 * The lowest IOVA that suits.
 *
 * @param address of the memory, in user mode or in its file: what it is aligned to, the IOVA is too
 * @returns minus EOVERFLOW, EINVAL when the address is aligned to less than the domains want, or minus ENOSPC
 */
export function chooseIova(space: IovaChoice, address: bigint, length: bigint): bigint | number {
  if (length === 0n || length >= U64_MAX / 2n) return -EOVERFLOW;
  let alignment = roundUpToPowerOfTwo(length);
  const ofAddress = address & -address;
  if (address !== 0n && ofAddress < alignment) alignment = ofAddress;
  if (alignment > MAX_ALIGNMENT) alignment = MAX_ALIGNMENT;
  if (alignment < space.alignment) return -EINVAL;

  const offset = address % PAGE_BYTES;
  const reserved = merged(space.reserved);
  const allowed = space.allowed.length === 0 ? [CHOICE] : merged(space.allowed);
  for (const range of allowed) {
    const first = fit(clip(range), length, alignment, offset);
    if (first === undefined) continue;
    for (const unmapped of holes(space.mapped, { first, last: clip(range).last })) {
      if (unmapped.last - unmapped.first < length - 1n) continue;
      for (const hole of holes(reserved, unmapped)) {
        const iova = fit(hole, length, alignment, offset);
        if (iova !== undefined) return iova;
      }
    }
  }
  return -ENOSPC;
}

/** The first IOVA of a range that is aligned, if `length` bytes fit behind it. */
function fit(
  { first, last }: Interval,
  length: bigint,
  alignment: bigint,
  offset: bigint,
): bigint | undefined {
  if (first + alignment - 1n > U64_MAX) return undefined;
  const aligned = ((first + alignment - 1n) & ~(alignment - 1n)) | offset;
  return aligned >= last || last - aligned < length - 1n ? undefined : aligned;
}

function clip({ first, last }: Interval): Interval {
  return {
    first: first < CHOICE.first ? CHOICE.first : first,
    last: last > CHOICE.last ? CHOICE.last : last,
  };
}

function roundUpToPowerOfTwo(value: bigint): bigint {
  let power = 1n;
  while (power < value) power <<= 1n;
  return power;
}
