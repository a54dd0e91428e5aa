/**
 * The three kinds of address a driver meets. They are all 64-bit `bigint`s and must never be mistaken for one
 * another, so each is its own type.
 *
 * @module
 */
import { checkU64 } from './check.js';

declare const brand: unique symbol;

/** An I/O virtual address: what a device behind an IOMMU uses, and the key of every mapping in an IOAS. */
export type Iova = bigint & { readonly [brand]: 'Iova' };

/** An address in physical memory, as the kernel reports it. */
export type PhysicalAddress = bigint & { readonly [brand]: 'PhysicalAddress' };

/** What is written into a device's registers and descriptors: an IOVA or a physical address; the memory knows. */
export type DeviceAddress = bigint & { readonly [brand]: 'DeviceAddress' };

/**
 * @throws TypeError, RangeError when `value` is not an integer from 0 to 2^64-1.
 */
export function iova(value: bigint | number): Iova {
  return checkU64('IOVA', value) as Iova;
}

/**
 * @throws TypeError, RangeError when `value` is not an integer from 0 to 2^64-1.
 */
export function physicalAddress(value: bigint | number): PhysicalAddress {
  return checkU64('physical address', value) as PhysicalAddress;
}

/** A range of addresses, both ends included, as the kernel counts them. */
export interface IovaRange {
  readonly first: Iova;
  readonly last: Iova;
}
