/** Draws an address space as text: what is taken, by whom, what is reserved, and where something went wrong. @module */
import { table } from './table.js';
import { formatAddress, formatSize } from './units.js';

/** Something that has a place in the space. */
export interface SpacePiece {
  readonly first: bigint;
  /** In bytes. */
  readonly length: bigint;
  /** Pieces with the same label belong together. */
  readonly label: string;
}

export interface SpacePicture {
  /** The lowest and the highest address that are drawn. */
  readonly first: bigint;
  readonly last: bigint;
  readonly pieces: readonly SpacePiece[];
  /** What nobody can take, such as the window of message-signalled interrupts. */
  readonly reserved?: readonly SpacePiece[];
  /** Addresses to point at. */
  readonly marks?: readonly { readonly at: bigint; readonly label: string }[];
}

const LETTERS = 'abcdefghijklmnopqrstuvwxyz';
const FREE = '·';
const RESERVED = '▒';
const SEVERAL = '█';
const MARK = '╳';
/** A part that fills less than one cell in so many of the whole gets a line of its own, drawn larger. */
const ZOOM_BELOW_CELLS = 12;

/** Joins what follows on and has the same label. @param pieces in ascending order */
export function joinPieces(pieces: Iterable<SpacePiece>): SpacePiece[] {
  const joined: SpacePiece[] = [];
  for (const piece of pieces) {
    const last = joined.at(-1);
    if (last !== undefined && last.label === piece.label && last.first + last.length === piece.first) {
      joined[joined.length - 1] = { ...last, length: last.length + piece.length };
    } else joined.push(piece);
  }
  return joined;
}

/** One line of cells between two addresses. */
export function drawCells(
  picture: SpacePicture,
  letters: ReadonlyMap<string, string>,
  columns: number,
): string {
  const span = picture.last - picture.first + 1n;
  const line = new Array<string>(columns).fill(FREE);
  const paint = (first: bigint, length: bigint, letter: string): void => {
    if (first > picture.last || first + length <= picture.first) return;
    const from = first < picture.first ? 0n : first - picture.first;
    const end = first + length - picture.first;
    const to = (end > span ? span : end) - 1n;
    const lastCell = Number((to * BigInt(columns)) / span);
    for (let cell = Number((from * BigInt(columns)) / span); cell <= lastCell; cell++) {
      const there = line[cell];
      line[cell] = there === FREE || there === letter || there === RESERVED ? letter : SEVERAL;
    }
  };
  for (const { first, length } of picture.reserved ?? []) paint(first, length, RESERVED);
  for (const { first, length, label } of picture.pieces) paint(first, length, letters.get(label) ?? SEVERAL);
  for (const { at } of picture.marks ?? []) {
    if (at >= picture.first && at <= picture.last)
      line[Number(((at - picture.first) * BigInt(columns)) / span)] = MARK;
  }
  return line.join('');
}

/** Where the pieces are, as a part of the whole worth drawing larger; undefined when they fill it well enough. */
function crowded(picture: SpacePicture, columns: number): { first: bigint; last: bigint } | undefined {
  const [piece] = picture.pieces;
  if (piece === undefined) return undefined;
  let { first } = piece;
  let last = first;
  for (const each of picture.pieces) {
    if (each.first < first) first = each.first;
    if (each.first + each.length > last) last = each.first + each.length - 1n;
  }
  const span = picture.last - picture.first + 1n;
  return (last - first + 1n) * BigInt(columns) < span * BigInt(ZOOM_BELOW_CELLS)
    ? { first, last }
    : undefined;
}

/**
 * The picture, line by line: the whole space; below it, where that shows too little, the part that is in use, larger;
 * and what each letter stands for.
 *
 * @param width of a line, in characters
 */
export function drawSpace(picture: SpacePicture, width: number): string[] {
  const columns = Math.max(16, Math.min(width, 100) - 4);
  const byLabel = new Map<string, { start: bigint; bytes: bigint; pieces: number }>();
  for (const { first, length, label } of picture.pieces) {
    const own = byLabel.get(label);
    if (own === undefined) byLabel.set(label, { start: first, bytes: length, pieces: 1 });
    else {
      if (first < own.start) own.start = first;
      own.bytes += length;
      own.pieces++;
    }
  }
  const labels = [...byLabel.keys()];
  const letters = new Map(labels.map((label, index) => [label, LETTERS[index % LETTERS.length] as string]));
  const span = picture.last - picture.first + 1n;
  const lines = [
    `${formatAddress(picture.first)} … ${formatAddress(picture.last)}, ${formatSize(span)}; one cell is ${formatSize(span / BigInt(columns))}`,
    `[${drawCells(picture, letters, columns)}]`,
  ];
  const zoom = crowded(picture, columns);
  if (zoom !== undefined) {
    const size = zoom.last - zoom.first + 1n;
    lines.push(
      `of that ${formatAddress(zoom.first)} … ${formatAddress(zoom.last)}, ${formatSize(size)}, drawn larger`,
      `[${drawCells({ ...picture, ...zoom }, letters, columns)}]`,
    );
  }
  const rows = [...byLabel].map(([label, { start, bytes, pieces }]) => [
    `${letters.get(label)}  ${label}`,
    `from ${formatAddress(start)}`,
    formatSize(bytes),
    pieces === 1 ? 'in one piece' : `in ${pieces} pieces`,
  ]);
  for (const { first, length, label } of picture.reserved ?? []) {
    rows.push([`${RESERVED}  ${label}`, `from ${formatAddress(first)}`, formatSize(length), '']);
  }
  for (const { at, label } of picture.marks ?? [])
    rows.push([`${MARK}  ${label}`, `at ${formatAddress(at)}`, '', '']);
  return [...lines, ...table(rows).split('\n').slice(0, -1)];
}
