/** The simulated PCI bus: what is plugged in where, and which driver has it. @module */
import { EBUSY, EINVAL, ENODEV } from '../../../bindings/uapi/errno.js';
import type { PciFunction } from '../devices/pci-function.js';
import type { IommuDevice } from '../iommu/domain.js';
import type { DmaPath } from '../iommu/iommu.js';
import { moduleName } from '../kernel-command-line.js';
import type { Directory, TextNode } from '../process/file-tree.js';
import { Vfio } from '../vfio/vfio.js';
import { AddressAllocator } from './address-allocator.js';
import { nvmeDriver, type PciDriver } from './driver.js';
import { RootPort } from './root-port.js';
import { PciSlot } from './slot.js';
import { attribute, PciSysfs } from './sysfs.js';

const VFIO_PCI = 'vfio-pci';
const ANY_ID = 0xffff_ffff;
/** Names as long as this do not fit the page that sysfs has. */
const OVERRIDE_LIMIT = 4095;

export interface PciBusOptions {
  /** Root of the file tree: `/sys` and `/dev/vfio` are kept up to date in it. */
  readonly root: Directory;
  /** VFIO devices have files of their own, as kernels with iommufd have it. True unless told. */
  readonly cdev?: boolean;
  /** The kernel was started with `vfio.enable_unsafe_noiommu_mode=1`. */
  readonly unsafeNoiommu?: boolean;
  /** The kernel was started with `vfio_pci.disable_idle_d3=1`. */
  readonly disableIdleD3?: boolean;
  readonly drivers?: Pick<DriverOptions, 'vfioPciIds' | 'blacklist'>;
}

/** What an initramfs does before any driver probes. */
export interface Landing {
  /** It sets the `driver_override` of these: PCI addresses, each with the name of a driver. */
  readonly overrides?: Readonly<Record<string, string>>;
  /** It empties the `reset_method` of these PCI addresses. */
  readonly withoutReset?: readonly string[];
}

/** What says which driver gets a device: a part of the kernel command line, and the initramfs. */
export interface DriverOptions extends Landing {
  /** `vfio-pci.ids=1b36:0010`, in either case: these go to vfio-pci, if no other driver takes them first. */
  readonly vfioPciIds?: readonly string[];
  /** `module_blacklist=nvme`, `initcall_blacklist`: drivers that are not there. */
  readonly blacklist?: readonly string[];
}

/** A device to be plugged in. */
export interface PlugOptions {
  /** In full, in lower case: `0000:00:04.0`. */
  readonly address: string;
  readonly function: PciFunction;
  readonly iommu: IommuDevice;
  readonly dma: DmaPath;
  /** Address of the root port that it sits behind, if it can be plugged and pulled. */
  readonly port?: string;
  /** What the initramfs does to a device that is there when the kernel boots. */
  readonly landing?: Landing;
}

interface Entry {
  readonly slot: PciSlot;
  driver: PciDriver | undefined;
  override: string | undefined;
  /** The kernel is about to remove it. */
  leaving: boolean;
}

export class PciBus {
  readonly #sysfs: PciSysfs;
  readonly #vfio: Vfio;
  readonly #cdev: boolean;
  readonly #entries = new Map<string, Entry>();
  readonly #ports = new Map<string, RootPort>();
  readonly #addresses = new AddressAllocator();
  readonly #drivers = new Map<string, PciDriver>();

  constructor({
    root,
    cdev = true,
    unsafeNoiommu = false,
    disableIdleD3 = false,
    drivers = {},
  }: PciBusOptions) {
    const { vfioPciIds = [], blacklist = [] } = drivers;
    this.#cdev = cdev;
    this.#sysfs = new PciSysfs(root);
    this.#vfio = new Vfio({ root, cdev });
    this.#vfio.noiommuAllowed = unsafeNoiommu;
    this.#sysfs.setProbe(attribute(text => this.#probeByName(trimmed(text))));
    const allow = flag(
      () => this.#vfio.noiommuAllowed,
      value => {
        this.#vfio.noiommuAllowed = value;
      },
    );
    this.#sysfs.setParameter('vfio', 'enable_unsafe_noiommu_mode', allow);
    if (!blacklist.includes('nvme')) this.addDriver(nvmeDriver());
    if (blacklist.includes(VFIO_PCI)) return;
    // Devices that nobody has open do not sleep here, whatever it says.
    let awake = disableIdleD3;
    const stayAwake = flag(
      () => awake,
      value => {
        awake = value;
      },
    );
    this.#sysfs.setParameter(moduleName(VFIO_PCI), 'disable_idle_d3', stayAwake);
    this.addDriver({
      name: VFIO_PCI,
      // It takes only what it is told to.
      matches: ({ device }) => vfioPciIds.some(id => isMeant(device, id)),
      probe: slot => this.#probeVfio(slot),
      remove: slot => this.#removeVfio(slot),
    });
  }

