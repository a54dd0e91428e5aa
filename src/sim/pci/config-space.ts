/**
 * The configuration space that a function really has: what the hardware answers, before VFIO makes anything of it.
 *
 * Laid out as QEMU lays out its nvme and edu devices, so that the two look alike byte by byte.
 *
 * @module
 */
import type { FunctionBar, PciFunction } from '../devices/pci-function.js';
import {
  CapabilityId,
  CONVENTIONAL_SIZE,
  Command,
  EXPRESS_SIZE,
  Express,
  HEADER_SIZE,
  Header,
  Msi,
  Msix,
  Power,
  Status,
} from './registers.js';

/** A 2.5 GT/s link of one lane, with L0s. */
const LINK_CAPABILITIES = 0x411;
const LINK_STATUS = 0x11;
/** Extended fmt field, end-to-end TLP prefixes. */
const DEVICE_CAPABILITIES_2 = 0x0030_0000;
const BLOCK_PREFIXES = 0x8000;
const COMMAND_WRITEABLE = Command.Io | Command.Memory | Command.Master | Command.Serr | Command.IntxDisable;
/** What firmware leaves behind. */
const COMMAND_AT_BOOT = Command.Io | Command.Memory | Command.Serr;
const BAR_64BIT = 0x4;
const BAR_PREFETCHABLE = 0x8;
const BAR_IO = 0x1;

/** The low bits of a BAR, which say what it is. */
export function barFlags(bar: FunctionBar): number {
  if (bar.kind === 'io') return BAR_IO;
  return (bar.is64Bit ? BAR_64BIT : 0) | (bar.prefetchable ? BAR_PREFETCHABLE : 0);
}

export interface ConfigOptions {
  /** It is in the root complex rather than behind a port. */
  readonly integrated: boolean;
  readonly interruptLine: number;
  /** Bus addresses of the BARs, by index. */
  readonly addresses: ReadonlyMap<number, bigint>;
}

export class PhysicalConfig {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  /** What a write changes. */
  readonly #writeable: Uint8Array;
  readonly #masks: DataView;
  /** Where the capabilities are, in bytes; undefined for those that it has not. */
  readonly power: number | undefined;
  readonly msi: number | undefined;
  readonly msix: number | undefined;
  readonly express: number | undefined;
  readonly #bars: readonly FunctionBar[];
  #last: number = Header.Capabilities;

  constructor(device: PciFunction, { integrated, interruptLine, addresses }: ConfigOptions) {
    const { identity, capabilities, bars } = device;
    const size = capabilities.express ? EXPRESS_SIZE : CONVENTIONAL_SIZE;
    this.bytes = new Uint8Array(size);
    this.#view = new DataView(this.bytes.buffer);
    this.#writeable = new Uint8Array(size).fill(0xff, HEADER_SIZE);
    this.#masks = new DataView(this.#writeable.buffer);
    this.#bars = bars;
    const view = this.#view;
    view.setUint16(Header.VendorId, identity.vendorId, true);
    view.setUint16(Header.DeviceId, identity.deviceId, true);
    view.setUint16(Header.Command, COMMAND_AT_BOOT, true);
    view.setUint32(Header.Revision, identity.classCode * 256 + identity.revision, true);
    view.setUint16(Header.SubsystemVendorId, identity.subsystemVendorId, true);
    view.setUint16(Header.SubsystemId, identity.subsystemDeviceId, true);
    view.setUint8(Header.InterruptLine, interruptLine);
    view.setUint8(Header.InterruptPin, device.interruptPin);
    this.#masks.setUint16(Header.Command, COMMAND_WRITEABLE, true);
    this.#writeable[Header.CacheLineSize] = 0xff;
    this.#writeable[Header.InterruptLine] = 0xff;
    this.#addBars(addresses);

    // In the order of the list, which is not that of the offsets.
    this.msix = capabilities.msix === undefined ? undefined : this.#add(CapabilityId.Msix, 0x40, Msix.Size);
    if (this.msix !== undefined && capabilities.msix !== undefined) {
      const { vectors, tableBar, tableOffset, pbaBar, pbaOffset } = capabilities.msix;
      view.setUint16(this.msix + Msix.Flags, vectors - 1, true);
      view.setUint32(this.msix + Msix.Table, tableOffset + tableBar, true);
      view.setUint32(this.msix + Msix.Pba, pbaOffset + pbaBar, true);
      this.#masks.setUint16(this.msix + Msix.Flags, Msix.Enable | Msix.MaskAll, true);
    }
    const msiAt = this.msix === undefined ? 0x40 : 0x50;
    this.msi = capabilities.msi === undefined ? undefined : this.#add(CapabilityId.Msi, msiAt, Msi.Size);
    if (this.msi !== undefined) this.#fillMsi(this.msi, capabilities.msi as number);
    this.express = capabilities.express ? this.#add(CapabilityId.Express, 0x80, Express.Size) : undefined;
    if (this.express !== undefined) {
      this.#fillExpress(this.express, integrated, capabilities.functionLevelReset ?? false);
    }
    this.power = capabilities.powerManagement ? this.#add(CapabilityId.Power, 0x60, Power.Size) : undefined;
    if (this.power !== undefined) {
      view.setUint16(this.power + Power.Capabilities, 3, true);
      view.setUint16(this.power + Power.Control, Power.NoSoftReset, true);
      this.#masks.setUint16(this.power + Power.Control, Power.StateMask, true);
    }
  }

