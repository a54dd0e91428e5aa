/** Drivers of the simulated kernel, and which device is with which. @module */
import { EBUSY } from '../../../bindings/uapi/errno.js';
import type { PciSlot } from './slot.js';

export interface PciDriver {
  readonly name: string;
  /** Whether it takes the device of its own accord; a device can be told to go to any driver (driver_override). */
  matches(slot: PciSlot): boolean;
  /** Takes the device. @returns 0, or minus the errno */
  probe(slot: PciSlot): number;
  /** Gives it back. @returns 0, or minus the errno when it cannot */
  remove(slot: PciSlot): number;
}

/** Base class and subclass of NVMe controllers. */
const NVME_CLASS = 0x0108;
const NVME_CONFIGURATION = 0x14;

/** Linux's nvme driver, which disables a controller before anything else. */
export function nvmeDriver(): NativeDriver {
  return new NativeDriver('nvme', NVME_CLASS, slot => {
    const registers = slot.bar(0);
    if (registers !== undefined) slot.writeRegister(registers, NVME_CONFIGURATION, new Uint8Array(4));
  });
}

/** Who has a group that a driver of the kernel uses for DMA. */
const KERNEL = {};

/** A driver of the kernel's own, of which the simulation has the name, the claim to its devices, and how it begins. */
export class NativeDriver implements PciDriver {
  readonly name: string;
  readonly #classCode: number;
  readonly #begin: (slot: PciSlot) => void;

  /**
   * @param classCode base class and subclass
   * @param begin makes its own of a device that it takes: whatever that was doing ends
   */
  constructor(name: string, classCode: number, begin: (slot: PciSlot) => void) {
    this.name = name;
    this.#classCode = classCode;
    this.#begin = begin;
  }

  matches(slot: PciSlot): boolean {
    return slot.device.identity.classCode >> 8 === this.#classCode;
  }

  probe(slot: PciSlot): number {
    const { group } = slot.iommu;
    if (group.owner !== undefined && group.owner !== KERNEL) return -EBUSY;
    group.owner = KERNEL;
    group.ownerCount++;
    this.#begin(slot);
    return 0;
  }

  remove(slot: PciSlot): number {
    const { group } = slot.iommu;
    group.ownerCount--;
    if (group.ownerCount === 0) group.owner = undefined;
    return 0;
  }
}