  /** Makes a driver known. Devices that are there already are not offered to it. */
  addDriver(driver: PciDriver): void {
    this.#drivers.set(driver.name, driver);
    const write = (run: (entry: Entry) => number): TextNode =>
      attribute(text => {
        const entry = this.#entries.get(trimmed(text));
        return entry === undefined ? -ENODEV : run(entry);
      });
    this.#sysfs.addDriver(driver.name, moduleName(driver.name), {
      bind: write(entry => {
        if (!this.#matches(entry, driver)) return -ENODEV;
        return entry.driver === undefined ? this.#bind(entry, driver) : -EBUSY;
      }),
      unbind: write(entry => (entry.driver === driver ? this.#unbind(entry) : -ENODEV)),
    });
  }

  /** A hot-pluggable slot. Bus numbers go to ports in the order in which they are made. */
  addPort(address: string, iommu?: IommuDevice): RootPort {
    if (this.#ports.has(address)) throw new Error(`${address} is a port already`);
    const port = new RootPort(address, this.#ports.size + 1, this.#addresses.forPort(address), iommu);
    this.#ports.set(address, port);
    this.#sysfs.addPort(port);
    return port;
  }

  /** Plugs a device in, and offers it to the drivers. @throws Error when something is there already */
  plug(options: PlugOptions): void {
    const { address, function: device, iommu, dma } = options;
    if (this.#entries.has(address)) throw new Error(`${address}: there is a device already`);
    const port = options.port === undefined ? undefined : this.#ports.get(options.port);
    if (options.port !== undefined && port === undefined) throw new Error(`${options.port} is no port`);
    if (port?.slot !== undefined) throw new Error(`${port.address}: the slot is in use`);
    const slot = new PciSlot({
      address,
      function: device,
      iommu,
      dma,
      port,
      interruptLine: interruptLine(port?.address ?? address),
      barAddresses: this.#addresses.take(device.bars, port?.address),
    });
    if (port !== undefined) port.slot = slot;
    const { overrides = {}, withoutReset = [] } = options.landing ?? {};
    if (withoutReset.includes(address)) slot.resetMethods.disable();
    const entry: Entry = { slot, driver: undefined, override: overrides[address], leaving: false };
    this.#entries.set(address, entry);
    device.plug(slot);
    this.#sysfs.addDevice(slot, { driverOverride: this.#overrideAttribute(entry) });
    this.#attach(entry);
  }

  /**
   * Asks for a device and removes it once nobody holds it, as somebody would who presses the button of its slot.
   *
   * @returns when it has left
   */
  unplug(address: string): Promise<void> {
    const entry = this.#entry(address);
    return new Promise(resolve => setImmediate(() => this.#leave(entry, resolve)));
  }

  /**
   * Pulls a device out. From now on its registers read as ones and it reaches nothing; the kernel notices a moment
   * later, and removes it once nobody holds it.
   *
   * @returns when the kernel has removed it
   */
  pull(address: string): Promise<void> {
    const entry = this.#entry(address);
    entry.slot.gone = true;
    entry.slot.device.plug(undefined);
    return new Promise(resolve => setImmediate(() => this.#leave(entry, resolve)));
  }

  /** Reports an error of the device to whoever drives it in user mode, as AER does for one that is not fatal. */
  reportError(address: string): void {
    this.#vfio.device(this.#entry(address).slot)?.core?.interrupts.reportError();
  }

  /** The addresses of the devices that vfio-pci has. */
  claimed(): string[] {
    return [...this.#entries.values()].flatMap(({ slot, driver }) =>
      driver?.name === VFIO_PCI ? [slot.address] : [],
    );
  }

  /** The kernel is shut down for the next one: no device may be master of the bus. */
  shutdown(): void {
    for (const { slot } of this.#entries.values()) slot.config.clearBusMaster();
  }

  /** What is plugged in at an address. */
  slot(address: string): PciSlot | undefined {
    return this.#entries.get(address)?.slot;
  }

  #entry(address: string): Entry {
    const entry = this.#entries.get(address);
    if (entry === undefined) throw new Error(`${address}: there is no device`);
    return entry;
  }

  #leave(entry: Entry, left: () => void): void {
    const { slot } = entry;
    entry.leaving = true;
    const remove = (): void => {
      this.#entries.delete(slot.address);
      if (slot.port?.slot === slot) slot.port.slot = undefined;
      this.#sysfs.removeDevice(slot);
      if (!slot.gone) {
        slot.gone = true;
        slot.device.plug(undefined);
      }
      left();
    };
    if (entry.driver?.name !== VFIO_PCI) {
      this.#unbind(entry);
      remove();
      return;
    }
    const group = this.#vfio.device(slot)?.group;
    this.#sysfs.clearVfio(slot);
    this.#vfio.whenReleased(slot, () => {
      if (group?.noiommu) this.#sysfs.clearGroup(slot, group.id);
      this.#setDriver(entry, undefined);
      remove();
    });
  }

  // Drivers

  #matches(entry: Entry, driver: PciDriver): boolean {
    if (entry.leaving) return false;
    return entry.override === undefined ? driver.matches(entry.slot) : entry.override === driver.name;
  }

  /** Offers a device to the drivers in turn. Those that refuse leave it to the next. */
  #attach(entry: Entry): void {
    for (const driver of this.#drivers.values()) {
      if (this.#matches(entry, driver) && this.#bind(entry, driver) === 0) return;
    }
  }

  #probeByName(address: string): number {
    const entry = this.#entries.get(address);
    if (entry === undefined) return -ENODEV;
    if (entry.driver === undefined) this.#attach(entry);
    return 0;
  }

  #bind(entry: Entry, driver: PciDriver): number {
    const result = driver.probe(entry.slot);
    if (result === 0) this.#setDriver(entry, driver);
    return result;
  }

  #unbind(entry: Entry): number {
    if (entry.driver === undefined) return 0;
    const result = entry.driver.remove(entry.slot);
    if (result === 0) this.#setDriver(entry, undefined);
    return result;
  }

  #setDriver(entry: Entry, driver: PciDriver | undefined): void {
    if (entry.driver !== undefined) this.#sysfs.unbound(entry.slot, entry.driver.name);
    entry.driver = driver;
    if (driver !== undefined) this.#sysfs.bound(entry.slot, driver.name);
  }

