/** What the tests of page tables share: the formats with what their specifications say, and raw entries. @module */
import type { PhysicalAddress } from '../../../src/address.js';
import { PageTableFormat, type PageTableOptions } from '../../../src/memory/page-table.js';
import { TABLE_PAGE, type TableMemory } from '../../../src/memory/table-memory.js';

export interface FormatFacts {
  readonly name: string;
  readonly format: PageTableFormat;
  readonly options: PageTableOptions;
  /** IOVAs below this can be mapped. */
  readonly limit: bigint;
  /** log2 of every leaf size. */
  readonly sizes: readonly number[];
  /** Bits that hardware sets, or clears where `inverted`, in a leaf that was written to. */
  readonly dirty?: { readonly bit: bigint; readonly inverted?: boolean };
  /** A writeable mapping is dirty from the start. */
  readonly bornDirty?: boolean;
  /** Mappings are readable whatever was asked for. */
  readonly alwaysReadable?: boolean;
}

const amdSizes = Array.from({ length: 40 }, (_, index) => 12 + index).filter(log2 => log2 !== 39);
const threeSizes = [12, 21, 30];

export const formats: readonly FormatFacts[] = [
  {
    name: 'AMDv1',
    format: PageTableFormat.AmdV1,
    options: {},
    limit: 1n << 64n,
    sizes: amdSizes,
    dirty: { bit: 1n << 6n },
  },
  {
    name: 'AMDv1, 6 levels',
    format: PageTableFormat.AmdV1,
    options: { levels: 6, snoop: true },
    limit: 1n << 64n,
    sizes: amdSizes,
    dirty: { bit: 1n << 6n },
  },
  ...[3, 4, 5].map(levels => ({
    name: `VT-d second stage, ${levels} levels`,
    format: PageTableFormat.VtdSecondStage,
    options: { levels, snoop: levels === 5 },
    limit: 1n << BigInt(12 + 9 * levels),
    sizes: threeSizes,
    dirty: { bit: 1n << 9n },
  })),
  ...[4, 5].map(levels => ({
    name: `x86 first stage, ${levels} levels`,
    format: PageTableFormat.X86FirstStage,
    options: { levels },
    limit: 1n << BigInt(12 + 9 * levels),
    sizes: threeSizes,
    dirty: { bit: 1n << 6n },
    bornDirty: true,
    alwaysReadable: true,
  })),
  {
    name: 'x86 first stage, sign-extended',
    format: PageTableFormat.X86FirstStage,
    options: { signExtend: true },
    limit: 1n << 47n,
    sizes: threeSizes,
    dirty: { bit: 1n << 6n },
    bornDirty: true,
    alwaysReadable: true,
  },
  ...[3, 4].map(levels => ({
    name: `ARM stage 1, ${levels} levels`,
    format: PageTableFormat.ArmStage1,
    options: { levels, hardwareDirty: true },
    limit: 1n << BigInt(12 + 9 * levels),
    sizes: threeSizes,
    dirty: { bit: 1n << 7n, inverted: true },
    bornDirty: true,
    alwaysReadable: true,
  })),
  ...[3, 4].map(levels => ({
    name: `ARM stage 2, ${levels} levels`,
    format: PageTableFormat.ArmStage2,
    options: { levels },
    limit: 1n << BigInt(12 + 9 * levels),
    sizes: threeSizes,
  })),
];

/** The sizes that the kernel's rule gives: at each address the largest that is aligned and does not go too far. */
export function expectedLeaves(
  sizes: readonly number[],
  iova: bigint,
  address: bigint,
  length: bigint,
): Map<bigint, number> {
  const leaves = new Map<bigint, number>();
  const descending = sizes.map(log2 => 1n << BigInt(log2)).reverse();
  const end = iova + length;
  while (iova < end) {
    const size = descending.find(each => iova % each === 0n && address % each === 0n && iova + each <= end);
    if (size === undefined) throw new Error('nothing fits');
    leaves.set(size, (leaves.get(size) ?? 0) + 1);
    iova += size;
    address += size;
  }
  return leaves;
}

export function readEntry(memory: TableMemory, table: bigint, index: number): bigint {
  const page = memory.read(table as PhysicalAddress);
  return new DataView(page.buffer).getBigUint64(index * 8, true);
}

export function writeEntry(memory: TableMemory, table: bigint, index: number, value: bigint): void {
  const page = memory.read(table as PhysicalAddress);
  new DataView(page.buffer).setBigUint64(index * 8, value, true);
  memory.load(table as PhysicalAddress, page);
}

/** A page of entries, the others zero. */
export function tablePage(entries: Readonly<Record<number, bigint>>): Uint8Array {
  const page = new Uint8Array(TABLE_PAGE);
  const view = new DataView(page.buffer);
  for (const [index, value] of Object.entries(entries)) view.setBigUint64(Number(index) * 8, value, true);
  return page;
}
