/**
 * What an IOVA space should do, told slowly: everything that is not free in one sorted list, searched from its
 * beginning. @module
 */
import { type IovaBlock, IovaBlockKind, type Placement } from '../../../src/memory/iova-space.js';

export const TOP = 2n ** 64n - 1n;
const PAGE = 4096n;

export interface Block {
  first: bigint;
  last: bigint;
  kind: IovaBlockKind;
}

export interface Range {
  readonly first: bigint;
  readonly last: bigint;
}

const ceilLog2 = (value: bigint): bigint => BigInt((value - 1n).toString(2).length * Number(value > 1n));
const alignUp = (value: bigint, multiple: bigint): bigint => ((value + multiple - 1n) / multiple) * multiple;
const max = (a: bigint, b: bigint): bigint => (a > b ? a : b);

export class IovaModel {
  readonly granule: bigint;
  readonly delayed: boolean;
  readonly firstFit: boolean;
  /** All that is not free. */
  blocks: Block[] = [];
  /** First addresses in the order in which they were freed, with their number. */
  waiting: { first: bigint; number: number }[] = [];
  freed = 0;

  constructor(ranges: readonly Range[], granule: number, delayed: boolean, firstFit: boolean) {
    this.granule = BigInt(granule);
    this.delayed = delayed;
    this.firstFit = firstFit;
    for (const hole of this.#outside(ranges)) this.#insert({ ...hole, kind: IovaBlockKind.Hole });
  }

  /** All but the ranges; the first and last page, or granule, are never in one. */
  #outside(ranges: readonly Range[]): Range[] {
    const edge = max(this.granule, PAGE);
    const outside: Range[] = [];
    let next = 0n;
    for (const range of ranges) {
      const first = max(range.first, edge);
      const last = range.last > TOP - edge ? TOP - edge : range.last;
      if (first > last) continue;
      if (first > next) outside.push({ first: next, last: first - 1n });
      next = last + 1n;
    }
    outside.push({ first: next, last: TOP });
    return outside;
  }

  #insert(block: Block): void {
    const index = this.blocks.findIndex(({ first }) => first > block.first);
    this.blocks.splice(index < 0 ? this.blocks.length : index, 0, block);
  }

  get runs(): Range[] {
    const runs: Range[] = [];
    let next = 0n;
    for (const { first, last } of this.blocks) {
      if (first > next) runs.push({ first: next, last: first - 1n });
      next = last + 1n;
    }
    if (next <= TOP) runs.push({ first: next, last: TOP });
    return runs;
  }

  bytes(kind: IovaBlockKind): bigint {
    if (kind === IovaBlockKind.Free)
      return this.runs.reduce((sum, { first, last }) => sum + last - first + 1n, 0n);
    return this.of(kind).reduce((sum, { first, last }) => sum + last - first + 1n, 0n);
  }

  of(kind: IovaBlockKind): Block[] {
    return this.blocks.filter(block => block.kind === kind);
  }

  isFree(first: bigint, last: bigint): boolean {
    return last <= TOP && this.blocks.every(block => block.last < first || block.first > last);
  }

  round(size: bigint): bigint {
    return alignUp(size, this.granule);
  }

  allocate(size: bigint, placement: Placement = {}): bigint | undefined {
    const { lowest = 0n, highest = TOP, boundary } = placement;
    const alignment = max(BigInt(placement.alignment ?? 1), this.granule);
    const rounded = this.round(size);
    const order = max(2n ** ceilLog2(rounded / this.granule) * this.granule, alignment);
    const limit = boundary === undefined ? undefined : BigInt(boundary);
    if (limit !== undefined && rounded > limit) return undefined;
    // The lowest free block of that order, then the lowest place of all.
    const anywhere = [rounded, alignment] as const;
    for (const [room, multiple] of this.firstFit ? [anywhere] : [[order, order] as const, anywhere]) {
      for (const run of this.runs) {
        let first = alignUp(max(run.first, lowest), multiple);
        if (limit !== undefined && first / limit !== (first + rounded - 1n) / limit) {
          first = alignUp(first, max(limit, multiple));
        }
        if (first + room - 1n > run.last || first + rounded - 1n > highest) continue;
        this.#insert({ first, last: first + rounded - 1n, kind: IovaBlockKind.Allocated });
        return first;
      }
    }
    return undefined;
  }

  occupy(first: bigint, size: bigint, kind: IovaBlockKind): boolean {
    const last = first + this.round(size) - 1n;
    if (!this.isFree(first, last)) return false;
    this.#insert({ first, last, kind });
    return true;
  }

  #find(first: bigint, kind: IovaBlockKind): Block | undefined {
    return this.blocks.find(block => block.first === first && block.kind === kind);
  }

  #remove(block: Block): void {
    this.blocks = this.blocks.filter(other => other !== block);
  }

  /** The size, `undefined` where no allocation starts. */
  free(first: bigint): bigint | undefined {
    const block = this.#find(first, IovaBlockKind.Allocated);
    if (!block) return undefined;
    if (this.delayed) {
      block.kind = IovaBlockKind.Recycling;
      this.waiting.push({ first, number: this.freed++ });
    } else {
      this.#remove(block);
    }
    return block.last - block.first + 1n;
  }

  unreserve(first: bigint): boolean {
    const block = this.#find(first, IovaBlockKind.Reserved);
    if (block) this.#remove(block);
    return block !== undefined;
  }

  recycle(ticket: number): void {
    for (const { first, number } of this.waiting) {
      if (number < ticket) this.#remove(this.#find(first, IovaBlockKind.Recycling) as Block);
    }
    this.waiting = this.waiting.filter(({ number }) => number >= ticket);
  }

  /** First addresses of what is in the way. */
  restrict(ranges: readonly Range[]): bigint[] {
    const outside = this.#outside(ranges);
    const conflicts = this.blocks.filter(
      block =>
        block.kind !== IovaBlockKind.Hole &&
        outside.some(({ first, last }) => block.first <= last && first <= block.last),
    );
    if (conflicts.length > 0) return conflicts.map(({ first }) => first);
    const holes = [...this.of(IovaBlockKind.Hole), ...outside].sort((a, b) => (a.first < b.first ? -1 : 1));
    this.blocks = this.blocks.filter(({ kind }) => kind !== IovaBlockKind.Hole);
    let joined: Block | undefined;
    for (const { first, last } of holes) {
      if (joined && first <= joined.last + 1n) {
        joined.last = max(joined.last, last);
      } else {
        joined = { first, last, kind: IovaBlockKind.Hole };
        this.#insert(joined);
      }
    }
    return [];
  }

  /** Everything, as `IovaSpace.blocks` has it. */
  get all(): IovaBlock[] {
    const free = this.runs.map(run => ({ ...run, kind: IovaBlockKind.Free }));
    return [...this.blocks, ...free]
      .sort((a, b) => (a.first < b.first ? -1 : 1))
      .map(({ first, last, kind }) => ({ iova: first as IovaBlock['iova'], size: last - first + 1n, kind }));
  }

  find(address: bigint): IovaBlock {
    return this.all.find(({ iova, size }) => iova <= address && address < iova + size) as IovaBlock;
  }
}
