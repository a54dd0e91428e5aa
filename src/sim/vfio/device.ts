/** A device that vfio-pci has, whether or not it is open (struct vfio_device). @module */
import { EINVAL, ENOSPC } from '../../../bindings/uapi/errno.js';
import { NO_PASID, pasidKey } from '../iommu/group-attach.js';
import type { IommufdContext } from '../iommufd/context.js';
import { IommufdDevice } from '../iommufd/device.js';
import { compatIoasId } from '../iommufd/vfio-compat.js';
import type { PciSlot } from '../pci/slot.js';
import type { SimulatedProcess } from '../process/process.js';
import { PciCore } from './core.js';
import type { VfioGroup } from './group.js';

/** The kernel counts them in an `int`. */
const MAX_PASID = 0x7fff_ffff;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const UUID_LENGTH = 36;

export class VfioDevice {
  /** The number in its file's name. */
  readonly index: number;
  readonly slot: PciSlot;
  readonly group: VfioGroup;
  /** It has a file of its own, and can be bound to iommufd. */
  readonly cdev: boolean;
  /** A file of its own rather than its group's opened it. */
  cdevOpened = false;
  /** It is open while not undefined. */
  core: PciCore | undefined;
  iommufd: IommufdDevice | undefined;
  /** The PASIDs that are attached; -1 stands for DMA without one. */
  readonly #attached = new Set<number>();
  /** It was opened through its group's container. */
  #inContainer = false;
  #openCount = 0;
  /** Open files, bound or not. */
  #files = 0;
  #lastPut: (() => void) | undefined;

  constructor(index: number, slot: PciSlot, group: VfioGroup, cdev: boolean) {
    this.index = index;
    this.slot = slot;
    this.group = group;
    this.cdev = cdev;
  }

  /** The name of its file. */
  get name(): string {
    return `${this.slot.iommu.noiommu ? 'noiommu-' : ''}vfio${this.index}`;
  }

  get openCount(): number {
    return this.#openCount;
  }

  get busy(): boolean {
    return this.#files > 0;
  }

  get(): void {
    this.#files++;
  }

  put(): void {
    this.#files--;
    if (this.#files > 0) return;
    const lastPut = this.#lastPut;
    this.#lastPut = undefined;
    lastPut?.();
  }

  /** Calls `then` as soon as no file of it is open. */
  whenUnused(then: () => void): void {
    if (this.#files === 0) then();
    else this.#lastPut = then;
  }

  /**
   * Whether a name is the device's: its address, and perhaps options.
   *
   * @returns 1 if it is, 0 if not, minus EINVAL for options that do not apply
   */
  matches(name: string): number {
    const { address } = this.slot;
    if (!name.startsWith(address)) return 0;
    const rest = name.slice(address.length);
    if (rest === '') return 1;
    if (!rest.startsWith(' ')) return 0;
    for (const option of rest.split(' ')) {
      if (option === '') continue;
      if (!option.startsWith('vf_token=')) return -EINVAL;
      if (!UUID.test(option.slice('vf_token='.length, 'vf_token='.length + UUID_LENGTH))) return -EINVAL;
      // It is neither a physical nor a virtual function, so that a token is a mistake.
      return -EINVAL;
    }
    return 1;
  }

  /**
   * Opens it, for the first time or, through the group, once more.
   *
   * @param context the iommufd context that it is bound to; without one it is in a container
   */
  open(process: SimulatedProcess, context: IommufdContext | undefined, throughGroup: boolean): number {
    if (this.#openCount > 0) {
      if (!throughGroup) return -EINVAL;
      this.#openCount++;
      return 0;
    }
    const result = this.#useIommu(process, context, throughGroup);
    if (result < 0) return result;
    this.core = new PciCore(this.slot);
    this.#openCount = 1;
    if (context === undefined || !throughGroup || this.slot.iommu.noiommu) return 0;
    const attached = this.attach(NO_PASID, compatIoasId(context));
    if (attached.result < 0) this.close();
    return attached.result;
  }

  #useIommu(process: SimulatedProcess, context: IommufdContext | undefined, throughGroup: boolean): number {
    if (context === undefined) {
      const result = this.group.useContainer(process);
      this.#inContainer = result === 0;
      return result;
    }
    if (throughGroup && this.slot.iommu.noiommu) return 0;
    const bound = IommufdDevice.bind(context, this.slot.iommu);
    if (typeof bound === 'number') return bound;
    this.iommufd = bound;
    return 0;
  }

  /** One close less to come. */
  close(): void {
    if (--this.#openCount > 0) return;
    this.core?.close();
    this.core = undefined;
    if (this.iommufd !== undefined) {
      for (const pasid of [...this.#attached].sort((a, b) => b - a)) this.detach(pasid);
      this.iommufd.unbind();
      this.iommufd = undefined;
    }
    if (this.#inContainer) this.group.unuseContainer();
    this.#inContainer = false;
  }

  /**
   * Attaches it, or one of its PASIDs, to an address space or a page table, in place of the one it has.
   *
   * @param pasid -1 for none; 0 is attached as none is, and detached as a PASID is
   */
  attach(pasid: number, id: number): { readonly result: number; readonly ptId: number } {
    const { iommufd } = this;
    if (iommufd === undefined) return { result: -EINVAL, ptId: id };
    if (this.#attached.has(pasid)) return iommufd.replace(pasidKey(pasid), id);
    if (pasid > MAX_PASID) return { result: -ENOSPC, ptId: id };
    const done = iommufd.attach(pasidKey(pasid), id);
    if (done.result === 0) this.#attached.add(pasid);
    return done;
  }

  detach(pasid: number): void {
    if (this.#attached.delete(pasid)) this.iommufd?.detach(pasidKey(pasid));
  }
}
