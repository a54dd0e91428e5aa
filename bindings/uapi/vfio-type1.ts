/**
 * `linux/vfio.h`: mappings in a legacy container of type 1, the one of x86 and Arm.
 *
 * @module
 */

import { request } from './request.js';
import { flexible, struct, u8, u32, u64 } from './struct.js';
import { vfio_info_cap_header } from './vfio-info.js';

// vfio_iommu_type1_info.flags
export const VFIO_IOMMU_INFO_PGSIZES = 1 << 0;
export const VFIO_IOMMU_INFO_CAPS = 1 << 1;

/** The page sizes, as a bitmap, and the first capability. For {@link VFIO_IOMMU_GET_INFO}. */
export const vfio_iommu_type1_info = struct('vfio_iommu_type1_info', {
  argsz: u32,
  flags: u32,
  iova_pgsizes: u64,
  cap_offset: u32,
  pad: u32,
});
export const VFIO_IOMMU_GET_INFO = request(
  'VFIO_IOMMU_GET_INFO',
  0x3b70,
  vfio_iommu_type1_info,
  'iova_pgsizes',
);

// Capability ids.
export const VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1;
export const VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION = 2;
export const VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3;

/** A range of IOVAs, both ends included. */
export const vfio_iova_range = struct('vfio_iova_range', { start: u64, end: u64 });

/** Container capability: the IOVAs that may be mapped. */
export const vfio_iommu_type1_info_cap_iova_range = struct('vfio_iommu_type1_info_cap_iova_range', {
  header: vfio_info_cap_header,
  nr_iovas: u32,
  reserved: u32,
  iova_ranges: flexible(vfio_iova_range),
});

/** Container capability: dirty pages can be logged; the bitmap's limit is in bytes. */
export const vfio_iommu_type1_info_cap_migration = struct('vfio_iommu_type1_info_cap_migration', {
  header: vfio_info_cap_header,
  flags: u32,
  pgsize_bitmap: u64,
  max_dirty_bitmap_size: u64,
});

/** Container capability: how many more mappings may be made. */
export const vfio_iommu_type1_info_dma_avail = struct('vfio_iommu_type1_info_dma_avail', {
  header: vfio_info_cap_header,
  avail: u32,
});

// vfio_iommu_type1_dma_map.flags
export const VFIO_DMA_MAP_FLAG_READ = 1 << 0;
export const VFIO_DMA_MAP_FLAG_WRITE = 1 << 1;
export const VFIO_DMA_MAP_FLAG_VADDR = 1 << 2;

/** Maps `size` bytes of the caller's memory at `vaddr` to `iova`. For {@link VFIO_IOMMU_MAP_DMA}. */
export const vfio_iommu_type1_dma_map = struct('vfio_iommu_type1_dma_map', {
  argsz: u32,
  flags: u32,
  vaddr: u64,
  iova: u64,
  size: u64,
});
export const VFIO_IOMMU_MAP_DMA = request('VFIO_IOMMU_MAP_DMA', 0x3b71, vfio_iommu_type1_dma_map);

// vfio_iommu_type1_dma_unmap.flags
export const VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP = 1 << 0;
export const VFIO_DMA_UNMAP_FLAG_ALL = 1 << 1;
export const VFIO_DMA_UNMAP_FLAG_VADDR = 1 << 2;

/**
 * Unmaps; `size` comes back as the bytes unmapped. `data` is a {@link vfio_bitmap} if asked for. For
 * {@link VFIO_IOMMU_UNMAP_DMA}.
 */
export const vfio_iommu_type1_dma_unmap = struct('vfio_iommu_type1_dma_unmap', {
  argsz: u32,
  flags: u32,
  iova: u64,
  size: u64,
  data: flexible(u8),
});
export const VFIO_IOMMU_UNMAP_DMA = request('VFIO_IOMMU_UNMAP_DMA', 0x3b72, vfio_iommu_type1_dma_unmap);

/** Where to put one bit per page of `pgsize` bytes: `size` bytes at the pointer `data`. */
export const vfio_bitmap = struct('vfio_bitmap', { pgsize: u64, size: u64, data: u64 });

// vfio_iommu_type1_dirty_bitmap.flags
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_START = 1 << 0;
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP = 1 << 1;
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP = 1 << 2;

/** Starts, stops, or reads the log of dirty pages. For {@link VFIO_IOMMU_DIRTY_PAGES}. */
export const vfio_iommu_type1_dirty_bitmap = struct('vfio_iommu_type1_dirty_bitmap', {
  argsz: u32,
  flags: u32,
  data: flexible(u8),
});

/** Which range to read: the `data` of the struct above. */
export const vfio_iommu_type1_dirty_bitmap_get = struct('vfio_iommu_type1_dirty_bitmap_get', {
  iova: u64,
  size: u64,
  bitmap: vfio_bitmap,
});
export const VFIO_IOMMU_DIRTY_PAGES = request(
  'VFIO_IOMMU_DIRTY_PAGES',
  0x3b75,
  vfio_iommu_type1_dirty_bitmap,
);
