/** IOMMU_OPTION. @module */
import { EBUSY, EINVAL, ENOENT, EOPNOTSUPP, EPERM } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
  iommu_option,
} from '../../../bindings/uapi/iommufd.js';
import { Capability } from '../process/process.js';
import { AccountMode } from './accounting.js';
import { getIoas } from './ioas-object.js';
import { command, type UserCommand } from './user-command.js';

type OptionCommand = UserCommand<typeof iommu_option>;

function rlimitMode({ values, context, process }: OptionCommand): number {
  if (values.object_id !== 0) return -EOPNOTSUPP;
  if (values.op === IOMMU_OPTION_OP_GET) {
    values.val64 = context.accountMode === AccountMode.Process ? 1n : 0n;
    return 0;
  }
  if (values.op !== IOMMU_OPTION_OP_SET) return -EOPNOTSUPP;
  if (!process.capabilities.has(Capability.SysResource)) return -EPERM;
  if (!context.empty) return -EBUSY;
  if (values.val64 > 1n) return -EINVAL;
  context.accountMode = values.val64 === 0n ? AccountMode.User : AccountMode.Process;
  return 0;
}

function hugePages({ values, context }: OptionCommand): number {
  const ioas = getIoas(context, values.object_id);
  if (ioas === undefined) return -ENOENT;
  if (values.op === IOMMU_OPTION_OP_GET) {
    values.val64 = ioas.table.largePages ? 1n : 0n;
    return 0;
  }
  if (values.op !== IOMMU_OPTION_OP_SET) return -EOPNOTSUPP;
  if (values.val64 > 1n) return -EINVAL;
  if (values.val64 === 0n) return ioas.table.disableLargePages();
  ioas.table.enableLargePages();
  return 0;
}

export const option = command(IOMMU_OPTION, request => {
  const { values } = request;
  if (values.__reserved !== 0) return -EOPNOTSUPP;
  let result = -EOPNOTSUPP;
  if (values.option_id === IOMMU_OPTION_RLIMIT_MODE) result = rlimitMode(request);
  else if (values.option_id === IOMMU_OPTION_HUGE_PAGES) result = hugePages(request);
  if (result < 0) return result;
  const { offset, size } = iommu_option.fields.val64;
  return request.writeBack(offset, size);
});
