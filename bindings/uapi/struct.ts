/**
 * Kernel structs, declared once as data.
 *
 * A declaration lists the fields in the header's order and under the header's names; offsets, padding, size
 * and the TypeScript type of the value all follow from it, so that no offset is ever written down by hand:
 *
 * ```ts
 * const iommu_iova_range = struct('iommu_iova_range', { start: u64, last: u64 });
 * type Range = StructValue<typeof iommu_iova_range>; // { start: bigint; last: bigint }
 * ```
 *
 * The layout is that of the C ABI on x86-64 and arm64: natural alignment, tail padding up to the struct's own
 * alignment, little-endian. No buffer is allocated per call: structs are encoded into, and read from, memory
 * that the caller keeps.
 *
 * A value that does not fit is refused here, because `DataView` and the foreign-function layer would both
 * truncate it without a word: `TypeError` for the wrong kind (a number where a `u64` takes a bigint, an
 * unknown field), `RangeError` for what is out of range, not an integer, or outside the view. In both cases
 * nothing has been written.
 *
 * @module
 */

/**
 * What a field, or an element of a list, holds. `Value` is what reading gives, `Input` what writing takes.
 */
export interface FieldType<Value = unknown, Input = Value> {
  readonly kind: 'integer' | 'array' | 'struct';
  /** As it appears in messages: `u32`, `u32[6]`, or the name of the struct. */
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** In bytes; a power of two. */
  readonly alignment: number;
  /** Throws unless `value` can be written; the message starts with `path`. */
  check(value: unknown, path: string): void;
  /** Reads at a byte offset that is known to be inside the view. */
  read(view: DataView, offset: number): Value;
  /** Writes a checked value over zeroed bytes, at a byte offset that is known to be inside the view. */
  write(view: DataView, offset: number, value: Input): void;
}

/** A fixed-width integer. */
export interface IntegerType<Name extends string = string, Value extends number | bigint = number | bigint>
  extends FieldType<Value> {
  readonly kind: 'integer';
  readonly name: Name;
  /** The smallest and the largest value it holds. */
  readonly min: Value;
  readonly max: Value;
}

/** `element[count]`. */
export interface ArrayType<Value = unknown, Input = Value> extends FieldType<Value, Input> {
  readonly kind: 'array';
  readonly element: FieldType;
  readonly count: number;
}

/** A second name for the bytes of a field declared before it: a member of an anonymous union. */
export interface Overlay<Value extends number | bigint = number | bigint> {
  readonly kind: 'overlay';
  readonly of: string;
  readonly type: IntegerType<string, Value>;
}

/** `element name[]` at the end of a struct: it has an offset and adds nothing to the size. */
export interface FlexibleType<Value = unknown, Input = Value> {
  readonly kind: 'flexible';
  readonly name: string;
  readonly element: FieldType<Value, Input>;
}

/** The declaration of a struct: its fields in order. */
export type Fields = { readonly [name: string]: FieldType | Overlay | FlexibleType };

type ValueOf<D> =
  D extends Overlay<infer Value> ? Value : D extends FieldType<infer Value, infer _Input> ? Value : never;

type InputOf<D> =
  D extends Overlay<infer Value> ? Value : D extends FieldType<infer _Value, infer Input> ? Input : never;

type TypeOf<D> = D extends Overlay<infer _Value> ? D['type'] : D;

/** The names of the fields that `encode` and `decode` handle: all but a flexible array. */
export type FieldName<F extends Fields> = {
  [K in keyof F]: F[K] extends FlexibleType ? never : K;
}[keyof F] &
  string;

/** What `decode` gives for the fields `F`. */
export type FieldValues<F extends Fields> = { [K in FieldName<F>]: ValueOf<F[K]> };

/** What `encode` takes for the fields `F`; a missing field is 0. */
export type FieldInputs<F extends Fields> = { [K in FieldName<F>]?: InputOf<F[K]> };

/** What decoding a struct gives: `StructValue<typeof iommu_ioas_map>`. */
export type StructValue<S> = S extends Struct<infer F> ? FieldValues<F> : never;

/** What encoding a struct takes: `StructInput<typeof iommu_ioas_map>`. */
export type StructInput<S> = S extends Struct<infer F> ? FieldInputs<F> : never;

/** Where a field is. */
export interface Field<Type = FieldType | FlexibleType> {
  readonly name: string;
  /** In bytes, from the start of the struct. */
  readonly offset: number;
  /** In bytes; 0 for a flexible array. */
  readonly size: number;
  readonly type: Type;
  /** The field whose bytes these are, for a member of an anonymous union other than the first. */
  readonly overlays: string | undefined;
}

/** Memory for one struct, and for what follows it. */
export interface StructMemory {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
}

