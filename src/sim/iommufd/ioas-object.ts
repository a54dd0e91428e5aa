/** An I/O address space as an object with an id: the counterpart of `struct iommufd_ioas`. @module */
import type { IommufdContext } from './context.js';
import type { HwptPaging } from './hwpt.js';
import { IoPageTable } from './io-page-table.js';
import { IommufdObject, ObjectType } from './objects.js';

export class IoasObject extends IommufdObject {
  override readonly type = ObjectType.Ioas;
  readonly table = new IoPageTable();
  /** The hardware page tables that have its mappings, in the order in which they were made. */
  readonly hwpts: HwptPaging[] = [];

  override destroy(): void {
    this.table.destroy();
  }
}

/** The address space with an id. Undefined stands for ENOENT. */
export function getIoas(context: IommufdContext, id: number): IoasObject | undefined {
  const object = context.get(id, ObjectType.Ioas);
  return object instanceof IoasObject ? object : undefined;
}
