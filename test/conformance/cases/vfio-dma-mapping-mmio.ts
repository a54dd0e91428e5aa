/**
 * A BAR as the memory to map: tools/testing/selftests/vfio/vfio_dma_mapping_mmio_test.c. The type 1 containers take it,
 * iommufd does not, not even as a container.
 *
 * @module
 */
import { EFAULT } from '../../../bindings/uapi/errno.js';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../../bindings/uapi/mman.js';
import {
  VFIO_PCI_BAR5_REGION_INDEX,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
} from '../../../bindings/uapi/vfio.js';
import { address } from '../../vm/topology.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { equal, holds } from '../support/expect.js';
import { PAGE } from '../support/memory.js';
import { Iommu, type IommuMode, IovaAllocator, iommuModes, profilesOf, VfioDevice } from '../support/vfio.js';

const USABLE = VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
/** Bounds the time that a large BAR takes, in bytes. */
const MOST = 2 ** 30;

interface Bar {
  /** In the device's file, in bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly size: number;
}

/** The largest BAR that can be mapped, read and written. */
function largestBar(device: VfioDevice): Bar {
  let largest: Bar = { offset: 0, size: 0 };
  for (let index = 0; index <= VFIO_PCI_BAR5_REGION_INDEX; index++) {
    const { flags, offset, size } = device.region(index);
    if ((flags & USABLE) !== USABLE || Number(size) <= largest.size) continue;
    largest = { offset: Number(offset), size: Number(size) };
  }
  holds(largest.size > 0, 'the device has a BAR that can be mapped');
  return largest;
}

const bodies: Readonly<Record<string, (bar: Bar) => { offset: number; mapped: number; size: number }>> = {
  map_full_bar: ({ size }) => ({ offset: 0, mapped: size, size }),
  map_partial_bar: ({ size }) => ({ offset: 0, mapped: size, size: PAGE }),
  // The selftest moves the address by a page against the BAR. An address is the kernel's to choose here, so the BAR is
  // moved against the address: its second half, from its second page on.
  map_bar_misaligned: ({ size }) => {
    const half = Math.min(size, MOST) / 2;
    return { offset: PAGE, mapped: half, size: half };
  },
};

async function mapBar(host: ConformanceHost, mode: IommuMode, name: string): Promise<void> {
  const { kernel } = host;
  using iommu = new Iommu(kernel, mode);
  using device = await VfioDevice.open(host, address.nvmeB, iommu);
  const bar = largestBar(device);
  const { offset, mapped, size } = (bodies[name] as (typeof bodies)[string])(bar);
  const memory = kernel.mmap(mapped, PROT_READ | PROT_WRITE, MAP_SHARED, device.fd, bar.offset + offset);
  holds(memory > 0n, 'mmap of the BAR');
  try {
    const length = BigInt(size);
    const iova = new IovaAllocator(iommu).allocate(length);
    if (mode.container !== '/dev/vfio/vfio') {
      equal(iommu.map(iova, memory, length), -EFAULT, 'map');
      return;
    }
    equal(iommu.map(iova, memory, length), 0, 'map');
    const { result, unmapped } = iommu.unmap(iova, length);
    equal(result, 0, 'unmap');
    equal(unmapped, length, 'bytes unmapped');
  } finally {
    equal(kernel.munmap(memory, mapped), 0, 'munmap');
  }
}

export const cases: readonly Case[] = iommuModes.flatMap(mode =>
  Object.keys(bodies).map(
    (name): Case => ({
      source: 'vfio/vfio_dma_mapping_mmio_test.c',
      fixture: 'vfio_dma_mapping_mmio_test',
      name,
      variant: mode.name,
      profiles: profilesOf(mode),
      run: (_t, host) => mapBar(host, mode, name),
    }),
  ),
);
