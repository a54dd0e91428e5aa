/** One function on the simulated PCI bus: its configuration space, its interrupts, and its way to memory. @module */
import { ENOTTY } from '../../../bindings/uapi/errno.js';
import type { FunctionBar, FunctionPort, PciFunction } from '../devices/pci-function.js';
import type { IommuDevice } from '../iommu/domain.js';
import type { DmaPath } from '../iommu/iommu.js';
import { PhysicalConfig, type SavedConfig } from './config-space.js';
import { Command, Express, Header, Msi, Msix, Power } from './registers.js';
import { type ResetMethod, ResetMethods } from './reset-methods.js';
import type { RootPort } from './root-port.js';

/** A driver that takes the function's interrupts. */
export interface InterruptSink {
  /** A message arrived. */
  message(vector: number): void;
  /** The pin is asserted, and not disabled by the command register. */
  pinAsserted(): void;
}

export interface SlotOptions {
  /** `0000:00:04.0` */
  readonly address: string;
  readonly function: PciFunction;
  readonly iommu: IommuDevice;
  readonly dma: DmaPath;
  readonly port: RootPort | undefined;
  readonly interruptLine: number;
  /** Bus addresses of the BARs, by index. */
  readonly barAddresses: ReadonlyMap<number, bigint>;
}

export class PciSlot implements FunctionPort {
  readonly address: string;
  readonly device: PciFunction;
  readonly iommu: IommuDevice;
  /** The root port it sits behind. */
  readonly port: RootPort | undefined;
  readonly barAddresses: ReadonlyMap<number, bigint>;
  readonly config: PhysicalConfig;
  readonly resetMethods: ResetMethods;
  readonly #dma: DmaPath;
  /** It was pulled out: nothing answers any more. */
  gone = false;
  /** The kernel has noticed that. */
  disconnected = false;
  /** Who takes its interrupts. */
  interrupts: InterruptSink | undefined;
  #pin = false;
  /** Messages that a masked MSI-X vector keeps for later. */
  readonly #pending = new Set<number>();
  /** MSI-X vectors that are not masked. */
  readonly #unmasked = new Set<number>();

  constructor(options: SlotOptions) {
    const { port, interruptLine, barAddresses } = options;
    this.address = options.address;
    this.device = options.function;
    this.iommu = options.iommu;
    this.port = port;
    this.barAddresses = barAddresses;
    for (const { index, memory } of this.device.bars) {
      if (memory !== undefined) memory.address = barAddresses.get(index) ?? 0n;
    }
    this.#dma = options.dma;
    const methods: ResetMethod[] = [];
    if (this.device.capabilities.functionLevelReset) methods.push('flr');
    if (port !== undefined) methods.push('bus');
    this.resetMethods = new ResetMethods(methods);
    this.config = new PhysicalConfig(options.function, {
      integrated: port === undefined,
      interruptLine,
      addresses: barAddresses,
    });
  }

  bar(index: number): FunctionBar | undefined {
    return this.device.bars.find(bar => bar.index === index);
  }

  // Configuration space

  /** @param length 1, 2 or 4 */
  readConfig(at: number, length: number): number {
    return this.gone ? 2 ** (8 * length) - 1 : this.config.read(at, length);
  }

  /** @param length 1, 2 or 4 */
  writeConfig(at: number, length: number, value: number): void {
    if (this.gone) return;
    const before = this.#state();
    this.config.write(at, length, value);
    if (this.#state() !== before) this.#changed();
  }

  /** Sets and clears bits of a 16-bit register. */
  changeConfig(at: number, clear: number, set: number): void {
    this.writeConfig(at, 2, (this.readConfig(at, 2) & ~clear) | set);
  }

  /** The registers that a device model may want to hear about, as one text. */
  #state(): string {
    return `${this.config.read(Header.Command, 2)} ${this.interruptMode} ${this.powerState}`;
  }

