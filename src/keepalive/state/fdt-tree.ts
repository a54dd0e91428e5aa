/** The tree within a blob that the codec holds: what the readers of saved states walk. @module */
import { type Codec, NO_MEMORY, OK, reasonOf, TOO_MANY } from './codec.js';
import { StateError, StateErrorCode } from './state-error.js';

/** Nodes and properties that a tree may have in all. Their objects take some hundred bytes each. */
export const MAX_ENTRIES = 65_536;

/** Of a blob, in bytes. */
export const MAX_SIZE = 2 ** 30;

const BEGIN_NODE = 1;
const END_NODE = 2;
const HEADER_SIZE = 36;

/** Where a property's value lies in the blob. */
export interface TreeProperty {
  readonly offset: number;
  readonly length: number;
}

/** A node, by places in the blob. */
export class TreeNode {
  readonly name: string;
  readonly parent: TreeNode | undefined;
  readonly offset: number;
  readonly properties = new Map<string, TreeProperty>();
  readonly children = new Map<string, TreeNode>();

  constructor(name: string, parent: TreeNode | undefined, offset: number) {
    this.name = name;
    this.parent = parent;
    this.offset = offset;
  }

  /** Such as `/iommufd-0/ioas-1`; `/` for the root. */
  get path(): string {
    if (!this.parent) return '/';
    return this.parent.parent ? `${this.parent.path}/${this.name}` : `/${this.name}`;
  }
}

/** A blob that lies in the codec's memory from {@link Codec.free} on, and the tree in it. */
export interface Blob {
  readonly root: TreeNode;
  readonly reservations: readonly { readonly address: bigint; readonly size: bigint }[];
  readonly bootCpu: number;
  /** In bytes, by its header. What follows in the input is none of it. */
  readonly size: number;
}

/** Copies `input` into the codec, as far as its header says, and checks the header and the blocks. */
export function openBlob(codec: Codec, input: Uint8Array): void {
  if (!(input instanceof Uint8Array)) {
    throw new TypeError(`a saved state must be a Uint8Array, got ${typeof input}`);
  }
  const { core, free } = codec;
  const header = new DataView(input.buffer, input.byteOffset, input.length);
  const says = input.length < HEADER_SIZE ? input.length : header.getUint32(4);
  const available = Math.min(input.length, Math.max(says, HEADER_SIZE));
  if (available > MAX_SIZE) {
    throw new StateError(StateErrorCode.Damaged, { offset: 4 }, `it is larger than ${MAX_SIZE} bytes`);
  }
  codec.reserve(free + available);
  codec.bytes.set(input.subarray(0, available), free);
  refuse(codec, core.codecFdtOpen(free, available));
}

/** Throws what a status of the codec means, unless that is success. */
export function refuse(codec: Codec, status: number, node?: TreeNode, property?: string): void {
  if (status === OK) return;
  if (status === NO_MEMORY) codec.exhausted();
  const offset = (codec.core.codecFault() >>> 0) - codec.free;
  const reason =
    status === TOO_MANY ? `it has more than ${MAX_ENTRIES} nodes and properties` : reasonOf(status);
  throw new StateError(StateErrorCode.Damaged, { path: node?.path, property, offset }, reason);
}

/**
 * Takes up `input` and reads the tree in it.
 *
 * @throws StateError (DAMAGED) when it is not a flattened device tree in every respect.
 */
export function readBlob(codec: Codec, input: Uint8Array): Blob {
  openBlob(codec, input);
  const { core, free } = codec;
  const size = core.codecFdtTotal() >>> 0;
  const index = (free + size + 15) & ~15;
  const status = core.codecFdtIndex(index, MAX_ENTRIES);
  // Also after a failure: what there is of the tree tells where it happened.
  const { root, node } = readIndex(codec, index, core.codecFdtIndexEnd() >>> 0);
  refuse(codec, status, node);

  const reserved = core.codecFdtReservations() >>> 0;
  const count = core.codecFdtReservationCount() >>> 0;
  if (count > MAX_ENTRIES) {
    const reason = `it has more than ${MAX_ENTRIES} memory reservations`;
    throw new StateError(StateErrorCode.Damaged, { offset: reserved - free }, reason);
  }
  const { bytes } = codec;
  const view = new DataView(bytes.buffer, reserved, count * 16);
  const reservations = Array.from({ length: count }, (_, entry) => ({
    address: view.getBigUint64(entry * 16),
    size: view.getBigUint64(entry * 16 + 8),
  }));
  return { root: root as TreeNode, reservations, bootCpu: core.codecFdtBootCpu() >>> 0, size };
}

/** Makes nodes of the index that codecFdtIndex() wrote. @returns the root, and the node that was open at its end */
function readIndex(codec: Codec, from: number, to: number): { root?: TreeNode; node: TreeNode | undefined } {
  const { bytes, free } = codec;
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const words = new Uint32Array(bytes.buffer, from, (to - from) >>> 2);
  const propertyNames = new Map<number, string>();
  let root: TreeNode | undefined;
  let node: TreeNode | undefined;
  for (let word = 0; word < words.length; word += 4) {
    const token = (words[word] as number) & 0xff;
    const nameLength = (words[word] as number) >>> 8;
    const nameAt = words[word + 1] as number;
    const place = (words[word + 2] as number) - free;
    if (token === BEGIN_NODE) {
      const child: TreeNode = new TreeNode(text.toString('latin1', nameAt, nameAt + nameLength), node, place);
      if (node) {
        if (node.children.has(child.name)) {
          throw new StateError(
            StateErrorCode.Damaged,
            { path: child.path, offset: place },
            'there is a second node of that name',
          );
        }
        node.children.set(child.name, child);
      }
      root ??= child;
      node = child;
    } else if (token === END_NODE) {
      node = node?.parent;
    } else if (node) {
      let name = propertyNames.get(nameAt);
      if (name === undefined) {
        name = text.toString('latin1', nameAt, nameAt + nameLength);
        propertyNames.set(nameAt, name);
      }
      if (node.properties.has(name)) {
        throw new StateError(
          StateErrorCode.Damaged,
          { path: node.path, property: name, offset: place },
          'there is a second property of that name',
        );
      }
      node.properties.set(name, { offset: place, length: words[word + 3] as number });
    }
  }
  return root ? { root, node } : { node };
}
