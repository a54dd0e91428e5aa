/** `iommufd state diff`: what two saved states say differently. @module */
import { hex } from '../../hex.js';
import {
  compareStates,
  type ExtentsDifference,
  type MappingDifference,
  type MappingsDifference,
  type StateDifference,
  type StateValue,
} from '../../keepalive/state/compare-states.js';
import { FdtValue } from '../../keepalive/state/fdt-value.js';
import type { StateDiffCommand } from '../arguments.js';
import { colours } from '../colours.js';
import { ExitCode } from '../errors.js';
import { toJson } from '../json.js';
import { printable } from '../printable.js';
import { print } from '../streams.js';
import { formatAddress, formatCount, formatSize, formatSizeExactly } from '../units.js';
import { readState, titleOf } from './file.js';

const NOTHING = '(nothing)';
/** Of a value that is not understood, in bytes. */
const MOST_BYTES = 32;

const hexadecimal = new Set([
  'vendor-id',
  'device-id',
  'subsystem-vendor-id',
  'subsystem-device-id',
  'class-code',
  'flags',
]);
const sizes = new Set(['size', 'page-size']);

function bytesText(value: Uint8Array): string {
  const strings = FdtValue.readStrings(value);
  if (strings?.length === 1 && strings[0] !== '') return JSON.stringify(strings[0]);
  const shown = Buffer.from(value.subarray(0, MOST_BYTES)).toString('hex');
  return value.length > MOST_BYTES ? `[${shown}… ${value.length} bytes]` : `[${shown}]`;
}

function plainText(value: StateValue): string {
  if (value instanceof Uint8Array) return bytesText(value);
  if (typeof value === 'bigint') return hex(value);
  if (Array.isArray(value)) return `[${value.map(plainText).join(', ')}]`;
  if (typeof value === 'object') {
    return `{${Object.entries(value)
      .map(([name, each]) => `${name}: ${plainText(each)}`)
      .join(', ')}}`;
  }
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}

function valueText(property: string, value: StateValue | undefined): string {
  if (value === undefined) return NOTHING;
  if (typeof value === 'number' && sizes.has(property)) return formatSizeExactly(value);
  if (typeof value === 'number' && hexadecimal.has(property)) return hex(value);
  return printable(plainText(value));
}

function mappingText(mapping: MappingDifference['a']): string {
  if (!mapping) return NOTHING;
  const { arena, offset, readable, writeable } = mapping;
  const access = readable ? (writeable ? '' : ', read-only') : writeable ? ', write-only' : '';
  return `arena ${hex(arena)} from byte ${hex(offset)}${access}`;
}

function more({ count, ranges }: MappingsDifference | ExtentsDifference): string[] {
  return count > ranges.length
    ? [`    and ${formatCount(count - ranges.length, 'more range', 'more ranges')}`]
    : [];
}

function lines(difference: StateDifference, titles: { a: string; b: string }): string[] {
  const path = printable(difference.path);
  switch (difference.kind) {
    case 'record': {
      const type = difference.type === undefined ? '' : ` (${printable(difference.type)})`;
      return [`${path}${type}: only in ${titles[difference.in]}`];
    }
    case 'property': {
      const { property } = difference;
      return [
        `${path}: ${printable(property)}`,
        `  - ${valueText(property, difference.a)}`,
        `  + ${valueText(property, difference.b)}`,
      ];
    }
    case 'mappings':
      return [
        `${path}: mappings differ in ${formatCount(difference.count, 'range')}`,
        ...difference.ranges.flatMap(({ iova, length, a, b }) => [
          `    ${formatAddress(iova)}, ${formatSize(length)}`,
          `  - ${mappingText(a)}`,
          `  + ${mappingText(b)}`,
        ]),
        ...more(difference),
      ];
    case 'extents':
      return [
        `${path}: physical addresses differ in ${formatCount(difference.count, 'range')}`,
        ...difference.ranges.flatMap(({ offset, length, a, b }) => [
          `    from byte ${hex(offset)}, ${formatSize(length)}`,
          `  - ${a === undefined ? NOTHING : formatAddress(a)}`,
          `  + ${b === undefined ? NOTHING : formatAddress(b)}`,
        ]),
        ...more(difference),
      ];
  }
}

/** For people. */
export function differencesText(
  differences: readonly StateDifference[],
  a: string,
  b: string,
  bold: (text: string) => string = text => text,
): string {
  const head = [bold(`--- ${a}`), bold(`+++ ${b}`)];
  const body = differences.flatMap(difference => lines(difference, { a, b }));
  return [...head, ...body].map(line => `${line}\n`).join('');
}

/** @param name of what it is a value of */
function valueJson(name: string, value: StateValue | undefined): unknown {
  if (value === undefined) return null;
  if (value instanceof Uint8Array) return { hex: Buffer.from(value).toString('hex') };
  if (sizes.has(name)) return BigInt(value as number | bigint);
  if (typeof value === 'bigint' || (typeof value === 'number' && hexadecimal.has(name))) return hex(value);
  if (Array.isArray(value)) return value.map(each => valueJson(name, each));
  if (typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, valueJson(name, each)]));
}

function mappingJson(mapping: MappingDifference['a']): unknown {
  return mapping ? { ...mapping, arena: hex(mapping.arena), offset: BigInt(mapping.offset) } : null;
}

function differenceJson(difference: StateDifference): unknown {
  switch (difference.kind) {
    case 'record':
      return { ...difference, type: difference.type ?? null };
    case 'property': {
      const { property, a, b } = difference;
      return { ...difference, a: valueJson(property, a), b: valueJson(property, b) };
    }
    case 'mappings': {
      const ranges = difference.ranges.map(({ iova, length, a, b }) => ({
        iova: hex(iova),
        length,
        a: mappingJson(a),
        b: mappingJson(b),
      }));
      return { ...difference, ranges };
    }
    case 'extents': {
      const ranges = difference.ranges.map(({ offset, length, a, b }) => ({
        offset: BigInt(offset),
        length: BigInt(length),
        a: a === undefined ? null : hex(a),
        b: b === undefined ? null : hex(b),
      }));
      return { ...difference, ranges };
    }
  }
}

/** For programs. As in `state show --json`, and values that are not understood as `{ hex }`. */
export function differencesJson(differences: readonly StateDifference[]): unknown {
  return differences.map(differenceJson);
}

/** @returns the exit code */
export async function runStateDiff({ files, json }: StateDiffCommand, signal: AbortSignal): Promise<number> {
  const [a, b] = files;
  const differences = compareStates(await readState(a, signal), await readState(b, signal));
  const same = differences.length === 0;
  if (json) await print(toJson(differencesJson(differences)));
  else if (same) await print(`${titleOf(a)} and ${titleOf(b)} say the same\n`);
  else await print(differencesText(differences, titleOf(a), titleOf(b), colours(process.stdout).bold));
  return same ? ExitCode.Ok : ExitCode.Failed;
}
