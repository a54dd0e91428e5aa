/**
 * Flattened device trees (DTB): what saved states are, and what the kernel hands over. Reads versions 16 and 17 as dtc
 * and libfdt write them; writes version 17. Devicetree Specification v0.4, chapter 5.
 *
 * @module
 */
import { type Codec, withCodec } from './codec.js';
import { readBlob, type TreeNode } from './fdt-tree.js';
import { type FdtReservation, FdtWriter } from './fdt-writer.js';

/** A node of a flattened device tree. Names have 1 to 255 of the characters `0-9A-Za-z,._+*#?@-`. */
export interface FdtNode {
  /** Empty for the root. */
  readonly name: string;
  /** By name; for their values see {@link FdtValue}. */
  readonly properties: ReadonlyMap<string, Uint8Array>;
  readonly children: readonly FdtNode[];
}

/** A flattened device tree. */
export interface Fdt {
  readonly root: FdtNode;
  readonly reservations: readonly FdtReservation[];
  /** `boot_cpuid_phys` of the header. */
  readonly bootCpu: number;
}

/** What `node` has in it, copied out of the codec. */
export function copyNode(codec: Codec, node: TreeNode): FdtNode {
  const properties = new Map<string, Uint8Array>();
  for (const [name, { offset, length }] of node.properties) {
    properties.set(name, codec.copy(codec.free + offset, length));
  }
  return {
    name: node.name,
    properties,
    children: Array.from(node.children.values(), child => copyNode(codec, child)),
  };
}

/**
 * Reads a flattened device tree of at most 64 levels and 65 536 nodes and properties. What follows it in `bytes` is
 * ignored.
 *
 * @throws StateError (DAMAGED) when it is not well-formed, or names a property or a node twice.
 */
export function readFdt(bytes: Uint8Array): Fdt {
  return withCodec(codec => {
    const { root, reservations, bootCpu } = readBlob(codec, bytes);
    return { root: copyNode(codec, root), reservations, bootCpu };
  });
}

/** Writes a node and all below it, in the order in which they are given. */
export function writeNode(writer: FdtWriter, node: FdtNode): void {
  writer.beginNode(node.name);
  for (const [name, value] of node.properties) writer.property(name, value);
  const names = new Set<string>();
  for (const child of node.children) {
    if (names.has(child.name))
      throw new RangeError(`two nodes are named ${child.name} in ${node.name || '/'}`);
    names.add(child.name);
    writeNode(writer, child);
  }
  writer.endNode();
}

/**
 * Writes a flattened device tree, in the order in which nodes and properties are given.
 *
 * @throws TypeError, RangeError when a name is not one or is there twice, when nodes are nested more than 64 deep, or a
 * reservation is empty.
 */
export function writeFdt(tree: Fdt): Uint8Array {
  if (tree.root.name !== '') throw new RangeError(`the root must have an empty name, got ${tree.root.name}`);
  return withCodec(codec => {
    const writer = new FdtWriter(codec, codec.free, tree.reservations);
    writeNode(writer, tree.root);
    return writer.finish(tree.bootCpu);
  });
}
