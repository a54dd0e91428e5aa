/** Ways to spoil a flattened device tree, with checksums that are right again. @module */
import { crc32c } from '../../src/keepalive/state/codec.js';
import type { Random } from '../support/random.js';

/** Where things are in a seed. */
export interface Layout {
  /** Offsets of tokens. */
  readonly tokens: readonly number[];
  /** Offsets and lengths of values, */
  readonly values: readonly (readonly [at: number, length: number])[];
  /** and of those among them that are packed rows. */
  readonly packed: readonly (readonly [at: number, length: number])[];
}

/** Goes through the structure as far as it can, and tells `found` of each property. */
function walk(
  bytes: Uint8Array,
  token: (at: number) => void,
  found: (name: string, at: number, length: number) => void,
): void {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (data.length < 40) return;
  const strings = data.readUInt32BE(12);
  for (let at = data.readUInt32BE(8); at + 12 <= data.length && (at & 3) === 0; ) {
    const kind = data.readUInt32BE(at);
    if (kind === 1) {
      token(at);
      const end = data.indexOf(0, at + 4);
      if (end < 0) return;
      at = (end + 4) & ~3;
    } else if (kind === 3) {
      token(at);
      const length = data.readUInt32BE(at + 4);
      const name = strings + data.readUInt32BE(at + 8);
      if (at + 12 + length > data.length) return;
      const end = name < data.length ? data.indexOf(0, name) : -1;
      if (end >= 0 && end - name < 32) found(data.toString('latin1', name, end), at + 12, length);
      at = (at + 15 + length) & ~3;
    } else if (kind === 2 || kind === 4) {
      token(at);
      at += 4;
    } else return;
  }
}

/** Makes right whatever checksums can be found. */
export function repair(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let whole: number | undefined;
  let rows: number | undefined;
  walk(
    bytes,
    () => {},
    (name, at, length) => {
      if (name === 'crc32c' && length === 4) whole ??= at;
      else if (name.endsWith('-crc32c') && length === 4) rows = at;
      else if ((name === 'mappings' || name === 'extents') && rows !== undefined) {
        view.setUint32(rows, crc32c(bytes.subarray(at, at + length)));
        rows = undefined;
      }
    },
  );
  if (whole === undefined) return;
  view.setUint32(whole, 0);
  view.setUint32(whole, crc32c(bytes.subarray(0, Math.min(view.getUint32(4), bytes.length))));
}

/** Where things are in a tree that is sound. */
export function layoutOf(bytes: Uint8Array): Layout {
  const tokens: number[] = [];
  const values: [number, number][] = [];
  const packed: [number, number][] = [];
  walk(
    bytes,
    at => tokens.push(at),
    (name, at, length) => {
      if (length === 0) return;
      values.push([at, length]);
      if (name === 'mappings' || name === 'extents') packed.push([at, length]);
    },
  );
  return { tokens, values, packed };
}

const words = [
  0, 1, 2, 3, 4, 5, 9, 15, 16, 17, 36, 40, 0x7f, 0x80, 0xff, 0xffff, 0x10000, 0x7fff_fffc, 0x7fff_ffff,
  0x8000_0000, 0xffff_fffc, 0xffff_ffff,
];

/** One of them. */
export function pick<T>(random: Random, values: readonly T[]): T {
  return values[random.below(values.length)] as T;
}

/** Replaces `removed` bytes at `at`, and sometimes lets the header know. */
function splice(random: Random, bytes: Uint8Array, at: number, removed: number, put: Uint8Array): Uint8Array {
  const after = Math.min(at + removed, bytes.length);
  const made = new Uint8Array(at + put.length + bytes.length - after);
  made.set(bytes.subarray(0, at));
  made.set(put, at);
  made.set(bytes.subarray(after), at + put.length);
  if (made.length < 40 || random.below(4) === 0) return made;
  const view = new DataView(made.buffer);
  const grown = made.length - bytes.length;
  view.setUint32(4, made.length);
  // What lies behind the place moves.
  if (view.getUint32(12) >= at) view.setUint32(12, view.getUint32(12) + grown);
  if (view.getUint32(8) > at) view.setUint32(8, view.getUint32(8) + grown);
  else if (view.getUint32(20) >= 17) view.setUint32(36, view.getUint32(36) + grown);
  return made;
}

