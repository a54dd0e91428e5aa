/**
 * A simulated NVMe controller: the face of QEMU's `nvme` device towards PCI, and its registers (Base Specification
 * 2.0, 3.1).
 *
 * @module
 */
import { DeviceMemory } from '../../machine/device-memory.js';
import type { MemoryObject } from '../../machine/memory-object.js';
import {
  type FunctionBar,
  type FunctionCapabilities,
  type FunctionIdentity,
  PciFunction,
} from '../pci-function.js';
import { Controller, type NvmeTrace } from './controller.js';
import type { DmaAccess } from './data-pointer.js';
import { SUBSYSTEM_VENDOR_ID, VENDOR_ID, VERSION } from './identify.js';
import { completeNvmeOptions, type NvmeModelOptions } from './options.js';
import { Csts, Register } from './protocol.js';

const PAGE = 4096;
const MSIX_ENTRY = 16;
const CMB_BAR = 2;
const ENABLE = 1;
const SHUTDOWN = 3 << 14;
/** Queues of 2048 entries in one piece, 7.5 s to get ready, pages of 4 to 64 KiB, all command sets. */
const CAPABILITIES = 0x0040_1820_0f01_07ffn;
const CAP_CMB = 1n << 57n;
/** CMBLOC: BAR 2, and lists and data may be anywhere in it. CMBSZ: submission queues, lists, data; in MiB. */
const CMB_LOCATION = (1 << 8) | (1 << 6) | CMB_BAR;
const CMB_USES = (2 << 8) | 0x1d;
/** CMBMSC: the registers are there; the memory is reached at an address that the driver chose. */
const CMB_REGISTERS = 1n;
const CMB_ADDRESSED = 2n;
const CMB_ADDRESS_MASK = ~0xfffn;

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

export class NvmeModel extends PciFunction {
  readonly identity: FunctionIdentity = {
    vendorId: VENDOR_ID,
    deviceId: 0x0010,
    subsystemVendorId: SUBSYSTEM_VENDOR_ID,
    subsystemDeviceId: 0x1100,
    classCode: 0x01_08_02,
    revision: 2,
  };
  readonly bars: readonly FunctionBar[];
  readonly capabilities: FunctionCapabilities;
  readonly #controller: Controller;
  readonly #cmb: MemoryObject | undefined;
  /** Doorbells, in the order of their registers. */
  readonly #doorbells: number;
  /** Where the memory buffer is for the controller itself. */
  #cmbAddress: bigint | undefined;

  constructor(options: NvmeModelOptions = {}) {
    super();
    const complete = completeNvmeOptions(options);
    const { maxQueues, msixVectors, cmbSize } = complete;
    const cmb = cmbSize === 0 ? undefined : new DeviceMemory('nvme-cmb', cmbSize);
    this.#doorbells = 2 * (maxQueues + 1);
    const tableOffset = roundUp(Register.DOORBELLS + 4 * this.#doorbells, PAGE);
    const pbaOffset = roundUp(tableOffset + MSIX_ENTRY * msixVectors, PAGE);
    const size = 2 ** Math.ceil(Math.log2(pbaOffset + roundUp(msixVectors, 64) / 8));
    this.bars = [
      { index: 0, size, kind: 'memory', is64Bit: true },
      ...(cmb === undefined
        ? []
        : [
            {
              index: CMB_BAR,
              size: cmb.size,
              kind: 'memory',
              is64Bit: true,
              prefetchable: true,
              memory: cmb,
            } as const,
          ]),
    ];
    this.capabilities = {
      msix: { vectors: msixVectors, tableBar: 0, tableOffset, pbaBar: 0, pbaOffset },
      express: true,
      functionLevelReset: true,
      powerManagement: true,
    };
    this.#cmb = cmb;
    this.#controller = new Controller(complete, () => (this.plugged ? this.port : undefined), this.#access());
    const { registers } = this.#controller;
    registers.setBigUint64(Register.CAP, CAPABILITIES | (cmb === undefined ? 0n : CAP_CMB), true);
    registers.setUint32(Register.VS, VERSION, true);
  }

  /** What QEMU traces as `pci_nvme_admin_cmd` and `pci_nvme_mmio_write`, since the model was made. */
  get trace(): NvmeTrace {
    return this.#controller.trace;
  }

  /** Memory as the controller reaches it: its own buffer, or the machine's. */
  #access(): DmaAccess {
    return {
      read: (address, into) => {
        const own = this.#buffer(address, into.byteLength);
        if (own === undefined) return this.plugged && this.port.read(address, into);
        into.set(own);
        return true;
      },
      write: (address, from) => {
        const own = this.#buffer(address, from.byteLength);
        if (own === undefined) return this.plugged && this.port.write(address, from);
        own.set(from);
        return true;
      },
      isLocal: address => this.#buffer(address, 1) !== undefined,
    };
  }

