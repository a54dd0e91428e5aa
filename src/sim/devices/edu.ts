/**
 * QEMU's educational device (QEMU's docs/specs/edu, and what QEMU 7.2 does): an inverter, a factorial, interrupts on
 * request, and DMA to and from a buffer of its own.
 *
 * @module
 */
import {
  type FunctionBar,
  type FunctionCapabilities,
  type FunctionIdentity,
  PciFunction,
} from './pci-function.js';

const Register = {
  IDENTIFICATION: 0x00,
  LIVENESS: 0x04,
  FACTORIAL: 0x08,
  STATUS: 0x20,
  INTERRUPT_STATUS: 0x24,
  INTERRUPT_RAISE: 0x60,
  INTERRUPT_ACKNOWLEDGE: 0x64,
  DMA_SOURCE: 0x80,
  DMA_DESTINATION: 0x88,
  DMA_COUNT: 0x90,
  DMA_COMMAND: 0x98,
} as const;

/** Registers from here on can be accessed by 8 bytes, too. */
const WIDE = 0x80;
/** Version 1.0. */
const IDENTIFICATION = 0x0100_00edn;
const COMPUTING = 0x01;
/** Raise an interrupt when a factorial is there. */
const INTERRUPT_WHEN_COMPUTED = 0x80;
const FACTORIAL_INTERRUPT = 0x001;
const DMA_INTERRUPT = 0x100;
const DMA_RUN = 1n;
const DMA_FROM_DEVICE = 2n;
const DMA_RAISES_INTERRUPT = 4n;
/** How long a transfer takes on QEMU, in milliseconds. */
const DMA_TIME = 100;
/** Where its buffer is for DMA commands; in bytes. */
const BUFFER_START = 0x40000n;
const BUFFER_SIZE = 4096n;
const ALL_ONES = 2n ** 64n - 1n;
const MASK_32 = 2n ** 32n - 1n;

export interface EduOptions {
  /** Address bits that it can drive; all 64 unless told (QEMU's default is 28 bits). */
  readonly dmaMask?: bigint;
  /** How long a transfer takes, in milliseconds; 100 unless told, as on QEMU. */
  readonly transferTime?: number;
}

/** A transfer that reached beyond the device's buffer. It does not take place; QEMU ends there. */
export interface EduOverrun {
  /** Where in the DMA address space of the device. */
  readonly start: bigint;
  /** In bytes. */
  readonly length: bigint;
}

export class EduModel extends PciFunction {
  readonly identity: FunctionIdentity = {
    vendorId: 0x1234,
    deviceId: 0x11e8,
    subsystemVendorId: 0x1af4,
    subsystemDeviceId: 0x1100,
    classCode: 0x00_ff_00,
    revision: 0x10,
  };
  readonly bars: readonly FunctionBar[] = [{ index: 0, size: 2 ** 20, kind: 'memory' }];
  readonly capabilities: FunctionCapabilities = { msi: 1 };
  /** Transfers that a driver asked for and that could not be. */
  readonly overruns: EduOverrun[] = [];
  /** Transfers that did not reach memory: bus mastering was off, or the IOMMU refused. */
  failedTransfers = 0;
  readonly #dmaMask: bigint;
  readonly #transferTime: number;
  readonly #buffer = new Uint8Array(Number(BUFFER_SIZE));
  #liveness = 0n;
  #factorial = 0n;
  #status = 0;
  #interrupts = 0;
  readonly #dma = { source: 0n, destination: 0n, count: 0n, command: 0n };
  #computation: NodeJS.Immediate | undefined;
  #transfer: NodeJS.Timeout | undefined;

  constructor(options: EduOptions = {}) {
    super();
    this.#dmaMask = options.dmaMask ?? ALL_ONES;
    this.#transferTime = options.transferTime ?? DMA_TIME;
  }

  readRegister(_bar: number, offset: number, into: Uint8Array): void {
    const size = into.byteLength;
    // Narrower accesses do not reach the device; it answers those that are too wide with ones.
    const value = size < 4 ? 0n : isValid(offset, size) ? this.#read(offset) : ALL_ONES;
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    into.set(bytes.subarray(0, size));
  }

