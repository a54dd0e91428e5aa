/**
 * The values of properties: bytes, which mean what the record that has them says. The encodings are those of the
 * Devicetree Specification, section 2.2.4; readers return `undefined` for bytes that are no such value.
 *
 * @module
 */
import { checkInteger, checkU64 } from '../../check.js';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const loneSurrogate = /\p{Surrogate}/u;

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** How to write and read the value of a property of a flattened device tree. */
export const FdtValue = {
  /** One cell. */
  u32(value: number): Uint8Array {
    return FdtValue.u32s([value]);
  },

  u32s(values: readonly number[]): Uint8Array {
    const bytes = new Uint8Array(values.length * 4);
    for (const [index, value] of values.entries()) {
      view(bytes).setUint32(index * 4, checkInteger('value', value, 0, 0xffff_ffff));
    }
    return bytes;
  },

  /** Two cells. */
  u64(value: bigint | number): Uint8Array {
    return FdtValue.u64s([value]);
  },

  u64s(values: readonly (bigint | number)[]): Uint8Array {
    const bytes = new Uint8Array(values.length * 8);
    for (const [index, value] of values.entries()) {
      view(bytes).setBigUint64(index * 8, checkU64('value', value));
    }
    return bytes;
  },

  /** UTF-8, with a 0 at its end. */
  string(value: string): Uint8Array {
    return FdtValue.strings([value]);
  },

  strings(values: readonly string[]): Uint8Array {
    for (const value of values) {
      if (typeof value !== 'string') throw new TypeError(`value must be a string, got ${typeof value}`);
      if (value.includes('\0') || loneSurrogate.test(value)) {
        throw new RangeError(
          `value must be well-formed text without a 0 in it, got ${JSON.stringify(value)}`,
        );
      }
    }
    return new TextEncoder().encode(values.map(value => `${value}\0`).join(''));
  },

  readU32(bytes: Uint8Array): number | undefined {
    return bytes.length === 4 ? view(bytes).getUint32(0) : undefined;
  },

  readU32s(bytes: Uint8Array): number[] | undefined {
    if (bytes.length % 4 !== 0) return undefined;
    return Array.from({ length: bytes.length / 4 }, (_, index) => view(bytes).getUint32(index * 4));
  },

  readU64(bytes: Uint8Array): bigint | undefined {
    return bytes.length === 8 ? view(bytes).getBigUint64(0) : undefined;
  },

  readU64s(bytes: Uint8Array): bigint[] | undefined {
    if (bytes.length % 8 !== 0) return undefined;
    return Array.from({ length: bytes.length / 8 }, (_, index) => view(bytes).getBigUint64(index * 8));
  },

  readString(bytes: Uint8Array): string | undefined {
    const values = FdtValue.readStrings(bytes);
    return values?.length === 1 ? values[0] : undefined;
  },

  readStrings(bytes: Uint8Array): string[] | undefined {
    if (bytes.length === 0) return [];
    if (bytes.at(-1) !== 0) return undefined;
    try {
      return utf8.decode(bytes.subarray(0, -1)).split('\0');
    } catch {
      return undefined;
    }
  },
} as const;
