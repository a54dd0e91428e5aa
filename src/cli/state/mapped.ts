/** How much is mapped. @module */
import type { MappingTable } from '../../keepalive/state/mapping-table.js';

const PAGE = 4096;

/** In bytes. */
export function mappedBytes(mappings: MappingTable): bigint {
  let pages = 0;
  for (const { length } of mappings) pages += length / PAGE;
  return BigInt(pages) * BigInt(PAGE);
}
