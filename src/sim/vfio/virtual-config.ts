/** Configuration space as user mode sees it (drivers/vfio/pci/vfio_pci_config.c). @module */
import { EFAULT } from '../../../bindings/uapi/errno.js';
import { barFlags } from '../pci/config-space.js';
import {
  CapabilityId,
  Command,
  Express,
  HEADER_SIZE,
  Header,
  Msi,
  Msix,
  Power,
  Status,
} from '../pci/registers.js';
import type { PciSlot } from '../pci/slot.js';
import { capabilityPermissions, headerPermissions, type Permissions } from './config-permissions.js';

/** What a write to configuration space sets off. */
export interface ConfigEffects {
  /** The user disables INTx, or enables it again. */
  maskIntx(masked: boolean): void;
  /** Memory decoding, the power state or anything else changed that device memory depends on. */
  memoryChanged(): void;
  resetFunction(): void;
  /** MSI is what interrupts are sent by. */
  readonly msiActive: boolean;
}

/** In the map of what is where: the header, and what belongs to no capability. */
const BASIC = 0;
const UNASSIGNED = 0xff;

export class VirtualConfig {
  readonly #slot: PciSlot;
  readonly #effects: ConfigEffects;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  /** The capability that each byte belongs to. */
  readonly #map: Uint8Array;
  /** The BARs as they really are, to be put back if somebody reset the device. */
  readonly #realBars: readonly number[];
  #barsDirty = true;
  #intxDisabled = false;
  /** The binary logarithm of how many MSIs were asked for. */
  msiCountLog = 0;

  constructor(slot: PciSlot, effects: ConfigEffects) {
    this.#slot = slot;
    this.#effects = effects;
    const { size } = slot.config;
    this.bytes = new Uint8Array(size);
    this.#view = new DataView(this.bytes.buffer);
    this.#map = new Uint8Array(size).fill(UNASSIGNED, HEADER_SIZE);
    this.#fill(0, HEADER_SIZE);
    this.#realBars = Array.from({ length: 6 }, (_, bar) => this.#view.getUint32(Header.Bar0 + 4 * bar, true));
    this.#addCapabilities();
  }

  get size(): number {
    return this.bytes.byteLength;
  }

  /** The user has disabled INTx. */
  get intxDisabled(): boolean {
    return this.#intxDisabled;
  }

  /** Whether memory BARs may be touched: what the user says, and not in D3. */
  get memoryEnabled(): boolean {
    return this.#slot.powerState < 3 && (this.#command & Command.Memory) !== 0;
  }

