/** A device opened through VFIO: the same face whether iommufd or the legacy interface stands behind it. @module */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Syscalls } from '../../bindings/syscalls.js';
import { EAGAIN, ENOSPC } from '../../bindings/uapi/errno.js';
import { IOMMU_HWPT_ALLOC } from '../../bindings/uapi/iommufd.js';
import type { Request } from '../../bindings/uapi/request.js';
import { decodeList } from '../../bindings/uapi/struct.js';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_RESET,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
  vfio_pci_dependent_device,
} from '../../bindings/uapi/vfio.js';
import { checkInteger } from '../check.js';
import { DeviceError, DeviceErrorCode, DisposedError, KernelError, runAll } from '../errors.js';
import { check, ioctl, transact } from '../ioctl.js';
import { Hwpt } from '../iommufd/hwpt.js';
import { Ioas, type Translation } from '../iommufd/ioas.js';
import type { Iommufd } from '../iommufd/iommufd.js';
import { ConfigSpace } from './config-space.js';
import { InterruptKind, Interrupts } from './interrupts.js';
import { queryRegion, Region } from './region.js';
import type { Type1Container } from './type1-container.js';

const RESET_RETRIES = 100;
const RESET_RETRY_MS = 10;

/** What VFIO tells of a device. */
export interface DeviceInfo {
  /** {@link Device.reset} works. */
  readonly canReset: boolean;
  readonly regions: number;
  readonly interruptKinds: number;
}

/** A device that a hot reset would reset as well. */
export interface DependentDevice {
  /** PCI address. */
  readonly address: string;
  /**
   * With iommufd: its id there when it is in the same context, 0 when its owner agrees to the reset anyway, -1 when
   * it stands in the way. With the legacy interface: its group.
   */
  readonly owner: number;
}

/** What {@link Device} is made of; `openDevice` gathers it. @internal */
export interface DeviceParts {
  kernel: Syscalls;
  fd: number;
  /** PCI address. */
  name: string;
  noiommu: boolean;
  space: Ioas | Type1Container;
  /** The context it is bound to and its id there; without it the legacy interface is used. */
  binding: { iommufd: Iommufd; id: number } | undefined;
  /** What it is attached to already, where it was taken over. */
  attached?: Ioas | Hwpt | undefined;
  /** Released, in order, after the device is closed. */
  owned: readonly Disposable[];
}

const bound = new WeakMap<Iommufd, Set<Device>>();

/** The open devices that are bound to a context. */
export function devicesOf(iommufd: Iommufd): ReadonlySet<Device> {
  return bound.get(iommufd) ?? new Set();
}

/**
 * Binds an open VFIO device file to an iommufd context. The device belongs to the context until it is closed.
 *
 * @returns its id in the context
 * @throws KernelError: EPERM without interrupt remapping or when another owner holds its group, EBUSY when the
 * legacy group is open, EINVAL when bound already.
 */
export function bindDevice(kernel: Syscalls, fd: number, iommufd: Iommufd, name: string): number {
  const shown = { device: name };
  return transact(kernel, fd, VFIO_DEVICE_BIND_IOMMUFD, { iommufd: iommufd.fd }, shown).out_devid;
}

/** An open device. Closing it stops its DMA: the kernel switches bus mastering off and resets it. */
export class Device implements Disposable {
  readonly kernel: Syscalls;
  /** Its PCI address. */
  readonly name: string;
  /** True when no IOMMU stands in front of it: it can reach all of memory, whatever is mapped. */
  readonly noiommu: boolean;
  readonly info: DeviceInfo;
  readonly config: ConfigSpace;
  readonly interrupts: Interrupts;
  #space: Ioas | Type1Container;
  readonly #binding: { iommufd: Iommufd; id: number } | undefined;
  readonly #owned: readonly Disposable[];
  readonly #regions = new Map<number, Region>();
  readonly #fd: number;
  #attached: Ioas | Hwpt | undefined;
  #closed = false;