/** Where something begins. */
function place(random: Random, bytes: Uint8Array, layout: Layout): number {
  if (layout.tokens.length > 0 && random.below(3) > 0)
    return Math.min(pick(random, layout.tokens), bytes.length - 1);
  return random.below(bytes.length);
}

/** Spoils a flattened device tree in one way. @param others to take pieces from */
export function mutate(
  random: Random,
  bytes: Uint8Array,
  layout: Layout,
  others: readonly Uint8Array[],
): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < 44) return bytes;
  switch (random.below(13)) {
    case 0: // bits
      for (let count = 1 + random.below(8); count > 0; count--) {
        const at = random.below(bytes.length);
        bytes[at] = (bytes[at] as number) ^ (1 << random.below(8));
      }
      return bytes;
    case 1: // a byte
      bytes[random.below(bytes.length)] = random.below(256);
      return bytes;
    case 2: // cut off
      return bytes.slice(0, random.below(bytes.length));
    case 3: // the header
      view.setUint32(
        4 * random.below(10),
        random.below(2) ? pick(random, words) : random.below(bytes.length + 64),
      );
      return bytes;
    case 4: {
      // a number of the structure
      const at = Math.min(place(random, bytes, layout) + 4 * random.below(4), bytes.length - 4);
      view.setUint32(at, random.below(2) ? pick(random, words) : random.below(bytes.length));
      return bytes;
    }
    case 5: {
      // a piece of something else
      const other = pick(random, others);
      const from = random.below(other.length);
      const piece = other.subarray(from, from + 4 * random.below(64));
      return splice(random, bytes, place(random, bytes, layout), random.below(2) ? piece.length : 0, piece);
    }
    case 6: {
      // a node or property twice, or not at all
      const from = place(random, bytes, layout);
      const to = place(random, bytes, layout);
      if (random.below(3) === 0)
        return splice(random, bytes, Math.min(from, to), Math.abs(from - to), new Uint8Array(0));
      return splice(random, bytes, from, 0, bytes.slice(Math.min(from, to), Math.max(from, to)));
    }
    case 7: {
      // deep nesting, or many NOPs
      const deep = random.below(2) === 0;
      const piece = Buffer.from(
        (deep ? '0000000161000000' : '00000004').repeat(1 + random.below(100)),
        'hex',
      );
      const end = Buffer.from(deep && random.below(2) ? '00000002'.repeat(piece.length / 8) : '', 'hex');
      return splice(random, bytes, place(random, bytes, layout) & ~3, 0, Buffer.concat([piece, end]));
    }
    case 8: {
      // exchanged
      const a = place(random, bytes, layout) & ~3;
      const b = place(random, bytes, layout) & ~3;
      const length = Math.min(4 * (1 + random.below(16)), bytes.length - Math.max(a, b));
      const kept = bytes.slice(a, a + length);
      bytes.copyWithin(a, b, b + length);
      bytes.set(kept, b);
      return bytes;
    }
    case 9:
    case 10: // values, the structure around them left alone
      return changeValue(random, bytes, layout.values, [0, 1, 0x2d, 0x30, 0x40, 0x61, 0x76, 0xff]);
    default: // packed rows, which checksums keep from being reached otherwise
      return changeValue(random, bytes, layout.packed, [0, 0x0f, 0x40, 0x7f, 0x80, 0xff]);
  }
}

/** Changes some bytes of one of these values, often to what matters there. */
function changeValue(
  random: Random,
  bytes: Uint8Array,
  values: Layout['values'],
  telling: readonly number[],
): Uint8Array {
  const [at, length] = values.length > 0 ? pick(random, values) : [0, bytes.length];
  for (let count = 1 + random.below(4); count > 0; count--) {
    const index = at + random.below(length);
    if (index < bytes.length) bytes[index] = random.below(3) ? random.below(256) : pick(random, telling);
  }
  return bytes;
}
