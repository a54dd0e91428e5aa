/** What is mapped in a container: VFIO_IOMMU_MAP_DMA and VFIO_IOMMU_UNMAP_DMA. @module */
import { EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, EOVERFLOW } from '../../../bindings/uapi/errno.js';
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_DMA_UNMAP_FLAG_VADDR,
  vfio_bitmap,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
} from '../../../bindings/uapi/vfio.js';
import { Protection } from '../iommu/domain.js';
import { firstEndingAt, U64_MAX } from '../iommufd/intervals.js';
import { Capability, type SimulatedProcess } from '../process/process.js';
import { type UserArgument, viewOf } from '../process/user-argument.js';
import { readArgument, writeArgument } from './argument.js';
import type { Type1Container } from './type1.js';
import { checkBitmap, type UserBitmap, writeBitmap } from './type1-dirty.js';
import { chargedPages, type DmaMapping, mapInto, mayLock, pin, unmapFrom, unpin } from './type1-dma.js';

/** dma_entry_limit, a parameter of the module. */
const LIMIT = 65535;
const MAP_FLAGS = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE | VFIO_DMA_MAP_FLAG_VADDR;
const UNMAP_FLAGS =
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP | VFIO_DMA_UNMAP_FLAG_ALL | VFIO_DMA_UNMAP_FLAG_VADDR;

export class Type1Mappings {
  readonly #container: Type1Container;
  /** The second version: a mapping is unmapped as a whole, or not at all. */
  readonly second: boolean;
  /** In order. */
  readonly #mappings: DmaMapping[] = [];
  /** What is written to is recorded: every page, since no device here can tell. */
  tracking = false;

  constructor(container: Type1Container, second: boolean) {
    this.#container = container;
    this.second = second;
  }

  get all(): readonly DmaMapping[] {
    return this.#mappings;
  }

  /** How many more there can be. */
  get available(): number {
    return LIMIT - this.#mappings.length;
  }

  get addressesInvalid(): boolean {
    return this.#mappings.some(mapping => mapping.addressInvalid);
  }

  /** In bytes. */
  get pageSize(): bigint {
    const { pageSizes } = this.#container;
    return pageSizes & -pageSizes;
  }

  /** The first mapping in `[first, last]`. */
  find(first: bigint, last: bigint): DmaMapping | undefined {
    const found = this.#mappings[firstEndingAt(this.#mappings, first)];
    return found !== undefined && found.first <= last ? found : undefined;
  }

  /** Whether a mapping lies across one of the ends of `[first, last]`. */
  cuts(first: bigint, last: bigint): boolean {
    const before = this.find(first, first);
    const after = this.find(last, last);
    return (before !== undefined && before.first !== first) || (after !== undefined && after.last !== last);
  }

  map(process: SimulatedProcess, user: UserArgument): number {
    const values = readArgument(user, vfio_iommu_type1_dma_map);
    if (typeof values === 'number') return values;
    const { flags, vaddr, iova, size } = values;
    if (flags & ~MAP_FLAGS) return -EINVAL;
    if (size === 0n) return -EINVAL;
    const last = iova + size - 1n;
    if (last > U64_MAX || vaddr + size - 1n > U64_MAX) return -EOVERFLOW;
    let protection = 0;
    if (flags & VFIO_DMA_MAP_FLAG_WRITE) protection |= Protection.Write;
    if (flags & VFIO_DMA_MAP_FLAG_READ) protection |= Protection.Read;
    const update = (flags & VFIO_DMA_MAP_FLAG_VADDR) !== 0;
    if ((protection !== 0) === update) return -EINVAL;
    if ((size | iova | vaddr) & (this.pageSize - 1n)) return -EINVAL;
    const found = this.find(iova, last);
    if (update) return this.#update(process, found, vaddr, iova, size);
    if (found !== undefined) return -EEXIST;
    if (this.available === 0) return -ENOSPC;
    const { ranges } = this.#container;
    if (!ranges.some(range => iova >= range.first && last <= range.last)) return -EINVAL;
    return this.#pinAndMap(process, vaddr, iova, size, protection);
  }

