/** Argument checks: TypeError for kind, RangeError for range, thrown before any system call. @module */
import { hex } from './hex.js';

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** An integer `number` from `minimum` to `maximum`. */
export function checkInteger(
  title: string,
  value: number,
  minimum = 0,
  maximum = Number.MAX_SAFE_INTEGER,
): number {
  if (typeof value !== 'number') throw new TypeError(`${title} must be a number, got ${typeof value}`);
  if (!Number.isInteger(value) || value < minimum || value > maximum) {
    throw new RangeError(`${title} must be an integer from ${minimum} to ${maximum}, got ${value}`);
  }
  return value;
}

/** A `bigint`, or a safe integer `number` for convenience, from 0 to 2^64-1. */
export function checkU64(title: string, value: bigint | number): bigint {
  if (typeof value === 'number') return BigInt(checkInteger(title, value));
  if (typeof value !== 'bigint') throw new TypeError(`${title} must be a bigint, got ${typeof value}`);
  if (value < 0n || value > U64_MAX) throw new RangeError(`${title} must be from 0 to 2^64-1, got ${value}`);
  return value;
}

/** A multiple of `unit`, which is a power of two. */
export function checkAligned(title: string, value: bigint | number, unit: number): void {
  const remainder = typeof value === 'bigint' ? Number(value % BigInt(unit)) : value % unit;
  if (remainder !== 0) {
    const shown = typeof value === 'bigint' ? hex(value) : value;
    throw new RangeError(`${title} must be a multiple of ${unit}, got ${shown}`);
  }
}

/** A power of two from `minimum` to `maximum`. */
export function checkPowerOfTwo(title: string, value: number, minimum: number, maximum = 2 ** 52): number {
  checkInteger(title, value, minimum, maximum);
  if (2 ** Math.round(Math.log2(value)) !== value)
    throw new RangeError(`${title} must be a power of two, got ${value}`);
  return value;
}

/** That `offset` and `length` lie within `size`. */
export function checkRange(title: string, offset: number, length: number, size: number): void {
  checkInteger(`${title} offset`, offset);
  checkInteger(`${title} length`, length);
  if (offset + length > size) {
    throw new RangeError(`${title}: offset ${offset} + length ${length} is beyond its end, ${size}`);
  }
}

/** A function. */
export function checkFunction(title: string, value: unknown): void {
  if (typeof value !== 'function') throw new TypeError(`${title} must be a function, got ${typeof value}`);
}