  #changed(): void {
    this.device.configured?.();
    this.#checkPin();
  }

  get command(): number {
    return this.readConfig(Header.Command, 2);
  }

  get busMaster(): boolean {
    return !this.gone && (this.command & Command.Master) !== 0 && this.powerState === 0;
  }

  /** 0 to 3: D0 to D3hot. */
  get powerState(): number {
    const { power } = this.config;
    return power === undefined ? 0 : this.config.read(power + Power.Control, 2) & Power.StateMask;
  }

  get interruptMode(): 'intx' | 'msi' | 'msix' {
    const { msi, msix } = this.config;
    if (msix !== undefined && this.config.read(msix + Msix.Flags, 2) & Msix.Enable) return 'msix';
    return msi !== undefined && this.config.read(msi + Msi.Flags, 2) & Msi.Enable ? 'msi' : 'intx';
  }

  // Registers

  /** Whether an access to a BAR reaches the device. */
  #decodes(bar: FunctionBar): boolean {
    const bit = bar.kind === 'io' ? Command.Io : Command.Memory;
    return !this.gone && (this.command & bit) !== 0 && this.powerState === 0;
  }

  /** One access of 1, 2, 4 or 8 bytes. What reaches nothing reads as ones. */
  readRegister(bar: FunctionBar, offset: number, into: Uint8Array): void {
    const msix = this.device.capabilities.msix;
    if (!this.#decodes(bar)) into.fill(0xff);
    else if (bar.memory) into.set(bar.memory.bytes.subarray(offset, offset + into.byteLength));
    else if (msix?.pbaBar === bar.index && this.#inPending(offset - msix.pbaOffset, into)) return;
    else this.device.readRegister(bar.index, offset, into);
  }

  /** One access of 1, 2, 4 or 8 bytes. */
  writeRegister(bar: FunctionBar, offset: number, from: Uint8Array): void {
    if (!this.#decodes(bar)) return;
    if (bar.memory) bar.memory.bytes.set(from, offset);
    else this.device.writeRegister(bar.index, offset, from);
  }

  /** Reads pending bits. @returns false outside them */
  #inPending(offset: number, into: Uint8Array): boolean {
    const { vectors } = this.device.capabilities.msix as { vectors: number };
    if (offset < 0 || offset >= 8 * Math.ceil(vectors / 64)) return false;
    into.fill(0);
    for (const vector of this.#pending) {
      const byte = (vector >> 3) - offset;
      if (byte >= 0 && byte < into.byteLength) into[byte] = (into[byte] as number) | (1 << (vector & 7));
    }
    return true;
  }

  // Memory

  read(address: bigint, into: Uint8Array): boolean {
    return this.busMaster && this.#dma.read(address, into);
  }

  write(address: bigint, from: Uint8Array): boolean {
    return this.busMaster && this.#dma.write(address, from);
  }

  // Interrupts

  message(vector: number): void {
    const mode = this.interruptMode;
    // A message is a write to memory like any other.
    if (mode === 'intx' || !this.busMaster || vector >= this.#vectors(mode)) return;
    if (mode === 'msix' && !this.#unmasked.has(vector)) this.#pending.add(vector);
    else this.interrupts?.message(vector);
  }

  #vectors(mode: 'msi' | 'msix'): number {
    if (mode === 'msix') return this.device.capabilities.msix?.vectors ?? 0;
    const flags = this.config.read((this.config.msi as number) + Msi.Flags, 2);
    return 1 << ((flags & Msi.EnabledMask) >> 4);
  }

  /** Masks or unmasks an MSI-X vector, which sends what it has kept. */
  maskVector(vector: number, masked: boolean): void {
    if (masked) {
      this.#unmasked.delete(vector);
      return;
    }
    this.#unmasked.add(vector);
    if (this.interruptMode === 'msix' && this.#pending.delete(vector)) this.interrupts?.message(vector);
  }

  pin(asserted: boolean): void {
    if (this.gone || this.device.interruptPin === 0) return;
    this.#pin = asserted;
    this.config.setInterruptStatus(asserted);
    this.#checkPin();
  }

  /** The pin is asserted, whether or not anybody hears of it. */
  get pinPending(): boolean {
    return !this.gone && this.#pin;
  }

  #checkPin(): void {
    if (this.pinPending && !(this.command & Command.IntxDisable)) this.interrupts?.pinAsserted();
  }

  // Reset

  /** The hardware's part of a reset. */
  resetHardware(): void {
    this.device.reset();
    this.config.reset();
    this.#pin = false;
    this.config.setInterruptStatus(false);
    this.#pending.clear();
    this.#changed();
  }

  /**
   * Resets the function, and puts its configuration back (pci_reset_function).
   *
   * @returns 0, or minus ENOTTY when it cannot be reset alone, or is not to be
   */
  reset(): number {
    return this.resetMethods.any ? this.#resetAndRestore() : -ENOTTY;
  }

  /**
   * Resets what is behind its port, whatever its reset methods, and puts its configuration back (pci_reset_bus).
   *
   * @returns 0, or minus ENOTTY when it is behind none
   */
  resetBus(): number {
    return this.port === undefined ? -ENOTTY : this.#resetAndRestore();
  }

  #resetAndRestore(): number {
    if (this.gone) return -ENOTTY;
    if (this.config.power !== undefined)
      this.changeConfig(this.config.power + Power.Control, Power.StateMask, 0);
    const saved = this.config.save();
    const interrupts = this.saveInterrupts();
    this.writeConfig(Header.Command, 2, Command.IntxDisable);
    this.resetHardware();
    this.restoreConfig(saved);
    interrupts();
    return 0;
  }

  /** MSI and MSI-X as they are, to be put back. */
  saveInterrupts(): () => void {
    const { config } = this;
    const blocks = [
      ...(config.msi === undefined ? [] : [[config.msi, Msi.Size] as const]),
      ...(config.msix === undefined ? [] : [[config.msix, Msix.Size] as const]),
    ].map(([at, length]) => ({ at, bytes: config.bytes.slice(at, at + length) }));
    return () => {
      for (const { at, bytes } of blocks) {
        for (const [index, byte] of bytes.entries()) config.write(at + index, 1, byte);
      }
      this.#changed();
    };
  }

  restoreConfig(saved: SavedConfig): void {
    if (this.gone) return;
    this.config.restore(saved);
    this.#changed();
  }

  /** Whether configuration space says that a function-level reset is there. */
  get hasFunctionLevelReset(): boolean {
    const { express } = this.config;
    if (express === undefined) return false;
    return (this.config.read(express + Express.DeviceCapabilities, 4) & Express.FunctionLevelReset) !== 0;
  }
}
