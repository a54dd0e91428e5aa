/** A device while it is open: what vfio-pci does to it between the first open and the last close. @module */
import { EINVAL } from '../../../bindings/uapi/errno.js';
import type { SavedConfig } from '../pci/config-space.js';
import { Command, Header } from '../pci/registers.js';
import type { PciSlot } from '../pci/slot.js';
import type { EventFd } from '../process/eventfd.js';
import type { DeviceMemoryFile } from './device-memory.js';
import { DeviceInterrupts } from './interrupts.js';
import { IoEventFds } from './ioeventfd.js';
import { VirtualConfig } from './virtual-config.js';

export class PciCore {
  readonly slot: PciSlot;
  readonly config: VirtualConfig;
  readonly interrupts: DeviceInterrupts;
  readonly ioEventFds: IoEventFds;
  /** Memory of the device that others have. */
  readonly exports = new Set<DeviceMemoryFile>();
  /** VFIO_DEVICE_RESET works. */
  readonly resetWorks: boolean;
  readonly #saved: SavedConfig;
  /** The user lets the device sleep; the eventfd, if any, is signalled when it wakes. */
  #lowPower: { readonly wakeup: EventFd | undefined } | undefined;
  #asleep = false;
  #requests = 0;

  /** The first open: bus mastering is off, the device is reset if it can be, and user mode sees it afresh. */
  constructor(slot: PciSlot) {
    this.slot = slot;
    const memory = slot.device.bars.some(bar => bar.kind === 'memory') ? Command.Memory : 0;
    const io = slot.device.bars.some(bar => bar.kind === 'io') ? Command.Io : 0;
    slot.changeConfig(Header.Command, Command.Master, memory | io);
    this.resetWorks = slot.reset() === 0;
    this.#saved = slot.config.save();
    slot.changeConfig(Header.Command, Command.IntxDisable, 0);
    this.interrupts = new DeviceInterrupts(slot, () => this.config);
    const { interrupts } = this;
    this.config = new VirtualConfig(slot, {
      maskIntx: masked => interrupts.maskIntx(masked),
      memoryChanged: () => this.memoryChanged(),
      resetFunction: () => this.#resetFunction(),
      get msiActive() {
        return interrupts.msiActive;
      },
    });
    this.ioEventFds = new IoEventFds(this);
  }

  /** The last close: no DMA, no interrupts, and the configuration that it had. */
  close(): void {
    const { slot } = this;
    for (const each of [...this.exports]) each.cleanUp();
    this.exitLowPower();
    this.config.setPowerState(0);
    slot.changeConfig(Header.Command, Command.Master, 0);
    this.interrupts.disable();
    this.ioEventFds.close();
    slot.writeConfig(Header.Command, 2, Command.IntxDisable);
    const reset = this.resetWorks && slot.resetMethods.any && !slot.gone;
    if (reset) slot.resetHardware();
    slot.restoreConfig(this.#saved);
    slot.changeConfig(Header.Command, Command.Master, 0);
    // What cannot be reset alone is reset with its bus, if it is on one that can be (vfio_pci_dev_set_try_reset).
    if (!reset) slot.resetBus();
    this.interrupts.forget();
  }

  /** Whether a BAR may be touched: I/O ports always, memory while it is decoded. */
  accessible(kind: 'memory' | 'io'): boolean {
    return kind === 'io' || this.config.memoryEnabled;
  }

  /** VFIO_DEVICE_RESET. */
  reset(): number {
    if (!this.resetWorks) return -EINVAL;
    this.config.setPowerState(0);
    return this.#resetFunction();
  }

  /** VFIO_DEVICE_PCI_HOT_RESET: resets the device, which is all that there is in its slot. */
  resetSlot(): number {
    this.config.setPowerState(0);
    return this.#revoked(() => this.slot.resetBus());
  }

  #resetFunction(): number {
    return this.#revoked(() => this.slot.reset());
  }

  /** Resets the device in some way, while nobody else can reach its memory. */
  #revoked(reset: () => number): number {
    this.#revoke();
    const result = reset();
    this.memoryChanged();
    return result;
  }

  /** What depends on whether memory is decoded follows. */
  memoryChanged(): void {
    const revoked = !this.config.memoryEnabled || this.#lowPower !== undefined;
    for (const each of [...this.exports]) each.setRevoked(revoked);
  }

  #revoke(): void {
    for (const each of [...this.exports]) each.setRevoked(true);
  }

  // Low power

  /** @returns 0, or minus EINVAL when the user has said so already */
  enterLowPower(wakeup: EventFd | undefined): number {
    this.#revoke();
    if (this.#lowPower !== undefined) return -EINVAL;
    this.#lowPower = { wakeup };
    return 0;
  }

  exitLowPower(): void {
    this.#lowPower = undefined;
    this.#asleep = false;
    this.memoryChanged();
  }

  /** A request begins: a device that sleeps wakes up first. */
  wake(): void {
    if (!this.#asleep) return;
    this.#asleep = false;
    const wakeup = this.#lowPower?.wakeup;
    if (wakeup === undefined) return;
    wakeup.signal();
    this.#lowPower = undefined;
    this.memoryChanged();
  }

  /** A request is over: a device that may sleep does so a moment later, unless another request comes first. */
  idle(): void {
    const lowPower = this.#lowPower;
    if (lowPower === undefined) return;
    const request = ++this.#requests;
    setImmediate(() => {
      if (this.#lowPower === lowPower && this.#requests === request) this.#asleep = true;
    });
  }
}
