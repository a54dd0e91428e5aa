/** What a container says of itself: page sizes, and the chain of capabilities behind them. @module */
import { encodeList, type Struct } from '../../../bindings/uapi/struct.js';
import {
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  vfio_info_cap_header,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_cap_migration,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../../../bindings/uapi/vfio.js';
import type { UserArgument } from '../process/user-argument.js';
import { viewOf } from '../process/user-argument.js';
import { readArgument, writeArgument } from './argument.js';
import type { Type1Container } from './type1.js';
import { MAX_BITMAP_BYTES } from './type1-dirty.js';

/** A capability in the making, its header but for the place of the next. */
function capability<S extends Struct>(struct: S, id: number, values: object, trailing = 0): Uint8Array {
  const { bytes, view } = struct.allocate(trailing);
  struct.encode(view, { header: { id, version: 1, next: 0 }, ...values } as Parameters<S['encode']>[1]);
  return bytes;
}

function capabilities(container: Type1Container): Uint8Array[] {
  const { mappings, ranges } = container;
  const migration = capability(vfio_iommu_type1_info_cap_migration, VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, {
    pgsize_bitmap: mappings.pageSize,
    max_dirty_bitmap_size: MAX_BITMAP_BYTES,
  });
  const available = capability(vfio_iommu_type1_info_dma_avail, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, {
    avail: mappings.available,
  });
  const struct = vfio_iommu_type1_info_cap_iova_range;
  const iovas = capability(
    struct,
    VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
    { nr_iovas: ranges.length },
    ranges.length * vfio_iova_range.size,
  );
  const list = ranges.map(({ first, last }) => ({ start: first, end: last }));
  encodeList(viewOf(iovas), vfio_iova_range, list, struct.size);
  return [migration, available, iovas];
}

export function getType1Info(container: Type1Container, user: UserArgument): number {
  const info = readArgument(user, vfio_iommu_type1_info, VFIO_IOMMU_GET_INFO.minimumSize);
  if (typeof info === 'number') return info;
  const written = Math.min(info.argsz, vfio_iommu_type1_info.size);
  info.flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
  info.iova_pgsizes = container.pageSizes;
  info.cap_offset = 0;
  const { size } = vfio_iommu_type1_info;
  const parts = capabilities(container);
  const padded = parts.map(part => Math.ceil(part.byteLength / 8) * 8);
  const total = padded.reduce((sum, length) => sum + length, 0);
  if (info.argsz < size + total) info.argsz = size + total;
  else {
    const chain = new Uint8Array(total);
    let at = 0;
    for (const [index, part] of parts.entries()) {
      chain.set(part, at);
      const next = at + (padded[index] as number);
      if (index < parts.length - 1) vfio_info_cap_header.set(viewOf(chain), 'next', size + next, at);
      at = next;
    }
    const result = user.write(size, chain);
    if (result < 0) return result;
    info.cap_offset = size;
  }
  return writeArgument(user, vfio_iommu_type1_info, info, written);
}
