/** PCI configuration space, as VFIO virtualises it, and the capability lists in it. @module */
import type { Region } from './region.js';

/** Offsets of the common registers, in bytes (PCI Express Base Specification 6.0, 7.5.1). */
export const ConfigRegister = {
  VendorId: 0x00,
  DeviceId: 0x02,
  Command: 0x04,
  Status: 0x06,
  RevisionId: 0x08,
  CapabilitiesPointer: 0x34,
} as const;

const COMMAND_MEMORY = 1 << 1;
const COMMAND_BUS_MASTER = 1 << 2;
const STATUS_CAPABILITIES = 1 << 4;
const EXTENDED_START = 0x100;

/** Capability ids that drivers look for (PCI Code and ID Assignment Specification). */
export const CapabilityId = {
  PowerManagement: 0x01,
  Msi: 0x05,
  VendorSpecific: 0x09,
  PciExpress: 0x10,
  Msix: 0x11,
} as const;

/** A capability in configuration space. */
export interface PciCapability {
  readonly id: number;
  /** Where it begins, in bytes. */
  readonly offset: number;
  /** True for those above 0x100, which have ids of their own. */
  readonly extended: boolean;
  /** Version of an extended capability; 0 for others. */
  readonly version: number;
}

/**
 * A device's configuration space. The kernel virtualises parts of it: the interrupt enable bits and the BARs are
 * its own affair. Bus mastering is real, and off when a device is opened.
 */
export class ConfigSpace {
  readonly #region: Region;

  /** @internal Use `Device.config`. */
  constructor(region: Region) {
    this.#region = region;
  }

  /** 256 for conventional PCI, 4096 for PCI Express; in bytes. */
  get size(): number {
    return this.#region.size;
  }

  read8(offset: number): number {
    return this.#region.read8(offset);
  }

  read16(offset: number): number {
    return this.#region.read16(offset);
  }

  read32(offset: number): number {
    return this.#region.read32(offset);
  }

  write8(offset: number, value: number): void {
    this.#region.write8(offset, value);
  }

  write16(offset: number, value: number): void {
    this.#region.write16(offset, value);
  }

  write32(offset: number, value: number): void {
    this.#region.write32(offset, value);
  }

  get vendorId(): number {
    return this.read16(ConfigRegister.VendorId);
  }

  get deviceId(): number {
    return this.read16(ConfigRegister.DeviceId);
  }

  /**
   * Whether the device answers at all: false once it is removed or its slot has no power. The ids would not tell, since
   * the kernel answers for them; revision and class come from the device.
   */
  get present(): boolean {
    return this.read32(ConfigRegister.RevisionId) !== 0xffff_ffff;
  }

  /**
   * Whether the device may start DMA. Switch it on last, when everything that the device may reach is mapped and
   * initialised.
   */
  get busMaster(): boolean {
    return this.#command(COMMAND_BUS_MASTER);
  }

  set busMaster(enabled: boolean) {
    this.#setCommand(COMMAND_BUS_MASTER, enabled);
  }

  /** Whether the device answers in its memory BARs. Unmap them before switching it off. */
  get memory(): boolean {
    return this.#command(COMMAND_MEMORY);
  }

  set memory(enabled: boolean) {
    this.#setCommand(COMMAND_MEMORY, enabled);
  }

  #command(bit: number): boolean {
    return (this.read16(ConfigRegister.Command) & bit) !== 0;
  }

  #setCommand(bit: number, enabled: boolean): void {
    const command = this.read16(ConfigRegister.Command);
    this.write16(ConfigRegister.Command, enabled ? command | bit : command & ~bit);
  }

  /**
   * Every capability: the standard ones, then the extended ones. A list that loops, or leads out of its space, ends
   * there.
   */
  capabilities(): PciCapability[] {
    return [...walkCapabilities(this)];
  }

  /** The first capability with this id, if the device has it. */
  findCapability(id: number, extended = false): PciCapability | undefined {
    return findCapability(this, id, extended);
  }
}

/** Configuration space, or a copy of it. */
export type ConfigReader = Pick<ConfigSpace, 'size' | 'read8' | 'read16' | 'read32'>;

/** As {@link ConfigSpace.capabilities}. */
export function* walkCapabilities(config: ConfigReader): Generator<PciCapability> {
  yield* standard(config);
  yield* extended(config);
}

/** As {@link ConfigSpace.findCapability}. */
export function findCapability(
  config: ConfigReader,
  id: number,
  extended = false,
): PciCapability | undefined {
  for (const entry of walkCapabilities(config)) {
    if (entry.id === id && entry.extended === extended) return entry;
  }
  return undefined;
}

function* standard(config: ConfigReader): Generator<PciCapability> {
  if (!(config.read16(ConfigRegister.Status) & STATUS_CAPABILITIES)) return;
  const seen = new Set<number>();
  let offset = config.read8(ConfigRegister.CapabilitiesPointer) & 0xfc;
  while (offset >= 0x40 && !seen.has(offset)) {
    seen.add(offset);
    const id = config.read8(offset);
    if (id === 0xff) return; // nothing answers
    yield { id, offset, extended: false, version: 0 };
    offset = config.read8(offset + 1) & 0xfc;
  }
}

function* extended(config: ConfigReader): Generator<PciCapability> {
  if (config.size <= EXTENDED_START) return;
  const seen = new Set<number>();
  let offset = EXTENDED_START;
  while (offset >= EXTENDED_START && offset + 4 <= config.size && !seen.has(offset)) {
    seen.add(offset);
    const header = config.read32(offset);
    if (header === 0 || header === 0xffff_ffff) return;
    const id = header & 0xffff;
    // Id 0 is a placeholder that the kernel leaves where it hides a capability.
    if (id !== 0) yield { id, offset, extended: true, version: (header >>> 16) & 0xf };
    offset = (header >>> 20) & 0xffc;
  }
}