function describe(value: unknown): string {
  if (typeof value === 'bigint') return `the bigint ${value}n`;
  if (typeof value === 'number') return `the number ${value}`;
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'an array';
  return ArrayBuffer.isView(value) ? `a ${value.constructor.name}` : `a value of type ${typeof value}`;
}

function checkPlace(view: DataView, offset: number, size: number, name: string): void {
  if (!(view instanceof DataView)) throw new TypeError(`${name}: expected a DataView, got ${describe(view)}`);
  if (!Number.isInteger(offset) || offset < 0 || offset + size > view.byteLength) {
    throw new RangeError(
      `${name}: ${size} bytes at offset ${offset} are outside the view of ${view.byteLength} bytes`,
    );
  }
}

function zero(view: DataView, offset: number, size: number): void {
  const end = offset + size;
  let at = offset;
  for (; at + 4 <= end; at += 4) view.setUint32(at, 0);
  for (; at < end; at++) view.setUint8(at, 0);
}

function alignUp(offset: number, alignment: number): number {
  return Math.ceil(offset / alignment) * alignment;
}

function integer<const Name extends string>(
  name: Name,
  size: number,
  min: number,
  max: number,
  read: (view: DataView, offset: number) => number,
  write: (view: DataView, offset: number, value: number) => void,
): IntegerType<Name, number> {
  return Object.freeze({
    kind: 'integer',
    name,
    size,
    alignment: size,
    min,
    max,
    check(value: unknown, path: string): void {
      if (typeof value !== 'number') {
        throw new TypeError(`${path}: ${name} takes a number, got ${describe(value)}`);
      }
      if (!Number.isInteger(value) || value < min || value > max) {
        throw new RangeError(`${path}: ${name} takes an integer from ${min} to ${max}, got ${value}`);
      }
    },
    read,
    write,
  });
}

/** `__u8`. */
export const u8 = integer(
  'u8',
  1,
  0,
  0xff,
  (view, offset) => view.getUint8(offset),
  (view, offset, value) => view.setUint8(offset, value),
);

/** `__u16`. */
export const u16 = integer(
  'u16',
  2,
  0,
  0xffff,
  (view, offset) => view.getUint16(offset, true),
  (view, offset, value) => view.setUint16(offset, value, true),
);

/** `__u32`. */
export const u32 = integer(
  'u32',
  4,
  0,
  0xffff_ffff,
  (view, offset) => view.getUint32(offset, true),
  (view, offset, value) => view.setUint32(offset, value, true),
);

/** `__s32`: what the kernel uses for file descriptors. */
export const s32 = integer(
  's32',
  4,
  -0x8000_0000,
  0x7fff_ffff,
  (view, offset) => view.getInt32(offset, true),
  (view, offset, value) => view.setInt32(offset, value, true),
);

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/**
 * `__u64`, `__aligned_u64` and `__aligned_le64`; also a pointer. Always a bigint, however small the value.
 */
export const u64: IntegerType<'u64', bigint> = Object.freeze({
  kind: 'integer',
  name: 'u64',
  size: 8,
  alignment: 8,
  min: 0n,
  max: U64_MAX,
  check(value: unknown, path: string): void {
    if (typeof value !== 'bigint') {
      throw new TypeError(`${path}: u64 takes a bigint, got ${describe(value)}`);
    }
    if (value < 0n || value > U64_MAX) {
      throw new RangeError(`${path}: u64 takes an integer from 0 to 2^64 - 1, got ${value}n`);
    }
  },
  read: (view: DataView, offset: number): bigint => view.getBigUint64(offset, true),
  write: (view: DataView, offset: number, value: bigint): void => view.setBigUint64(offset, value, true),
});

function isList(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
}

/**
 * `element[count]`. Reads as an array, or as a fresh `Uint8Array` when the elements are bytes. Writing takes
 * an array or a typed array of at most `count` elements; the missing ones are 0.
 */
export function array(
  element: IntegerType<'u8', number>,
  count: number,
): ArrayType<Uint8Array<ArrayBuffer>, ArrayLike<number>>;
export function array<Value, Input>(
  element: FieldType<Value, Input>,
  count: number,
): ArrayType<Value[], ArrayLike<Input>>;
export function array(element: FieldType, count: number): ArrayType<unknown, ArrayLike<unknown>> {
  if (!Number.isInteger(count) || count < 1) {
    throw new RangeError(`array: expected at least one element, got ${count}`);
  }
  const { size } = element;
  const name = `${element.name}[${count}]`;
  return Object.freeze({
    kind: 'array',
    name,
    size: size * count,
    alignment: element.alignment,
    element,
    count,
    check(value: unknown, path: string): void {
      if (!isList(value)) throw new TypeError(`${path}: ${name} takes an array, got ${describe(value)}`);
      if (value.length > count) {
        throw new RangeError(`${path}: ${name} takes at most ${count} elements, got ${value.length}`);
      }
      for (let i = 0; i < value.length; i++) element.check(value[i], `${path}[${i}]`);
    },
    read(view: DataView, offset: number): unknown {
      if (element === u8) return new Uint8Array(view.buffer, view.byteOffset + offset, count).slice();
      return Array.from({ length: count }, (_, i) => element.read(view, offset + i * size));
    },
    write(view: DataView, offset: number, value: ArrayLike<unknown>): void {
      for (let i = 0; i < value.length; i++) element.write(view, offset + i * size, value[i]);
    },
  });
}

