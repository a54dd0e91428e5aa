/**
 * The log of pages that were written (VFIO_IOMMU_DIRTY_PAGES). No device can tell which it wrote, so that all that are
 * mapped count as written.
 *
 * @module
 */
import { EACCES, EFAULT, EINVAL, EOVERFLOW } from '../../../bindings/uapi/errno.js';
import type { StructValue } from '../../../bindings/uapi/struct.js';
import {
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  type vfio_bitmap,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
} from '../../../bindings/uapi/vfio.js';
import { U64_MAX } from '../iommufd/intervals.js';
import type { SimulatedProcess } from '../process/process.js';
import { type UserArgument, viewOf } from '../process/user-argument.js';
import { readArgument } from './argument.js';
import type { DmaMapping } from './type1-dma.js';
import type { Type1Mappings } from './type1-mappings.js';

export type UserBitmap = StructValue<typeof vfio_bitmap>;

/** In bytes: 2^31 pages. */
export const MAX_BITMAP_BYTES = 2n ** 28n;
/** The end of user memory. */
const TASK_SIZE = 2n ** 47n - 4096n;

/** The bytes of a bitmap of so many pages. */
function bitmapBytes(pages: bigint): bigint {
  return ((pages + 63n) / 64n) * 8n;
}

/** @returns 0, or minus EINVAL for a bitmap that cannot take `size` bytes of IOVAs */
export function checkBitmap(bitmap: UserBitmap, size: bigint): number {
  if (bitmap.data + bitmap.size > TASK_SIZE || bitmap.pgsize === 0n) return -EINVAL;
  const pages = size / (bitmap.pgsize & -bitmap.pgsize);
  const fits = bitmap.size <= MAX_BITMAP_BYTES && bitmap.size >= bitmapBytes(pages);
  return pages > 0n && bitmap.size > 0n && fits ? 0 : -EINVAL;
}

/**
 * Sets the bits of all pages of a mapping, and clears those after them in the same 64-bit word.
 *
 * @param base the IOVA of the bitmap's first page
 */
export function writeBitmap(
  process: SimulatedProcess,
  bitmap: UserBitmap,
  mapping: DmaMapping,
  base: bigint,
  pageSize: bigint,
): number {
  const first = (mapping.first - base) / pageSize;
  const shift = Number(first % 64n);
  const pages = Number(mapping.size / pageSize);
  const address = bitmap.data + (first / 64n) * 8n;
  const bytes = new Uint8Array(Number(bitmapBytes(BigInt(pages + shift))));
  if (shift > 0) {
    const word = process.memory.read(address, 8);
    if (typeof word === 'number') return -EFAULT;
    bytes.set(word);
    // What comes before stays; the rest of the word is new.
    const kept = viewOf(bytes).getBigUint64(0, true) & ((1n << BigInt(shift)) - 1n);
    viewOf(bytes).setBigUint64(0, kept, true);
  }
  for (let page = shift; page < shift + pages; page++) {
    bytes[page >> 3] = (bytes[page >> 3] as number) | (1 << (page & 7));
  }
  return process.memory.write(address, bytes) < 0 ? -EFAULT : 0;
}

export function dirtyPages(mappings: Type1Mappings, process: SimulatedProcess, user: UserArgument): number {
  if (!mappings.second) return -EACCES;
  const header = readArgument(user, vfio_iommu_type1_dirty_bitmap);
  if (typeof header === 'number') return header;
  switch (header.flags) {
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
      mappings.tracking = true;
      return 0;
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
      mappings.tracking = false;
      return 0;
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP:
      return getBitmap(mappings, process, user, header.argsz - vfio_iommu_type1_dirty_bitmap.size);
    default:
      return -EINVAL;
  }
}

function getBitmap(
  mappings: Type1Mappings,
  process: SimulatedProcess,
  user: UserArgument,
  room: number,
): number {
  if (room < vfio_iommu_type1_dirty_bitmap_get.size) return -EINVAL;
  const bytes = user.read(vfio_iommu_type1_dirty_bitmap.size, vfio_iommu_type1_dirty_bitmap_get.size);
  if (typeof bytes === 'number') return bytes;
  const { iova, size, bitmap } = vfio_iommu_type1_dirty_bitmap_get.decode(viewOf(bytes));
  if (size === 0n) return -EINVAL;
  const last = iova + size - 1n;
  if (last > U64_MAX) return -EOVERFLOW;
  const checked = checkBitmap(bitmap, size);
  if (checked < 0) return checked;
  const { pageSize } = mappings;
  if (bitmap.pgsize !== pageSize || iova % pageSize !== 0n || size % pageSize !== 0n) return -EINVAL;
  if (!mappings.tracking || mappings.cuts(iova, last)) return -EINVAL;
  for (const mapping of mappings.all) {
    if (mapping.first < iova || mapping.first > last) continue;
    const result = writeBitmap(process, bitmap, mapping, iova, pageSize);
    if (result < 0) return result;
  }
  return 0;
}
