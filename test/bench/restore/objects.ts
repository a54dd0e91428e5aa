/** What a restore and a capture would be with an object for each mapping. @module */
import type { Syscalls } from '../../../bindings/syscalls.js';
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
} from '../../../bindings/uapi/iommufd.js';
import { transact } from '../../../src/ioctl.js';
import type { IoasMapping } from '../../../src/iommufd/ioas.js';
import { Iommufd } from '../../../src/iommufd/iommufd.js';
import { MappingTable } from '../../../src/keepalive/state/mapping-table.js';
import type { State } from '../../../src/keepalive/state/saved-state.js';
import { ascending } from '../../../src/order.js';

/** Maps all of the mappings of a state, which are of one file, and notes each. */
export function replayObjects(state: State, kernel: Syscalls, fd: number): Map<bigint, IoasMapping> {
  const iommufd = Iommufd.open(kernel);
  const { out_ioas_id } = transact(kernel, iommufd.fd, IOMMU_IOAS_ALLOC, {});
  const noted = new Map<bigint, IoasMapping>();
  for (const { ioases } of state.iommufds) {
    for (const { mappings } of ioases) {
      for (const { iova, length, offset, readable, writeable } of mappings) {
        transact(kernel, iommufd.fd, IOMMU_IOAS_MAP_FILE, {
          flags:
            IOMMU_IOAS_MAP_FIXED_IOVA |
            (readable ? IOMMU_IOAS_MAP_READABLE : 0) |
            (writeable ? IOMMU_IOAS_MAP_WRITEABLE : 0),
          ioas_id: out_ioas_id,
          fd,
          start: BigInt(offset),
          length: BigInt(length),
          iova,
        });
        noted.set(iova, {
          ...{ iova, length: BigInt(length), file: fd, offset: BigInt(offset) },
          readable: readable ?? true,
          writeable: writeable ?? true,
        });
      }
    }
  }
  iommufd[Symbol.dispose]();
  return noted;
}

/** A table of what was noted. */
export function captureObjects(noted: ReadonlyMap<bigint, IoasMapping>, arena: bigint): MappingTable {
  const sorted = [...noted.values()].sort((a, b) => ascending(a.iova, b.iova));
  const table = new MappingTable(sorted.length);
  for (const { iova, length, offset, readable, writeable } of sorted) {
    table.push({ iova, length: Number(length), arena, offset: Number(offset), readable, writeable });
  }
  return table;
}
