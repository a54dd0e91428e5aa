/** Structs of drivers, which requests point at. @module */
import type { UserData } from '../iommu/domain.js';
import type { SimulatedProcess } from '../process/process.js';

/** `length` bytes at `address` of the process, of a type that the driver knows. */
export function userData(process: SimulatedProcess, type: number, address: bigint, length: number): UserData {
  return {
    type,
    length,
    read: (offset, count) => process.copyIn(address + BigInt(offset), count),
    write: (offset, data) => process.copyOut(address + BigInt(offset), data),
  };
}
