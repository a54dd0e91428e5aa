/** Where memory lies physically, as the kernel reports it, and as it was saved. @module */
import type { Iova, PhysicalAddress } from '../address.js';
import { hex } from '../hex.js';
import type { Ioas } from '../iommufd/ioas.js';
import { ExtentTable, type SavedExtent } from './state/extent-table.js';

/**
 * Asks the kernel, mapping by mapping, where `size` bytes from `iova` are. For address spaces with a noiommu page table.
 *
 * @throws KernelError
 */
export function physicalExtents(ioas: Ioas, iova: Iova, size: number): ExtentTable {
  const table = new ExtentTable();
  for (let offset = 0; offset < size; ) {
    const { address, length } = ioas.physicalExtent((iova + BigInt(offset)) as Iova, size - offset);
    table.push({ offset, address, length: Number(length) });
    offset += Number(length);
  }
  return table;
}

/** The first page that is elsewhere, or nothing when all are where they were. Extents may be cut up differently. */
export function movedPages(
  saved: ExtentTable,
  found: ExtentTable,
): { offset: number; text: string } | undefined {
  const [was, is] = [runs(saved), runs(found)];
  let [one, other] = [was.next().value, is.next().value];
  while (one !== undefined || other !== undefined) {
    const offset = Math.min(one?.offset ?? Infinity, other?.offset ?? Infinity);
    const [before, after] = [addressAt(one, offset), addressAt(other, offset)];
    if (before !== after) {
      return { offset, text: `the page at offset ${offset} was at ${say(before)} and is at ${say(after)}` };
    }
    // What both have of it.
    const end = Math.min(endOf(one), endOf(other));
    one = rest(one, end) ?? was.next().value;
    other = rest(other, end) ?? is.next().value;
  }
  return undefined;
}

function say(address: bigint | undefined): string {
  return address === undefined ? 'nowhere' : hex(address);
}

function addressAt(run: SavedExtent | undefined, offset: number): bigint | undefined {
  return run?.offset === offset ? run.address : undefined;
}

function endOf(run: SavedExtent | undefined): number {
  return run === undefined ? Infinity : run.offset + run.length;
}

/** What is left of it from `end` on. */
function rest(run: SavedExtent | undefined, end: number): SavedExtent | undefined {
  if (run === undefined || endOf(run) <= end) return undefined;
  const done = end - run.offset;
  return { offset: end, address: (run.address + BigInt(done)) as PhysicalAddress, length: run.length - done };
}

function* runs(table: ExtentTable): Generator<SavedExtent, undefined, undefined> {
  yield* table;
  return undefined;
}