/**
 * Declares another name for the bytes of the field `of`, which comes before it: `union { u32 a; u32 b; }` is
 * `a: u32, b: overlay('a', u32)`. Both names are decoded. Encoding takes either; if both are given they must
 * be equal.
 */
export function overlay<Value extends number | bigint>(
  of: string,
  type: IntegerType<string, Value>,
): Overlay<Value> {
  return Object.freeze({ kind: 'overlay', of, type });
}

/**
 * Declares a flexible array, `element name[]`, as the last field. `encode` and `decode` leave it alone, since
 * the struct does not know its length: use {@link encodeList} and {@link decodeList} at `fields.name.offset`.
 */
export function flexible<Value, Input>(element: FieldType<Value, Input>): FlexibleType<Value, Input> {
  return Object.freeze({ kind: 'flexible', name: `${element.name}[]`, element });
}

interface Member {
  readonly name: string;
  readonly offset: number;
  readonly type: FieldType;
  readonly overlays: string | undefined;
  /** For messages: struct and field. */
  readonly path: string;
}

/**
 * A kernel struct. Made by {@link struct}; usable as a field of another one, and as the element of a list.
 */
export class Struct<F extends Fields = Fields> implements FieldType<FieldValues<F>, FieldInputs<F>> {
  readonly kind = 'struct' as const;
  /** The name in the kernel's header, without `struct`. */
  readonly name: string;
  /** `sizeof`, in bytes: tail padding included, a flexible array not. */
  readonly size: number;
  /** In bytes. */
  readonly alignment: number;
  /** Every field by name, in the order declared, a flexible array included. */
  readonly fields: { readonly [K in keyof F]: Field<TypeOf<F[K]>> };

  readonly #members = new Map<string, Member>();
  readonly #flexible: string | undefined;

  /** Use {@link struct}. */
  constructor(name: string, declaration: F) {
    const fields: Record<string, Field> = {};
    let flexibleName: string | undefined;
    let end = 0;
    let structAlignment = 1;
    for (const [field, declared] of Object.entries(declaration)) {
      if (flexibleName !== undefined) {
        throw new Error(`${name}.${field}: the flexible array ${flexibleName} must be the last field`);
      }
      const path = `${name}.${field}`;
      if (declared.kind === 'overlay') {
        const first = this.#members.get(declared.of);
        if (first?.type.name !== declared.type.name) {
          throw new Error(`${path}: ${declared.of} is not a ${declared.type.name} declared before it`);
        }
        const { offset } = first;
        const { type, of: overlays } = declared;
        this.#members.set(field, { name: field, offset, type, overlays, path });
        fields[field] = Object.freeze({ name: field, offset, size: type.size, type, overlays });
        continue;
      }
      const { alignment, size } =
        declared.kind === 'flexible' ? { alignment: declared.element.alignment, size: 0 } : declared;
      const offset = alignUp(end, alignment);
      structAlignment = Math.max(structAlignment, alignment);
      end = offset + size;
      fields[field] = Object.freeze({ name: field, offset, size, type: declared, overlays: undefined });
      if (declared.kind === 'flexible') flexibleName = field;
      else this.#members.set(field, { name: field, offset, type: declared, overlays: undefined, path });
    }
    this.name = name;
    this.alignment = structAlignment;
    this.size = alignUp(end, structAlignment);
    this.fields = Object.freeze(fields) as typeof this.fields;
    this.#flexible = flexibleName;
    Object.freeze(this);
  }

  /**
   * Writes the whole struct: zeroes it, as the kernel demands of reserved fields, then writes the given
   * fields. Bytes beyond `size` are left alone. A `size` or `argsz` field is a field like any other.
   */
  encode(view: DataView, values: FieldInputs<F>, byteOffset = 0): void {
    checkPlace(view, byteOffset, this.size, this.name);
    this.check(values, this.name);
    zero(view, byteOffset, this.size);
    this.write(view, byteOffset, values);
  }

  /** Reads every field but a flexible array. Byte arrays are copies. */
  decode(view: DataView, byteOffset = 0): FieldValues<F> {
    checkPlace(view, byteOffset, this.size, this.name);
    return this.read(view, byteOffset);
  }