  /** Part of the controller's own memory, when that is what an address stands for. */
  #buffer(address: bigint, length: number): Uint8Array | undefined {
    if (this.#cmbAddress === undefined || this.#cmb === undefined) return undefined;
    const offset = address - this.#cmbAddress;
    if (offset < 0n || offset + BigInt(length) > BigInt(this.#cmb.size)) return undefined;
    return this.#cmb.bytes.subarray(Number(offset), Number(offset) + length);
  }

  /** At most `iops` operations a second on every namespace from now on; 0 lifts the limit. */
  throttle(iops: number): void {
    for (const namespace of this.#controller.namespaces) {
      namespace.throttle(iops);
      this.#controller.resume(namespace);
    }
  }

  /** Works at once on what was submitted, rather than when the event loop comes to it. */
  work(): void {
    this.#controller.takeTurn();
  }

  readRegister(_bar: number, offset: number, into: Uint8Array): void {
    const { registers, silent } = this.#controller;
    into.fill(silent ? 0xff : 0);
    if (silent) return;
    // Doorbells cannot be read.
    if (offset + into.byteLength <= registers.byteLength) {
      into.set(new Uint8Array(registers.buffer, offset, into.byteLength));
    }
  }

  writeRegister(_bar: number, offset: number, from: Uint8Array): void {
    if (this.#controller.silent) return;
    const bytes = new Uint8Array(8);
    bytes.set(from);
    const value = new DataView(bytes.buffer).getBigUint64(0, true);
    if (offset < Register.DOORBELLS) this.#write(offset, from.byteLength, value);
    else {
      const index = (offset - Register.DOORBELLS) / 4;
      if (Number.isInteger(index) && index < this.#doorbells)
        this.#controller.doorbells.ring(index, Number(value & 0xffffn));
    }
  }

  /** A register is written by an access that begins where it does; other accesses do nothing. */
  #write(offset: number, size: number, value: bigint): void {
    const { registers } = this.#controller;
    const low = Number(value & 0xffff_ffffn);
    this.trace.registerWrites.push({ offset, value });
    switch (offset) {
      case Register.INTMS:
        this.#setMasks(registers.getUint32(Register.INTMS, true) | low);
        break;
      case Register.INTMC:
        this.#setMasks(registers.getUint32(Register.INTMS, true) & ~low);
        break;
      case Register.CC:
        this.#configure(low);
        break;
      case Register.AQA:
      case Register.ASQ + 4:
      case Register.ACQ + 4:
        registers.setUint32(offset, low, true);
        break;
      case Register.ASQ:
      case Register.ACQ:
        // These are written as far as the access goes.
        for (let at = 0; at < size; at++) {
          registers.setUint8(offset + at, Number((value >> BigInt(8 * at)) & 0xffn));
        }
        break;
      case Register.CMBMSC:
        if (this.#cmb !== undefined) {
          registers.setBigUint64(offset, size === 8 ? value : this.#highCmbAddress() | BigInt(low), true);
          this.#controlBuffer(this.#cmb.size);
        }
        break;
      case Register.CMBMSC + 4:
        if (this.#cmb !== undefined) registers.setUint32(offset, low, true);
        break;
    }
  }

  #setMasks(masks: number): void {
    const { registers } = this.#controller;
    // Either register reads as the masks.
    registers.setUint32(Register.INTMS, masks, true);
    registers.setUint32(Register.INTMC, masks, true);
    this.#controller.interrupts.update();
  }

  #configure(value: number): void {
    const controller = this.#controller;
    const before = controller.configuration;
    controller.configuration = value;
    let status = controller.status;
    if (value & SHUTDOWN && !(before & SHUTDOWN)) {
      for (const { storage } of controller.namespaces) storage.flush();
      status = (status & ~Csts.SHUTDOWN_MASK) | Csts.SHUTDOWN_COMPLETE;
    } else if (!(value & SHUTDOWN) && before & SHUTDOWN) status &= ~Csts.SHUTDOWN_MASK;
    if (value & ENABLE && !(before & ENABLE)) status = controller.start() ? Csts.READY : Csts.FATAL;
    else if (!(value & ENABLE) && before & ENABLE) {
      controller.stop();
      return;
    }
    controller.status = status;
  }

  #highCmbAddress(): bigint {
    return BigInt(this.#controller.registers.getUint32(Register.CMBMSC + 4, true)) << 32n;
  }

  /** CMBMSC was written, its lower half last. */
  #controlBuffer(size: number): void {
    const { registers } = this.#controller;
    const control = registers.getBigUint64(Register.CMBMSC, true);
    const shown = (control & CMB_REGISTERS) !== 0n;
    registers.setUint32(Register.CMBLOC, shown ? CMB_LOCATION : 0, true);
    registers.setUint32(Register.CMBSZ, shown ? (size / 2 ** 20) * 2 ** 12 + CMB_USES : 0, true);
    this.#cmbAddress = shown && control & CMB_ADDRESSED ? control & CMB_ADDRESS_MASK : undefined;
  }

  reset(): void {
    this.#controller.silent = false;
    this.#controller.reset();
  }

  protected removed(): void {
    this.reset();
  }
}
