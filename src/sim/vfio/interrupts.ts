/** The interrupts of a device and the eventfds behind them (drivers/vfio/pci/vfio_pci_intrs.c). @module */
import { EINVAL, ENOTTY, ERANGE } from '../../../bindings/uapi/errno.js';
import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_TYPE_MASK,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_REQ_IRQ_INDEX,
} from '../../../bindings/uapi/vfio.js';
import { Command, Header, Msi, Msix } from '../pci/registers.js';
import type { InterruptSink, PciSlot } from '../pci/slot.js';
import type { EventFd } from '../process/eventfd.js';
import type { SimulatedProcess } from '../process/process.js';
import { eventFd } from './argument.js';
import { IrqEventFd } from './irq-eventfd.js';
import type { VirtualConfig } from './virtual-config.js';

/** One request: `VFIO_DEVICE_SET_IRQS`, checked for its form. */
export interface IrqRequest {
  readonly flags: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  /** One byte for each interrupt. */
  readonly bools: Uint8Array;
  /** One descriptor for each interrupt. */
  readonly descriptors: Int32Array;
}

/** Where messages go in this machine: the address says which processor. */
const MESSAGE_ADDRESS = 0xfee0_0000;

/** INTx while it is enabled. */
interface Intx {
  trigger: EventFd | undefined;
  masked: boolean;
  readonly unmask: IrqEventFd;
}

type Message = typeof VFIO_PCI_MSI_IRQ_INDEX | typeof VFIO_PCI_MSIX_IRQ_INDEX;

/** A trigger that has no vector: errors, and requests to let go. */
interface Single {
  trigger: EventFd | undefined;
}

export class DeviceInterrupts implements InterruptSink {
  readonly #slot: PciSlot;
  readonly #config: () => VirtualConfig;
  #intx: Intx | undefined;
  /** Which kind of message is enabled. */
  #messages: Message | undefined;
  readonly #vectors = new Map<number, EventFd>();
  readonly #error: Single = { trigger: undefined };
  readonly #request: Single = { trigger: undefined };

  constructor(slot: PciSlot, config: () => VirtualConfig) {
    this.#slot = slot;
    this.#config = config;
    slot.interrupts = this;
  }

  get msiActive(): boolean {
    return this.#messages === VFIO_PCI_MSI_IRQ_INDEX;
  }

