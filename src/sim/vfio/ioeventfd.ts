/** Registers that the kernel writes when an eventfd is signalled (VFIO_DEVICE_IOEVENTFD). @module */
import { EEXIST, EINVAL, ENODEV, ENOSPC } from '../../../bindings/uapi/errno.js';
import {
  VFIO_DEVICE_IOEVENTFD_SIZE_MASK,
  VFIO_PCI_BAR5_REGION_INDEX,
  vfio_device_ioeventfd,
} from '../../../bindings/uapi/vfio.js';
import { Msix } from '../pci/registers.js';
import type { SimulatedProcess } from '../process/process.js';
import type { UserArgument } from '../process/user-argument.js';
import { readArgument } from './argument.js';
import type { PciCore } from './core.js';
import { IrqEventFd } from './irq-eventfd.js';
import { regionOf } from './region-offset.js';

const LIMIT = 1000;

interface Registration {
  readonly bar: number;
  readonly offset: number;
  readonly data: bigint;
  /** In bytes. */
  readonly width: number;
  readonly event: IrqEventFd;
}

export class IoEventFds {
  readonly #core: PciCore;
  readonly #registrations = new Set<Registration>();

  constructor(core: PciCore) {
    this.#core = core;
  }

  set(process: SimulatedProcess, user: UserArgument): number {
    const { fields } = vfio_device_ioeventfd;
    const values = readArgument(user, vfio_device_ioeventfd, fields.fd.offset + fields.fd.size);
    if (typeof values === 'number') return values;
    const { flags, data, fd } = values;
    if (flags & ~VFIO_DEVICE_IOEVENTFD_SIZE_MASK) return -EINVAL;
    if (![1, 2, 4, 8].includes(flags) || fd < -1) return -EINVAL;
    return this.#set(process, values.offset, data, flags, fd);
  }

  #set(process: SimulatedProcess, place: bigint, data: bigint, width: number, fd: number): number {
    const { index, offset } = regionOf(place);
    if (index > VFIO_PCI_BAR5_REGION_INDEX) return -EINVAL;
    const { slot } = this.#core;
    const bar = slot.bar(index);
    if (bar === undefined || offset + width > bar.size) return -EINVAL;
    const msix = slot.device.capabilities.msix;
    const tableEnd = msix === undefined ? 0 : msix.tableOffset + msix.vectors * Msix.EntrySize;
    if (msix?.tableBar === index && offset + width > msix.tableOffset && offset < tableEnd) return -EINVAL;
    for (const each of this.#registrations) {
      const same = each.bar === index && each.offset === offset && each.data === data && each.width === width;
      if (!same) continue;
      if (fd !== -1) return -EEXIST;
      each.event.disable();
      this.#registrations.delete(each);
      return 0;
    }
    if (fd < 0) return -ENODEV;
    if (this.#registrations.size >= LIMIT) return -ENOSPC;
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, data, true);
    const event = new IrqEventFd(() => {
      if (this.#core.accessible(bar.kind)) slot.writeRegister(bar, offset, bytes.slice(0, width));
    });
    const result = event.enable(process, fd);
    if (result < 0) return result;
    this.#registrations.add({ bar: index, offset, data, width, event });
    return 0;
  }

  close(): void {
    for (const each of this.#registrations) each.event.disable();
    this.#registrations.clear();
  }
}
