/**
 * What the page table of a mock domain does, without its memory: AMD's first format with pages of 2 KiB and three
 * levels (linux generic_pt, `amdv1_mock`). Every power of two is a page size; a larger page takes several entries.
 *
 * @module
 */
import { EADDRINUSE, EINVAL, ENOENT, ENXIO, ERANGE } from '../../../../bindings/uapi/errno.js';
import { Protection } from '../../iommu/domain.js';

const GRANULE_LOG2 = 11;
const ITEMS_LOG2 = 9;
const TOP_LEVEL = 2;
/** What the IOVAs of the table have, in bits. */
export const ADDRESS_BITS = GRANULE_LOG2 + ITEMS_LOG2 * (TOP_LEVEL + 1);
/** All page sizes; one that is half of the table cannot be had. */
export const PAGE_SIZES = (1n << BigInt(ADDRESS_BITS - 1)) - (1n << BigInt(GRANULE_LOG2));

/** A page, in every entry that it takes. */
interface Leaf {
  readonly iova: number;
  readonly log2: number;
  readonly address: number;
  readonly protection: number;
  dirty: boolean;
}

type Entry = Leaf | Table | undefined;

class Table {
  readonly entries: Entry[] = [];
}

function itemLog2(level: number): number {
  return GRANULE_LOG2 + ITEMS_LOG2 * level;
}

/** Where `iova` is in a table of the level. */
function indexOf(iova: number, level: number): number {
  return Math.floor(iova / 2 ** itemLog2(level)) % 2 ** ITEMS_LOG2;
}

function levelOf(log2: number): number {
  return Math.min(Math.floor((log2 - GRANULE_LOG2) / ITEMS_LOG2), TOP_LEVEL);
}

/** How many low bits are zero; 64 for 0. */
function alignment(value: number): number {
  if (value === 0) return 64;
  let bits = 0;
  for (let rest = value; rest % 2 === 0; rest /= 2) bits++;
  return bits;
}

/** The largest page size at an IOVA and an address, for a length: its logarithm, 0 for none. */
function bestPage(sizes: bigint, iova: number, address: number, length: number): number {
  const most = Math.min(alignment(iova), alignment(address), Math.floor(Math.log2(length)));
  for (let log2 = Math.min(most, ADDRESS_BITS); log2 > 0; log2--) {
    if ((sizes >> BigInt(log2)) & 1n) return log2;
  }
  return 0;
}

function containsLeaf(entry: Entry): boolean {
  return entry instanceof Table ? entry.entries.some(containsLeaf) : entry !== undefined;
}

export class MockPageTable {
  readonly #top = new Table();

  /** Maps with the best of the page sizes. @returns 0, or minus the errno, with nothing mapped */
  map(iova: bigint, address: bigint, length: bigint, protection: number, sizes: bigint): number {
    if ((protection & (Protection.Read | Protection.Write)) === 0 || length === 0n) return -EINVAL;
    if (iova + length > 1n << BigInt(ADDRESS_BITS)) return -ERANGE;
    const first = Number(iova);
    const end = first + Number(length);
    for (let at = first; at < end; ) {
      const oa = Number(address) + (at - first);
      const log2 = bestPage(sizes, at, oa, end - at);
      const result =
        log2 === 0 ? -ENXIO : this.#install({ iova: at, log2, address: oa, protection, dirty: false });
      if (result < 0) {
        this.unmap(iova, BigInt(at - first));
        return result;
      }
      at += 2 ** log2;
    }
    return 0;
  }

  #install(leaf: Leaf): number {
    const target = levelOf(leaf.log2);
    let table = this.#top;
    for (let level = TOP_LEVEL; level > target; level--) {
      const index = indexOf(leaf.iova, level);
      table.entries[index] ??= new Table();
      const next = table.entries[index];
      if (!(next instanceof Table)) return -EADDRINUSE;
      table = next;
    }
    const index = indexOf(leaf.iova, target);
    const end = index + 2 ** (leaf.log2 - itemLog2(target));
    // Tables that are left over, with nothing in them, give way.
    for (let i = index; i < end; i++) if (containsLeaf(table.entries[i])) return -EADDRINUSE;
    for (let i = index; i < end; i++) table.entries[i] = leaf;
    return 0;
  }

  /** The entry at `iova`, the table that it is in, and its level. */
  #find(iova: number): { entry: Leaf | undefined; table: Table; level: number } {
    let table = this.#top;
    for (let level = TOP_LEVEL; ; level--) {
      const entry = table.entries[indexOf(iova, level)];
      if (!(entry instanceof Table)) return { entry, table, level };
      table = entry;
    }
  }

  /**
   * Unmaps up to the first hole. A page of which the end is not in the range goes as a whole; at one of which the
   * beginning is not in the range it stops.
   *
   * @returns how many bytes were mapped
   */
  unmap(iova: bigint, length: bigint): bigint {
    const first = Number(iova);
    const end = first + Number(length);
    let at = first;
    while (at < end && at < 2 ** ADDRESS_BITS) {
      const { entry, table, level } = this.#find(at);
      if (entry === undefined || entry.iova !== at) break;
      const index = indexOf(at, level);
      table.entries.fill(undefined, index, index + 2 ** (entry.log2 - itemLog2(level)));
      at += 2 ** entry.log2;
    }
    return BigInt(at - first);
  }

  translate(iova: bigint): bigint | undefined {
    if (iova >= 1n << BigInt(ADDRESS_BITS)) return undefined;
    const { entry } = this.#find(Number(iova));
    return entry === undefined ? undefined : BigInt(entry.address + (Number(iova) - entry.iova));
  }

  /** As a write by the device does. @returns 0, or minus ENOENT where nothing is mapped */
  setDirty(iova: bigint): number {
    if (iova >= 1n << BigInt(ADDRESS_BITS)) return -ERANGE;
    const { entry } = this.#find(Number(iova));
    if (entry === undefined) return -ENOENT;
    entry.dirty = true;
    return 0;
  }

  /** Calls `mark` for each page in the range that was written: for all of it, even where it begins before the range. */
  readDirty(
    iova: bigint,
    length: bigint,
    keep: boolean,
    mark: (iova: bigint, length: bigint) => void,
  ): number {
    if (iova + length > 1n << BigInt(ADDRESS_BITS)) return -ERANGE;
    const end = Number(iova + length);
    for (let at = Number(iova); at < end; ) {
      const { entry, level } = this.#find(at);
      const log2 = entry?.log2 ?? itemLog2(level);
      if (entry?.dirty === true) {
        mark(BigInt(entry.iova), BigInt(2 ** log2));
        if (!keep) entry.dirty = false;
      }
      at = (Math.floor(at / 2 ** log2) + 1) * 2 ** log2;
    }
    return 0;
  }
}
