/** Memory that a container has mapped: pinned, charged to whoever mapped it, and in all of its domains. @module */
import { EFAULT, ENOMEM } from '../../../bindings/uapi/errno.js';
import { type PagingDomain, Protection } from '../iommu/domain.js';
import { PAGE } from '../machine/physical-memory.js';
import { Capability, type SimulatedProcess } from '../process/process.js';

/** Consecutive frames. */
interface FrameRun {
  /** From the beginning of the mapping, in bytes. */
  readonly offset: bigint;
  frame: number;
  pages: number;
  /** Memory of a device cannot be pinned and is not charged. */
  readonly device: boolean;
}

export interface DmaMapping {
  readonly first: bigint;
  readonly last: bigint;
  /** In bytes. */
  readonly size: bigint;
  /** As in Protection. */
  readonly protection: number;
  readonly runs: readonly FrameRun[];
  /** Who is charged. */
  process: SimulatedProcess;
  /** The limit on locked memory does not count. */
  unlimited: boolean;
  /** Where the memory is in the process. */
  address: bigint;
  /** The process says that the address is no longer right (VFIO_DMA_UNMAP_FLAG_VADDR). */
  addressInvalid: boolean;
}

/** How many pages of it are charged. */
export function chargedPages({ runs }: DmaMapping): number {
  return runs.reduce((sum, run) => sum + (run.device ? 0 : run.pages), 0);
}

/** Whether a process may lock `pages` more. */
export function mayLock(process: SimulatedProcess, unlimited: boolean, pages: number): boolean {
  return unlimited || process.lockedPages + pages <= Math.floor(process.memlockLimit / PAGE);
}

/**
 * Pins memory of a process and charges it.
 *
 * @returns minus EFAULT where it cannot be accessed so, minus ENOMEM beyond the limit, with nothing pinned
 */
export function pin(
  process: SimulatedProcess,
  address: bigint,
  iova: bigint,
  size: bigint,
  protection: number,
): DmaMapping | number {
  const runs: FrameRun[] = [];
  const unlimited = process.capabilities.has(Capability.IpcLock);
  const mapping: DmaMapping = {
    first: iova,
    last: iova + size - 1n,
    size,
    protection,
    runs,
    process,
    unlimited,
    address,
    addressInvalid: false,
  };
  const fail = (errno: number): number => {
    unpin(mapping);
    return -errno;
  };
  for (let offset = 0n; offset < size; ) {
    const found = process.memory.find(address + offset);
    if (found === undefined || (protection & Protection.Write && !found.writeable)) return fail(EFAULT);
    const end = found.start + BigInt(found.length);
    for (; offset < size && address + offset < end; offset += BigInt(PAGE)) {
      const at = found.offset + Number(address + offset - found.start);
      if (at >= found.memory.size) return fail(EFAULT);
      if (!found.device && !mayLock(process, unlimited, 1)) return fail(ENOMEM);
      const frame = found.memory.frame(Math.floor(at / PAGE));
      if (frame === undefined) return fail(ENOMEM);
      if (!found.device) {
        process.host.physical.pin(frame);
        process.lockedPages++;
      }
      const last = runs.at(-1);
      if (last?.device === found.device && last.frame + last.pages === frame) last.pages++;
      else runs.push({ offset, frame, pages: 1, device: found.device });
    }
  }
  return mapping;
}

export function unpin(mapping: DmaMapping): void {
  const { physical } = mapping.process.host;
  for (const { frame, pages, device } of mapping.runs) {
    if (!device) for (let page = frame; page < frame + pages; page++) physical.unpin(page);
  }
  mapping.process.lockedPages -= chargedPages(mapping);
}

/** @returns 0, or minus the errno, with nothing mapped */
export function mapInto(mapping: DmaMapping, domain: PagingDomain): number {
  for (const { offset, frame, pages } of mapping.runs) {
    const length = BigInt(pages * PAGE);
    const protection = mapping.protection | Protection.Cache;
    const result = domain.map(mapping.first + offset, BigInt(frame * PAGE), length, protection);
    if (result === 0) continue;
    if (offset > 0n) domain.unmap(mapping.first, offset);
    return result;
  }
  return 0;
}

export function unmapFrom(mapping: DmaMapping, domain: PagingDomain): void {
  domain.unmap(mapping.first, mapping.size);
}
