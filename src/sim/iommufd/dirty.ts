/** The requests about what devices write. @module */
import { EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
} from '../../../bindings/uapi/iommufd.js';
import { getHwptPaging } from './hwpt.js';
import { command } from './user-command.js';

export const setDirtyTracking = command(IOMMU_HWPT_SET_DIRTY_TRACKING, ({ values, context }) => {
  if (values.flags & ~IOMMU_HWPT_DIRTY_TRACKING_ENABLE) return -EOPNOTSUPP;
  const hwpt = getHwptPaging(context, values.hwpt_id);
  if (typeof hwpt === 'number') return hwpt;
  const enable = (values.flags & IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0;
  return hwpt.ioas.table.setDirtyTracking(hwpt.domain, enable);
});

export const getDirtyBitmap = command(IOMMU_HWPT_GET_DIRTY_BITMAP, ({ values, context, process }) => {
  if (values.flags & ~IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR || values.__reserved !== 0) return -EOPNOTSUPP;
  const hwpt = getHwptPaging(context, values.hwpt_id);
  if (typeof hwpt === 'number') return hwpt;
  const keep = (values.flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) !== 0;
  const { iova, length, page_size: pageSize, data: address } = values;
  return hwpt.ioas.table.readAndClearDirty(process, hwpt.domain, keep, { iova, length, pageSize, address });
});
