/**
 * Mappings of memory in a device's address space: tools/testing/selftests/vfio/vfio_dma_mapping_test.c.
 *
 * Left out: what the selftests ask of their own record of mappings (`to_iova`).
 *
 * @module
 */
import { EOVERFLOW } from '../../../bindings/uapi/errno.js';
import {
  MAP_ANONYMOUS,
  MAP_HUGETLB,
  MAP_PRIVATE,
  PROT_READ,
  PROT_WRITE,
} from '../../../bindings/uapi/mman.js';
import { VFIO_TYPE1_IOMMU } from '../../../bindings/uapi/vfio.js';
import { address } from '../../vm/topology.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { equal, holds, outcome } from '../support/expect.js';
import { PAGE } from '../support/memory.js';
import { Iommu, type IommuMode, IovaAllocator, iommuModes, profilesOf, VfioDevice } from '../support/vfio.js';

const source = 'vfio/vfio_dma_mapping_test.c';

/** The base-2 logarithm of the page size goes into the flags' highest bits. */
const MAP_HUGE_SHIFT = 26;
const BDF = address.nvmeA;

interface Backing {
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  readonly flags: number;
}

const backings: readonly Backing[] = [
  { name: 'anonymous', size: PAGE, flags: 0 },
  { name: 'anonymous_hugetlb_2mb', size: 2 ** 21, flags: MAP_HUGETLB | (21 << MAP_HUGE_SHIFT) },
  { name: 'anonymous_hugetlb_1gb', size: 2 ** 30, flags: MAP_HUGETLB | (30 << MAP_HUGE_SHIFT) },
];

/** The entries on the way to a page, as the VT-d driver's debugfs file shows them; 0 where there is none. */
interface Walk {
  readonly pud: bigint;
  readonly pmd: bigint;
  readonly pte: bigint;
}

/** @returns `'untold'` where no such file is, `undefined` when it does not have the IOVA */
function walk({ kernel }: ConformanceHost, iova: bigint): Walk | 'untold' | undefined {
  const directory = '/sys/kernel/debug/iommu/intel';
  if (kernel.access(directory, 0) < 0) return 'untold';
  const text = kernel.readText(`${directory}/${BDF}/domain_translation_struct`);
  if (typeof text === 'number') throw new Error(`the table of ${BDF} cannot be read: ${outcome(text)}`);
  const page = iova / BigInt(PAGE);
  for (const line of text.split('\n')) {
    const words = line.match(/0x[0-9a-f]+/gi)?.map(BigInt) ?? [];
    if (words[0] !== page) continue;
    // IOVA page, PGD, P4D, PUD, PMD, PTE
    const [, , , pud = 0n, pmd = 0n, pte = 0n] = words;
    return { pud, pmd, pte };
  }
  return undefined;
}

/** Memory in pages of the backing's kind. @returns its address, or minus the errno */
function allocate({ kernel }: ConformanceHost, { size, flags }: Backing): bigint {
  return kernel.mmap(size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE | flags, -1, 0);
}

function unavailable(host: ConformanceHost, backing: Backing): string | undefined {
  const memory = allocate(host, backing);
  if (memory < 0n) return `no page of ${backing.size} bytes can be had (${outcome(Number(memory))})`;
  host.kernel.munmap(memory, backing.size);
  return undefined;
}

async function dmaMapUnmap(host: ConformanceHost, mode: IommuMode, backing: Backing): Promise<void> {
  const { kernel } = host;
  const { size } = backing;
  const memory = allocate(host, backing);
  holds(memory > 0n, 'mmap');
  try {
    using iommu = new Iommu(kernel, mode);
    using _device = await VfioDevice.open(host, BDF, iommu);
    const length = BigInt(size);
    const iova = new IovaAllocator(iommu).allocate(length);
    equal(iommu.map(iova, memory, length), 0, 'map');
    const mapped = walk(host, iova);
    // Version 1 may map huge pages as many small ones.
    if (mapped !== 'untold' && mode.type !== VFIO_TYPE1_IOMMU) {
      holds(mapped !== undefined, 'the IOVA is in the table');
      const { pud, pmd, pte } = mapped;
      const levels = [pte !== 0n, pmd !== 0n, pud !== 0n];
      const leaf = [PAGE, 2 ** 21, 2 ** 30].indexOf(size);
      equal(levels.indexOf(true), leaf, 'the level of the lowest entry');
    }
    const { result, unmapped } = iommu.unmap(iova, length);
    equal(result, 0, 'unmap');
    equal(unmapped, length, 'bytes unmapped');
    const after = walk(host, iova);
    holds(after === 'untold' || after === undefined, 'the IOVA has left the table');
  } finally {
    equal(kernel.munmap(memory, size), 0, 'munmap');
  }
}

/** A device, two pages of memory, and the last page of the last range of IOVAs. */
interface Limit {
  readonly iommu: Iommu;
  readonly memory: bigint;
  readonly iova: bigint;
  readonly size: bigint;
}

const limits: Readonly<Record<string, (limit: Limit) => void>> = {
  unmap_range: ({ iommu, memory, iova, size }) => {
    equal(iommu.map(iova, memory, size), 0, 'map');
    const { result, unmapped } = iommu.unmap(iova, size);
    equal(result, 0, 'unmap');
    equal(unmapped, size, 'bytes unmapped');
  },
  unmap_all: ({ iommu, memory, iova, size }) => {
    equal(iommu.map(iova, memory, size), 0, 'map');
    const { result, unmapped } = iommu.unmapAll();
    equal(result, 0, 'unmap all');
    equal(unmapped, size, 'bytes unmapped');
  },
  overflow: ({ iommu, memory, size }) => {
    const iova = 2n ** 64n - size;
    equal(iommu.map(iova, memory, 2n * size), -EOVERFLOW, 'map');
    equal(iommu.unmap(iova, 2n * size).result, -EOVERFLOW, 'unmap');
  },
};

async function atTheLimit(
  host: ConformanceHost,
  mode: IommuMode,
  body: (limit: Limit) => void,
): Promise<void> {
  const { kernel } = host;
  using iommu = new Iommu(kernel, mode);
  using _device = await VfioDevice.open(host, BDF, iommu);
  const memory = kernel.mmap(2 * PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
  holds(memory > 0n, 'mmap');
  try {
    const size = BigInt(PAGE);
    const last = iommu.ranges().at(-1)?.last as bigint;
    body({ iommu, memory, iova: last & -size, size });
  } finally {
    equal(kernel.munmap(memory, 2 * PAGE), 0, 'munmap');
  }
}

export const cases: readonly Case[] = [
  ...iommuModes.flatMap(mode =>
    backings.map(
      (backing): Case => ({
        source,
        fixture: 'vfio_dma_mapping_test',
        name: 'dma_map_unmap',
        variant: `${mode.name}_${backing.name}`,
        profiles: profilesOf(mode),
        unavailable: host => unavailable(host, backing),
        run: (_t, host) => dmaMapUnmap(host, mode, backing),
      }),
    ),
  ),
  ...iommuModes.flatMap(mode =>
    Object.entries(limits).map(
      ([name, body]): Case => ({
        source,
        fixture: 'vfio_dma_map_limit_test',
        name,
        variant: mode.name,
        profiles: profilesOf(mode),
        run: (_t, host) => atTheLimit(host, mode, body),
      }),
    ),
  ),
];
