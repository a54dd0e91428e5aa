/** The library's page table of the same mappings as one of the kernel's, and the kernel's own opened by the library. @module */
import { readFileSync } from 'node:fs';
import {
  iova,
  PageTable,
  PageTableFormat,
  type PageTableOptions,
  physicalAddress,
  TableMemory,
} from 'iommufd';
import { type Dump, type RawEntry, TableFormat, type TableRoot } from './kernel-tables.js';

/** What was done to an address space. */
export type Operation =
  | {
      readonly kind: 'map';
      readonly iova: bigint;
      readonly physical: bigint;
      readonly length: number;
      readonly readable: boolean;
      readonly writeable: boolean;
    }
  | { readonly kind: 'unmap'; readonly iova: bigint; readonly length: number };

const formats: Record<TableFormat, PageTableFormat> = {
  [TableFormat.Amd]: PageTableFormat.AmdV1,
  [TableFormat.SecondStage]: PageTableFormat.VtdSecondStage,
  [TableFormat.FirstStage]: PageTableFormat.X86FirstStage,
};

/**
 * Whether the kernel makes accesses coherent in each entry. It asks for it wherever it can: AMD's IOMMUs always can,
 * those of VT-d with snoop control (ECAP bit 7) can; for the first stage that is not in the table.
 */
function snoops({ format }: TableRoot, device: string): boolean {
  if (format !== TableFormat.SecondStage) return format === TableFormat.Amd;
  const ecap = readFileSync(`/sys/bus/pci/devices/${device}/iommu/intel-iommu/ecap`, 'utf8');
  return ((BigInt(`0x${ecap.trim()}`) >> 7n) & 1n) === 1n;
}

function optionsFor(root: TableRoot, device: string, levels = root.levels): PageTableOptions {
  return {
    levels,
    snoop: snoops(root, device),
    signExtend: root.format === TableFormat.FirstStage,
  };
}

function mapInto(table: PageTable, operation: Operation & { readonly kind: 'map' }): void {
  const { physical, length, readable, writeable } = operation;
  table.map(iova(operation.iova), physicalAddress(physical), length, { readable, writeable });
}

/** What the kernel starts an AMD table with; it grows when an IOVA needs more. */
const AMD_LEVELS = 3;

/** A table like the kernel's, after the same operations. */
export function buildTable(root: TableRoot, device: string, operations: readonly Operation[]): PageTable {
  const options = optionsFor(root, device, root.format === TableFormat.Amd ? AMD_LEVELS : root.levels);
  const table = PageTable.create(formats[root.format], new TableMemory(), options);
  for (const operation of operations) {
    if (operation.kind === 'unmap') table.unmap(iova(operation.iova), operation.length);
    else mapInto(table, operation);
  }
  return table;
}

type Place = Pick<RawEntry, 'level' | 'iova'>;

/**
 * The entries that lead to tables in a table from which none is removed for being empty: only when all that it spans
 * is in one unmapped range, or when a leaf takes its place.
 */
export function keptTables(root: TableRoot, device: string, operations: readonly Operation[]): Place[] {
  const memory = new TableMemory(64);
  const kept = new Map<string, Place & { readonly end: bigint }>();
  const removeWithin = (start: bigint, end: bigint): void => {
    for (const [key, table] of kept) if (table.iova >= start && table.end <= end) kept.delete(key);
  };
  for (const operation of operations) {
    const end = operation.iova + BigInt(operation.length);
    if (operation.kind === 'unmap') {
      removeWithin(operation.iova, end);
      continue;
    }
    memory.clear();
    const alone = PageTable.create(formats[root.format], memory, optionsFor(root, device));
    mapInto(alone, operation);
    for (const { kind, level, iova, size } of alone.entries()) {
      if (kind === 'table') kept.set(`${level} ${iova}`, { level, iova, end: iova + size });
      // The entry's own span: several entries may repeat one leaf.
      else removeWithin(iova, iova + (1n << BigInt(12 + 9 * level)));
    }
  }
  return [...kept.values()];
}

/** The kernel's table, as a dump of its memory. */
export function openDump(dump: Dump, device: string): PageTable {
  const memory = new TableMemory({ pages: 0 });
  for (const [address, bytes] of dump.tables) memory.load(physicalAddress(address), bytes);
  return PageTable.open(formats[dump.format], memory, physicalAddress(dump.root), optionsFor(dump, device));
}

/** The entries as the reader of the kernel's tables gives them. */
export function entriesOf(table: PageTable): RawEntry[] {
  return [...table.entries()].map(({ level, iova, index, value, kind }) => {
    if (kind !== 'table' && kind !== 'leaf') throw new Error(`an entry is ${kind}: 0x${value.toString(16)}`);
    return { level, iova, index, value, table: kind === 'table' };
  });
}
