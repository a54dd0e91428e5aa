/** `iommufd state verify`: whether a saved state is good, and where not. @module */
import { decodeState } from '../../keepalive/state/decode-state.js';
import type { State } from '../../keepalive/state/saved-state.js';
import { StateError } from '../../keepalive/state/state-error.js';
import type { StateVerifyCommand } from '../arguments.js';
import { ExitCode } from '../errors.js';
import { toJson } from '../json.js';
import { printable } from '../printable.js';
import { print } from '../streams.js';
import { fields } from '../table.js';
import { formatCount, formatSizeExactly } from '../units.js';
import { contents } from './contents.js';
import { BadState, readBytes, titleOf } from './file.js';
import { keptPaths } from './kept.js';

/** A good state, and how much of its file it takes. */
interface Good {
  /** Of the input, in bytes. */
  readonly size: number;
  /** Of the state in it, by its header. */
  readonly used: number;
  readonly state: State;
}

/** What was found. */
export type Verdict = Good | StateError;

/** Checks all of a state. */
export function examine(bytes: Uint8Array): Verdict {
  try {
    const state = decodeState(bytes);
    const used = new DataView(bytes.buffer, bytes.byteOffset).getUint32(4);
    return { size: bytes.length, used, state };
  } catch (error) {
    if (error instanceof StateError) return error;
    throw error;
  }
}

function rowCounts({ arenas, iommufds }: State): { mappings: number; extents: number } {
  const ioases = iommufds.flatMap(iommufd => iommufd.ioases);
  return {
    mappings: ioases.reduce((sum, ioas) => sum + ioas.mappings.length, 0),
    extents: arenas.reduce((sum, arena) => sum + (arena.extents?.length ?? 0), 0),
  };
}

function goodText(file: string, { size, used, state }: Good): string {
  const { mappings, extents } = rowCounts(state);
  const kept = keptPaths(state).length;
  return `${titleOf(file)} is good\n${fields([
    ['size', formatSizeExactly(used)],
    ...(size > used
      ? ([['behind it', `${formatSizeExactly(size - used)}, which are ignored`]] as const)
      : []),
    ['checksums', 'of the whole and of all rows: right'],
    ['records', `${contents(state)}: each as its version says`],
    ['references', 'whatever a record refers to is there, and nothing is there twice'],
    ['mappings', `${mappings}: in order, none overlaps another, each within its arena`],
    ['extents', `${extents}: likewise`],
    [
      'not understood',
      kept === 0 ? 'nothing' : `${formatCount(kept, 'thing')}, none of them required; passed on`,
    ],
  ])}`;
}

function badText(file: string, { code, path, property, offset, reason, hint }: StateError): string {
  const where = [
    ...(path === undefined ? [] : [path]),
    ...(property === undefined ? [] : [`property ${property}`]),
    ...(offset === undefined ? [] : [`byte ${offset}`]),
  ].join(', ');
  return `${titleOf(file)} is not good: ${code}\n${fields([
    ...(where === '' ? [] : ([['where', where]] as const)),
    ['what', printable(reason)],
    ['what to do', hint],
  ])}`;
}

function goodJson(file: string, { size, used, state }: Good): unknown {
  const { arenas, devices, drivers, sessions, iommufds } = state;
  return {
    file,
    good: true,
    size: BigInt(size),
    stateSize: BigInt(used),
    devices: devices.length,
    drivers: drivers.length,
    arenas: arenas.length,
    iommufds: iommufds.length,
    sessions: sessions.length,
    ...rowCounts(state),
    notUnderstood: keptPaths(state).length,
  };
}

function badJson(file: string, { code, path, property, offset, reason, hint }: StateError): unknown {
  const place = { path: path ?? null, property: property ?? null, offset: offset ?? null };
  return { file, good: false, code, ...place, reason, hint };
}

/** For people. */
export function verdictText(file: string, verdict: Verdict): string {
  return verdict instanceof StateError ? badText(file, verdict) : goodText(file, verdict);
}

/** For programs. */
export function verdictJson(file: string, verdict: Verdict): unknown {
  return verdict instanceof StateError ? badJson(file, verdict) : goodJson(file, verdict);
}

/** What is found in a file, which may be too large to be a state. */
async function verdictOn(file: string, signal: AbortSignal): Promise<Verdict> {
  try {
    return examine(await readBytes(file, signal));
  } catch (error) {
    if (error instanceof BadState) return error.cause;
    throw error;
  }
}

/** @returns the exit code */
export async function runStateVerify(
  { file, json }: StateVerifyCommand,
  signal: AbortSignal,
): Promise<number> {
  const verdict = await verdictOn(file, signal);
  await print(json ? toJson(verdictJson(file, verdict)) : verdictText(file, verdict));
  return verdict instanceof StateError ? ExitCode.Failed : ExitCode.Ok;
}
