/** A machine for one simulated device: memory at the addresses it has, and interrupts that are counted. @module */
import type { FunctionPort, PciFunction } from '../../../src/sim/devices/pci-function.js';

export class PlainPort implements FunctionPort {
  readonly memory: Uint8Array;
  /** Address of the first byte. */
  readonly base: bigint;
  interruptMode: 'intx' | 'msi' | 'msix' = 'msix';
  busMaster = true;
  /** Messages of each vector. */
  readonly messages = new Map<number, number>();
  /** The pin, and how often it was asserted. */
  asserted = false;
  assertions = 0;

  constructor(size: number, base = 0x10_0000n) {
    this.memory = new Uint8Array(size);
    this.base = base;
  }

  #at(address: bigint, length: number): number | undefined {
    if (!this.busMaster || address < this.base) return undefined;
    const offset = Number(address - this.base);
    return offset + length <= this.memory.length ? offset : undefined;
  }

  read(address: bigint, into: Uint8Array): boolean {
    const at = this.#at(address, into.byteLength);
    if (at === undefined) return false;
    into.set(this.memory.subarray(at, at + into.byteLength));
    return true;
  }

  write(address: bigint, from: Uint8Array): boolean {
    const at = this.#at(address, from.byteLength);
    if (at === undefined) return false;
    this.memory.set(from, at);
    return true;
  }

  message(vector: number): void {
    this.messages.set(vector, (this.messages.get(vector) ?? 0) + 1);
  }

  pin(asserted: boolean): void {
    if (asserted && !this.asserted) this.assertions++;
    this.asserted = asserted;
  }
}

/** One access of a BAR. */
export function readBar(model: PciFunction, offset: number, size: number, bar = 0): bigint {
  const bytes = new Uint8Array(8);
  model.readRegister(bar, offset, bytes.subarray(0, size));
  return new DataView(bytes.buffer).getBigUint64(0, true);
}

/** One access of a BAR. */
export function writeBar(model: PciFunction, offset: number, size: number, value: bigint, bar = 0): void {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  model.writeRegister(bar, offset, bytes.slice(0, size));
}
