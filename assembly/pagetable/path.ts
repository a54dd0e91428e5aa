/**
 * Where a walk is: the tables from the root down, one node for each level.
 *
 *      +0        u64 id         which of the level's tables
 *      +8        u64 physical
 *      +16       u64 inherited  what the entries above limit
 *      +24       u32 place      in linear memory; 0: the walk is not in a table of this level
 *
 * A walk goes through rising addresses, so it enters each table of a tree once. One that is entered a second time is
 * shared or part of a loop: STAMPS says which walk entered a page last. Hence no walk, whatever it walks over, enters
 * more tables than there are pages.
 */
import { TABLE } from './flags';
import { indexOf, maskOf, shiftOf, tableId } from './geometry';
import { NODES, STAMPS } from './layout';
import { backedPages, inUse, lookup } from './memory';
import { OK, OUTSIDE_MEMORY, SHARED_TABLE, fail } from './status';
import { outward, root, top } from './table';

const NODE: usize = 32;
const LEVELS: i32 = 6;

let generation: u32 = 0;
/** Tables entered, over all parts of a walk that goes on. */
export let entered: u32 = 0;
let resuming: bool = false;
let countedAbove: i32 = 0;

/** Where `descend` ended. */
export let level: i32 = 0;
export let place: usize = 0;
export let entry: u64 = 0;
export let kind: i32 = 0;

@inline function node(at: i32): usize {
  return NODES + (<usize>at) * NODE;
}
@inline export function placeAt(at: i32): usize {
  return <usize>load<u32>(node(at), 24);
}
@inline export function physicalAt(at: i32): u64 {
  return load<u64>(node(at), 8);
}
@inline export function inheritedAt(at: i32): u64 {
  return load<u64>(node(at), 16);
}

/**
 * Starts a walk at the root. `before` is how many tables earlier parts of the same walk entered; of those on the way to
 * where it is taken up they are the tables above the level `above`, and the ones that it is in the middle of.
 */
export function begin<F>(before: u32, resumed: bool, above: i32 = top - 1): i32 {
  nextGeneration();
  for (let at = 0; at < LEVELS; at++) store<u32>(node(at), 0, 24);
  entered = before;
  resuming = resumed;
  countedAbove = above;
  return enter(top, 0, root, changetype<F>(0).inheritAll());
}

export function nextGeneration(): void {
  generation++;
  if (generation != 0) return;
  memory.fill(STAMPS, 0, 4 << 20);
  generation = 1;
}

/** Whether this walk comes upon the page for the first time. */
@inline export function stamp(page: usize): bool {
  const mark = STAMPS + ((page >>> 12) << 2);
  if (load<u32>(mark) == generation) return false;
  store<u32>(mark, generation);
  return true;
}

/** Enters the table at `physical`, which covers `va`. */
export function enter(at: i32, va: u64, physical: u64, inherited: u64): i32 {
  const page = lookup(physical);
  let status = OK;
  if (page == 0 || !inUse(physical)) status = OUTSIDE_MEMORY;
  else if (!stamp(page)) status = SHARED_TABLE;
  // Not those that an earlier part counted.
  else if (!(resuming && (at > countedAbove || (va & maskOf(shiftOf(at + 1))) != 0)) && ++entered > backedPages) {
    status = SHARED_TABLE;
  }
  if (status != OK) {
    if (at == top) return fail(status, at + 1, 0, 0, 0, physical);
    return failAt(status, at + 1, va);
  }
  const to = node(at);
  store<u64>(to, tableId(at, va));
  store<u64>(to, physical, 8);
  store<u64>(to, inherited, 16);
  store<u32>(to, <u32>page, 24);
  return OK;
}

/** Reports the entry for `va` in the node of that level. */
export function failAt(status: i32, at: i32, va: u64): i32 {
  const index = indexOf(at, va);
  const value = load<u64>(placeAt(at) + ((<usize>index) << 3));
  const start = va & ~maskOf(shiftOf(at));
  return fail(status, at, outward(start), physicalAt(at), index, value);
}

/** Goes down towards `va` as far as tables lead, to level `to` at most, and reads the entry there. */
export function descend<F>(va: u64, to: i32): i32 {
  const format = changetype<F>(0);
  let at = to;
  while (at < top && (placeAt(at) == 0 || load<u64>(node(at)) != tableId(at, va))) at++;
  while (true) {
    const table = placeAt(at);
    const value = load<u64>(table + ((<usize>indexOf(at, va)) << 3));
    const is = format.kind(at, value);
    if (is != TABLE || at == to) {
      level = at;
      place = table;
      entry = value;
      kind = is;
      resuming = false;
      return OK;
    }
    const status = enter(at - 1, va, format.child(value), format.inherit(inheritedAt(at), value));
    if (status != OK) return status;
    at--;
  }
}

/** Whether the slots of one leaf are what they should be: the same but for what hardware marks, and all there. */
export function replicasAgree<F>(at: i32, table: usize, index: i32, sizeLog2: i32): bool {
  const format = changetype<F>(0);
  const slots = 1 << (sizeLog2 - shiftOf(at));
  const first = index & ~(slots - 1);
  const expected = load<u64>(table + ((<usize>index) << 3)) & ~format.marks();
  for (let slot = first; slot < first + slots; slot++) {
    if ((load<u64>(table + ((<usize>slot) << 3)) & ~format.marks()) != expected) return false;
  }
  return true;
}