  /** How many interrupts an index has. */
  count(index: number): number {
    const { msi, msix } = this.#slot.config;
    switch (index) {
      case VFIO_PCI_INTX_IRQ_INDEX:
        return this.#config().bytes[Header.InterruptPin] ? 1 : 0;
      case VFIO_PCI_MSI_IRQ_INDEX:
        if (msi === undefined) return 0;
        return 1 << ((this.#slot.readConfig(msi + Msi.Flags, 2) & Msi.CountMask) >> 1);
      case VFIO_PCI_MSIX_IRQ_INDEX:
        return msix === undefined ? 0 : (this.#slot.readConfig(msix + Msix.Flags, 2) & Msix.CountMask) + 1;
      case VFIO_PCI_ERR_IRQ_INDEX:
      case VFIO_PCI_REQ_IRQ_INDEX:
        return 1;
      default:
        return 0;
    }
  }

  set(process: SimulatedProcess, request: IrqRequest): number {
    const action = request.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
    const trigger = action === VFIO_IRQ_SET_ACTION_TRIGGER;
    switch (request.index) {
      case VFIO_PCI_INTX_IRQ_INDEX:
        if (action === VFIO_IRQ_SET_ACTION_MASK) return this.#setIntxMask(request);
        if (action === VFIO_IRQ_SET_ACTION_UNMASK) return this.#setIntxUnmask(process, request);
        return trigger ? this.#setIntxTrigger(process, request) : -ENOTTY;
      case VFIO_PCI_MSI_IRQ_INDEX:
      case VFIO_PCI_MSIX_IRQ_INDEX:
        return trigger ? this.#setMessages(process, request, request.index) : -ENOTTY;
      case VFIO_PCI_ERR_IRQ_INDEX:
        return trigger ? this.#setSingle(process, request, this.#error) : -ENOTTY;
      case VFIO_PCI_REQ_IRQ_INDEX:
        return trigger ? this.#setSingle(process, request, this.#request) : -ENOTTY;
      default:
        return -ENOTTY;
    }
  }

  /** An error that is not fatal was reported. */
  reportError(): void {
    this.#error.trigger?.signal();
  }

  /** Asks the user to let go of the device. */
  requestRelease(): void {
    this.#request.trigger?.signal();
  }

  /** Disables what is enabled; {@link forget} takes the rest. */
  disable(): void {
    if (this.#intx) this.#disableIntx();
    else if (this.#messages !== undefined) this.#disableMessages(this.#messages);
  }

  forget(): void {
    this.#error.trigger = undefined;
    this.#request.trigger = undefined;
    if (this.#slot.interrupts === this) this.#slot.interrupts = undefined;
  }

  // INTx

  pinAsserted(): void {
    const intx = this.#intx;
    if (intx === undefined || intx.masked) return;
    intx.masked = true;
    this.#disablePin(true);
    this.#signalIntx(intx);
  }

  /** Masks or unmasks INTx, or its bit alone while it is not enabled. */
  maskIntx(masked: boolean): void {
    const intx = this.#intx;
    if (intx === undefined) this.#disablePin(masked);
    else if (!masked) this.#unmask(intx);
    else if (!intx.masked) {
      intx.masked = true;
      this.#disablePin(true);
    }
  }

  #unmask(intx: Intx): void {
    if (!intx.masked || this.#config().intxDisabled) return;
    if (this.#slot.pinPending) {
      // It would be masked again at once.
      this.#signalIntx(intx);
      return;
    }
    intx.masked = false;
    this.#disablePin(false);
  }

  #signalIntx(intx: Intx): void {
    if (!this.#config().intxDisabled) intx.trigger?.signal();
  }

  #disablePin(disabled: boolean): void {
    this.#slot.changeConfig(Header.Command, Command.IntxDisable, disabled ? Command.IntxDisable : 0);
  }

  #setIntxMask({ flags, start, count, bools }: IrqRequest): number {
    if (this.#intx === undefined || start !== 0 || count !== 1) return -EINVAL;
    if (flags & VFIO_IRQ_SET_DATA_EVENTFD) return -ENOTTY;
    if (flags & VFIO_IRQ_SET_DATA_NONE || bools[0]) this.maskIntx(true);
    return 0;
  }

  #setIntxUnmask(process: SimulatedProcess, { flags, start, count, bools, descriptors }: IrqRequest): number {
    const intx = this.#intx;
    if (intx === undefined || start !== 0 || count !== 1) return -EINVAL;
    if (flags & VFIO_IRQ_SET_DATA_EVENTFD) {
      const fd = descriptors[0] as number;
      if (fd >= 0) return intx.unmask.enable(process, fd);
      intx.unmask.disable();
    } else if (flags & VFIO_IRQ_SET_DATA_NONE || bools[0]) this.#unmask(intx);
    return 0;
  }

  #setIntxTrigger(process: SimulatedProcess, request: IrqRequest): number {
    const { flags, start, count, bools, descriptors } = request;
    const intx = this.#intx;
    if (intx && count === 0 && flags & VFIO_IRQ_SET_DATA_NONE) {
      this.#disableIntx();
      return 0;
    }
    if (this.#messages !== undefined || start !== 0 || count !== 1) return -EINVAL;
    if (flags & VFIO_IRQ_SET_DATA_EVENTFD) {
      const fd = descriptors[0] as number;
      const trigger = fd >= 0 ? eventFd(process, fd) : undefined;
      if (typeof trigger === 'number') return trigger;
      if (intx) intx.trigger = trigger;
      else this.#enableIntx(trigger);
      return 0;
    }
    if (intx === undefined) return -EINVAL;
    if (flags & VFIO_IRQ_SET_DATA_NONE || bools[0]) this.#signalIntx(intx);
    return 0;
  }

  #enableIntx(trigger: EventFd | undefined): void {
    const masked = this.#config().intxDisabled;
    const intx: Intx = { trigger, masked, unmask: new IrqEventFd(() => this.#unmask(intx)) };
    this.#intx = intx;
    this.#disablePin(masked);
    if (!masked && this.#slot.pinPending) this.pinAsserted();
  }

  #disableIntx(): void {
    this.#intx?.unmask.disable();
    this.#intx = undefined;
  }

  // MSI and MSI-X

  message(vector: number): void {
    this.#vectors.get(vector)?.signal();
  }

  #setMessages(process: SimulatedProcess, request: IrqRequest, index: Message): number {
    const { flags, start, count, bools, descriptors } = request;
    const active = this.#messages === index;
    if (active && count === 0 && flags & VFIO_IRQ_SET_DATA_NONE) {
      this.#disableMessages(index);
      return 0;
    }
    if (this.#intx || (this.#messages !== undefined && !active)) return -EINVAL;
    if (flags & VFIO_IRQ_SET_DATA_EVENTFD) {
      if (!active) {
        if (start + count === 0) return -ERANGE;
        this.#enableMessages(index, start + count);
      }
      const result = this.#setVectors(process, index, start, descriptors);
      if (result < 0 && !active) this.#disableMessages(index);
      return result;
    }
    if (!active) return -EINVAL;
    for (let i = 0; i < count; i++) {
      if (flags & VFIO_IRQ_SET_DATA_NONE || bools[i]) this.#vectors.get(start + i)?.signal();
    }
    return 0;
  }

  #setVectors(process: SimulatedProcess, index: Message, start: number, descriptors: Int32Array): number {
    for (const [i, fd] of descriptors.entries()) {
      this.#setVector(index, start + i, undefined);
      if (fd < 0) continue;
      const trigger = eventFd(process, fd);
      if (typeof trigger === 'number') {
        for (let back = 0; back <= i; back++) this.#setVector(index, start + back, undefined);
        return trigger;
      }
      this.#setVector(index, start + i, trigger);
    }
    return 0;
  }

  #setVector(index: Message, vector: number, trigger: EventFd | undefined): void {
    if (trigger) this.#vectors.set(vector, trigger);
    else this.#vectors.delete(vector);
    if (index === VFIO_PCI_MSIX_IRQ_INDEX) this.#slot.maskVector(vector, trigger === undefined);
  }

  #enableMessages(index: Message, vectors: number): void {
    this.#messages = index;
    const { msi, msix } = this.#slot.config;
    if (index === VFIO_PCI_MSIX_IRQ_INDEX) {
      this.#slot.changeConfig((msix as number) + Msix.Flags, Msix.MaskAll, Msix.Enable);
    } else if (msi !== undefined) {
      const log = Math.ceil(Math.log2(vectors));
      this.#config().msiCountLog = log;
      this.#slot.writeConfig(msi + Msi.AddressLow, 4, MESSAGE_ADDRESS);
      this.#slot.changeConfig(msi + Msi.Flags, Msi.EnabledMask, (log << 4) | Msi.Enable);
    }
  }

  #disableMessages(index: Message): void {
    for (const vector of [...this.#vectors.keys()]) this.#setVector(index, vector, undefined);
    this.#messages = undefined;
    const { msi, msix } = this.#slot.config;
    if (index === VFIO_PCI_MSIX_IRQ_INDEX) {
      this.#slot.changeConfig((msix as number) + Msix.Flags, Msix.Enable, 0);
    } else if (msi !== undefined) {
      this.#slot.changeConfig(msi + Msi.Flags, Msi.Enable, 0);
      this.#slot.writeConfig(msi + Msi.AddressLow, 4, 0);
    }
  }

  // Errors and requests

  #setSingle(process: SimulatedProcess, request: IrqRequest, single: Single): number {
    const { flags, start, count, bools, descriptors } = request;
    if (start !== 0 || count > 1) return -EINVAL;
    if (flags & VFIO_IRQ_SET_DATA_NONE) {
      if (single.trigger === undefined) return -EINVAL;
      if (count > 0) single.trigger.signal();
      else single.trigger = undefined;
      return 0;
    }
    if (count === 0) return -EINVAL;
    if (flags & VFIO_IRQ_SET_DATA_BOOL) {
      if (bools[0]) single.trigger?.signal();
      return 0;
    }
    const fd = descriptors[0] as number;
    if (fd < -1) return -EINVAL;
    const trigger = fd === -1 ? undefined : eventFd(process, fd);
    if (typeof trigger === 'number') return trigger;
    single.trigger = trigger;
    return 0;
  }
}
