/** Memory on a device, behind a BAR: no part of the machine's own. @module */
import { MemoryObject } from './memory-object.js';
import { PAGE, PhysicalMemory } from './physical-memory.js';

/** Its frames are where its BAR is. Nobody pins them; DMA of other devices to them is not modelled. */
export class DeviceMemory extends MemoryObject {
  #address = 0n;

  /** @param size in bytes */
  constructor(name: string, size: number) {
    super(new PhysicalMemory({ size: 0, hugePages: 0 }), name, size);
  }

  /** The bus address of its BAR. */
  set address(address: bigint) {
    this.#address = address;
  }

  override frame(index: number): number {
    return Number(this.#address / BigInt(PAGE)) + index;
  }
}