  #read(offset: number): bigint {
    switch (offset) {
      case Register.IDENTIFICATION:
        return IDENTIFICATION;
      case Register.LIVENESS:
        return this.#liveness;
      case Register.FACTORIAL:
        return this.#factorial;
      case Register.STATUS:
        return BigInt(this.#status);
      case Register.INTERRUPT_STATUS:
        return BigInt(this.#interrupts >>> 0);
      case Register.DMA_SOURCE:
        return this.#dma.source;
      case Register.DMA_DESTINATION:
        return this.#dma.destination;
      case Register.DMA_COUNT:
        return this.#dma.count;
      case Register.DMA_COMMAND:
        return this.#dma.command;
      default:
        return ALL_ONES;
    }
  }

  writeRegister(_bar: number, offset: number, from: Uint8Array): void {
    if (!isValid(offset, from.byteLength)) return;
    const bytes = new Uint8Array(8);
    bytes.set(from);
    const value = new DataView(bytes.buffer).getBigUint64(0, true);
    const low = Number(value & MASK_32);
    const idle = (this.#dma.command & DMA_RUN) === 0n;
    switch (offset) {
      case Register.LIVENESS:
        this.#liveness = ~value & MASK_32;
        break;
      case Register.FACTORIAL:
        if (!(this.#status & COMPUTING)) this.#compute(low);
        break;
      case Register.STATUS:
        this.#status = (this.#status & COMPUTING) | (low & INTERRUPT_WHEN_COMPUTED);
        break;
      case Register.INTERRUPT_RAISE:
        this.#raise(low);
        break;
      case Register.INTERRUPT_ACKNOWLEDGE:
        this.#interrupts &= ~low;
        if (this.#interrupts === 0 && this.port.interruptMode === 'intx') this.port.pin(false);
        break;
      case Register.DMA_SOURCE:
        if (idle) this.#dma.source = value;
        break;
      case Register.DMA_DESTINATION:
        if (idle) this.#dma.destination = value;
        break;
      case Register.DMA_COUNT:
        if (idle) this.#dma.count = value;
        break;
      case Register.DMA_COMMAND:
        if (idle && value & DMA_RUN) {
          this.#dma.command = value;
          this.#transfer = setTimeout(() => this.#run(), this.#transferTime);
        }
        break;
    }
  }

  #compute(value: number): void {
    this.#factorial = BigInt(value);
    this.#status |= COMPUTING;
    this.#computation = setImmediate(() => {
      // Modulo 2^32, of which 34! is a multiple.
      let product = 1;
      for (let factor = Math.min(value, 34); factor > 0; factor--) product = Math.imul(product, factor);
      this.#factorial = BigInt(product >>> 0);
      this.#status &= ~COMPUTING;
      if (this.#status & INTERRUPT_WHEN_COMPUTED) this.#raise(FACTORIAL_INTERRUPT);
    });
  }

  #raise(reasons: number): void {
    this.#interrupts |= reasons;
    if (this.#interrupts === 0) return;
    if (this.port.interruptMode === 'intx') this.port.pin(true);
    else this.port.message(0);
  }

  #run(): void {
    const { source, destination, count, command } = this.#dma;
    const fromDevice = (command & DMA_FROM_DEVICE) !== 0n;
    const own = fromDevice ? source : destination;
    if (this.#fits(own, count)) {
      const start = Number(own - BUFFER_START);
      const part = this.#buffer.subarray(start, start + Number(count));
      const address = (fromDevice ? destination : source) & this.#dmaMask;
      const done = fromDevice ? this.port.write(address, part) : this.port.read(address, part);
      if (!done) this.failedTransfers++;
    } else {
      this.overruns.push({ start: own, length: count });
    }
    this.#dma.command &= ~DMA_RUN;
    if (command & DMA_RAISES_INTERRUPT) this.#raise(DMA_INTERRUPT);
  }

  /** QEMU 7.2 takes one byte less than there is room for. */
  #fits(start: bigint, count: bigint): boolean {
    return start >= BUFFER_START && count < BUFFER_SIZE && start + count < BUFFER_START + BUFFER_SIZE;
  }

  reset(): void {
    this.removed();
    this.#liveness = 0n;
    this.#factorial = 0n;
    this.#status = 0;
    this.#interrupts = 0;
    this.#buffer.fill(0);
    Object.assign(this.#dma, { source: 0n, destination: 0n, count: 0n, command: 0n });
    if (this.plugged) this.port.pin(false);
  }

  protected removed(): void {
    clearImmediate(this.#computation);
    clearTimeout(this.#transfer);
  }
}

function isValid(offset: number, size: number): boolean {
  return size === 4 || (size === 8 && offset >= WIDE);
}
