/**
 * The other address space of a swap. It is nobody's intent, so that no state tells of it; but what it pins a device may
 * still use, so that a successor in the same kernel gets to know which it is, and ends it.
 *
 * @module
 */
import { Hwpt } from '../../iommufd/hwpt.js';
import type { Ioas } from '../../iommufd/ioas.js';
import { memoryOf } from '../../memory/dma-memory.js';
import { devicesOf } from '../../vfio/device.js';

/** Whether it is that, and nothing else: no device has it, and no memory is there. */
export function isSpare(ioas: Ioas): boolean {
  if (!ioas.spare || memoryOf(ioas).size > 0) return false;
  return ![...devicesOf(ioas.iommufd)].some(({ space, attached }) => {
    return space === ioas || attached === ioas || (attached instanceof Hwpt && attached.ioas === ioas);
  });
}

/** Destroys it with its page tables. @throws KernelError */
export function endSpare(ioas: Ioas): void {
  for (const table of [...ioas.hwpts]) table[Symbol.dispose]();
  ioas[Symbol.dispose]();
}
