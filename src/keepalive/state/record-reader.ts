/** Takes a record of a saved state apart, and keeps what is left of it. @module */
import type { Codec } from './codec.js';
import { copyNode, type FdtNode } from './fdt.js';
import type { TreeNode, TreeProperty } from './fdt-tree.js';
import { FdtValue } from './fdt-value.js';
import { type Kept, MAX_VALUE, RecordType, typeAndVersion } from './saved-state.js';
import { StateError, StateErrorCode } from './state-error.js';

/** Says of a node that whoever reads it must understand it; of properties, where it lists them. */
const REQUIRED = 'required';

const known = new Map(
  Object.values(RecordType).map(compatible => {
    const { type, version } = typeAndVersion(compatible) as { type: string; version: string };
    return [type, version];
  }),
);

/** The properties and nodes of one record. What is asked for is taken; {@link kept} is the rest. */
export class RecordReader {
  readonly node: TreeNode;
  readonly #codec: Codec;
  readonly #taken = new Set<string>();
  readonly #takenNodes = new Set<TreeNode>();
  readonly #kept: FdtNode[] = [];

  constructor(codec: Codec, node: TreeNode) {
    this.#codec = codec;
    this.node = node;
  }

  /** @throws StateError always: about this record, or a property of it. */
  refuse(code: StateErrorCode, reason: string, property?: string): never {
    const { path, offset } = this.node;
    throw new StateError(
      code,
      { path, property, offset: (property && this.node.properties.get(property)?.offset) || offset },
      reason,
    );
  }

  invalid(property: string, reason: string): never {
    this.refuse(StateErrorCode.Invalid, reason, property);
  }

  /** Where a property lies; it counts as understood. */
  place(name: string): TreeProperty | undefined {
    const property = this.node.properties.get(name);
    if (property) this.#taken.add(name);
    return property;
  }

  #value<T>(name: string, read: (bytes: Uint8Array) => T | undefined, expected: string): T | undefined {
    const property = this.place(name);
    if (!property) return undefined;
    if (property.length > MAX_VALUE) this.invalid(name, `it must be of at most ${MAX_VALUE} bytes`);
    const value = read(this.#codec.copy(this.#codec.free + property.offset, property.length));
    return value ?? this.invalid(name, `it must be ${expected}`);
  }

