/** On whose account pinned memory is. @module */
import { ENOTTY } from '../../../bindings/uapi/errno.js';
import { KernelError } from '../../errors.js';
import type { Iommufd } from '../../iommufd/iommufd.js';

/**
 * Moves it to this process. Kernels before 6.14 cannot: there it stays on the account of whoever mapped it.
 *
 * @throws KernelError: ENOMEM over the locked-memory limit
 */
export function moveAccounting(iommufd: Iommufd): void {
  try {
    iommufd.changeProcess();
  } catch (error) {
    if (!(error instanceof KernelError && error.errno === ENOTTY)) throw error;
  }
}
