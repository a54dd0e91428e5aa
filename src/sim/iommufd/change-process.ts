/** IOMMU_IOAS_CHANGE_PROCESS: another process takes over the pages, and the bill. @module */
import { EINVAL, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import { IOMMU_IOAS_CHANGE_PROCESS } from '../../../bindings/uapi/iommufd.js';
import type { SimulatedProcess } from '../process/process.js';
import { AccountMode, charge, uncharge } from './accounting.js';
import { IoasObject } from './ioas-object.js';
import type { Pages } from './pages.js';
import { command } from './user-command.js';

/** Whether the account of the pages is another one than the process's. */
function isOther(pages: Pages, process: SimulatedProcess): boolean {
  if (pages.accountMode === AccountMode.None) return false;
  return pages.process !== process;
}

export const ioasChangeProcess = command(IOMMU_IOAS_CHANGE_PROCESS, ({ values, context, process }) => {
  if (values.__reserved !== 0) return -EOPNOTSUPP;
  const all = new Set<Pages>();
  for (const ioas of context.objects()) {
    if (!(ioas instanceof IoasObject)) continue;
    for (const { pages } of ioas.table.areas) {
      if (pages.source.kind !== 'file') return -EINVAL;
      all.add(pages);
    }
  }
  const total = { [AccountMode.None]: 0, [AccountMode.User]: 0, [AccountMode.Process]: 0 };
  for (const pages of all) if (isOther(pages, process)) total[pages.accountMode] += pages.pinned;
  const user = total[AccountMode.User];
  let result = charge(process, AccountMode.User, user);
  if (result < 0) return result;
  result = charge(process, AccountMode.Process, total[AccountMode.Process]);
  if (result < 0) {
    uncharge(process, AccountMode.User, user);
    return result;
  }
  for (const pages of all) pages.moveAccount(process, isOther(pages, process));
  return 0;
});
