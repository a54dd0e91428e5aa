/**
 * The other address space of a swap. It is nobody's intent, so that no state tells of it; but what it pins a device may
 * still use, so that a successor in the same kernel gets to know which it is, and ends it.
 *
 * @module
 */
import { EBUSY } from '../../../bindings/uapi/errno.js';
import { KernelError, undo } from '../../errors.js';
import { Hwpt } from '../../iommufd/hwpt.js';
import type { Ioas } from '../../iommufd/ioas.js';
import type { Iommufd } from '../../iommufd/iommufd.js';
import { memoryOf } from '../../memory/dma-memory.js';
import { devicesOf } from '../../vfio/device.js';

/** Whether it is that, and nothing else: no device has it, and no memory is there. */
export function isSpare(ioas: Ioas): boolean {
  if (!ioas.spare || memoryOf(ioas).size > 0) return false;
  return ![...devicesOf(ioas.iommufd)].some(({ space, attached }) => {
    return space === ioas || attached === ioas || (attached instanceof Hwpt && attached.ioas === ioas);
  });
}

/** One with nothing in it, of which observers know before anything is: whoever comes after a crash ends it. */
export function allocSpare(iommufd: Iommufd): Ioas {
  let made: Ioas | undefined;
  try {
    return iommufd.atOnce(() => {
      made = iommufd.allocIoas();
      made.spare = true;
      return made;
    });
  } catch (error) {
    undo(error, [() => made?.[Symbol.dispose]()]);
  }
}

/** Destroys it with its page tables. @throws KernelError */
export function endSpare(ioas: Ioas): void {
  for (const table of [...ioas.hwpts]) table[Symbol.dispose]();
  ioas[Symbol.dispose]();
}

/**
 * {@link endSpare} of one that a predecessor may have been making when it ended: a page table of which nobody knows keeps it
 * from being destroyed, with nothing in it, until the context is closed.
 *
 * @throws KernelError
 */
export function endAbandonedSpare(ioas: Ioas): void {
  ioas.unmapAll();
  try {
    endSpare(ioas);
  } catch (error) {
    if (!(error instanceof KernelError && error.errno === EBUSY)) throw error;
    ioas.relinquish();
  }
}
