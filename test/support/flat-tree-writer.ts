/**
 * Writes flattened device trees in every way that the Devicetree Specification allows, for our reader to read.
 *
 * @module
 */
import type { FlatNode } from './flat-tree.js';
import type { Random } from './random.js';

export interface FlatTreeLayout {
  readonly version: 16 | 17;
  readonly reservations: readonly (readonly [address: bigint, size: bigint])[];
  readonly random: Random;
  /** FDT_NOP here and there. */
  readonly nops: boolean;
  /** Names of properties that are ends of others share their bytes. */
  readonly shareStrings: boolean;
  /** Blocks in any order with gaps, and bytes behind the last. */
  readonly loose: boolean;
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);

export function layOutFlatTree(root: FlatNode, layout: FlatTreeLayout): Uint8Array {
  const { random } = layout;
  let strings = '';
  const place = (name: string): number => {
    const text = `${name}\0`;
    const found = layout.shareStrings ? strings.indexOf(text) : `\0${strings}`.indexOf(`\0${text}`);
    if (found >= 0) return found;
    strings += text;
    return strings.length - text.length;
  };
  // Longest first, so that ends of them are found.
  if (layout.shareStrings) {
    const names: string[] = [];
    const collect = (node: FlatNode): void => {
      names.push(...node.properties.map(([name]) => name));
      node.children.forEach(collect);
    };
    collect(root);
    for (const name of names.sort((a, b) => b.length - a.length)) place(name);
  }
  const nops = (): Buffer[] => (layout.nops ? Array.from({ length: random.below(3) }, () => word(4)) : []);
  const write = (node: FlatNode): Buffer[] => [
    word(1),
    padded(Buffer.from(`${node.name}\0`, 'latin1')),
    ...node.properties.flatMap(([name, value]) => [
      ...nops(),
      word(3),
      word(value.length),
      word(place(name)),
      padded(Buffer.from(value)),
    ]),
    ...node.children.flatMap(child => [...nops(), ...write(child)]),
    ...nops(),
    word(2),
  ];
  const structure = Buffer.concat([...nops(), ...write(root), ...nops(), word(9)]);
  const reservations = Buffer.alloc((layout.reservations.length + 1) * 16);
  for (const [index, [address, size]] of layout.reservations.entries()) {
    reservations.writeBigUInt64BE(address, index * 16);
    reservations.writeBigUInt64BE(size, index * 16 + 8);
  }

  const headerSize = layout.version === 17 ? 40 : 36;
  const blocks = { reservations, structure, strings: Buffer.from(strings, 'latin1') };
  const order = ['reservations', 'structure', 'strings'] as (keyof typeof blocks)[];
  if (layout.loose) random.shuffle(order);
  const offsets = { reservations: 0, structure: 0, strings: 0 };
  let end = headerSize;
  for (const block of order) {
    if (layout.loose) end += random.below(20);
    const alignment = block === 'reservations' ? 8 : block === 'structure' ? 4 : 1;
    end = Math.ceil(end / alignment) * alignment;
    offsets[block] = end;
    end += blocks[block].length;
  }
  if (layout.loose) end += random.below(40);
  const bytes = Buffer.alloc(end);
  const header = [
    0xd00dfeed,
    end,
    offsets.structure,
    offsets.strings,
    offsets.reservations,
    layout.version,
    16,
    7,
    strings.length,
    structure.length,
  ];
  for (const [index, value] of header.slice(0, headerSize / 4).entries())
    bytes.writeUInt32BE(value, index * 4);
  for (const block of order) blocks[block].copy(bytes, offsets[block]);
  return new Uint8Array(bytes);
}
