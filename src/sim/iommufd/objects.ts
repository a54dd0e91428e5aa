/** What iommufd gives ids to: the counterpart of `struct iommufd_object`. @module */

/** The kinds of objects, in the kernel's order. */
export const ObjectType = {
  Device: 1,
  HwptPaging: 2,
  HwptNested: 3,
  Ioas: 4,
  Access: 5,
  Fault: 6,
  Viommu: 7,
  Vdevice: 8,
  Veventq: 9,
  HwQueue: 10,
  Selftest: 11,
} as const;
export type ObjectType = (typeof ObjectType)[keyof typeof ObjectType];

export abstract class IommufdObject {
  abstract readonly type: ObjectType;
  /** 0 until the table has reserved one. */
  id = 0;
  /** References beyond the table's own: the object can be destroyed when there are none. */
  users = 0;
  /** References out of {@link users} that {@link preDestroy} makes their holders put back (wait_cnt). */
  waits = 0;

  /** The object is about to be destroyed by the driver that made it: who waits in {@link waits} lets go. */
  preDestroy(): void {}

  /** Everything that it holds goes. It is not in the table any more. */
  abstract destroy(): void;

  /** As {@link destroy}, of an object that was never in the table. */
  abort(): void {
    this.destroy();
  }
}
