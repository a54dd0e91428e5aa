/**
 * Sequences of system calls as data: generated, written to files, shrunk, and run on any kernel.
 *
 * Nothing in them is an address, a descriptor or an object id of a particular run. They say which of the things made
 * earlier in the sequence is meant, and the interpreter knows what that is.
 *
 * @module
 */

/** A number of up to 64 bits, as JSON has it: small ones plain, others as `0x…`. */
export type Integer = number | string;

/** What a field of a struct, or an argument, holds. */
export type Value =
  | Integer
  /** The id of an object of that kind; 0 the latest, 1 the one before, and so on, around the corner. */
  | { readonly id: string; readonly back: number }
  /** A descriptor by the name under which it was kept. */
  | { readonly fd: string; readonly back: number }
  /** An address in one of the memories, see memory.ts. */
  | { readonly at: string; readonly offset: number }
  /** Something about a mapping that was made. */
  | { readonly mapping: 'iova' | 'length' | 'address'; readonly back: number; readonly plus?: Integer }
  /** A pointer to as many bytes, all zero, which are shown after the call. */
  | { readonly buffer: number }
  /** A pointer to these bytes (hexadecimal), which are shown after the call where it changed them. */
  | { readonly bytes: string }
  /** A pointer to integers one after the other, each of `width` bytes. */
  | { readonly list: readonly Value[]; readonly width: 1 | 4 | 8 };

/** A struct, or an array, in memory. */
export interface Ioctl {
  readonly call: 'ioctl';
  readonly on: Value;
  /** The key of an entry of requests.ts. */
  readonly request: string;
  readonly fields?: Readonly<Record<string, Value>>;
  /** Goes after the struct. */
  readonly trailing?: { readonly list: readonly Value[]; readonly width: 1 | 4 | 8 };
  /** Of the struct as it is claimed to be, in bytes; what it is unless told. */
  readonly size?: number;
  /** Bytes that are not zero, beyond the struct. */
  readonly junk?: boolean;
  /** A kind of its own for the object that it makes, besides the usual one, or a name for the descriptor. */
  readonly as?: string;
  /** An integer, or a pointer, instead of a struct. */
  readonly argument?: Value;
}

export type Step =
  | Ioctl
  /** A path as devices.ts has it. */
  | { readonly call: 'open'; readonly path: string; readonly keep: string }
  | { readonly call: 'close'; readonly on: Value }
  | { readonly call: 'eventfd'; readonly keep: string }
  | { readonly call: 'memfd'; readonly keep: string; readonly flags: number }
  | { readonly call: 'ftruncate'; readonly on: Value; readonly length: number }
  | { readonly call: 'fcntl'; readonly on: Value; readonly command: number; readonly argument: number }
  | { readonly call: 'read'; readonly on: Value; readonly length: number; readonly offset?: number }
  | { readonly call: 'write'; readonly on: Value; readonly bytes: string; readonly offset?: number };

/** Calls that are made one after the other, from a fresh start. */
export interface Sequence {
  /** The key of an entry of domains.ts. */
  readonly domain: string;
  /** Where it comes from: `7:123`, or the name of a case. */
  readonly name: string;
  readonly steps: readonly Step[];
}

/** The object of that kind that was made last. */
export function latestId(kind: string): Value {
  return { id: kind, back: 0 };
}

/** The descriptor that was kept last under that name. */
export function latestFd(name: string): Value {
  return { fd: name, back: 0 };
}

/** An ioctl that takes a struct. */
export function ioctl(on: Value, request: string, fields: Ioctl['fields'] = {}, as?: string): Ioctl {
  return { call: 'ioctl', on, request, fields, ...(as !== undefined && { as }) };
}
