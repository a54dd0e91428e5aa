/** What every simulated PCI device is made of, and what it sees of the machine. @module */
import type { DeviceMemory } from '../machine/device-memory.js';

/** A base address register. */
export interface FunctionBar {
  /** 0 to 5; a 64-bit BAR takes the next one too. */
  readonly index: number;
  /** In bytes; a power of two. */
  readonly size: number;
  readonly kind: 'memory' | 'io';
  readonly prefetchable?: boolean;
  readonly is64Bit?: boolean;
  /**
   * Plain memory of the device, which user mode may map. Registers cannot be mapped: nothing in this process could
   * trap a load or a store.
   */
  readonly memory?: DeviceMemory;
}

export interface FunctionIdentity {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly subsystemVendorId: number;
  readonly subsystemDeviceId: number;
  /** Base class, subclass, programming interface: 0x010802. */
  readonly classCode: number;
  readonly revision: number;
}

/** The MSI-X capability. */
export interface MsixLayout {
  readonly vectors: number;
  readonly tableBar: number;
  readonly tableOffset: number;
  readonly pbaBar: number;
  readonly pbaOffset: number;
}

/** What the function has in its configuration space beyond the header. */
export interface FunctionCapabilities {
  /** Vectors it can have by MSI: 1, 2, 4 … 32. */
  readonly msi?: number;
  readonly msix?: MsixLayout;
  /** It is a PCI Express endpoint (and integrated into the root complex unless behind a port). */
  readonly express?: boolean;
  /** It can be reset alone, by function-level reset. Needs `express`. */
  readonly functionLevelReset?: boolean;
  /** Power management, D0 and D3hot. */
  readonly powerManagement?: boolean;
}

/** How a function gets at the rest of the machine. Nothing else does. */
export interface FunctionPort {
  /**
   * Reads memory at a bus address, through the IOMMU if there is one. False when it did not work (bus mastering is
   * off, or the IOMMU refused): the device sees an abort.
   */
  read(address: bigint, into: Uint8Array): boolean;
  /** Writes memory at a bus address; otherwise as {@link read}. */
  write(address: bigint, from: Uint8Array): boolean;
  /** Which interrupts the driver has enabled in configuration space. */
  readonly interruptMode: 'intx' | 'msi' | 'msix';
  /** Sends an MSI or MSI-X message. Does nothing for a vector that is not enabled. */
  message(vector: number): void;
  /** Asserts or deasserts the interrupt pin. */
  pin(asserted: boolean): void;
  readonly busMaster: boolean;
}

/**
 * A PCI function: a device model derives from it and answers register accesses. It works when it is told to by a
 * register or by the event loop, and reaches memory and interrupts only through its {@link port}.
 */
export abstract class PciFunction {
  abstract readonly identity: FunctionIdentity;
  abstract readonly bars: readonly FunctionBar[];
  abstract readonly capabilities: FunctionCapabilities;
  /** 0: no interrupt pin; 1: INTA#. */
  readonly interruptPin: 0 | 1 = 1;
  #port: FunctionPort | undefined;

  /** Where it is plugged in. @throws Error when it is not */
  get port(): FunctionPort {
    if (this.#port === undefined) throw new Error('the device is not plugged in');
    return this.#port;
  }

  get plugged(): boolean {
    return this.#port !== undefined;
  }

  /** @internal The machine plugs it in, and pulls it (undefined). */
  plug(port: FunctionPort | undefined): void {
    this.#port = port;
    if (port === undefined) this.removed();
  }

  /** One access of `into.byteLength` (1, 2, 4 or 8) bytes within a BAR. Fills all of `into`. */
  abstract readRegister(bar: number, offset: number, into: Uint8Array): void;
  /** One access of `from.byteLength` (1, 2, 4 or 8) bytes within a BAR. */
  abstract writeRegister(bar: number, offset: number, from: Uint8Array): void;
  /** Back to what it is after power-on, except for what is not volatile. */
  abstract reset(): void;
  /** It was pulled out: whatever it was doing stops. */
  protected abstract removed(): void;
  /** Bus mastering, memory decoding or the interrupt mode changed. */
  configured?(): void;
}
