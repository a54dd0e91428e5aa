/** The requests that make, fill and empty I/O address spaces. @module */
import {
  EFAULT,
  EINVAL,
  EMSGSIZE,
  ENOENT,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
} from '../../../bindings/uapi/errno.js';
import {
  IOMMU_IOAS_ALLOC,
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
  iommu_iova_range,
} from '../../../bindings/uapi/iommufd.js';
import { Protection } from '../iommu/domain.js';
import { Capability } from '../process/process.js';
import { viewOf } from '../process/user-argument.js';
import { holes, type Interval, merged, overlap, U64_MAX } from './intervals.js';
import { getIoas, IoasObject } from './ioas-object.js';
import { command } from './user-command.js';

const MAP_FLAGS = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE;
/** The last IOVA and the greatest length that no request takes. */
const TOO_MUCH = U64_MAX;

/** The IOVAs that can be mapped, for the requests that report them. */
export function usableIovas(ioas: IoasObject): Interval[] {
  return [...holes(merged(ioas.table.reserved), { first: 0n, last: U64_MAX })];
}

export const ioasAlloc = command(IOMMU_IOAS_ALLOC, request => {
  const { values, context } = request;
  if (values.flags !== 0) return -EOPNOTSUPP;
  const ioas = context.reserve(new IoasObject());
  values.out_ioas_id = ioas.id;
  const result = request.respond();
  if (result < 0) context.abort(ioas);
  else context.finalize(ioas);
  return result;
});

export const ioasIovaRanges = command(IOMMU_IOAS_IOVA_RANGES, request => {
  const { values, context, process } = request;
  if (values.__reserved !== 0) return -EOPNOTSUPP;
  const ioas = getIoas(context, values.ioas_id);
  if (ioas === undefined) return -ENOENT;
  const room = values.num_iovas;
  values.out_iova_alignment = ioas.table.iovaAlignment;
  const ranges = usableIovas(ioas);
  const { bytes, view } = iommu_iova_range.allocate();
  for (const [index, { first, last }] of ranges.slice(0, room).entries()) {
    iommu_iova_range.encode(view, { start: first, last });
    const written = process.copyOut(values.allowed_iovas + BigInt(index * iommu_iova_range.size), bytes);
    if (written < 0) return -EFAULT;
  }
  values.num_iovas = ranges.length;
  const result = request.respond();
  if (result < 0) return result;
  return ranges.length > room ? -EMSGSIZE : 0;
});

export const ioasAllowIovas = command(IOMMU_IOAS_ALLOW_IOVAS, ({ values, context, process }) => {
  if (values.__reserved !== 0) return -EOPNOTSUPP;
  const ioas = getIoas(context, values.ioas_id);
  if (ioas === undefined) return -ENOENT;
  const allowed: Interval[] = [];
  for (let i = 0; i < values.num_iovas; i++) {
    const at = values.allowed_iovas + BigInt(i * iommu_iova_range.size);
    const bytes = process.copyIn(at, iommu_iova_range.size);
    if (typeof bytes === 'number') return bytes;
    const { start: first, last } = iommu_iova_range.decode(viewOf(bytes));
    if (first >= last) return -EINVAL;
    if (allowed.some(range => overlap(range, { first, last }))) return -EINVAL;
    allowed.push({ first, last });
  }
  return ioas.table.setAllowIova(allowed);
});

/** DMA is always coherent with the processor's caches. */
function protectionOf(flags: number): number {
  let protection: number = Protection.Cache;
  if (flags & IOMMU_IOAS_MAP_READABLE) protection |= Protection.Read;
  if (flags & IOMMU_IOAS_MAP_WRITEABLE) protection |= Protection.Write;
  return protection;
}

function hasAccess(flags: number): boolean {
  return (flags & (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)) !== 0;
}