  #overrideAttribute(entry: Entry): TextNode {
    const write = (text: string): number => {
      if (text.length >= OVERRIDE_LIMIT) return -EINVAL;
      const [name = ''] = text.split('\n');
      entry.override = name === '' ? undefined : name;
      return 0;
    };
    return attribute(write, () => `${entry.override ?? '(null)'}\n`);
  }

  // VFIO

  #probeVfio(slot: PciSlot): number {
    const registered = this.#vfio.register(slot);
    if (typeof registered === 'number') return registered;
    const { name, index, noiommuGroup } = registered;
    if (noiommuGroup !== undefined) this.#sysfs.setGroup(slot, noiommuGroup, 'vfio-noiommu');
    this.#sysfs.setVfio(slot, name, index, this.#cdev);
    return 0;
  }

  #removeVfio(slot: PciSlot): number {
    const group = this.#vfio.device(slot)?.group;
    const result = this.#vfio.unregister(slot);
    if (result < 0) return result;
    this.#sysfs.clearVfio(slot);
    if (group?.noiommu) this.#sysfs.clearGroup(slot, group.id);
    return 0;
  }
}

/** A parameter of a module that is on or off. */
function flag(get: () => boolean, set: (value: boolean) => void): TextNode {
  const write = (text: string): number => {
    const value = /^(?:([1yt]|on)|([0nf]|of))/i.exec(text);
    if (value === null) return -EINVAL;
    set(value[1] !== undefined);
    return 0;
  };
  return attribute(write, () => (get() ? 'Y\n' : 'N\n'));
}

/** Whether an id says a function: vendor, device, and perhaps their subsystem, in hexadecimal (vfio_pci_fill_ids). */
function isMeant({ identity }: PciFunction, id: string): boolean {
  const parts = id.split(':').map(part => Number.parseInt(part, 16));
  const { vendorId, deviceId, subsystemVendorId, subsystemDeviceId } = identity;
  const own = [vendorId, deviceId, subsystemVendorId, subsystemDeviceId];
  return parts.length >= 2 && own.every((value, i) => [undefined, ANY_ID, value].includes(parts[i]));
}

function trimmed(text: string): string {
  return text.endsWith('\n') ? text.slice(0, -1) : text;
}

/** As the firmware of QEMU's q35 machine routes the pins of its slots. */
function interruptLine(address: string): number {
  const device = Number.parseInt(address.slice(8, 10), 16);
  return (device & 3) < 2 ? 10 : 11;
}
