/** Changes saved states behind the codec's back, and makes their checksums right again. @module */
import { type FlatNode, readFlatTree, reseal, slowCrc32c } from './flat-tree.js';
import { layOutFlatTree } from './flat-tree-writer.js';
import { random } from './random.js';

/** A node of a state that is being changed. */
export class EditableNode {
  readonly flat: FlatNode;

  constructor(flat: FlatNode) {
    this.flat = flat;
  }

  /** The child whose name begins so. */
  child(prefix: string): EditableNode {
    const found = this.flat.children.find(({ name }) => name.startsWith(prefix));
    if (!found) throw new Error(`no node ${prefix}… in ${this.flat.name}`);
    return new EditableNode(found);
  }

  rename(name: string): this {
    Object.assign(this.flat, { name });
    return this;
  }

  add(name: string, properties: Readonly<Record<string, Uint8Array>> = {}): EditableNode {
    const flat: FlatNode = { name, properties: Object.entries(properties), children: [] };
    this.flat.children.push(flat);
    return new EditableNode(flat);
  }

  get(name: string): Uint8Array {
    const found = this.flat.properties.find(([candidate]) => candidate === name);
    if (!found) throw new Error(`no property ${name} in ${this.flat.name}`);
    return found[1];
  }

  set(name: string, value: Uint8Array): this {
    this.remove(name);
    this.flat.properties.push([name, value]);
    return this;
  }

  remove(name: string): this {
    const at = this.flat.properties.findIndex(([candidate]) => candidate === name);
    if (at >= 0) this.flat.properties.splice(at, 1);
    return this;
  }

  /** Sets packed rows with the checksum that belongs to them. */
  setPacked(row: 'mapping' | 'extent', packed: readonly number[], count: number): this {
    const cell = (value: number): Uint8Array => {
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setUint32(0, value);
      return bytes;
    };
    const bytes = Uint8Array.from(packed);
    this.set(`${row}s`, bytes);
    this.set(`${row}-count`, cell(count));
    return this.set(`${row}-crc32c`, cell(slowCrc32c(bytes)));
  }
}

/** A copy of a state with changes, whose own checksum is right again unless it was removed. */
export function edit(bytes: Uint8Array, change: (root: EditableNode) => void): Uint8Array {
  const { root } = readFlatTree(bytes);
  change(new EditableNode(root));
  const changed = layOutFlatTree(root, {
    version: 17,
    reservations: [],
    random: random(1),
    nops: false,
    shareStrings: false,
    loose: false,
  });
  reseal(changed);
  return changed;
}