export const ioasMap = command(IOMMU_IOAS_MAP, request => {
  const { values, context, process } = request;
  const { flags, length, user_va: address } = values;
  if (flags & ~MAP_FLAGS || values.__reserved !== 0) return -EOPNOTSUPP;
  if (values.iova >= TOO_MUCH || length >= TOO_MUCH) return -EOVERFLOW;
  if (!hasAccess(flags)) return -EINVAL;
  const ioas = getIoas(context, values.ioas_id);
  if (ioas === undefined) return -ENOENT;
  const at = flags & IOMMU_IOAS_MAP_FIXED_IOVA ? values.iova : undefined;
  const { accountMode } = context;
  const iova = ioas.table.mapUserPages(process, accountMode, at, address, length, protectionOf(flags));
  if (typeof iova === 'number') return iova;
  values.iova = iova;
  return request.respond();
});

export const ioasMapFile = command(IOMMU_IOAS_MAP_FILE, request => {
  const { values, context, process } = request;
  const { flags, length, fd, start } = values;
  if (flags & ~MAP_FLAGS) return -EOPNOTSUPP;
  if (values.iova >= TOO_MUCH || length >= TOO_MUCH) return -EOVERFLOW;
  if (!hasAccess(flags)) return -EINVAL;
  const ioas = getIoas(context, values.ioas_id);
  if (ioas === undefined) return -ENOENT;
  const at = flags & IOMMU_IOAS_MAP_FIXED_IOVA ? values.iova : undefined;
  const { accountMode } = context;
  const iova = ioas.table.mapFilePages(process, accountMode, at, fd, start, length, protectionOf(flags));
  if (typeof iova === 'number') return iova;
  values.iova = iova;
  return request.respond();
});

export const ioasCopy = command(IOMMU_IOAS_COPY, request => {
  const { values, context } = request;
  const { flags, length } = values;
  if (flags & ~MAP_FLAGS) return -EOPNOTSUPP;
  if (length >= TOO_MUCH || values.src_iova >= TOO_MUCH || values.dst_iova >= TOO_MUCH) return -EOVERFLOW;
  if (!hasAccess(flags)) return -EINVAL;
  const source = getIoas(context, values.src_ioas_id);
  if (source === undefined) return -ENOENT;
  const slices = source.table.getPages(values.src_iova, length);
  if (typeof slices === 'number') return slices;
  try {
    const destination = getIoas(context, values.dst_ioas_id);
    if (destination === undefined) return -ENOENT;
    const at = flags & IOMMU_IOAS_MAP_FIXED_IOVA ? values.dst_iova : undefined;
    const iova = destination.table.mapPages(slices, length, at, protectionOf(flags));
    if (typeof iova === 'number') return iova;
    values.dst_iova = iova;
    return request.respond();
  } finally {
    for (const { pages } of slices) pages.put();
  }
});

export const ioasUnmap = command(IOMMU_IOAS_UNMAP, request => {
  const { values, context } = request;
  const { iova, length } = values;
  const ioas = getIoas(context, values.ioas_id);
  if (ioas === undefined) return -ENOENT;
  const all = iova === 0n && length === U64_MAX;
  if (!all && (iova >= TOO_MUCH || length >= TOO_MUCH)) return -EOVERFLOW;
  const { result, bytes } = all ? ioas.table.unmapAll() : ioas.table.unmapIova(iova, length);
  if (result < 0) return result;
  if (!all && bytes === 0n) return -ENOENT;
  values.length = bytes;
  return request.respond();
});

export const ioasNoiommuGetPa = command(IOMMU_IOAS_NOIOMMU_GET_PA, request => {
  const { values, context, process } = request;
  if (!process.capabilities.has(Capability.SysRawio)) return -EPERM;
  if (values.flags !== 0 || values.__reserved !== 0) return -EOPNOTSUPP;
  if (values.length === 0n) return -EINVAL;
  if (values.iova >= TOO_MUCH) return -EOVERFLOW;
  const ioas = getIoas(context, values.ioas_id);
  if (ioas === undefined) return -ENOENT;
  const found = ioas.table.getPhys(values.iova, values.length);
  if (typeof found === 'number') return found;
  values.out_phys = found.address;
  values.length = found.length;
  return request.respond();
});
