/**
 * A simulated machine for tests of what outlives its process: an NVMe controller with verified I/O going on, processes
 * whose accesses to the device are noted, and what the machine must look like when all is over.
 *
 * @module
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { Syscalls } from '../../../bindings/syscalls.js';
import type { Request } from '../../../bindings/uapi/request.js';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_PCI_CONFIG_REGION_INDEX,
} from '../../../bindings/uapi/vfio.js';
import { NvmeController } from '../../../src/drivers/nvme/index.js';
import { KeepAlive } from '../../../src/keepalive/keep-alive.js';
import { claimOf, openDevice } from '../../../src/open-device.js';
import { claim } from '../../../src/pci/claim.js';
import { NvmeModel, NvmeNamespaceModel } from '../../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../../src/sim/host.js';
import type { MachineProfile } from '../../../src/sim/iommu/hardware.js';
import type { SimulatedProcess } from '../../../src/sim/process/process.js';
import { LANES_ARENA, Lanes } from '../../../src/testing/lanes.js';

export const ADDRESS = '0000:00:04.0';
const DEVICE_FILE = /^\/dev\/vfio\/devices\//;
const SYSFS = `/sys/bus/pci/devices/${ADDRESS}`;

/** Counts how often it is reset. */
export class CountedModel extends NvmeModel {
  resets = 0;

  override reset(): void {
    this.resets++;
    super.reset();
  }
}

/** A process did something to the device, or to what it can reach. */
export interface Touch {
  readonly process: string;
  readonly what: string;
}

const telling: ReadonlyMap<number, string> = new Map(
  [
    VFIO_DEVICE_RESET,
    VFIO_DEVICE_PCI_HOT_RESET,
    VFIO_DEVICE_SET_IRQS,
    VFIO_DEVICE_ATTACH_IOMMUFD_PT,
    VFIO_DEVICE_DETACH_IOMMUFD_PT,
  ].map((request: Request) => [request.number, request.name]),
);

/**
 * Notes which process does anything to a device: writes to its registers and to its configuration, reads of its registers
 * (which may have effects), resets, interrupts, attaching. Calls that failed on purpose never get here.
 */
export class Witness {
  readonly touches: Touch[] = [];
  /** How many touches there were when the predecessor's "committed" was with the kernel. */
  committed: number | undefined;