  /** Reads one field, without an object for the others. */
  get<K extends FieldName<F>>(view: DataView, field: K, byteOffset = 0): FieldValues<F>[K] {
    const member = this.#member(field);
    const { type } = member;
    checkPlace(view, byteOffset, member.offset + type.size, member.path);
    return type.read(view, byteOffset + member.offset) as FieldValues<F>[K];
  }

  /** Writes one field and leaves the others alone. */
  set<K extends FieldName<F>>(
    view: DataView,
    field: K,
    value: Exclude<FieldInputs<F>[K], undefined>,
    byteOffset = 0,
  ): void {
    const member = this.#member(field);
    const { type } = member;
    checkPlace(view, byteOffset, member.offset + type.size, member.path);
    type.check(value, member.path);
    const offset = byteOffset + member.offset;
    // An integer covers its bytes; an array or a struct may be given only in part, and what is missing is 0.
    if (type.kind !== 'integer') zero(view, offset, type.size);
    type.write(view, offset, value);
  }

  /**
   * Zeroed memory for the struct and for `trailing` more bytes. Keep it, and encode into it again and again.
   */
  allocate(trailing = 0): StructMemory {
    if (!Number.isInteger(trailing) || trailing < 0) {
      throw new RangeError(`${this.name}: cannot allocate ${trailing} trailing bytes`);
    }
    // Through an ArrayBuffer: a small typed array made directly may live in the movable heap.
    const buffer = new ArrayBuffer(this.size + trailing);
    return { bytes: new Uint8Array(buffer), view: new DataView(buffer) };
  }

  check(value: unknown, path: string): void {
    if (typeof value !== 'object' || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) {
      throw new TypeError(
        `${path}: expected an object with the fields of ${this.name}, got ${describe(value)}`,
      );
    }
    const values = value as Readonly<Record<string, unknown>>;
    for (const field of Object.keys(values)) {
      const member = this.#members.get(field);
      if (member === undefined) throw this.#unknown(field);
      const given = values[field];
      member.type.check(given, path === this.name ? member.path : `${path}.${field}`);
      const { overlays } = member;
      if (overlays !== undefined && Object.hasOwn(values, overlays) && values[overlays] !== given) {
        throw new TypeError(`${path}: ${overlays} and ${field} share their bytes but differ`);
      }
    }
  }

  read(view: DataView, offset: number): FieldValues<F> {
    const values: Record<string, unknown> = {};
    for (const member of this.#members.values()) {
      values[member.name] = member.type.read(view, offset + member.offset);
    }
    return values as FieldValues<F>;
  }

  write(view: DataView, offset: number, value: FieldInputs<F>): void {
    const values = value as Readonly<Record<string, unknown>>;
    for (const field of Object.keys(values)) {
      const { type, offset: at } = this.#member(field);
      type.write(view, offset + at, values[field]);
    }
  }

  #member(field: string): Member {
    const member = this.#members.get(field);
    if (member === undefined) throw this.#unknown(field);
    return member;
  }

  #unknown(field: string): TypeError {
    return new TypeError(
      field === this.#flexible
        ? `${this.name}.${field} is a flexible array: use encodeList and decodeList`
        : `${this.name} has no field ${field}`,
    );
  }
}

/**
 * Declares a struct. Throws `Error` for a declaration that cannot be laid out: a field after a flexible
 * array, or an overlay of a field that is not there or is of another type.
 */
export function struct<const F extends Fields>(name: string, fields: F): Struct<F> {
  return new Struct(name, fields);
}

/**
 * Writes `values` one after the other from `byteOffset`, as an array in C. Elements are checked, all of them,
 * before anything is written; fields missing in a struct are 0.
 */
export function encodeList<Value, Input>(
  view: DataView,
  element: FieldType<Value, Input>,
  values: ArrayLike<NoInfer<Input>>,
  byteOffset = 0,
): void {
  const name = `${element.name}[]`;
  if (!isList(values)) throw new TypeError(`${name}: expected an array, got ${describe(values)}`);
  const { size } = element;
  checkPlace(view, byteOffset, size * values.length, name);
  for (let i = 0; i < values.length; i++) element.check(values[i], `${element.name}[${i}]`);
  zero(view, byteOffset, size * values.length);
  for (let i = 0; i < values.length; i++) element.write(view, byteOffset + i * size, values[i] as Input);
}

/** Reads `count` elements from `byteOffset`, laid out as an array in C. */
export function decodeList<Value, Input>(
  view: DataView,
  element: FieldType<Value, Input>,
  count: number,
  byteOffset = 0,
): Value[] {
  const name = `${element.name}[]`;
  if (!Number.isInteger(count) || count < 0) throw new RangeError(`${name}: cannot read ${count} elements`);
  const { size } = element;
  checkPlace(view, byteOffset, size * count, name);
  return Array.from({ length: count }, (_, i) => element.read(view, byteOffset + i * size));
}
