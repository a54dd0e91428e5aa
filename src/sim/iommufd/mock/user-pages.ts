/** Which page frames user memory is in, for the checks. @module */
import { EFAULT, ENOMEM, EOVERFLOW } from '../../../../bindings/uapi/errno.js';
import { PAGE } from '../../machine/physical-memory.js';
import type { SimulatedProcess } from '../../process/process.js';

/** The last page that there are addresses for: its end is not one. */
const LAST_PAGE = 2n ** 64n - BigInt(PAGE);

/** The page that holds an address: its frame, and whether it is part of a huge one. @returns minus EFAULT, EOVERFLOW */
export function userPage(
  process: SimulatedProcess,
  address: bigint,
): { frame: number; huge: boolean } | number {
  if (address >= LAST_PAGE) return -EOVERFLOW;
  const mapping = process.memory.find(address);
  if (mapping === undefined || mapping.device) return -EFAULT;
  const { memory } = mapping;
  const index = Math.floor((mapping.offset + Number(address - mapping.start)) / PAGE);
  if (index >= memory.pages) return -EFAULT;
  const frame = memory.frame(index);
  return frame === undefined ? -ENOMEM : { frame, huge: memory.pageSize > PAGE };
}
