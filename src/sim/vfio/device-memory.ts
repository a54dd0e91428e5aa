/** Memory of a device that user mode hands to other parts of the kernel (VFIO_DEVICE_FEATURE_DMA_BUF). @module */
import { EINVAL, ENODEV, EOPNOTSUPP, EOVERFLOW } from '../../../bindings/uapi/errno.js';
import { decodeList } from '../../../bindings/uapi/struct.js';
import {
  VFIO_PCI_ROM_REGION_INDEX,
  vfio_device_feature_dma_buf,
  vfio_region_dma_range,
} from '../../../bindings/uapi/vfio.js';
import { DmaBufFile, type PhysicalRange } from '../iommufd/dma-buf.js';
import { PAGE } from '../machine/physical-memory.js';
import type { SimulatedProcess } from '../process/process.js';
import { type UserArgument, viewOf } from '../process/user-argument.js';
import type { PciCore } from './core.js';

const U64_LIMIT = 2n ** 64n;
/** A bit of the length that the DMA layer uses for itself. */
const LENGTH_LIMIT = 1n << 63n;

export class DeviceMemoryFile extends DmaBufFile {
  override readonly size: number;
  readonly #ranges: readonly PhysicalRange[];
  #core: PciCore | undefined;
  #revoked: boolean;

  constructor(core: PciCore, ranges: readonly PhysicalRange[]) {
    super();
    this.#core = core;
    this.#ranges = ranges;
    this.size = ranges.reduce((sum, range) => sum + range.length, 0);
    this.#revoked = !core.config.memoryEnabled;
    core.exports.add(this);
  }

  override physicalRange(): PhysicalRange | number {
    if (this.#revoked || this.#core === undefined) return -ENODEV;
    const [range, ...others] = this.#ranges;
    return range === undefined || others.length > 0 ? -EOPNOTSUPP : range;
  }

  /** The memory cannot be reached, or can again. */
  setRevoked(revoked: boolean): void {
    if (revoked === this.#revoked) return;
    this.#revoked = revoked;
    if (revoked) this.revokeAll();
  }

  /** The device is closed: there is nothing behind the descriptor from now on. */
  cleanUp(): void {
    this.setRevoked(true);
    this.#core?.exports.delete(this);
    this.#core = undefined;
  }

  protected override release(): void {
    this.#core?.exports.delete(this);
    this.#core = undefined;
  }
}

/** @param user what follows the header of the feature */
export function exportMemory(
  core: PciCore,
  process: SimulatedProcess,
  user: UserArgument,
  at: number,
): number {
  const { size } = vfio_device_feature_dma_buf;
  const bytes = user.read(at, size);
  if (typeof bytes === 'number') return bytes;
  const request = vfio_device_feature_dma_buf.decode(viewOf(bytes));
  if (request.nr_ranges === 0 || request.flags !== 0) return -EINVAL;
  const bar =
    request.region_index < VFIO_PCI_ROM_REGION_INDEX ? core.slot.bar(request.region_index) : undefined;
  const start = bar && core.slot.barAddresses.get(bar.index);
  if (bar === undefined || start === undefined) return -ENODEV;
  const list = user.read(at + size, vfio_region_dma_range.size * request.nr_ranges);
  if (typeof list === 'number') return list;
  const ranges = decodeList(viewOf(list), vfio_region_dma_range, request.nr_ranges);
  let total = 0n;
  for (const { offset, length } of ranges) {
    if (length === 0n || offset % BigInt(PAGE) !== 0n || length % BigInt(PAGE) !== 0n) return -EINVAL;
    total += length;
    if (total >= U64_LIMIT) return -EINVAL;
  }
  if (total >= LENGTH_LIMIT || bar.kind === 'io') return -EINVAL;
  for (const { offset, length } of ranges) {
    if (start + offset + length >= U64_LIMIT) return -EOVERFLOW;
    if (offset + length > BigInt(bar.size)) return -EINVAL;
  }
  const pieces = ranges.map(({ offset, length }) => ({ address: start + offset, length: Number(length) }));
  return process.install(new DeviceMemoryFile(core, pieces));
}