  /** The same process, watched. */
  watch(process: SimulatedProcess, name: string): Syscalls {
    const note = (fd: number, what: string): void => {
      if (DEVICE_FILE.test(process.file(fd)?.name ?? '')) this.touches.push({ process: name, what });
    };
    const isConfig = (offset: number): boolean =>
      Math.floor(offset / 2 ** 40) === VFIO_PCI_CONFIG_REGION_INDEX;
    const watched: Partial<Syscalls> = {
      ioctl: (fd, request, argument) => {
        const what = telling.get(request);
        if (what !== undefined) note(fd, what);
        return process.ioctl(fd, request, argument);
      },
      pread: (fd, buffer, offset) => {
        if (!isConfig(offset)) note(fd, 'register read');
        return process.pread(fd, buffer, offset);
      },
      pwrite: (fd, buffer, offset) => {
        note(fd, isConfig(offset) ? 'configuration write' : 'register write');
        return process.pwrite(fd, buffer, offset);
      },
      sendMessage: (fd, bytes, fds) => {
        const sent = process.sendMessage(fd, bytes, fds);
        if (sent >= 0 && Buffer.from(bytes).includes('committed')) this.committed ??= this.touches.length;
        return sent;
      },
    };
    return new Proxy(process, {
      get(target, property) {
        const value = watched[property as keyof Syscalls] ?? Reflect.get(target, property, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  /** Those of a process from the given one on. */
  by(process: string, from = 0): Touch[] {
    return this.touches.slice(from).filter(touch => touch.process === process);
  }
}

/** A driver with I/O going on. */
export interface Driver {
  readonly kept: KeepAlive;
  readonly controller: NvmeController;
  readonly lanes: Lanes;
}

export class KeepaliveStage {
  readonly profile: MachineProfile;
  readonly host: SimulatedHost;
  readonly model: CountedModel;
  witness = new Witness();
  #first: SimulatedProcess | undefined;
  /** How things are with the device before anybody has it. */
  readonly before: string;

  constructor(profile: MachineProfile) {
    this.profile = profile;
    const namespaces = [new NvmeNamespaceModel({ id: 1, blockSize: 512, size: 4 * 2 ** 20 })];
    this.model = new CountedModel({ serial: 'a', namespaces });
    this.host = new SimulatedHost({
      profile,
      memory: { size: 2 ** 26, longestRun: 32 },
      devices: [{ address: ADDRESS, function: this.model }],
    });
    this.before = this.sysfs();
  }

  /** Forgets what was. All processes must have ended, or hold nothing. */
  beginAnew(): void {
    this.witness = new Witness();
    this.#first = undefined;
    this.model.trace.adminCommands.length = 0;
    this.model.trace.registerWrites.length = 0;
  }

  /** A process, whose calls are watched. */
  process(name: string): { readonly process: SimulatedProcess; readonly kernel: Syscalls } {
    const process = this.host.process();
    this.#first ??= process;
    return { process, kernel: this.witness.watch(process, name) };
  }

  /** Gives another process a descriptor of the first one's, as a program that is started inherits it. */
  pass(fd: number, to: SimulatedProcess): number {
    return (this.#first as SimulatedProcess).share(fd, to);
  }

  /** How sysfs has the device: its driver and what decides on it, and how it is reset. */
  sysfs(): string {
    const kernel = this.host.process();
    const driver = String(kernel.readLink(`${SYSFS}/driver`))
      .split('/')
      .pop();
    const [override, resets] = ['driver_override', 'reset_method'].map(name =>
      String(kernel.readText(`${SYSFS}/${name}`)).trim(),
    );
    kernel.exit();
    return `driver ${driver}, override ${override}, resets ${resets}`;
  }

  /** Puts right how the device is reset, as whoever administers the machine would. */
  setResetMethods(): void {
    const kernel = this.host.process();
    kernel.writeText(`${SYSFS}/reset_method`, 'default\n');
    kernel.exit();
  }

  /** A driver on a machine where nothing has happened, with its I/O not yet begun. */
  async start(kernel: Syscalls): Promise<Driver> {
    const claimed = await claim(ADDRESS, { kernel });
    const device = openDevice(claimed, { noiommu: this.profile === 'noiommu' });
    const kept = KeepAlive.of(device);
    const controller = await NvmeController.open(device, {
      ioQueues: 1,
      queueEntries: 64,
      maxTransfer: 65536,
      bounceSize: 65536,
    });
    kept.add(controller);
    const lanes = Lanes.create(device.space, controller.namespace(1));
    return { kept, controller, lanes };
  }

  /** What a predecessor left goes on. */
  async goOn(kept: KeepAlive): Promise<Driver> {
    const controller = await NvmeController.restore(kept.device(ADDRESS), kept.record(ADDRESS)!, {
      memory: token => kept.arena(token),
    });
    kept.add(controller);
    const arena = kept.arenas.find(({ name }) => name === LANES_ARENA)!;
    return { kept, controller, lanes: Lanes.adopt(arena, controller.namespace(1)) };
  }

  /** Commands are in flight and stay so, until {@link release}: nothing happens by itself any more. */
  async hold(lanes: Lanes): Promise<void> {
    this.model.throttle(1e-6);
    // One more is let through; what it makes happen takes some turns of the event loop.
    for (let quiet = 0, told = -1; quiet < 20; quiet++) {
      if (told !== lanes.told) quiet = 0;
      ({ told } = lanes);
      await turn();
    }
  }

  /** Lets the event loop go round once. */
  turn(): Promise<void> {
    return turn();
  }

  release(): void {
    this.model.throttle(0);
  }

  /** Closes a driver in an orderly way. */
  async end({ kept, controller, lanes }: Driver): Promise<void> {
    const { device } = controller;
    await controller.close();
    kept[Symbol.dispose]();
    // What it took over itself is gone with it; what it began with is not.
    lanes.arena[Symbol.dispose]();
    device[Symbol.dispose]();
    claimOf(device)?.release();
  }
}

/** What a process has: descriptors and mappings. */
export function holdings(process: SimulatedProcess): string[] {
  return [
    ...[...process.openFiles].map(([fd, file]) => `descriptor ${fd}: ${file.name}`),
    ...process.memory.mappings.map(({ length, memory }) => `${length} bytes mapped of ${memory.name}`),
  ];
}
