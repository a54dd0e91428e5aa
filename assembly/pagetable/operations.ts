/** Which instance of each operation is the one for the current format: indices for `call_indirect`. */
import { entries } from './entries';
import { startWalk, walk } from './cursor';
import { map, mapMany } from './map';
import { addressBits, setRules } from './table';
import { translate, translateMany } from './translate';
import { unmap } from './unmap';
import { verify } from './verify';

export let mapIndex: u32 = 0;
export let mapManyIndex: u32 = 0;
export let unmapIndex: u32 = 0;
export let translateIndex: u32 = 0;
export let translateManyIndex: u32 = 0;
export let startWalkIndex: u32 = 0;
export let walkIndex: u32 = 0;
export let entriesIndex: u32 = 0;
export let verifyIndex: u32 = 0;
export let minTop: i32 = 0;
export let maxTop: i32 = 0;
export let allowedOptions: u32 = 0;

/** Arrow functions, since a name with type arguments is not an expression. */
export function bind<F>(): void {
  const format = changetype<F>(0);
  const mapOf = (iova: u64, length: u64, physical: u64, flags: u32): i32 => map<F>(iova, length, physical, flags);
  mapIndex = mapOf.index;
  const mapManyOf = (from: usize, count: i32, stride: u32, flags: u32): i32 => mapMany<F>(from, count, stride, flags);
  mapManyIndex = mapManyOf.index;
  const unmapOf = (iova: u64, length: u64): i32 => unmap<F>(iova, length);
  unmapIndex = unmapOf.index;
  const translateOf = (iova: u64): i32 => translate<F>(iova);
  translateIndex = translateOf.index;
  const translateManyOf = (from: usize, to: usize, count: i32): void => translateMany<F>(from, to, count);
  translateManyIndex = translateManyOf.index;
  const startWalkOf = (first: u64, last: u64, mode: u32): i32 => startWalk<F>(first, last, mode);
  startWalkIndex = startWalkOf.index;
  const walkOf = (to: usize, capacity: i32): i32 => walk<F>(to, capacity);
  walkIndex = walkOf.index;
  const entriesOf = (to: usize, capacity: i32): i32 => entries<F>(to, capacity);
  entriesIndex = entriesOf.index;
  const verifyOf = (to: usize, capacity: i32): i32 => verify<F>(to, capacity);
  verifyIndex = verifyOf.index;
  minTop = format.minTop();
  maxTop = format.maxTop();
  allowedOptions = format.options();
  setRules(0, format.sizes(), format.addressBits());
}
