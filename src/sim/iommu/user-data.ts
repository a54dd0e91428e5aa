/** Structs of a driver's own in user memory, which may be older or newer than the driver. @module */
import { E2BIG, EFAULT, EINVAL } from '../../../bindings/uapi/errno.js';
import type { FieldName, Fields, FieldValues, Struct } from '../../../bindings/uapi/struct.js';
import type { UserArray, UserData } from './domain.js';

/** The end of the field that must be present, in bytes. */
function through<F extends Fields>(declaration: Struct<F>, field: FieldName<F>): number {
  const { offset, size } = declaration.fields[field];
  return offset + size;
}

/** A shorter struct is filled up with zero. */
function decode<F extends Fields>(declaration: Struct<F>, bytes: Uint8Array): FieldValues<F> {
  const { bytes: whole, view } = declaration.allocate();
  whole.set(bytes.subarray(0, declaration.size));
  return declaration.decode(view);
}

/**
 * Reads a struct (iommu_copy_struct_from_user).
 *
 * @param last the last field that must be there
 * @returns minus EINVAL for another type, too few bytes or too many, EFAULT
 */
export function readStruct<F extends Fields>(
  data: UserData,
  type: number,
  declaration: Struct<F>,
  last: FieldName<F>,
): FieldValues<F> | number {
  if (data.type !== type || data.length < through(declaration, last)) return -EINVAL;
  if (data.length > declaration.size) return -EINVAL;
  const bytes = data.read(0, data.length);
  return typeof bytes === 'number' ? bytes : decode(declaration, bytes);
}

/** Reads entry `index` (iommu_copy_struct_from_user_array); otherwise as {@link readStruct}. */
export function readEntry<F extends Fields>(
  array: UserArray,
  index: number,
  type: number,
  declaration: Struct<F>,
  last: FieldName<F>,
): FieldValues<F> | number {
  const { entryLength: length } = array;
  return readStruct(
    { type: array.type, length, read: () => array.read(index), write: () => -EFAULT },
    type,
    declaration,
    last,
  );
}

/**
 * Reads all entries (iommu_copy_struct_from_full_user_array).
 *
 * @returns minus EINVAL for another type or no entries, E2BIG for longer entries that mean something unknown, EFAULT
 */
export function readEntries<F extends Fields>(
  array: UserArray,
  type: number,
  declaration: Struct<F>,
): FieldValues<F>[] | number {
  if (array.type !== type || array.entries === 0) return -EINVAL;
  const values: FieldValues<F>[] = [];
  for (let index = 0; index < array.entries; index++) {
    const bytes = array.read(index);
    if (typeof bytes === 'number') return bytes;
    if (bytes.subarray(declaration.size).some(byte => byte !== 0)) return -E2BIG;
    values.push(decode(declaration, bytes));
  }
  return values;
}
