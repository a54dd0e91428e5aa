/** A saved address space as text: what it says of itself, and a picture. @module */
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
} from '../../../bindings/uapi/iommufd.js';
import type { IovaRange } from '../../address.js';
import { hex } from '../../hex.js';
import type { MappingTable } from '../../keepalive/state/mapping-table.js';
import type { SavedHwpt, SavedIoas, State } from '../../keepalive/state/saved-state.js';
import { printable } from '../printable.js';
import { drawSpace, joinPieces, type SpacePiece } from '../space-picture.js';
import { fields } from '../table.js';
import { formatAddress, formatCount, formatSize } from '../units.js';
import { mappedBytes } from './mapped.js';

/** Of a space where all is allowed, in bytes. */
const LEAST_DRAWN = 2n ** 32n;
/** Of what there may be many of. */
const MOST_LISTED = 8;
/** Arenas with a letter of their own in a picture; those with less mapped share one. */
const MOST_LETTERS = 25;

/** What arenas are called: by their names where these tell them apart, and by their tokens as well where not. */
export function arenaTitles(arenas: State['arenas']): ReadonlyMap<bigint, string> {
  const times = new Map<string, number>();
  for (const { name } of arenas) times.set(name, (times.get(name) ?? 0) + 1);
  return new Map(
    arenas.map(({ token, name }) => {
      const shown = name === '' ? 'arena' : printable(name);
      return [token, name !== '' && times.get(name) === 1 ? shown : `${shown} ${hex(token)}`];
    }),
  );
}

/** The arenas that get a letter of their own. */
function largest(mappings: MappingTable): ReadonlySet<bigint> {
  if (mappings.arenas.length <= MOST_LETTERS) return new Set(mappings.arenas);
  const bytes = new Map<bigint, number>();
  for (const { arena, length } of mappings) bytes.set(arena, (bytes.get(arena) ?? 0) + length);
  const ranking = [...bytes].sort(([, a], [, b]) => b - a);
  return new Set(ranking.slice(0, MOST_LETTERS).map(([arena]) => arena));
}

function* piecesOf(mappings: MappingTable, titles: ReadonlyMap<bigint, string>): Generator<SpacePiece> {
  const shown = largest(mappings);
  const others = `${mappings.arenas.length - shown.size} others`;
  for (const { iova, length, arena } of mappings) {
    const label = shown.has(arena) ? (titles.get(arena) as string) : others;
    yield { first: iova, length: BigInt(length), label };
  }
}

/** The gaps between ranges that are allowed; none where they are too many to be told apart. */
function gapsOf(allowed: readonly IovaRange[]): SpacePiece[] {
  const gaps: SpacePiece[] = [];
  for (const [index, { first }] of allowed.entries()) {
    const start = (allowed[index - 1]?.last ?? first - 1n) + 1n;
    if (start < first) gaps.push({ first: start, length: first - start, label: 'not allowed' });
  }
  return gaps.length <= MOST_LISTED ? gaps : [];
}

/** All that is allowed, and all that is mapped. Where all is allowed: from 0 to the next power of two. */
function boundsOf(
  allowed: readonly IovaRange[],
  pieces: readonly SpacePiece[],
): { first: bigint; last: bigint } {
  const [lowest, highest] = [pieces[0], pieces.at(-1)];
  let first: bigint = allowed[0]?.first ?? 0n;
  let last: bigint = allowed.at(-1)?.last ?? LEAST_DRAWN - 1n;
  if (lowest && lowest.first < first) first = lowest.first;
  const end = highest ? highest.first + highest.length : 0n;
  if (allowed.length === 0) while (last < end - 1n) last = 2n * last + 1n;
  return { first, last: last < end - 1n ? end - 1n : last };
}

function someOf(texts: readonly string[]): string {
  const more = texts.length - MOST_LISTED;
  return [...texts.slice(0, MOST_LISTED), ...(more > 0 ? [`and ${more} more`] : [])].join(', ');
}

function allowedText(allowed: readonly IovaRange[]): string {
  if (allowed.length === 0) return 'all IOVAs';
  return someOf(allowed.map(({ first, last }) => `${formatAddress(first)} … ${formatAddress(last)}`));
}

const flagNames: readonly [flag: number, name: string][] = [
  [IOMMU_HWPT_ALLOC_NEST_PARENT, 'nest parent'],
  [IOMMU_HWPT_ALLOC_DIRTY_TRACKING, 'dirty tracking'],
  [IOMMU_HWPT_ALLOC_PASID, 'PASID'],
];

function hwptText({ id, flags, device }: SavedHwpt): string {
  const names = flagNames.filter(([flag]) => flags & flag).map(([, name]) => name);
  return `${id} for ${device}${names.length > 0 ? ` (${names.join(', ')})` : ''}`;
}

function mappingsText(mappings: MappingTable): string {
  let [readOnly, writeOnly] = [0, 0];
  for (const { readable, writeable } of mappings) {
    if (!writeable) readOnly++;
    else if (!readable) writeOnly++;
  }
  const parts = [
    `${formatSize(mappedBytes(mappings))} in ${formatCount(mappings.length, 'mapping')}`,
    ...(readOnly > 0 ? [`${readOnly} read-only`] : []),
    ...(writeOnly > 0 ? [`${writeOnly} write-only`] : []),
  ];
  return mappings.length === 0 ? 'nothing' : parts.join(', ');
}

/**
 * All that is known of an address space.
 *
 * @param titles of arenas, by token
 * @param width of a line of the picture, in characters
 */
export function spaceText(
  iommufd: number,
  ioas: SavedIoas,
  titles: ReadonlyMap<bigint, string>,
  width: number,
  bold: (text: string) => string,
): string {
  const { id, allowed, mappings, hwpts = [], hugePages } = ioas;
  const about = fields([
    ['allowed', allowedText(allowed)],
    ...(hwpts.length > 0 ? ([['HWPTs', someOf(hwpts.map(hwptText))]] as const) : []),
    ...(hugePages === false ? ([['huge pages', 'off']] as const) : []),
    ['mapped', mappingsText(mappings)],
  ]);
  const pieces = joinPieces(piecesOf(mappings, titles));
  const lines = drawSpace({ ...boundsOf(allowed, pieces), pieces, reserved: gapsOf(allowed) }, width - 2);
  return `${bold(`iommufd ${iommufd}, IOAS ${id}`)}\n${about}${lines.map(line => `  ${line}\n`).join('')}`;
}
