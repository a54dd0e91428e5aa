/** A PCI Express root port: a slot that one device can be plugged into and taken out of. @module */
import type { IommuDevice } from '../iommu/domain.js';
import type { PciSlot } from './slot.js';

export class RootPort {
  /** `0000:00:07.0` */
  readonly address: string;
  /** Number of the bus behind it. */
  readonly bus: number;
  readonly iommu: IommuDevice | undefined;
  readonly barAddress: bigint;
  /** What is plugged in. */
  slot: PciSlot | undefined;

  constructor(address: string, bus: number, barAddress: bigint, iommu: IommuDevice | undefined) {
    this.address = address;
    this.bus = bus;
    this.barAddress = barAddress;
    this.iommu = iommu;
  }
}
