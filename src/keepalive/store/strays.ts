/**
 * Mappings that nobody wrote down: a predecessor ended between making and noting them. No device was told of memory that was
 * just made, and what else a device may know of is memory of an arena, which its own mapping keeps pinned: taking them away
 * frees nothing that a device could still write to.
 *
 * @module
 */
import { ENOENT } from '../../../bindings/uapi/errno.js';
import type { Iova } from '../../address.js';
import { KernelError } from '../../errors.js';
import type { Ioas } from '../../iommufd/ioas.js';

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/**
 * Unmaps everything in an address space that its own books do not have. The kernel does not list what is mapped, so that it
 * is found by taking it away.
 *
 * @returns how many bytes were unmapped
 * @throws KernelError
 */
export function unmapStrays(ioas: Ioas): bigint {
  let next = 0n;
  let bytes = 0n;
  const gap = (first: bigint, end: bigint): void => {
    if (first >= end) return;
    try {
      bytes += ioas.unmap(first as Iova, end - first);
    } catch (error) {
      if (!(error instanceof KernelError && error.errno === ENOENT)) throw error;
    }
  };
  for (const { iova, length } of ioas.mappings) {
    gap(next, iova);
    next = iova + length;
  }
  gap(next, U64_MAX);
  return bytes;
}
