/** Walks the capability chains that VFIO appends to its info structs. @module */
import { vfio_info_cap_header } from '../../bindings/uapi/vfio.js';

/** A capability: its id, its version, and where its header begins in the struct's memory, in bytes. */
export interface ChainEntry {
  readonly id: number;
  readonly version: number;
  readonly offset: number;
}

/**
 * The capabilities from `first` on. `next` counts from the start of the whole struct; a chain that leaves the
 * memory or does not advance ends there.
 */
export function* capabilityChain(view: DataView, first: number): Generator<ChainEntry> {
  const seen = new Set<number>();
  for (let offset = first; offset !== 0 && !seen.has(offset); ) {
    if (offset + vfio_info_cap_header.size > view.byteLength) return;
    seen.add(offset);
    const header = vfio_info_cap_header.decode(view, offset);
    yield { id: header.id, version: header.version, offset };
    offset = header.next;
  }
}