  get size(): number {
    return this.bytes.byteLength;
  }

  #addBars(addresses: ReadonlyMap<number, bigint>): void {
    for (const bar of this.#bars) {
      const at = Header.Bar0 + 4 * bar.index;
      const mask = ~(BigInt(bar.size) - 1n);
      const value = (addresses.get(bar.index) ?? 0n) | BigInt(barFlags(bar));
      this.#view.setUint32(at, Number(value & 0xffff_ffffn), true);
      this.#masks.setUint32(at, Number(mask & 0xffff_ffffn), true);
      if (bar.is64Bit) {
        this.#view.setUint32(at + 4, Number(value >> 32n), true);
        this.#masks.setUint32(at + 4, Number((mask >> 32n) & 0xffff_ffffn), true);
      }
    }
  }

  #add(id: number, at: number, length: number): number {
    this.#writeable.fill(0, at, at + length);
    this.bytes[at] = id;
    this.bytes[this.#last] = at;
    this.#last = at + 1;
    this.#view.setUint16(Header.Status, Status.Capabilities, true);
    return at;
  }

  #fillMsi(at: number, vectors: number): void {
    this.#view.setUint16(at + Msi.Flags, Msi.Is64Bit | (Math.log2(vectors) << 1), true);
    this.#masks.setUint16(at + Msi.Flags, Msi.Enable | Msi.EnabledMask, true);
    this.#masks.setUint32(at + Msi.AddressLow, 0xffff_fffc, true);
    this.#masks.setUint32(at + Msi.AddressHigh, 0xffff_ffff, true);
    this.#masks.setUint16(at + Msi.Data64, 0xffff, true);
  }

  #fillExpress(at: number, integrated: boolean, functionLevelReset: boolean): void {
    const view = this.#view;
    view.setUint16(at + Express.Flags, 2 | (integrated ? Express.TypeIntegrated : 0), true);
    const resets = functionLevelReset ? Express.FunctionLevelReset : 0;
    view.setUint32(at + Express.DeviceCapabilities, Express.RoleBasedErrors + resets, true);
    view.setUint32(at + Express.LinkCapabilities, LINK_CAPABILITIES, true);
    view.setUint16(at + Express.LinkStatus, LINK_STATUS, true);
    view.setUint32(at + Express.DeviceCapabilities2, DEVICE_CAPABILITIES_2, true);
    this.#masks.setUint16(at + Express.DeviceControl2, BLOCK_PREFIXES, true);
  }

  /** @param length 1, 2 or 4 */
  read(at: number, length: number): number {
    if (length === 1) return this.#view.getUint8(at);
    return length === 2 ? this.#view.getUint16(at, true) : this.#view.getUint32(at, true);
  }

  /** Changes what can be changed. */
  write(at: number, length: number, value: number): void {
    for (let i = 0; i < length; i++) {
      const mask = this.#writeable[at + i] as number;
      const byte = (value >>> (8 * i)) & 0xff;
      this.bytes[at + i] = ((this.bytes[at + i] as number) & ~mask) | (byte & mask);
    }
  }

  /** Sets a bit that only the device itself changes: that an interrupt is pending. */
  setInterruptStatus(pending: boolean): void {
    const status = this.read(Header.Status, 2) & ~Status.Interrupt;
    this.#view.setUint16(Header.Status, status | (pending ? Status.Interrupt : 0), true);
  }

  /** From now on it may not be master of the bus. */
  clearBusMaster(): void {
    this.write(Header.Command, 2, this.read(Header.Command, 2) & ~Command.Master);
  }

  /** What a reset leaves: no decoding, no BARs, no interrupts. The kernel puts back what it has saved. */
  reset(): void {
    this.write(Header.Command, 2, 0);
    this.write(Header.CacheLineSize, 1, 0);
    this.write(Header.InterruptLine, 1, 0);
    for (const bar of this.#bars) {
      this.write(Header.Bar0 + 4 * bar.index, 4, 0);
      if (bar.is64Bit) this.write(Header.Bar0 + 4 * bar.index + 4, 4, 0);
    }
    if (this.msi !== undefined) {
      this.write(this.msi + Msi.Flags, 2, 0);
      for (let at = Msi.AddressLow; at < Msi.Data64; at += 4) this.write(this.msi + at, 4, 0);
      this.write(this.msi + Msi.Data64, 2, 0);
    }
    if (this.msix !== undefined) this.write(this.msix + Msix.Flags, 2, 0);
    if (this.power !== undefined) this.write(this.power + Power.Control, 2, 0);
  }

  /** What `pci_save_state` keeps of a function: the header, and the control registers of PCI Express. */
  save(): SavedConfig {
    const { express } = this;
    const control = express === undefined ? 0 : this.read(express + Express.DeviceControl2, 2);
    return { header: this.bytes.slice(0, HEADER_SIZE), deviceControl2: control };
  }

  restore(saved: SavedConfig): void {
    if (this.express !== undefined) {
      this.write(this.express + Express.DeviceControl2, 2, saved.deviceControl2);
    }
    const header = new DataView(saved.header.buffer);
    for (let at = HEADER_SIZE - 4; at >= 0; at -= 4) this.write(at, 4, header.getUint32(at, true));
  }
}

export interface SavedConfig {
  readonly header: Uint8Array<ArrayBuffer>;
  readonly deviceControl2: number;
}
