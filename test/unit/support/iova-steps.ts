/** Runs one list of steps on an IOVA space and on its model, and compares them all the way. @module */
import assert from 'node:assert/strict';
import type { Iova, IovaRange } from '../../../src/address.js';
import { IovaBlockKind, IovaSpace, type Placement } from '../../../src/memory/iova-space.js';
import { IovaModel, type Range } from './iova-model.js';

export type Step =
  | { readonly op: 'allocate'; readonly size: bigint; readonly placement?: Placement }
  | { readonly op: 'allocateAt' | 'reserve'; readonly at: bigint; readonly size: bigint }
  /** One that is there, by its number in address order. */
  | { readonly op: 'free' | 'unreserve'; readonly index: number }
  /** Whatever is there. */
  | { readonly op: 'freeAt' | 'unreserveAt' | 'find'; readonly at: bigint }
  | { readonly op: 'ticket' }
  | { readonly op: 'recycle'; readonly index?: number | undefined }
  | { readonly op: 'restrict'; readonly ranges: readonly Range[] }
  | { readonly op: 'rebuild' };

export interface Setting {
  readonly ranges: readonly Range[];
  readonly granule: number;
  readonly delayed: boolean;
  readonly firstFit: boolean;
  readonly steps: readonly Step[];
}

/** What happened, over all runs: that a test met what it is for. */
export interface Tally {
  steps: number;
  allocated: number;
  refused: number;
  conflicts: number;
  restricted: number;
}

const CHECK_EVERY = 64;

export function run({ ranges, granule, delayed, firstFit, steps }: Setting, tally: Tally): void {
  const model = new IovaModel(ranges, granule, delayed, firstFit);
  let space = new IovaSpace(ranges as IovaRange[], { granule, delayedRecycling: delayed, firstFit });
  const tickets: number[] = [];

  const compare = (): void => {
    space.check();
    assert.deepEqual([...space.blocks()], model.all);
  };
  const free = (at: bigint): void => {
    const size = model.free(at);
    if (size !== undefined) assert.equal(BigInt(space.free(at as Iova)), size);
    else assert.throws(() => space.free(at as Iova), RangeError);
  };
  const unreserve = (at: bigint): void => {
    if (model.unreserve(at)) space.unreserve(at as Iova);
    else assert.throws(() => space.unreserve(at as Iova), RangeError);
  };
  const nth = (kind: IovaBlockKind, index: number): bigint | undefined => {
    const blocks = model.of(kind);
    return blocks[index % blocks.length]?.first;
  };

  const perform = (step: Step): void => {
    switch (step.op) {
      case 'allocate': {
        // As a number without placement where that can be: it has a way of its own.
        const small = step.size <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(step.size) : step.size;
        const found =
          step.placement === undefined ? space.allocate(small) : space.allocate(step.size, step.placement);
        assert.equal(found, model.allocate(step.size, step.placement));
        if (found === undefined) tally.refused++;
        else tally.allocated++;
        break;
      }
      case 'allocateAt':
      case 'reserve': {
        const { op, at, size } = step;
        const kind = op === 'reserve' ? IovaBlockKind.Reserved : IovaBlockKind.Allocated;
        if (at + model.round(size) > 2n ** 64n) {
          assert.throws(() => space[op](at as Iova, size), RangeError);
        } else {
          const done = model.occupy(at, size, kind);
          assert.equal(space[op](at as Iova, size), done);
          if (done) tally.allocated++;
          else tally.refused++;
        }
        break;
      }
      case 'free': {
        const at = nth(IovaBlockKind.Allocated, step.index);
        if (at !== undefined) free(at);
        break;
      }
      case 'unreserve': {
        const at = nth(IovaBlockKind.Reserved, step.index);
        if (at !== undefined) unreserve(at);
        break;
      }
      case 'freeAt':
        free(step.at);
        break;
      case 'unreserveAt':
        unreserve(step.at);
        break;
      case 'find':
        assert.deepEqual(space.find(step.at as Iova), model.find(step.at));
        break;
      case 'ticket':
        assert.equal(space.ticket(), model.freed);
        tickets.push(space.ticket());
        break;
      case 'recycle': {
        const ticket = step.index === undefined ? undefined : (tickets[step.index % tickets.length] ?? 0);
        space.recycle(ticket);
        model.recycle(ticket ?? model.freed);
        break;
      }
      case 'restrict': {
        const conflicts = space.restrict(step.ranges as IovaRange[]);
        assert.deepEqual(
          conflicts.map(({ iova }) => iova as bigint),
          model.restrict(step.ranges),
        );
        if (conflicts.length > 0) tally.conflicts++;
        else tally.restricted++;
        break;
      }
      case 'rebuild': {
        const snapshot = structuredClone(space.snapshot());
        const other = IovaSpace.from(snapshot);
        assert.deepEqual(other.snapshot(), snapshot);
        space = other;
        break;
      }
    }
  };

  compare();
  for (const [index, step] of steps.entries()) {
    tally.steps++;
    perform(step);
    assert.equal(space.freeBytes, model.bytes(IovaBlockKind.Free));
    assert.equal(space.allocations, model.of(IovaBlockKind.Allocated).length);
    if (index % CHECK_EVERY === 0) compare();
  }
  compare();
  assert.equal(space.allocatedBytes, model.bytes(IovaBlockKind.Allocated));
  assert.equal(space.reservedBytes, model.bytes(IovaBlockKind.Reserved));
  assert.equal(space.recyclingBytes, model.bytes(IovaBlockKind.Recycling));
  assert.equal(space.reservations, model.of(IovaBlockKind.Reserved).length);
  assert.deepEqual(
    [...space].map(({ iova }) => iova as bigint),
    model.blocks.filter(({ kind }) => kind !== IovaBlockKind.Hole).map(({ first }) => first),
  );
}