  /** @internal Use `openDevice`. Takes the descriptor over, also when it throws. */
  constructor(parts: DeviceParts) {
    this.kernel = parts.kernel;
    this.#fd = parts.fd;
    this.name = parts.name;
    this.noiommu = parts.noiommu;
    this.#space = parts.space;
    this.#binding = parts.binding;
    this.#owned = parts.owned;
    this.interrupts = new Interrupts(
      this.kernel,
      () => this.fd,
      this.name,
      () => this.iommufd?.noteChange(),
    );
    try {
      const info = transact(this.kernel, this.#fd, VFIO_DEVICE_GET_INFO, {});
      if (!(info.flags & VFIO_DEVICE_FLAGS_PCI)) {
        throw new DeviceError(DeviceErrorCode.Unsupported, this.name, 'is not a PCI device');
      }
      this.info = {
        canReset: (info.flags & VFIO_DEVICE_FLAGS_RESET) !== 0,
        regions: info.num_regions,
        interruptKinds: info.num_irqs,
      };
      this.config = new ConfigSpace(this.region(VFIO_PCI_CONFIG_REGION_INDEX));
      if (parts.attached) this.#noteAttached(parts.attached);
      this.#noteBound(true);
    } catch (error) {
      if (this.#binding) bound.get(this.#binding.iommufd)?.delete(this);
      this.kernel.close(this.#fd);
      throw error;
    }
  }

  #noteBound(is: boolean): void {
    const iommufd = this.#binding?.iommufd;
    if (!iommufd) return;
    const devices = bound.get(iommufd) ?? new Set();
    bound.set(iommufd, devices);
    if (is) devices.add(this);
    else devices.delete(this);
    iommufd.noteChange();
  }

  /**
   * The address space it was opened with, or that was swapped for that one since; memory for its DMA is mapped there.
   */
  get space(): Ioas | Type1Container {
    return this.#space;
  }

  /** @internal An address space that takes the place of {@link space}. */
  moveTo(space: Ioas): void {
    this.#space = space;
  }

  /** The open file. @throws DisposedError */
  get fd(): number {
    if (this.#closed) throw new DisposedError(`Device ${this.name}`);
    return this.#fd;
  }

  /**
   * A region by VFIO's index: 0 to 5 the BARs, 6 the expansion ROM, 7 configuration space.
   *
   * @throws KernelError (EINVAL) for an index that the device does not have.
   */
  region(index: number): Region {
    let region = this.#regions.get(index);
    if (!region) {
      const info = queryRegion(this.kernel, this.fd, index);
      region = new Region(this.kernel, this.#fd, info, `${this.name} region ${index}`);
      this.#regions.set(index, region);
    }
    return region;
  }

  /** BAR `index`, mapped into memory where that is possible. @throws DeviceError (UNSUPPORTED) when there is none. */
  bar(index: number): Region {
    const region = this.region(checkInteger('BAR', index, 0, 5));
    if (region.size === 0)
      throw new DeviceError(DeviceErrorCode.Unsupported, this.name, `has no BAR ${index}`);
    region.map();
    return region;
  }

  #requireBinding(): { iommufd: Iommufd; id: number } {
    this.fd;
    if (this.#binding) return this.#binding;
    throw new DeviceError(
      DeviceErrorCode.Unsupported,
      this.name,
      'is open through the legacy interface, which has no page-table objects',
      'This needs a kernel with iommufd and VFIO character devices (Linux 6.6 or later)',
    );
  }

  /** The context it is bound to; `undefined` with the legacy interface. */
  get iommufd(): Iommufd | undefined {
    return this.#binding?.iommufd;
  }

  /** Its id in the iommufd context. */
  get id(): number {
    return this.#requireBinding().id;
  }

  /** What it is attached to. */
  get attached(): Ioas | Hwpt | undefined {
    return this.#attached;
  }

  /**
   * Gives the device an address space. When it has one, it is replaced: if that fails, nothing has changed. On some
   * IOMMUs (VT-d, AMD) DMA in the moment of a replacement may fault.
   *
   * @throws KernelError: EADDRINUSE when the address space maps what this device reserves, EINVAL for an
   * incompatible page table, ENOMEM and EFAULT from pinning; DeviceError (UNSUPPORTED) with the legacy interface.
   */
  attach(target: Ioas | Hwpt): void {
    if (!(target instanceof Ioas || target instanceof Hwpt))
      throw new TypeError('target must be an Ioas or a Hwpt');
    const { iommufd } = this.#requireBinding();
    const ioas = target instanceof Hwpt ? target.ioas : target;
    if (ioas.iommufd !== iommufd)
      throw new TypeError('target must belong to the Iommufd that the device is bound to');
    ioas.checkTranslation(this.#translation, this.name);
    transact(this.kernel, this.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id: target.id });
    this.#noteAttached(target);
  }

  /** Takes the address space away: behind an IOMMU every DMA faults afterwards. Fine when there is none. */
  detach(): void {
    this.#requireBinding();
    transact(this.kernel, this.fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, {});
    this.#noteAttached(undefined);
  }

  get #translation(): Translation {
    return this.noiommu ? 'none' : 'iommu';
  }

  #noteAttached(target: Ioas | Hwpt | undefined): void {
    if (target === this.#attached) return;
    const ioasOf = (value: Ioas | Hwpt | undefined) => (value instanceof Hwpt ? value.ioas : value);
    // The new one first: replacing an address space by itself must not look like a time without device.
    ioasOf(target)?.noteAttached(this.#translation, 1);
    ioasOf(this.#attached)?.noteAttached(this.#translation, -1);
    this.#attached = target;
    this.#binding?.iommufd.noteChange();
  }

  /**
   * Makes a page table for this device from everything mapped in `ioas`, pinning it, without attaching.
   *
   * @param flags `IOMMU_HWPT_ALLOC_*`
   * @throws KernelError: EOPNOTSUPP for flags that the IOMMU does not support; what observers throw. There is none then.
   */
  allocHwpt(ioas: Ioas, flags = 0): Hwpt {
    if (!(ioas instanceof Ioas)) throw new TypeError('ioas must be an Ioas');
    checkInteger('flags', flags, 0, 0xffff_ffff);
    const { iommufd, id } = this.#requireBinding();
    const values = { flags, dev_id: id, pt_id: ioas.id };
    const { out_hwpt_id } = transact(this.kernel, iommufd.fd, IOMMU_HWPT_ALLOC, values);
    return iommufd.announce(new Hwpt(ioas, out_hwpt_id, flags, this.name));
  }

  /** Whether the kernel offers a feature (`VFIO_DEVICE_FEATURE_*`) for getting and setting as `flags` say. */
  supportsFeature(feature: number, flags: number): boolean {
    checkInteger('feature', feature, 0, VFIO_DEVICE_FEATURE_MASK);
    const { bytes, view } = VFIO_DEVICE_FEATURE.argument.allocate();
    VFIO_DEVICE_FEATURE.argument.encode(view, {
      argsz: bytes.byteLength,
      flags: feature | flags | VFIO_DEVICE_FEATURE_PROBE,
    });
    return this.kernel.ioctl(this.fd, VFIO_DEVICE_FEATURE.number, bytes) >= 0;
  }

  /**
   * Resets the function. Its registers are as after power-on; BARs and bus mastering are kept by the kernel.
   *
   * @throws KernelError: EINVAL when the device cannot be reset alone (see {@link DeviceInfo.canReset}).
   */
  async reset(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const result = this.kernel.ioctl(this.fd, VFIO_DEVICE_RESET.number, 0);
      if (result >= 0) return;
      // EAGAIN: another reset holds the lock.
      if (result !== -EAGAIN || attempt === RESET_RETRIES) {
        throw this.#refused(result, VFIO_DEVICE_RESET);
      }
      await sleep(RESET_RETRY_MS);
    }
  }

  #refused(result: number, request: Request): KernelError {
    return new KernelError(-result, { syscall: 'ioctl', request: request.name, args: { device: this.name } });
  }

  /** The devices that {@link hotReset} resets, this one included. @throws KernelError: ENODEV without such a reset. */
  hotResetDevices(): DependentDevice[] {
    const argument = VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.argument;
    for (let room = 8; ; ) {
      const { bytes, view } = argument.allocate(room * vfio_pci_dependent_device.size);
      argument.encode(view, { argsz: bytes.byteLength });
      const result = this.kernel.ioctl(this.fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.number, bytes);
      const { count, flags } = argument.decode(view);
      if (result === -ENOSPC && count > room) {
        room = count;
        continue;
      }
      if (result < 0) throw this.#refused(result, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO);
      const list = decodeList(view, vfio_pci_dependent_device, count, argument.fields.devices.offset);
      const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
      return list.map(entry => ({
        address: `${hex(entry.segment, 4)}:${hex(entry.bus, 2)}:${hex(entry.devfn >> 3, 2)}.${entry.devfn & 7}`,
        owner: flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID ? entry.devid | 0 : entry.group_id,
      }));
    }
  }

  /**
   * Resets the bus or slot, and with it every device in {@link hotResetDevices}.
   *
   * @param groups legacy interface only: open descriptors of all affected groups
   * @throws KernelError: EINVAL or EPERM when an affected device is not owned, ENODEV without such a reset.
   */
  hotReset(groups: readonly number[] = []): void {
    const argument = VFIO_DEVICE_PCI_HOT_RESET.argument;
    const { bytes, view } = argument.allocate(4 * groups.length);
    argument.encode(view, { argsz: bytes.byteLength, count: groups.length });
    for (const [index, group] of groups.entries()) {
      view.setInt32(argument.fields.group_fds.offset + 4 * index, checkInteger('group', group), true);
    }
    ioctl(this.kernel, this.fd, VFIO_DEVICE_PCI_HOT_RESET, bytes, { device: this.name });
  }

  /** Calls `listener` when someone wants the device back: close it, since they wait. */
  onReleaseRequest(listener: () => void): Disposable {
    return this.#onNotification(InterruptKind.Request, listener);
  }

  /**
   * Calls `listener` when the device reported an uncorrectable error (AER): what it was doing is lost, reset it.
   *
   * @throws DeviceError (UNSUPPORTED) when it cannot report any: errors are reported by PCI Express devices only
   */
  onError(listener: () => void): Disposable {
    return this.#onNotification(InterruptKind.Error, listener);
  }

  /** These alone keep no process alive. */
  #onNotification(kind: InterruptKind, listener: () => void): Disposable {
    const enabled = this.interrupts.vectors(kind);
    const [vector] = enabled.length > 0 ? enabled : this.interrupts.enable(kind);
    return vector!.unref().listen(listener);
  }

  /**
   * Closes the device: interrupts off, BARs unmapped, then the kernel stops its DMA and resets it. An address space
   * made for it alone goes with it. Idempotent.
   */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    runAll([
      () => this.interrupts[Symbol.dispose](),
      ...[...this.#regions.values()].map(region => () => region[Symbol.dispose]()),
      () => {
        this.#closed = true;
        this.#noteAttached(undefined);
        this.#noteBound(false);
        check(this.kernel.close(this.#fd), 'close', { path: this.name });
      },
      ...this.#owned.map(owned => () => owned[Symbol.dispose]()),
    ]);
  }

  /** @internal It is somebody else's now, who has its file open, too: lets go of it without a word to the device. */
  relinquish(): void {
    if (this.#closed) return;
    runAll([
      () => this.interrupts.relinquish(),
      ...[...this.#regions.values()].map(region => () => region[Symbol.dispose]()),
      () => {
        this.#closed = true;
        this.#noteAttached(undefined);
        this.#noteBound(false);
        check(this.kernel.close(this.#fd), 'close', { path: this.name });
      },
      // A context of its own is only closed, which leaves it to whoever has it open still.
      ...this.#owned.map(owned => () => owned[Symbol.dispose]()),
    ]);
  }
}