  get #command(): number {
    return this.#view.getUint16(Header.Command, true);
  }

  #fill(at: number, length: number): void {
    for (let i = at; i < at + length; i++) this.bytes[i] = this.#slot.readConfig(i, 1);
  }

  #addCapabilities(): void {
    if (!(this.#slot.readConfig(Header.Status, 2) & Status.Capabilities)) return;
    let at = this.#slot.readConfig(Header.Capabilities, 1);
    for (let left = 48; at !== 0 && left > 0 && at < 0xff; left--) {
      const id = this.#slot.readConfig(at, 1);
      const length = this.#capabilityLength(id, at);
      this.#map.fill(id, at, at + length);
      this.#fill(at, length);
      if (id === CapabilityId.Power) {
        this.bytes[at + 3] = (this.bytes[at + 3] as number) & 0x07;
        const control = this.#view.getUint16(at + Power.Control, true);
        this.#view.setUint16(at + Power.Control, control & ~0x8100, true);
      }
      at = this.#slot.readConfig(at + 1, 1);
    }
  }

  #capabilityLength(id: number, at: number): number {
    if (id === CapabilityId.Power) return Power.Size;
    if (id === CapabilityId.Msi) return Msi.Size;
    if (id === CapabilityId.Msix) return Msix.Size;
    const type = this.#slot.readConfig(at + Express.Flags, 2) & Express.TypeMask;
    return type === Express.TypeIntegrated ? Express.IntegratedSize : Express.Size;
  }

  /** Reads `into.byteLength` bytes. @returns how many, or minus EFAULT beyond the end */
  read(at: number, into: Uint8Array): number {
    return this.#each(at, into, (position, length, piece) => {
      const value = this.#readPiece(position, length);
      for (let i = 0; i < length; i++) piece[i] = (value >>> (8 * i)) & 0xff;
    });
  }

  /** Writes `from`. @returns how many bytes, or minus EFAULT beyond the end; what comes before it is written */
  write(at: number, from: Uint8Array): number {
    return this.#each(at, from, (position, length, piece) => {
      let value = 0;
      for (let i = length - 1; i >= 0; i--) value = value * 256 + (piece[i] as number);
      this.#writePiece(position, length, value);
    });
  }

  /** Cuts an access into aligned pieces of at most 4 bytes, none of which touches two capabilities. */
  #each(
    at: number,
    buffer: Uint8Array,
    visit: (position: number, length: number, piece: Uint8Array) => void,
  ): number {
    for (let done = 0; done < buffer.byteLength; ) {
      const position = at + done;
      const left = buffer.byteLength - done;
      if (position + left > this.size) return -EFAULT;
      let same = 1;
      while ((position + same) % 4 !== 0 && this.#map[position + same] === this.#map[position]) same++;
      const most = Math.min(left, same);
      const length = most >= 4 && position % 4 === 0 ? 4 : most >= 2 && position % 2 === 0 ? 2 : 1;
      visit(position, length, buffer.subarray(done, done + length));
      done += length;
    }
    return buffer.byteLength;
  }

  /** The capability that a byte is in, and where that begins. */
  #place(position: number): { id: number; start: number; permissions: Permissions | undefined } {
    const id = this.#map[position] as number;
    if (id === BASIC) return { id, start: 0, permissions: headerPermissions };
    let start = position;
    if (id !== UNASSIGNED) while (this.#map[start - 1] === id) start--;
    return { id, start, permissions: capabilityPermissions.get(id) };
  }

  #readPiece(position: number, length: number): number {
    const { id, start, permissions } = this.#place(position);
    const offset = position - start;
    if (id === UNASSIGNED) return this.#slot.readConfig(position, length);
    if (permissions === undefined) return this.#readDirectly(position, length, offset);
    if (id === BASIC && isBar(offset)) this.#fixBars();
    const virtual = bits(permissions.virtual, offset, length);
    const kept = this.#kept(position, length);
    if (virtual === full(length)) return kept;
    return ((this.#slot.readConfig(position, length) & ~virtual) | (kept & virtual)) >>> 0;
  }

  /** As the device has it, but for the place of the next capability. */
  #readDirectly(position: number, length: number, offset: number): number {
    const value = this.#slot.readConfig(position, length);
    const virtual = offset === 0 && length > 1 ? 0xffff : offset === 1 ? 0xff : 0;
    return ((value & ~virtual) | (this.#kept(position, length) & virtual)) >>> 0;
  }

  #kept(position: number, length: number): number {
    let value = 0;
    for (let i = length - 1; i >= 0; i--) value = value * 256 + (this.bytes[position + i] as number);
    return value;
  }

  #writePiece(position: number, length: number, value: number): void {
    const { id, start, permissions } = this.#place(position);
    const offset = position - start;
    if (id === UNASSIGNED) this.#slot.writeConfig(position, length, value);
    else if (id === BASIC) this.#writeHeader(offset, length, value);
    else if (permissions !== undefined) {
      const readRequest = id === CapabilityId.Express ? this.#deviceControl(start) : 0;
      this.#writeBits(permissions, position, offset, length, value);
      if (id === CapabilityId.Power && offset === Power.Control) this.setPowerState(value & Power.StateMask);
      if (id === CapabilityId.Msi) this.#wroteMsi(start, offset, length);
      if (id === CapabilityId.Express) this.#wroteExpress(start, readRequest);
    }
  }

  #writeBits(
    { virtual, writeable }: Permissions,
    position: number,
    offset: number,
    length: number,
    value: number,
  ): void {
    for (let i = 0; i < length; i++) {
      const mask = writeable[offset + i] ?? 0;
      const kept = mask & (virtual[offset + i] ?? 0);
      const byte = (value >>> (8 * i)) & 0xff;
      if (kept !== 0)
        this.bytes[position + i] = ((this.bytes[position + i] as number) & ~kept) | (byte & kept);
    }
    const mask = bits(writeable, offset, length) & ~bits(virtual, offset, length);
    if (mask === 0) return;
    const now = this.#slot.readConfig(position, length);
    this.#slot.writeConfig(position, length, ((now & ~mask) | (value & mask)) >>> 0);
  }

  #writeHeader(offset: number, length: number, value: number): void {
    const command = offset === Header.Command;
    if (command) this.#beforeCommand(value);
    this.#writeBits(headerPermissions, offset, offset, length, value);
    if (command) {
      const mask = Command.Memory | Command.Io;
      this.#view.setUint16(Header.Command, (this.#command & ~mask) | (value & mask), true);
      this.#effects.memoryChanged();
    }
    if (command || offset === Header.Command + 1) {
      const disabled = (this.#command & Command.IntxDisable) !== 0;
      if (disabled !== this.#intxDisabled) {
        this.#intxDisabled = disabled;
        this.#effects.maskIntx(disabled);
      }
    }
    if (isBar(offset)) this.#barsDirty = true;
  }

  /** Something reset the device behind the kernel's back if it does not decode what it should. */
  #beforeCommand(value: number): void {
    const real = this.#slot.command;
    const lost = Command.Memory | Command.Io;
    const bars = this.#realBars.some(
      (bar, index) => bar !== 0 && this.#slot.readConfig(Header.Bar0 + 4 * index, 4) !== bar,
    );
    if ((value & this.#command & ~real & lost) === 0 && !bars) return;
    for (const [index, bar] of this.#realBars.entries())
      this.#slot.writeConfig(Header.Bar0 + 4 * index, 4, bar);
  }

  /** Makes the virtual BARs answer as BARs do, so that their sizes can be found out. */
  #fixBars(): void {
    if (!this.#barsDirty) return;
    this.#barsDirty = false;
    for (let index = 0; index < 6; index++) {
      const at = Header.Bar0 + 4 * index;
      const bar = this.#slot.bar(index);
      if (bar === undefined) {
        this.#view.setUint32(at, 0, true);
        continue;
      }
      const mask = ~(BigInt(bar.size) - 1n);
      const low = (this.#view.getUint32(at, true) & Number(mask & 0xffff_ffffn)) | barFlags(bar);
      this.#view.setUint32(at, low, true);
      if (!bar.is64Bit) continue;
      const high = this.#view.getUint32(at + 4, true) & Number((mask >> 32n) & 0xffff_ffffn);
      this.#view.setUint32(at + 4, high, true);
      index++;
    }
    this.#view.setUint32(Header.Rom, 0, true);
  }

  /** 0 to 3: D0 to D3hot. */
  setPowerState(state: number): void {
    const { power } = this.#slot.config;
    if (power === undefined) return;
    // D1 and D2 are optional, and the simulated functions have neither.
    if (state === 0 || state === 3) {
      this.#slot.changeConfig(power + Power.Control, Power.StateMask, state);
    }
    this.#effects.memoryChanged();
  }

  #wroteMsi(start: number, offset: number, length: number): void {
    if (offset > Msi.Flags || offset + length < Msi.Flags) return;
    const at = start + Msi.Flags;
    let flags = this.#view.getUint16(at, true);
    if (!this.#effects.msiActive) flags &= ~Msi.Enable;
    if ((flags & Msi.EnabledMask) >> 4 > this.msiCountLog) {
      flags = (flags & ~Msi.EnabledMask) | (this.msiCountLog << 4);
    }
    this.#view.setUint16(at, flags, true);
    this.#slot.writeConfig(at, 2, flags);
  }

  #deviceControl(start: number): number {
    return this.#view.getUint16(start + Express.DeviceControl, true);
  }

  #wroteExpress(start: number, before: number): void {
    const at = start + Express.DeviceControl;
    const control = this.#deviceControl(start);
    if (control & Express.InitiateReset) {
      this.#view.setUint16(at, control & ~Express.InitiateReset, true);
      if (this.#slot.hasFunctionLevelReset) this.#effects.resetFunction();
    }
    if ((before ^ control) & Express.ReadRequestMask) {
      this.#slot.changeConfig(at, Express.ReadRequestMask, control & Express.ReadRequestMask);
    }
  }
}

function isBar(offset: number): boolean {
  return (
    (offset >= Header.Bar0 && offset < Header.Bar0 + 24) || (offset >= Header.Rom && offset < Header.Rom + 4)
  );
}

function full(length: number): number {
  return length === 4 ? 0xffff_ffff : 2 ** (8 * length) - 1;
}

function bits(table: Uint8Array, offset: number, length: number): number {
  let value = 0;
  for (let i = length - 1; i >= 0; i--) value = value * 256 + (table[offset + i] ?? 0);
  return value;
}
