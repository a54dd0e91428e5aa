/** Maps many pieces of files, without an object for each. @module */
import {
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  iommu_ioas_map_file,
} from '../../bindings/uapi/iommufd.js';
import { KernelError } from '../errors.js';
import type { Iommufd } from './iommufd.js';
import type { MappingRows } from './mapping-rows.js';

const { fields, size } = iommu_ioas_map_file;
/** Where numbers are in the argument, in bytes. */
const At = {
  flags: fields.flags.offset,
  fd: fields.fd.offset,
  start: fields.start.offset,
  length: fields.length.offset,
  iova: fields.iova.offset,
} as const;

/**
 * Maps row by row.
 *
 * @param ioas its id
 * @param fds by the indexes that the rows have for files
 * @param mapped called in any case with how many rows are mapped
 * @throws KernelError: as `Ioas.mapFile`
 */
export function mapRows(
  { kernel, fd: file }: Iommufd,
  ioas: number,
  rows: MappingRows,
  fds: readonly number[],
  mapped: (count: number) => void,
): void {
  const { bytes, view } = iommu_ioas_map_file.allocate();
  iommu_ioas_map_file.encode(view, { size, ioas_id: ioas });
  const { numbers } = rows;
  let row = 0;
  try {
    for (; row < rows.length; row++) {
      const flags =
        IOMMU_IOAS_MAP_FIXED_IOVA |
        (rows.readable(row) ? IOMMU_IOAS_MAP_READABLE : 0) |
        (rows.writeable(row) ? IOMMU_IOAS_MAP_WRITEABLE : 0);
      view.setUint32(At.flags, flags, true);
      view.setInt32(At.fd, fds[rows.file(row)] as number, true);
      view.setBigUint64(At.iova, numbers[3 * row] as bigint, true);
      view.setBigUint64(At.length, numbers[3 * row + 1] as bigint, true);
      view.setBigUint64(At.start, numbers[3 * row + 2] as bigint, true);
      const result = kernel.ioctl(file, IOMMU_IOAS_MAP_FILE.number, bytes);
      if (result >= 0) continue;
      const { size: _, ...args } = iommu_ioas_map_file.decode(view);
      throw new KernelError(-result, { syscall: 'ioctl', request: IOMMU_IOAS_MAP_FILE.name, args });
    }
  } finally {
    mapped(row);
  }
}
