/** The page sizes that page tables have in common. @module */
import { PAGE } from '../machine/physical-memory.js';
import type { PagingDomain } from './domain.js';

const SMALL_PAGES = BigInt(PAGE - 1);

/** Each size its own bit. Sizes below a page count as a page; without a domain there are all sizes from a page on. */
export function commonPageSizes(domains: Iterable<PagingDomain>): bigint {
  let sizes = BigInt.asUintN(64, -1n);
  for (const domain of domains) sizes &= domain.pageSizes;
  return sizes & SMALL_PAGES ? (sizes & ~SMALL_PAGES) | BigInt(PAGE) : sizes;
}
