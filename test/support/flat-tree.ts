/**
 * A second reader of flattened device trees, slow and plain, by the Devicetree Specification alone: what ours writes is
 * checked with it, and what ours reads is compared. Throws at the first thing that is not as it should be.
 *
 * @module
 */

export interface FlatNode {
  readonly name: string;
  /** In order. */
  readonly properties: [name: string, value: Uint8Array][];
  readonly children: FlatNode[];
}

export interface FlatTree {
  readonly version: number;
  readonly totalSize: number;
  readonly reservations: [address: bigint, size: bigint][];
  readonly root: FlatNode;
}

function ensure(condition: boolean, what: string): void {
  if (!condition) throw new Error(`not a flattened device tree: ${what}`);
}

export function readFlatTree(bytes: Uint8Array): FlatTree {
  const data = Buffer.from(bytes);
  ensure(data.readUInt32BE(0) === 0xd00dfeed, 'magic');
  const totalSize = data.readUInt32BE(4);
  ensure(totalSize <= data.length, 'total size');
  const structure = data.readUInt32BE(8);
  const strings = data.readUInt32BE(12);
  const reserve = data.readUInt32BE(16);
  const version = data.readUInt32BE(20);
  ensure(version >= 16 && data.readUInt32BE(24) <= 17, 'version');
  const stringsSize = data.readUInt32BE(32);
  ensure(strings + stringsSize <= totalSize, 'strings');
  ensure(structure % 4 === 0 && reserve % 8 === 0, 'alignment');

  const reservations: [bigint, bigint][] = [];
  for (let at = reserve; ; at += 16) {
    const entry: [bigint, bigint] = [data.readBigUInt64BE(at), data.readBigUInt64BE(at + 8)];
    if (entry[0] === 0n && entry[1] === 0n) break;
    reservations.push(entry);
  }

  const text = (at: number): string => {
    const end = data.indexOf(0, at);
    ensure(end >= 0, 'a string without end');
    return data.toString('latin1', at, end);
  };
  let at = structure;
  const word = (): number => {
    at += 4;
    return data.readUInt32BE(at - 4);
  };
  const token = (): number => {
    for (;;) {
      const found = word();
      if (found !== 4) return found;
    }
  };
  const node = (): FlatNode => {
    const name = text(at);
    at = (at + name.length + 4) & ~3;
    const made: FlatNode = { name, properties: [], children: [] };
    for (;;) {
      switch (token()) {
        case 1:
          made.children.push(node());
          break;
        case 2:
          return made;
        case 3: {
          ensure(made.children.length === 0, 'property after node');
          const length = word();
          const nameAt = word();
          ensure(nameAt < stringsSize, 'name of a property');
          made.properties.push([text(strings + nameAt), Uint8Array.from(data.subarray(at, at + length))]);
          at = (at + length + 3) & ~3;
          break;
        }
        default:
          ensure(false, 'token');
      }
    }
  };
  ensure(token() === 1, 'no root');
  const root = node();
  ensure(token() === 9, 'no end');
  if (version >= 17) ensure(at === structure + data.readUInt32BE(36), 'size of the structure');
  return { version, totalSize, reservations, root };
}

/** The same, in one form for comparing: order of properties and nodes says nothing. */
export function canonical(node: FlatNode): unknown {
  return {
    name: node.name,
    properties: Object.fromEntries(
      node.properties
        .toSorted(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, value]) => [name, Buffer.from(value).toString('hex')]),
    ),
    children: node.children.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map(canonical),
  };
}

/** CRC32C, bit by bit. */
export function slowCrc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

/**
 * Makes the checksum of the whole state right again, after a change elsewhere; false where there is none, or the tree is
 * not one.
 */
export function reseal(bytes: Uint8Array, crc: (bytes: Uint8Array) => number = slowCrc32c): boolean {
  const at = findProperty(bytes, 'crc32c');
  if (at === undefined) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  view.setUint32(at, 0);
  view.setUint32(at, crc(bytes.subarray(0, Math.min(view.getUint32(4), bytes.length))));
  return true;
}

/** Offset of the first property of that name, of any node, without trust in anything. */
export function findProperty(bytes: Uint8Array, wanted: string): number | undefined {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (data.length < 40) return undefined;
  const strings = data.readUInt32BE(12);
  for (let at = data.readUInt32BE(8); at + 16 <= data.length; at += 4) {
    if (data.readUInt32BE(at) !== 3 || data.readUInt32BE(at + 4) !== 4) continue;
    const name = strings + data.readUInt32BE(at + 8);
    if (name + wanted.length < data.length && data.toString('latin1', name, name + wanted.length) === wanted)
      return at + 12;
  }
  return undefined;
}