  #pinAndMap(
    process: SimulatedProcess,
    vaddr: bigint,
    iova: bigint,
    size: bigint,
    protection: number,
  ): number {
    const mapping = pin(process, vaddr, iova, size, protection);
    if (typeof mapping === 'number') return mapping;
    const { domains } = this.#container;
    for (const [index, domain] of domains.entries()) {
      const result = mapInto(mapping, domain);
      if (result === 0) continue;
      for (const back of domains.slice(0, index)) unmapFrom(mapping, back);
      unpin(mapping);
      return result;
    }
    this.#mappings.splice(firstEndingAt(this.#mappings, iova), 0, mapping);
    return 0;
  }

  /** The memory of a mapping is at another address now, perhaps in another process. */
  #update(
    process: SimulatedProcess,
    found: DmaMapping | undefined,
    vaddr: bigint,
    iova: bigint,
    size: bigint,
  ): number {
    if (found === undefined) return -ENOENT;
    if (!found.addressInvalid || found.first !== iova || found.size !== size) return -EINVAL;
    if (found.process !== process) {
      const unlimited = process.capabilities.has(Capability.IpcLock);
      const pages = chargedPages(found);
      if (!mayLock(process, unlimited, pages)) return -ENOMEM;
      process.lockedPages += pages;
      found.process.lockedPages -= pages;
      found.process = process;
      found.unlimited = unlimited;
    }
    found.address = vaddr;
    found.addressInvalid = false;
    return 0;
  }

  unmap(process: SimulatedProcess, user: UserArgument): number {
    const { size: headSize } = vfio_iommu_type1_dma_unmap;
    const values = readArgument(user, vfio_iommu_type1_dma_unmap);
    if (typeof values === 'number') return values;
    const { argsz, flags, iova, size } = values;
    if (flags & ~UNMAP_FLAGS) return -EINVAL;
    let bitmap: UserBitmap | undefined;
    if (flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) {
      if (flags & (VFIO_DMA_UNMAP_FLAG_ALL | VFIO_DMA_UNMAP_FLAG_VADDR)) return -EINVAL;
      if (argsz < headSize + vfio_bitmap.size) return -EINVAL;
      const bytes = user.read(headSize, vfio_bitmap.size);
      if (typeof bytes === 'number') return bytes;
      bitmap = vfio_bitmap.decode(viewOf(bytes));
      const checked = checkBitmap(bitmap, size);
      if (checked < 0) return checked;
    }
    const done = this.#unmap(process, flags, iova, size, bitmap);
    if (done.result < 0) return done.result;
    return writeArgument(user, vfio_iommu_type1_dma_unmap, { ...values, size: done.unmapped });
  }

  #unmap(
    process: SimulatedProcess,
    flags: number,
    iova: bigint,
    size: bigint,
    bitmap: UserBitmap | undefined,
  ): { result: number; unmapped: bigint } {
    const refuse = (errno: number) => ({ result: -errno, unmapped: 0n });
    const all = (flags & VFIO_DMA_UNMAP_FLAG_ALL) !== 0;
    if (iova & (this.pageSize - 1n)) return refuse(EINVAL);
    let last = U64_MAX;
    if (all) {
      if (iova !== 0n || size !== 0n) return refuse(EINVAL);
    } else {
      if (size === 0n || size & (this.pageSize - 1n)) return refuse(EINVAL);
      last = iova + size - 1n;
      if (last > U64_MAX) return refuse(EOVERFLOW);
    }
    if (bitmap !== undefined && (!this.tracking || bitmap.pgsize !== this.pageSize)) return refuse(EINVAL);
    if (this.second && !all && this.cuts(iova, last)) return refuse(EINVAL);
    const affected = this.#within(iova, last);
    if (flags & VFIO_DMA_UNMAP_FLAG_VADDR) {
      // All of them, or none.
      if (affected.some(mapping => mapping.addressInvalid)) return refuse(EINVAL);
      for (const mapping of affected) mapping.addressInvalid = true;
      return { result: 0, unmapped: affected.reduce((sum, mapping) => sum + mapping.size, 0n) };
    }
    let unmapped = 0n;
    for (const mapping of affected) {
      if (bitmap !== undefined) {
        const result = writeBitmap(process, bitmap, mapping, iova, this.pageSize);
        if (result < 0) return { result, unmapped };
      }
      unmapped += mapping.size;
      this.#remove(mapping);
    }
    return { result: 0, unmapped };
  }

  /** In the first version a range that does not begin with a mapping unmaps nothing. */
  #within(first: bigint, last: bigint): DmaMapping[] {
    const found: DmaMapping[] = [];
    for (let i = firstEndingAt(this.#mappings, first); i < this.#mappings.length; i++) {
      const mapping = this.#mappings[i] as DmaMapping;
      if (mapping.first > last || (!this.second && first > mapping.first)) break;
      found.push(mapping);
    }
    return found;
  }

  #remove(mapping: DmaMapping): void {
    for (const domain of this.#container.domains) unmapFrom(mapping, domain);
    unpin(mapping);
    this.#mappings.splice(this.#mappings.indexOf(mapping), 1);
  }

  clear(): void {
    for (const mapping of [...this.#mappings]) this.#remove(mapping);
  }
}