  #required<T>(name: string, value: T | undefined): T {
    return value ?? this.invalid(name, 'the record must have it, and has not');
  }

  u32(name: string, maximum = 0xffff_ffff): number {
    const value = this.#required(name, this.optionalU32(name));
    return value <= maximum ? value : this.invalid(name, `it must be at most ${maximum}, and is ${value}`);
  }

  optionalU32(name: string): number | undefined {
    return this.#value(name, FdtValue.readU32, 'one cell');
  }

  u64(name: string): bigint {
    return this.#required(name, this.optionalU64(name));
  }

  optionalU64(name: string): bigint | undefined {
    return this.#value(name, FdtValue.readU64, 'two cells');
  }

  /** A u64 that a `number` can hold. */
  size(name: string): number {
    const value = this.u64(name);
    return value <= Number.MAX_SAFE_INTEGER
      ? Number(value)
      : this.invalid(name, `it must be less than 2^53, and is ${value}`);
  }

  u64s(name: string): bigint[] {
    return this.#required(name, this.#value(name, FdtValue.readU64s, 'a list of two cells each'));
  }

  /** Two cells of their own. */
  u32Pair(name: string): [number, number] | undefined {
    const value = this.optionalU64(name);
    return value === undefined ? undefined : [Number(value >> 32n), Number(value & 0xffff_ffffn)];
  }

  /** Rows of so many cells each. */
  cellRows(name: string, width: number): number[][] | undefined {
    const cells = this.#value(name, FdtValue.readU32s, 'a list of cells');
    if (cells === undefined) return undefined;
    if (cells.length % width !== 0) this.invalid(name, `it must be a list of ${width} cells each`);
    return Array.from({ length: cells.length / width }, (_, row) =>
      cells.slice(row * width, (row + 1) * width),
    );
  }

  /** True when it is there, which is all that it says. */
  flag(name: string): boolean {
    const place = this.place(name);
    if (place && place.length > 0) this.invalid(name, 'it must be empty');
    return place !== undefined;
  }

  optionalString(name: string): string | undefined {
    return this.#value(name, FdtValue.readString, 'one string');
  }

  string(name: string): string {
    return this.#required(name, this.optionalString(name));
  }

  strings(name: string): string[] {
    return this.#required(name, this.#value(name, FdtValue.readStrings, 'a list of strings'));
  }

  oneOf<T extends string>(name: string, allowed: readonly T[]): T {
    return this.#required(name, this.optionalOneOf(name, allowed));
  }

  optionalOneOf<T extends string>(name: string, allowed: readonly T[]): T | undefined {
    const value = this.optionalString(name);
    if (value === undefined) return undefined;
    return (
      allowed.find(candidate => candidate === value) ??
      this.invalid(name, `it must be one of ${allowed.join(', ')}, and is ${JSON.stringify(value)}`)
    );
  }

  /** Child nodes that are records, by type. Others are kept, or refused where they are required. */
  records<T extends RecordType>(types: readonly T[]): Map<T, RecordReader[]> {
    const found = new Map<T, RecordReader[]>(types.map(type => [type, []]));
    for (const child of this.node.children.values()) {
      if (this.#takenNodes.has(child)) continue;
      const reader = new RecordReader(this.#codec, child);
      const compatible = reader.#compatible();
      const list = found.get(compatible as T);
      if (list) {
        list.push(reader);
        continue;
      }
      reader.#refuseIfNeeded(compatible);
      this.#kept.push(copyNode(this.#codec, child));
    }
    return found;
  }

  /** The first string, if there is one. */
  #compatible(): string | undefined {
    if (!this.node.properties.has('compatible')) return undefined;
    const values = this.#value('compatible', FdtValue.readStrings, 'a list of strings');
    return values?.length === 1 ? values[0] : undefined;
  }

  /** That this is the record it should be, and not another version of it. */
  expect(type: RecordType): void {
    const compatible = this.#compatible();
    if (compatible === type) return;
    this.#refuseIfNeeded(compatible);
    const found =
      compatible === undefined ? 'has no compatible of one string' : `is ${JSON.stringify(compatible)}`;
    this.refuse(
      StateErrorCode.Unsupported,
      `it must be a record ${JSON.stringify(type)}, and ${found}`,
      'compatible',
    );
  }

  #refuseIfNeeded(compatible: string | undefined): void {
    const parts = compatible === undefined ? undefined : typeAndVersion(compatible);
    const version = parts && known.get(parts.type);
    if (version === parts?.version && version !== undefined) {
      this.refuse(
        StateErrorCode.Invalid,
        `a record ${JSON.stringify(compatible)} has no place here`,
        'compatible',
      );
    }
    if (version !== undefined) {
      this.refuse(
        StateErrorCode.Unsupported,
        `the record ${parts?.type} is of version ${parts?.version}, and this library reads version ${version} alone`,
        'compatible',
      );
    }
    if (this.node.properties.get(REQUIRED)?.length === 0) {
      const what = compatible === undefined ? 'without a type' : JSON.stringify(compatible);
      this.refuse(
        StateErrorCode.Unsupported,
        `a record ${what} is required, and unknown to this library`,
        'compatible',
      );
    }
  }

  /** That the node has the name that its record gives it: so what is kept cannot have it. */
  expectName(name: string): void {
    if (this.node.name === name) return;
    this.refuse(StateErrorCode.Invalid, `the node of this record must be named ${name}`);
  }

  /** A child node that is part of this record. To be called before {@link records}. */
  child(name: string): RecordReader {
    const node = this.node.children.get(name);
    if (!node) this.refuse(StateErrorCode.Invalid, `the record must have a node ${name}, and has not`);
    this.#takenNodes.add(node);
    return new RecordReader(this.#codec, node);
  }

  /** All that was not taken, as it is. */
  rest(): Kept {
    const { properties, children } = copyNode(this.#codec, this.node);
    return {
      properties: new Map([...properties].filter(([name]) => !this.#taken.has(name))),
      nodes: children,
    };
  }

  /** What is not understood and is passed on. To be called when all else was taken. */
  kept(): { kept?: Kept } {
    const properties = new Map<string, Uint8Array>();
    for (const [name, { offset, length }] of this.node.properties) {
      if (!this.#taken.has(name)) properties.set(name, this.#codec.copy(this.#codec.free + offset, length));
    }
    for (const name of this.#value(REQUIRED, FdtValue.readStrings, 'empty, or a list of strings') ?? []) {
      const unknown = properties.has(name)
        ? `property ${name}`
        : this.#kept.some(node => node.name === name) && `node ${name}`;
      if (unknown) {
        this.refuse(
          StateErrorCode.Unsupported,
          `its ${unknown} is required, and unknown to this library`,
          REQUIRED,
        );
      }
    }
    return properties.size > 0 || this.#kept.length > 0 ? { kept: { properties, nodes: this.#kept } } : {};
  }
}
