/**
 * The running kernel's IO page tables: where they are, what debugfs prints of them, and what is in their memory.
 * Knows the formats by itself, in the plainest way, so that it can be compared with the library's.
 *
 * @module
 */
import { readFileSync, writeFileSync } from 'node:fs';

export const TableFormat = {
  Amd: 'AMDv1',
  SecondStage: 'VT-d second stage',
  FirstStage: 'x86-64 first stage',
} as const;
export type TableFormat = (typeof TableFormat)[keyof typeof TableFormat];

export interface TableRoot {
  readonly format: TableFormat;
  /** Physical address of the top table. */
  readonly root: bigint;
  /** Tables on the way from the root to a 4 KiB page, both included. */
  readonly levels: number;
  /** What the hardware is told about the device: the DTE, context entry or PASID-table entry, low word first. */
  readonly descriptor: readonly bigint[];
}

const FRAME = 0x000f_ffff_ffff_f000n;
const TABLE_ENTRIES = 512;

/** `0000:00:05.0` as the tables of VT-d name it. */
const shortAddress = (address: string): string => address.replace(/^0000:/, '');

/**
 * Finds a device in `dmar_translation_struct`: rows of address, root entry, context entry (high word first), PASID
 * (-1 without scalable mode) and the words 2, 1 and 0 of the PASID-table entry.
 */
export function parseTranslationStruct(text: string, address: string): TableRoot {
  const row = text
    .split('\n')
    .map(line => line.split(/\s+/))
    .find(([device]) => device === shortAddress(address));
  if (!row) throw new Error(`${address} is not in dmar_translation_struct`);
  const words = (column: string | undefined): bigint[] => (column ?? '').split(':').map(BigInt).reverse();
  const [context0 = 0n, context1 = 0n] = words(row[2]);
  if (Number(row[3]) < 0) {
    return {
      format: TableFormat.SecondStage,
      root: context0 & FRAME,
      levels: Number(context1 & 7n) + 2,
      descriptor: [context0, context1],
    };
  }
  const descriptor = words(row[4]);
  const [pasid0 = 0n, , pasid2 = 0n] = descriptor;
  const type = Number((pasid0 >> 6n) & 7n);
  switch (type) {
    case 1:
      return {
        format: TableFormat.FirstStage,
        root: pasid2 & FRAME,
        levels: Number((pasid2 >> 2n) & 3n) + 4,
        descriptor,
      };
    case 2:
      return {
        format: TableFormat.SecondStage,
        root: pasid0 & FRAME,
        levels: Number((pasid0 >> 2n) & 7n) + 2,
        descriptor,
      };
    default:
      throw new Error(`${address} has a translation of type ${type}`);
  }
}

/** Reads a device-table entry out of `devtbl`: the address, and the words 3 to 0. */
export function parseDeviceTable(text: string, address: string): TableRoot {
  const row = text
    .split('\n')
    .map(line => line.split(/\s+/))
    .find(([device]) => device === address);
  if (!row) throw new Error(`${address} is not in devtbl`);
  const descriptor = row
    .slice(1, 5)
    .map(word => BigInt(`0x${word}`))
    .reverse();
  const [word0 = 0n] = descriptor;
  return { format: TableFormat.Amd, root: word0 & FRAME, levels: Number((word0 >> 9n) & 7n), descriptor };
}

const debugfs = '/sys/kernel/debug/iommu';

/** Where the kernel keeps the table of a device. */
export function findRoot(address: string, amd: boolean): TableRoot {
  if (!amd)
    return parseTranslationStruct(readFileSync(`${debugfs}/intel/dmar_translation_struct`, 'utf8'), address);
  writeFileSync(`${debugfs}/amd/devid`, address);
  return parseDeviceTable(readFileSync(`${debugfs}/amd/devtbl`, 'utf8'), address);
}

/** One translation as debugfs prints it: the entries on the way to it, the leaf last. */
export interface PrintedPath {
  readonly iova: bigint;
  readonly path: readonly bigint[];
}

export interface PrintedTable {
  readonly root: bigint;
  readonly paths: readonly PrintedPath[];
}

/**
 * Reads `domain_translation_struct`: a header with the root, then for each leaf its IOVA in pages and the entries of
 * levels 5 to 1, zero where a level does not exist, and ending with the leaf.
 */
export function parseDomain(text: string): PrintedTable {
  const root = /^Device \S+ (?:with pasid \S+ )?@(0x[0-9a-f]+)$/m.exec(text)?.[1];
  if (root === undefined) throw new Error(`domain_translation_struct has no root: ${text.slice(0, 200)}`);
  const paths = text
    .split('\n')
    .filter(line => /^0x[0-9a-f]+ \|/.test(line))
    .map(line => {
      const [page = '', entries = ''] = line.split('|');
      const path = entries.trim().split(/\s+/).map(BigInt);
      return { iova: BigInt(page.trim()) << 12n, path: path.filter(entry => entry !== 0n) };
    });
  return { root: BigInt(root), paths };
}

