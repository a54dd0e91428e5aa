/**
 * The packed form of mappings and extents once more, in BigInt and by its description in assembly/codec alone.
 *
 * @module
 */

export interface PlainMapping {
  readonly iova: bigint;
  readonly length: bigint;
  readonly offset: bigint;
  /** Index into the list of arenas. */
  readonly arena: number;
  readonly access: number;
}

export interface PlainExtent {
  readonly offset: bigint;
  readonly address: bigint;
  readonly length: bigint;
}

const PAGE = 4096n;

function number(value: bigint): number[] {
  const bytes: number[] = [];
  for (; value >= 128n; value /= 128n) bytes.push(Number(value % 128n) + 128);
  return [...bytes, Number(value)];
}

const folded = (difference: bigint): bigint => (difference >= 0n ? difference * 2n : -difference * 2n - 1n);

/** Low four bits of a row's first byte, and what follows at its end. */
function lengthOf(pages: bigint): [number, number[]] {
  for (let code = 0; code < 15; code++) if (pages === 2n ** BigInt(code)) return [code, []];
  return [15, number(pages)];
}

export function packMappings(rows: readonly PlainMapping[]): Uint8Array {
  const bytes: number[] = [];
  const ends = new Map<number, bigint>();
  let end = 0n;
  let arena = -1;
  let access = 3;
  for (const row of rows) {
    const [code, pages] = lengthOf(row.length / PAGE);
    let head = code;
    const fields: number[] = [];
    if (row.iova !== end) {
      head += 16;
      fields.push(...number((row.iova - end) / PAGE));
    }
    if (row.arena !== arena) {
      head += 64;
      fields.push(...number(BigInt(row.arena)));
    }
    const from = ends.get(row.arena) ?? 0n;
    if (row.offset !== from) {
      head += 32;
      fields.push(...number(folded((row.offset - from) / PAGE)));
    }
    if (row.access !== access) {
      head += 128;
      fields.push(row.access);
    }
    bytes.push(head, ...fields, ...pages);
    end = row.iova + row.length;
    ({ arena, access } = row);
    ends.set(arena, row.offset + row.length);
  }
  return Uint8Array.from(bytes);
}

export function packExtents(rows: readonly PlainExtent[]): Uint8Array {
  const bytes: number[] = [];
  let offset = 0n;
  let address = 0n;
  for (const row of rows) {
    const [code, pages] = lengthOf(row.length / PAGE);
    const gap = row.offset !== offset ? number((row.offset - offset) / PAGE) : [];
    const jump = row.address !== address ? number(folded((row.address - address) / PAGE)) : [];
    bytes.push(code + (gap.length > 0 ? 16 : 0) + (jump.length > 0 ? 32 : 0), ...gap, ...jump, ...pages);
    offset = row.offset + row.length;
    address = row.address + row.length;
  }
  return Uint8Array.from(bytes);
}
