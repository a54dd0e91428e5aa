/** VFIO_IOMMU_GET_INFO, as iommufd answers it. @module */
import { EINVAL, ENODEV } from '../../../bindings/uapi/errno.js';
import { encodeList, u32 } from '../../../bindings/uapi/struct.js';
import {
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  vfio_info_cap_header,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../../../bindings/uapi/vfio.js';
import { commonPageSizes } from '../iommu/page-sizes.js';
import { type UserArgument, viewOf } from '../process/user-argument.js';
import type { IommufdContext } from './context.js';
import { max } from './intervals.js';
import { usableIovas } from './ioas-commands.js';
import type { IoasObject } from './ioas-object.js';

/** There is no limit on the number of mappings. */
const UNLIMITED = 0xffff_ffff;

/** A capability, and how many of its bytes are written together. */
interface InfoCapability {
  readonly bytes: Uint8Array;
  /** The fixed part, which is written when all of it fits, after the elements that do. */
  readonly head: number;
  /** In bytes. */
  readonly element: number;
}

function available(): InfoCapability {
  const struct = vfio_iommu_type1_info_dma_avail;
  const { bytes, view } = struct.allocate();
  const header = { id: VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, version: 1, next: 0 };
  struct.encode(view, { header, avail: UNLIMITED });
  return { bytes, head: struct.size, element: 0 };
}

function iovaRanges(ioas: IoasObject): InfoCapability {
  const struct = vfio_iommu_type1_info_cap_iova_range;
  const ranges = usableIovas(ioas).map(({ first, last }) => ({ start: first, end: last }));
  const { bytes, view } = struct.allocate(ranges.length * vfio_iova_range.size);
  const header = { id: VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, version: 1, next: 0 };
  struct.encode(view, { header, nr_iovas: ranges.length });
  encodeList(view, vfio_iova_range, ranges, struct.size);
  return { bytes, head: struct.size, element: vfio_iova_range.size };
}

/** Writes as many elements as there is room for, and the head if all of it fits. @returns 0, or minus EFAULT */
function writeCapability(
  argument: UserArgument,
  at: number,
  room: number,
  { bytes, head, element }: InfoCapability,
): number {
  if (element > 0) {
    for (let end = head + element; end <= Math.min(room, bytes.byteLength); end += element) {
      const result = argument.write(at + end - element, bytes.subarray(end - element, end));
      if (result < 0) return result;
    }
  }
  return room >= bytes.byteLength ? argument.write(at, bytes.subarray(0, head)) : 0;
}

/** Answers as much as there is room for, and says how much there is. */
export function getInfo(context: IommufdContext, argument: UserArgument): number {
  const { minimumSize } = VFIO_IOMMU_GET_INFO;
  const given = argument.read(0, minimumSize);
  if (typeof given === 'number') return given;
  const room = viewOf(given).getUint32(0, true);
  if (room < minimumSize) return -EINVAL;
  const ioas = context.vfioIoas;
  if (ioas === undefined) return -ENODEV;
  const { table } = ioas;

  let total = vfio_iommu_type1_info.size;
  let previous: number | undefined;
  for (const capability of [available(), iovaRanges(ioas)]) {
    const result = writeCapability(argument, total, Math.max(0, room - total), capability);
    if (result < 0) return result;
    if (previous !== undefined && room >= total) {
      const next = new Uint8Array(u32.size);
      u32.write(viewOf(next), 0, total);
      const linked = argument.write(previous + vfio_info_cap_header.fields.next.offset, next);
      if (linked < 0) return linked;
    }
    previous = total;
    total += Math.ceil(capability.bytes.byteLength / 8) * 8;
  }

  const { bytes, view } = vfio_iommu_type1_info.allocate();
  vfio_iommu_type1_info.encode(view, {
    argsz: total,
    flags: VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
    iova_pgsizes: max(commonPageSizes(table.domains), table.iovaAlignment),
    cap_offset: room >= total ? vfio_iommu_type1_info.size : 0,
  });
  return argument.write(0, bytes.subarray(0, Math.min(room, bytes.byteLength)));
}
