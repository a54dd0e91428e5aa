/** VFIO's requests for containers, which iommufd answers too. @module */
import { EFAULT, EINVAL, ENODEV, ENOENT, ENOTTY, EOPNOTSUPP, EPERM } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_VFIO_IOAS,
  IOMMU_VFIO_IOAS_CLEAR,
  IOMMU_VFIO_IOAS_GET,
  IOMMU_VFIO_IOAS_SET,
} from '../../../bindings/uapi/iommufd.js';
import type { Struct, StructValue } from '../../../bindings/uapi/struct.js';
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_CC_IOMMU,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_NOIOMMU_IOMMU,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
} from '../../../bindings/uapi/vfio.js';
import { Protection } from '../iommu/domain.js';
import { Capability, type SimulatedProcess } from '../process/process.js';
import { type UserArgument, viewOf } from '../process/user-argument.js';
import type { IommufdContext } from './context.js';
import { getIoas, IoasObject } from './ioas-object.js';
import { command } from './user-command.js';
import { getInfo } from './vfio-compat-info.js';

/** The id of the address space that VFIO's requests work on. @returns minus ENODEV when there is none */
export function compatIoasId(context: IommufdContext): number {
  return context.vfioIoas?.id ?? -ENODEV;
}

/** A device without an IOMMU is attached. @returns 0, or minus EINVAL when devices with one are */
export function setNoIommu(context: IommufdContext): number {
  if (context.vfioIoas !== undefined) return -EINVAL;
  context.noIommuMode = true;
  return 0;
}

/** A group is attached: makes the address space unless there is one. @returns 0, or minus EINVAL */
export function createCompatIoas(context: IommufdContext): number {
  if (context.noIommuMode) return -EINVAL;
  if (context.vfioIoas !== undefined) return 0;
  context.vfioIoas = context.reserve(new IoasObject());
  context.finalize(context.vfioIoas);
  return 0;
}

export const vfioIoas = command(IOMMU_VFIO_IOAS, request => {
  const { values, context } = request;
  if (values.__reserved !== 0) return -EOPNOTSUPP;
  switch (values.op) {
    case IOMMU_VFIO_IOAS_GET: {
      const id = compatIoasId(context);
      if (id < 0) return id;
      values.ioas_id = id;
      return request.respond();
    }
    case IOMMU_VFIO_IOAS_SET: {
      const ioas = getIoas(context, values.ioas_id);
      if (ioas === undefined) return -ENOENT;
      context.vfioIoas = ioas;
      return 0;
    }
    case IOMMU_VFIO_IOAS_CLEAR:
      context.vfioIoas = undefined;
      return 0;
    default:
      return -EOPNOTSUPP;
  }
});

/** Answers one of VFIO's own requests. @returns minus ENOTTY for one that is unknown */
export function vfioRequest(
  context: IommufdContext,
  process: SimulatedProcess,
  request: number,
  argument: UserArgument,
): number {
  switch (request) {
    case VFIO_GET_API_VERSION.number:
      return VFIO_API_VERSION;
    case VFIO_SET_IOMMU.number:
      return setIommu(context, process, argument.value);
    case VFIO_CHECK_EXTENSION.number:
      return checkExtension(context, argument.value);
    case VFIO_IOMMU_GET_INFO.number:
      return getInfo(context, argument);
    case VFIO_IOMMU_MAP_DMA.number:
      return mapDma(context, process, argument);
    case VFIO_IOMMU_UNMAP_DMA.number:
      return unmapDma(context, argument);
    default:
      return -ENOTTY;
  }
}

function setIommu(context: IommufdContext, process: SimulatedProcess, type: number): number {
  if (type === VFIO_NOIOMMU_IOMMU && context.noIommuMode) {
    return process.capabilities.has(Capability.SysRawio) ? 0 : -EPERM;
  }
  if ((type !== VFIO_TYPE1_IOMMU && type !== VFIO_TYPE1v2_IOMMU) || context.noIommuMode) return -EINVAL;
  const ioas = context.vfioIoas;
  if (ioas === undefined) return -ENODEV;
  // The first version allows to unmap in the middle of a mapping, which huge pages do not.
  return type === VFIO_TYPE1_IOMMU ? ioas.table.disableLargePages() : 0;
}

function checkExtension(context: IommufdContext, type: number): number {
  switch (type) {
    case VFIO_TYPE1_IOMMU:
    case VFIO_TYPE1v2_IOMMU:
    case VFIO_UNMAP_ALL:
      return context.noIommuMode ? 0 : 1;
    case VFIO_NOIOMMU_IOMMU:
      return 1;
    case VFIO_DMA_CC_IOMMU: {
      if (context.vfioIoas === undefined) return -ENODEV;
      return context.vfioIoas.hwpts.every(hwpt => hwpt.enforcesCacheCoherency) ? 1 : 0;
    }
    default:
      return 0;
  }
}

function decode<S extends Struct>(struct: S, argument: UserArgument): StructValue<S> | number {
  const bytes = argument.read(0, struct.size);
  return typeof bytes === 'number' ? bytes : (struct.decode(viewOf(bytes)) as StructValue<S>);
}

function mapDma(context: IommufdContext, process: SimulatedProcess, argument: UserArgument): number {
  const map = decode(vfio_iommu_type1_dma_map, argument);
  if (typeof map === 'number') return map;
  const known = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
  if (map.argsz < vfio_iommu_type1_dma_map.size || map.flags & ~known) return -EINVAL;
  let protection: number = Protection.Cache;
  if (map.flags & VFIO_DMA_MAP_FLAG_READ) protection |= Protection.Read;
  if (map.flags & VFIO_DMA_MAP_FLAG_WRITE) protection |= Protection.Write;
  const table = context.vfioIoas?.table;
  if (table === undefined) return -ENODEV;
  const result = table.mapUserPages(process, context.accountMode, map.iova, map.vaddr, map.size, protection);
  return typeof result === 'number' ? result : 0;
}

function unmapDma(context: IommufdContext, argument: UserArgument): number {
  const unmap = decode(vfio_iommu_type1_dma_unmap, argument);
  if (typeof unmap === 'number') return unmap;
  if (unmap.argsz < vfio_iommu_type1_dma_unmap.size || unmap.flags & ~VFIO_DMA_UNMAP_FLAG_ALL) return -EINVAL;
  const table = context.vfioIoas?.table;
  if (table === undefined) return -ENODEV;
  const all = (unmap.flags & VFIO_DMA_UNMAP_FLAG_ALL) !== 0;
  if (all && (unmap.iova !== 0n || unmap.size !== 0n)) return -EINVAL;
  if (!all && !table.largePages) {
    const last = BigInt.asUintN(64, unmap.iova + unmap.size - 1n);
    const cut = table.cutIova(unmap.iova === 0n ? [last] : [last, unmap.iova - 1n]);
    if (cut < 0) return cut;
  }
  const { result, bytes } = all ? table.unmapAll() : table.unmapIova(unmap.iova, unmap.size);
  const { bytes: out, view } = vfio_iommu_type1_dma_unmap.allocate();
  vfio_iommu_type1_dma_unmap.encode(view, { ...unmap, size: bytes });
  return argument.write(0, out) < 0 ? -EFAULT : result;
}
