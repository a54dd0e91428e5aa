/** What one boot of a simulated kernel has: its files, drivers and tables. A kexec makes another. @module */
import type { PciFunction } from './devices/pci-function.js';
import { dmaHeap } from './dma-heap.js';
import { IommuGroup } from './iommu/domain.js';
import { FaultMessages } from './iommu/fault-messages.js';
import type { MachineProfile } from './iommu/hardware.js';
import { Iommu } from './iommu/iommu.js';
import { openIommufd } from './iommufd/file.js';
import { parseCommandLine } from './kernel-command-line.js';
import { LiveUpdate } from './liveupdate/live-update.js';
import type { Preserved } from './liveupdate/preserved.js';
import type { PhysicalMemory } from './machine/physical-memory.js';
import { addModuleTables, RELEASE } from './module-tables.js';
import { NextKernel } from './next-kernel.js';
import { type Landing, PciBus } from './pci/bus.js';
import { failNth } from './process/fail-nth.js';
import { constant, Directory, ScratchDirectory } from './process/file-tree.js';
import { KernelLog, LogLevel } from './process/kernel-log.js';
import { processFiles } from './process/proc-files.js';
import { SocketNamespace } from './process/socket-namespace.js';

/** A device in its slot. */
export interface SimulatedDevice {
  /** Its PCI address, such as `0000:00:04.0`. */
  readonly address: string;
  readonly function: PciFunction;
  /** The address of the root port that it is behind; devices on bus 0 have none, and cannot be unplugged. */
  readonly port?: string;
  /** A name: the IOMMU cannot tell apart devices that have the same, they are one group. */
  readonly group?: string;
}

export class BootedKernel {
  readonly files = new Directory();
  readonly log = new KernelLog();
  readonly iommu: Iommu;
  readonly bus: PciBus;
  /** Undefined without `liveupdate=on`. */
  readonly liveUpdate: LiveUpdate | undefined;
  readonly nextKernel = new NextKernel(this.files);
  readonly sockets = new SocketNamespace(this.files);
  readonly #ports = new Set<string>();
  readonly #groups = new Map<string, IommuGroup>();
  #nextGroup = 0;

  constructor(
    profile: MachineProfile,
    physical: PhysicalMemory,
    commandLine: string,
    preserved: Preserved | undefined,
  ) {
    const parameters = parseCommandLine(commandLine);
    // Before anything else takes memory: what was preserved is in place already.
    this.liveUpdate = parameters.liveUpdate ? new LiveUpdate(physical, preserved) : undefined;
    this.iommu = new Iommu(profile, physical);
    const legacy = profile === 'legacy';
    const devices = this.files.directory('dev');
    devices.set('kmsg', this.log.node);
    this.log.write(LogLevel.Info, `Command line: ${commandLine}`);
    const messages = new FaultMessages(profile, this.log);
    this.iommu.onFault(fault => messages.write(fault));
    if (!legacy) {
      devices.set('iommu', { kind: 'device', open: openIommufd });
      if (this.liveUpdate !== undefined) devices.set('liveupdate', this.liveUpdate.node);
      devices.directory('dma_heap').set('system', dmaHeap);
    }
    this.files.directory('proc').set('self', processFiles).set('cmdline', constant(commandLine));
    this.files.directory('proc/thread-self').set('fail-nth', failNth);
    this.files.directory('proc/sys/kernel').set('osrelease', constant(RELEASE));
    addModuleTables(this.files);
    this.files.directory('proc/sys/vm').set('nr_hugepages', constant(String(physical.hugePages)));
    for (const name of ['run', 'tmp']) this.files.set(name, new ScratchDirectory());
    const { unsafeNoiommu, disableIdleD3 } = parameters;
    this.bus = new PciBus({
      root: this.files,
      cdev: !legacy,
      unsafeNoiommu,
      disableIdleD3,
      drivers: parameters,
    });
  }

  /** @param landing what the initramfs does, to a device that is there when the kernel boots */
  plug({ address, function: device, port, group }: SimulatedDevice, landing: Landing = {}): void {
    if (port !== undefined && !this.#ports.has(port)) {
      this.#ports.add(port);
      this.bus.addPort(port, this.iommu.device(port, new IommuGroup(this.#nextGroup++)));
    }
    const iommu = this.iommu.device(address, this.#group(group ?? address));
    this.bus.plug({
      address,
      function: device,
      iommu,
      dma: this.iommu.path(iommu),
      landing,
      ...(port !== undefined && { port }),
    });
  }

  #group(name: string): IommuGroup {
    const group = this.#groups.get(name) ?? new IommuGroup(this.#nextGroup++);
    this.#groups.set(name, group);
    return group;
  }
}