/** What debugfs prints of a device's table; for VT-d only. */
export function printedTable(address: string): PrintedTable {
  return parseDomain(readFileSync(`${debugfs}/intel/${address}/domain_translation_struct`, 'utf8'));
}

/** An entry that is not empty, where it was found. */
export interface RawEntry {
  /** 0 for the tables whose entries map 4 KiB. */
  readonly level: number;
  readonly iova: bigint;
  readonly index: number;
  readonly value: bigint;
  readonly table: boolean;
}

const bit = (value: bigint, position: bigint): boolean => ((value >> position) & 1n) === 1n;

const isPresent: Record<TableFormat, (value: bigint) => boolean> = {
  [TableFormat.Amd]: value => bit(value, 0n),
  [TableFormat.SecondStage]: value => value !== 0n,
  [TableFormat.FirstStage]: value => bit(value, 0n),
};

const isTable: Record<TableFormat, (value: bigint) => boolean> = {
  [TableFormat.Amd]: value => ![0n, 7n].includes((value >> 9n) & 7n),
  [TableFormat.SecondStage]: value => !bit(value, 7n),
  [TableFormat.FirstStage]: value => !bit(value, 7n),
};

/** All tables of an address space, copied. */
export interface Dump extends TableRoot {
  /** Table contents by their physical address. */
  readonly tables: ReadonlyMap<bigint, Uint8Array>;
  /** Depth first, in order of IOVA. */
  readonly entries: readonly RawEntry[];
}

/** Copies every table that can be reached from the root. `read` gives physical memory. */
export function dumpTables(root: TableRoot, read: (address: bigint, length: number) => Uint8Array): Dump {
  const tables = new Map<bigint, Uint8Array>();
  const entries: RawEntry[] = [];
  const walk = (address: bigint, level: number, base: bigint): void => {
    if (tables.has(address)) throw new Error(`the table at 0x${address.toString(16)} is reached twice`);
    const bytes = read(address, TABLE_ENTRIES * 8);
    tables.set(address, bytes);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (let index = 0; index < TABLE_ENTRIES; index++) {
      const value = view.getBigUint64(index * 8, true);
      if (!isPresent[root.format](value)) continue;
      const iova = base + (BigInt(index) << BigInt(12 + 9 * level));
      const table = level > 0 && isTable[root.format](value);
      entries.push({ level, iova, index, value, table });
      if (table) walk(value & FRAME, level - 1, iova);
    }
  };
  walk(root.root, root.levels - 1, 0n);
  return { ...root, tables, entries };
}

/** The paths to each leaf, as debugfs would print them. */
export function pathsOf(entries: readonly RawEntry[]): PrintedPath[] {
  const paths: PrintedPath[] = [];
  const open: RawEntry[] = [];
  for (const entry of entries) {
    while (open.length > 0 && (open.at(-1) as RawEntry).level <= entry.level) open.pop();
    if (entry.table) open.push(entry);
    else paths.push({ iova: entry.iova, path: [...open.map(table => table.value), entry.value] });
  }
  return paths;
}

/** Set by the kernel, for itself, in entries whose table it has written back from the caches. */
const softwareBit: Record<TableFormat, bigint> = {
  [TableFormat.Amd]: 0n,
  [TableFormat.SecondStage]: 1n << 10n,
  [TableFormat.FirstStage]: 1n << 9n,
};

/**
 * What two tables of the same mappings must agree on. All bits of a leaf; of an entry that leads to a table, neither
 * the address nor the kernel's own bit. Nothing is hidden for accessed and dirty bits: first-stage entries are made
 * with them set, and no hardware here sets them elsewhere.
 */
export function significant(format: TableFormat, entry: Pick<RawEntry, 'value' | 'table'>): bigint {
  return entry.table ? entry.value & ~(FRAME | softwareBit[format]) : entry.value;
}

/** How many leaves there are of each size in bytes; the copies of one leaf in AMD's format count as one. */
export function leafSizes(format: TableFormat, entries: readonly RawEntry[]): Map<number, number> {
  const bytes = new Map<number, number>();
  for (const { level, value, table } of entries) {
    if (table) continue;
    const item = 2 ** (12 + 9 * level);
    let size = item;
    if (format === TableFormat.Amd && ((value >> 9n) & 7n) === 7n) {
      // One bit of the address stands for twice the page size below it, for as long as the bits are set.
      size = 8192;
      for (let position = 12n; bit(value, position); position++) size *= 2;
    }
    bytes.set(size, (bytes.get(size) ?? 0) + item);
  }
  return new Map([...bytes].sort(([a], [b]) => a - b).map(([size, total]) => [size, total / size]));
}
