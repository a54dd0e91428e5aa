// Saved states and device trees, mutated: each must be refused with a StateError, or be a state that is written and read
// again as the same. In part of the inputs the checksums are made right again, so that what lies behind them is reached.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { withCodec } from '../../src/keepalive/state/codec.js';
import { compareStates } from '../../src/keepalive/state/compare-states.js';
import { decodeState, decodeStateInPieces } from '../../src/keepalive/state/decode-state.js';
import { fdtSource } from '../../src/keepalive/state/dts.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import { readFdt, writeFdt } from '../../src/keepalive/state/fdt.js';
import { exportRfc, importRfc } from '../../src/keepalive/state/rfc.js';
import { StateError } from '../../src/keepalive/state/state-error.js';
import { FROM_DTC, goldenFile, goldenRfc, goldenStates } from '../support/golden-states.js';
import type { Random } from '../support/random.js';
import { random } from '../support/random.js';
import { plain, randomState } from '../support/random-state.js';
import { type Layout, layoutOf, mutate, pick, repair } from './flat-tree-mutations.js';
import type { FuzzTarget } from './fuzz.js';

/** The codec's own memory: what it has at first, and what an input may make of it. */
const CODEC_MEMORY = 4 * 65_536;

function expectStateError(error: unknown): void {
  if (!(error instanceof StateError)) throw error;
}

function checkState(bytes: Uint8Array, random: Random): void {
  let again: Uint8Array;
  try {
    const state = decodeState(bytes);
    again = encodeState(state);
    const second = decodeState(again);
    if (random.below(8) === 0) assert.deepEqual(plain(second), plain(state));
    if (random.below(8) === 0) assert.deepEqual(compareStates(second, state), []);
    assert(Buffer.compare(encodeState(second), again) === 0, 'written again as the same');
  } catch (error) {
    expectStateError(error);
    if (random.below(8) > 0) return;
    // In pieces it must come to the same end.
    assert.throws(() => encodeState(decodeStateInPieces(bytes)), StateError);
    return;
  }
  if (random.below(8) === 0) {
    assert(Buffer.compare(encodeState(decodeStateInPieces(bytes)), again) === 0, 'in pieces the same');
  }
}

function checkTree(bytes: Uint8Array): void {
  try {
    const tree = readFdt(bytes);
    const again = writeFdt(tree);
    assert([...fdtSource(tree)].join('').endsWith('};\n'));
    assert(Buffer.compare(writeFdt(readFdt(again)), again) === 0);
  } catch (error) {
    expectStateError(error);
  }
}

function checkRfc(bytes: Uint8Array): void {
  try {
    const again = exportRfc(importRfc(bytes));
    assert(Buffer.compare(exportRfc(importRfc(again)), again) === 0);
  } catch (error) {
    expectStateError(error);
  }
}

export function target(): FuzzTarget {
  const r = random(7);
  const states = Object.values(goldenStates).map(encodeState);
  states.push(new Uint8Array(readFileSync(goldenFile(FROM_DTC))));
  for (let count = 0; count < 8; ) {
    const made = encodeState(randomState(r, 30));
    if (made.length > 4096) continue;
    states.push(made);
    count++;
  }
  const rfc = exportRfc(goldenRfc);
  const all = [...states, rfc];
  const layouts = new Map(all.map(seed => [seed, layoutOf(seed)]));
  return random => {
    const isRfc = random.below(8) === 0;
    const seed = isRfc ? rfc : pick(random, states);
    let bytes: Uint8Array = Uint8Array.from(seed);
    const layout = layouts.get(seed) as Layout;
    for (let count = 1 + random.below(3); count > 0; count--) bytes = mutate(random, bytes, layout, all);
    if (random.below(4) > 0) repair(bytes);
    if (isRfc) checkRfc(bytes);
    else checkState(bytes, random);
    if (random.below(16) === 0) checkTree(bytes);
    const memory = withCodec(codec => codec.bytes.length);
    // The input, an index of it, tables and the output: see decodeState and encodeState.
    assert(
      memory <= CODEC_MEMORY + 65_536 + 8 * bytes.length,
      `${memory} bytes for an input of ${bytes.length}`,
    );
  };
}
