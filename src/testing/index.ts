/**
 * For tests: a simulated machine with devices on it, and failures on purpose.
 *
 * ```ts
 * using host = new SimulatedHost({ devices: [{ address: '0000:00:04.0', function: new NvmeModel() }] });
 * using claimed = await claim('0000:00:04.0', { kernel: host.process() });
 * …
 * t.strictSame(host.leftovers(), []);
 * ```
 *
 * @module
 */
export { EduModel } from '../sim/devices/edu.js';
export {
  type Lie,
  Lies,
  type LieTarget,
  NvmeModel,
  type NvmeModelOptions,
  NvmeNamespaceModel,
  type NvmeNamespaceOptions,
  type RandomLies,
  type ScriptedLie,
} from '../sim/devices/nvme/index.js';
export {
  type FunctionBar,
  type FunctionCapabilities,
  type FunctionIdentity,
  type FunctionPort,
  type MsixLayout,
  PciFunction,
} from '../sim/devices/pci-function.js';
export {
  type ProcessOptions,
  type SimulatedDevice,
  SimulatedHost,
  type SimulatedHostOptions,
} from '../sim/host.js';
export { MachineProfile } from '../sim/iommu/hardware.js';
export type { DmaFault, Iommu } from '../sim/iommu/iommu.js';
export { DeviceMemory } from '../sim/machine/device-memory.js';
export type { PhysicalMemory, PhysicalMemoryOptions, StrayWrite } from '../sim/machine/physical-memory.js';
export type { DriverOptions, Landing } from '../sim/pci/bus.js';
export { Capability, SimulatedProcess } from '../sim/process/process.js';
export { ProcessEnded } from '../sim/process/process-ended.js';
export {
  allFailures,
  type CallRecord,
  describeInjection,
  type FailureRun,
  type FallibleCall,
  type Fault,
  FaultyKernel,
  faulty,
  type Injection,
  type Stage,
  type SweepOptions,
  usualErrno,
} from './faults.js';
export { LANES, LANES_ARENA, LaneError, Lanes, type OnTold } from './lanes.js';
export { ServiceManager, type ServiceProcess } from './service-manager.js';
