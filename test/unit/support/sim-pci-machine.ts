// A simulated machine with the three devices of the test VMs, as far as the bus and VFIO are concerned: registers that
// keep what is written to them.
import {
  type FunctionBar,
  type FunctionCapabilities,
  PciFunction,
} from '../../../src/sim/devices/pci-function.js';
import { IommuGroup } from '../../../src/sim/iommu/domain.js';
import type { MachineProfile } from '../../../src/sim/iommu/hardware.js';
import { Iommu } from '../../../src/sim/iommu/iommu.js';
import { openIommufd } from '../../../src/sim/iommufd/file.js';
import { DeviceMemory } from '../../../src/sim/machine/device-memory.js';
import { PhysicalMemory } from '../../../src/sim/machine/physical-memory.js';
import { PciBus } from '../../../src/sim/pci/bus.js';
import { Directory } from '../../../src/sim/process/file-tree.js';
import { SimulatedProcess } from '../../../src/sim/process/process.js';
import { processHost } from './sim-process-host.js';

/** One access to a register. */
export interface Access {
  readonly kind: 'read' | 'write';
  readonly offset: number;
  readonly bytes: number;
}

/** A function whose registers are memory. */
export class RegisterFunction extends PciFunction {
  override readonly identity;
  override readonly bars: readonly FunctionBar[];
  override readonly capabilities: FunctionCapabilities;
  readonly registers: Uint8Array;
  readonly accesses: Access[] = [];
  resets = 0;
  removals = 0;

  constructor(kind: 'nvme' | 'edu', extra: readonly FunctionBar[] = []) {
    super();
    const nvme = kind === 'nvme';
    this.identity = {
      vendorId: nvme ? 0x1b36 : 0x1234,
      deviceId: nvme ? 0x0010 : 0x11e8,
      subsystemVendorId: 0x1af4,
      subsystemDeviceId: 0x1100,
      classCode: nvme ? 0x010802 : 0x00ff00,
      revision: nvme ? 2 : 0x10,
    };
    const size = nvme ? 0x4000 : 0x10_0000;
    this.bars = [{ index: 0, size, kind: 'memory', is64Bit: nvme }, ...extra];
    const msix = { vectors: 65, tableBar: 0, tableOffset: 0x2000, pbaBar: 0, pbaOffset: 0x3000 };
    this.capabilities = nvme
      ? { msix, express: true, functionLevelReset: true, powerManagement: true }
      : { msi: 1 };
    this.registers = new Uint8Array(size);
  }

  override readRegister(_bar: number, offset: number, into: Uint8Array): void {
    this.accesses.push({ kind: 'read', offset, bytes: into.byteLength });
    into.set(this.registers.subarray(offset, offset + into.byteLength));
  }

  override writeRegister(_bar: number, offset: number, from: Uint8Array): void {
    this.accesses.push({ kind: 'write', offset, bytes: from.byteLength });
    this.registers.set(from, offset);
  }

  override reset(): void {
    this.resets++;
  }

  protected override removed(): void {
    this.removals++;
  }
}

export const address = {
  nvmeA: '0000:00:04.0',
  edu: '0000:00:05.0',
  port: '0000:00:07.0',
  nvmeB: '0000:01:00.0',
};

export interface Machine {
  readonly physical: PhysicalMemory;
  readonly root: Directory;
  readonly iommu: Iommu;
  readonly bus: PciBus;
  readonly nvmeA: RegisterFunction;
  readonly edu: RegisterFunction;
  readonly nvmeB: RegisterFunction;
  /** Memory of nvmeA's BAR 2. */
  readonly deviceMemory: DeviceMemory;
  process(): SimulatedProcess;
  /** Plugs a device in, as nvmeB is. */
  plug(device: RegisterFunction): void;
}

export function machine(profile: MachineProfile = 'vtd', cdev = true): Machine {
  const physical = new PhysicalMemory({ size: 2 ** 27, hugePages: 0 });
  const root = new Directory();
  const host = processHost(physical, root);
  const iommu = new Iommu(profile, physical);
  const bus = new PciBus({ root, cdev });
  root.directory('/dev').set('iommu', { kind: 'device', open: openIommufd });
  const groups: Readonly<Record<string, number>> = {
    [address.nvmeA]: 3,
    [address.edu]: 4,
    [address.nvmeB]: 9,
  };
  const plug = (at: string, device: RegisterFunction, port?: string): void => {
    const translated = iommu.device(at, new IommuGroup(groups[at] as number));
    bus.plug({
      address: at,
      function: device,
      iommu: translated,
      dma: iommu.path(translated),
      ...(port !== undefined && { port }),
    });
  };
  const deviceMemory = new DeviceMemory('device memory', 0x2000);
  const memoryBar: FunctionBar = { index: 2, size: 0x2000, kind: 'memory', memory: deviceMemory };
  const nvmeA = new RegisterFunction('nvme', [memoryBar]);
  const edu = new RegisterFunction('edu');
  const nvmeB = new RegisterFunction('nvme');
  plug(address.nvmeA, nvmeA);
  plug(address.edu, edu);
  bus.addPort(address.port);
  plug(address.nvmeB, nvmeB, address.port);
  let pid = 100;
  return {
    physical,
    root,
    iommu,
    bus,
    nvmeA,
    edu,
    nvmeB,
    deviceMemory,
    process: () => new SimulatedProcess(host, pid++),
    plug: device => plug(address.nvmeB, device, address.port),
  };
}
