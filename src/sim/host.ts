/**
 * A simulated machine with a Linux 7.3 on it: memory, an IOMMU, PCI devices, and processes that make system calls.
 *
 * @module
 */
import { EINVAL } from '../../bindings/uapi/errno.js';
import { BootedKernel, type SimulatedDevice } from './booted-kernel.js';
import type { MachineProfile } from './iommu/hardware.js';
import type { Iommu } from './iommu/iommu.js';
import { usualCommandLine, withDrivers } from './kernel-command-line.js';
import { kexec } from './kexec.js';
import type { Preserved } from './liveupdate/preserved.js';
import { PhysicalMemory, type PhysicalMemoryOptions } from './machine/physical-memory.js';
import type { NextKernel } from './next-kernel.js';
import type { DriverOptions, Landing, PciBus } from './pci/bus.js';
import { type DirectoryNode, putText } from './process/file-tree.js';
import { type Capability, type ProcessHost, SimulatedProcess, type User } from './process/process.js';
import type { SocketNamespace } from './process/socket-namespace.js';

export type { SimulatedDevice } from './booted-kernel.js';

export interface SimulatedHostOptions {
  /** What kind of machine; `vtd` unless told. */
  readonly profile?: MachineProfile;
  readonly memory?: PhysicalMemoryOptions;
  readonly devices?: readonly SimulatedDevice[];
}

/** How a process differs from one of root's. */
export interface ProcessOptions {
  readonly capabilities?: Iterable<Capability>;
  readonly user?: User;
  /** RLIMIT_MEMLOCK, in bytes. */
  readonly memlockLimit?: number;
}

/**
 * A simulated machine. Drivers use it through the system calls of its processes:
 *
 * ```ts
 * using host = new SimulatedHost({ devices: [{ address: '0000:00:04.0', function: new NvmeModel() }] });
 * using claimed = await claim('0000:00:04.0', { kernel: host.process() });
 * ```
 *
 * Everything happens in this very process and on its event loop; several machines do not know of each other.
 */
export class SimulatedHost implements ProcessHost, Disposable {
  readonly profile: MachineProfile;
  /**
   * What the initramfs of the next kernel does, when a process starts that by system call: a simulated initrd says
   * nothing itself.
   */
  landing: Landing = {};
  readonly #devices: Map<string, SimulatedDevice>;
  readonly #root: User = { lockedPages: 0 };
  readonly #processes = new Set<SimulatedProcess>();
  /** Texts by path. */
  readonly #disk = new Map<string, string>();
  #physical: PhysicalMemory;
  #kernel: BootedKernel;
  #nextPid = 1000;

  /** @throws RangeError when two devices share an address, or an address is not a PCI address */
  constructor(options: SimulatedHostOptions = {}) {
    this.profile = options.profile ?? 'vtd';
    this.#devices = new Map((options.devices ?? []).map(device => [device.address, device]));
    this.#physical = new PhysicalMemory(options.memory);
    this.#kernel = this.#boot(usualCommandLine(this.profile), {});
  }

  #boot(commandLine: string, landing: Landing, preserved?: Preserved): BootedKernel {
    const kernel = new BootedKernel(this.profile, this.#physical, commandLine, preserved);
    for (const device of this.#devices.values()) kernel.plug(device, landing);
    for (const [path, text] of this.#disk) putText(kernel.files, path, text);
    return kernel;
  }

  /** Puts a text file on the machine's disk, where this kernel and those after it find it. */
  install(path: string, text: string): void {
    this.#disk.set(path, text);
    putText(this.#kernel.files, path, text);
  }

  /** The machine's memory. */
  get physical(): PhysicalMemory {
    return this.#physical;
  }

  /** Its IOMMU; in profile `noiommu` it lets everything through. */
  get iommu(): Iommu {
    return this.#kernel.iommu;
  }

  /** Its PCI bus, as the running kernel knows it. */
  get bus(): PciBus {
    return this.#kernel.bus;
  }

  /** @internal */
  get files(): DirectoryNode {
    return this.#kernel.files;
  }

  /** @internal */
  get sockets(): SocketNamespace {
    return this.#kernel.sockets;
  }

  /** @internal */
  get nextKernel(): NextKernel {
    return this.#kernel.nextKernel;
  }

  /** A new process, root's unless told otherwise. It makes the system calls of whoever it is given to. */
  process(options: ProcessOptions = {}): SimulatedProcess {
    const process = new SimulatedProcess(this, this.#nextPid++, { user: this.#root, ...options });
    this.#processes.add(process);
    return process;
  }

  /** @internal */
  ended(process: SimulatedProcess): void {
    this.#processes.delete(process);
  }

  /** Plugs a device in; the kernel finds it at once, and its driver takes it. */
  plug(device: SimulatedDevice): void {
    this.#kernel.plug(device);
    this.#devices.set(device.address, device);
  }

  /**
   * Takes a device away in the orderly way: the kernel asks whoever holds it to let go, and waits for that.
   *
   * @returns when it has left
   */
  unplug(address: string): Promise<void> {
    this.#devices.delete(address);
    return this.#kernel.bus.unplug(address);
  }

  /**
   * Pulls a device out without a word: from now on nothing answers, and the kernel comes to know of it.
   *
   * @returns when the kernel has removed it
   */
  pull(address: string): Promise<void> {
    this.#devices.delete(address);
    return this.#kernel.bus.pull(address);
  }

  /**
   * Replaces the kernel, as `kexec -l` and `kexec -e` do. Processes, their files, page tables and bus mastering are
   * gone; what was preserved in live-update sessions, and what devices know inside, stays.
   *
   * @param options which drivers take devices in the next kernel, whose command line is the usual one but for that
   */
  kexec(options: DriverOptions = {}): void {
    this.#replaceKernel(withDrivers(usualCommandLine(this.profile), options), options);
  }

  /** @internal Starts the kernel that a process has loaded. @returns 0, or minus EINVAL when there is none */
  reboot(): number {
    const { commandLine } = this.#kernel.nextKernel;
    if (commandLine === undefined) return -EINVAL;
    this.#replaceKernel(commandLine, this.landing);
    return 0;
  }

  #replaceKernel(commandLine: string, landing: Landing): void {
    const { physical, preserved } = kexec({
      physical: this.#physical,
      processes: this.#processes,
      liveUpdate: this.#kernel.liveUpdate,
      clearBusMasters: () => this.#kernel.bus.shutdown(),
    });
    this.#processes.clear();
    this.#root.lockedPages = 0;
    this.#physical = physical;
    this.#kernel = this.#boot(commandLine, landing, preserved);
  }

  /** What processes still hold: open files, mappings of files, pinned pages, devices that are not back. */
  leftovers(): string[] {
    const left: string[] = [];
    for (const process of this.#processes) {
      for (const [fd, file] of process.openFiles) left.push(`descriptor ${fd}: ${file.name}`);
      for (const { memory, length } of process.memory.mappings) {
        left.push(`${length} bytes mapped of ${memory.name}`);
      }
    }
    const pinned = this.#physical.pinnedPages;
    if (pinned > 0) left.push(`${pinned} pinned pages`);
    for (const address of this.#kernel.bus.claimed()) left.push(`${address} is with vfio-pci`);
    return left;
  }

  /** Ends all its processes. */
  [Symbol.dispose](): void {
    for (const process of [...this.#processes]) process.exit();
  }
}
