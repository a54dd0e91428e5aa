/**
 * User-mode device drivers on Linux iommufd and VFIO.
 *
 * The usual way: {@link claim} a device, {@link openDevice} it, make a {@link DmaArena} in its address space, talk to
 * its registers through {@link Device.bar}.
 *
 * @module
 */
export { defaultKernel, useKernel } from '../bindings/kernel.js';
export { linux } from '../bindings/linux.js';
export type { SyscallResult, Syscalls, Watch } from '../bindings/syscalls.js';
export type { DeviceAddress, Iova, IovaRange, PhysicalAddress } from './address.js';
export { iova, physicalAddress } from './address.js';
export type { KernelErrorDetails } from './errors.js';
export {
  DeviceError,
  DeviceErrorCode,
  DisposedError,
  KernelError,
} from './errors.js';
export type { DmaFault, DmaFaults } from './iommufd/dma-faults.js';
export { DmaFaultLog, parseDmaFault } from './iommufd/dma-faults.js';
export { Hwpt } from './iommufd/hwpt.js';
export type {
  FileRange,
  IoasMapping,
  MapOptions,
  OpenFile,
  PhysicalExtent,
  Translation,
} from './iommufd/ioas.js';
export { Ioas } from './iommufd/ioas.js';
export { Iommufd, RlimitMode } from './iommufd/iommufd.js';
export type { ConnectOptions } from './keepalive/handoff/channel.js';
export { Channel } from './keepalive/handoff/channel.js';
export { ChannelListener } from './keepalive/handoff/channel-listener.js';
export type { MessageFields } from './keepalive/handoff/channel-message.js';
export { ChannelMessage } from './keepalive/handoff/channel-message.js';
export type { HandOffOptions, HandOffReport, TakeOverOptions } from './keepalive/handoff/handoff.js';
export { handOff, takeOver } from './keepalive/handoff/handoff.js';
export { HandoffError, HandoffErrorCode } from './keepalive/handoff/handoff-error.js';
export type { Inheritance } from './keepalive/handoff/inheritance.js';
export { inheritance, receiveInherited } from './keepalive/handoff/inheritance.js';
export type { UnclaimedArena } from './keepalive/keep-alive.js';
export { KeepAlive } from './keepalive/keep-alive.js';
export type { DriverRecord, KeepableDriver } from './keepalive/keepable-driver.js';
export { KeepAliveError, KeepAliveErrorCode } from './keepalive/keepalive-error.js';
export type { KeepAliveEvent } from './keepalive/keepalive-events.js';
export { KEEPALIVE_CHANNEL } from './keepalive/keepalive-events.js';
export { checkLanded } from './keepalive/landing/check-landed.js';
export { LandingImageError } from './keepalive/landing/image-error.js';
export { appendLanding } from './keepalive/landing/initrd.js';
export { installLanding, landingFiles } from './keepalive/landing/install.js';
export type { DriverPlace, LandingTarget } from './keepalive/landing/next-kernel.js';
export type { LandingPlan, PlannedDevice, PlanOptions } from './keepalive/landing/plan.js';
export { LandingMethod, planLanding } from './keepalive/landing/plan.js';
export type { LandingProblem } from './keepalive/landing/problem.js';
export { LandingError } from './keepalive/landing/problem.js';
export type { LandingFile } from './keepalive/landing/script.js';
export { ImageKind } from './keepalive/landing/script.js';
export type { NextBoot } from './keepalive/landing/verify.js';
export { assertLanding, landingCommandLine, verifyLanding } from './keepalive/landing/verify.js';
export type { LiveUpdateSupport } from './keepalive/liveupdate/command-line.js';
export {
  kernelSwitch,
  liveUpdateSupport,
  requireLiveUpdate,
  runningCommandLine,
} from './keepalive/liveupdate/command-line.js';
export type { LoadKernelOptions } from './keepalive/liveupdate/kexec.js';
export { kexec, loadKernel, unloadKernel } from './keepalive/liveupdate/kexec.js';
export { IncomingSession, LiveUpdate, OutgoingSession } from './keepalive/liveupdate/live-update.js';
export type { BootOptions, PreserveOptions } from './keepalive/liveupdate/preserve.js';
export { DeviceKeeper, Preserved, preserve } from './keepalive/liveupdate/preserve.js';
export type { ResumeOptions } from './keepalive/liveupdate/resume.js';
export { preservedState, resume } from './keepalive/liveupdate/resume.js';
export type { DeviceOutcome } from './keepalive/outcome.js';
export { Outcome } from './keepalive/outcome.js';
export type { RebuildOptions } from './keepalive/rebuild.js';
export { rebuild } from './keepalive/rebuild.js';
export type { SavedArea } from './keepalive/state/area-table.js';
export { AreaTable } from './keepalive/state/area-table.js';
export type {
  ExtentDifference,
  ExtentsDifference,
  MappingDifference,
  MappingsDifference,
  PropertyDifference,
  RecordDifference,
  StateDifference,
  StateValue,
} from './keepalive/state/compare-states.js';
export { compareStates } from './keepalive/state/compare-states.js';
export { decodeState, decodeStateInPieces, PackedMappings } from './keepalive/state/decode-state.js';
export { fdtSource } from './keepalive/state/dts.js';
export { encodeState } from './keepalive/state/encode-state.js';
export type { SavedExtent } from './keepalive/state/extent-table.js';
export { ExtentTable } from './keepalive/state/extent-table.js';
export type { Fdt, FdtNode } from './keepalive/state/fdt.js';
export { readFdt, writeFdt } from './keepalive/state/fdt.js';
export { FdtValue } from './keepalive/state/fdt-value.js';
export type { FdtReservation } from './keepalive/state/fdt-writer.js';
export type { SavedMapping } from './keepalive/state/mapping-table.js';
export { MappingTable } from './keepalive/state/mapping-table.js';
export type { RfcIoas, RfcIommufd, RfcState } from './keepalive/state/rfc.js';
export { exportRfc, importRfc } from './keepalive/state/rfc.js';
export type {
  Kept,
  MappingSource,
  SavedArena,
  SavedBar,
  SavedDevice,
  SavedDriver,
  SavedHwpt,
  SavedInterrupts,
  SavedIoas,
  SavedIommufd,
  SavedSession,
  State,
} from './keepalive/state/saved-state.js';
export { RecordType } from './keepalive/state/saved-state.js';
export type { StatePlace } from './keepalive/state/state-error.js';
export { StateError, StateErrorCode } from './keepalive/state/state-error.js';
export { MAX_STATE_FILE, readStateFile, writeStateFile } from './keepalive/state/state-file.js';
export { FdStore } from './keepalive/store/fd-store.js';
export type { Recovered } from './keepalive/store/stored.js';
export { recover, StoredKeepAlive } from './keepalive/store/stored.js';
export type { SpaceDifference } from './keepalive/swap/compare-spaces.js';
export { compareSpaces } from './keepalive/swap/compare-spaces.js';
export type { SwitchOptions, SwitchReport } from './keepalive/swap/swap.js';
export { AddressSpaceSwap } from './keepalive/swap/swap.js';
export { SwapError, SwapErrorCode } from './keepalive/swap/swap-error.js';
export type { AddressSpace } from './memory/address-space.js';
export { allocateIova, freeIova } from './memory/address-space.js';
export type { DeviceSegment } from './memory/device-pages.js';
export { DEVICE_PAGE, DevicePages } from './memory/device-pages.js';
export { DmaBuffer } from './memory/dma-buffer.js';
export type {
  AdoptedArena,
  AllocateOptions,
  DmaArenaOptions,
  DmaMemoryOptions,
} from './memory/dma-memory.js';
export { DmaArena, DmaMemory, EphemeralMemory } from './memory/dma-memory.js';
export type { IovaBlock, IovaSnapshot, IovaSpaceOptions, Placement } from './memory/iova-space.js';
export { IovaBlockKind, IovaSpace } from './memory/iova-space.js';
export { PageSize } from './memory/memfd.js';
export type {
  CompareOptions,
  DirtyExtent,
  PageFlags,
  PagePermissions,
  PageTableDifference,
  PageTableEntry,
  PageTableExtent,
  PageTableFinding,
  PageTableOptions,
  PageTableSizes,
  PageTranslation,
} from './memory/page-table.js';
export { PageTable, PageTableFormat } from './memory/page-table.js';
export type { PageTablePlace } from './memory/page-table-error.js';
export { PageTableError, PageTableErrorCode } from './memory/page-table-error.js';
export type { UnclaimedRange } from './memory/quarantine.js';
export type { TableMemoryOptions } from './memory/table-memory.js';
export { TableMemory } from './memory/table-memory.js';
export type { OpenDeviceOptions } from './open-device.js';
export { openDevice } from './open-device.js';
export type { PciAddress } from './pci/address.js';
export { pciAddress } from './pci/address.js';
export type { ClaimOptions } from './pci/claim.js';
export { Claim, claim } from './pci/claim.js';
export type { PciBar, PciDevice } from './pci/devices.js';
export { groupMembers, listPciDevices, readPciDevice } from './pci/devices.js';
export type { DriverModule } from './pci/driver-module.js';
export type { BarShape, IdentityDifference, PciIdentity } from './pci/identity.js';
export { compareIdentity, readIdentity } from './pci/identity.js';
export type { SuspendResetsOptions } from './pci/reset-method.js';
export { DEFAULT_RESET_METHODS, SuspendedResets, suspendResets } from './pci/reset-method.js';
export type { VfioNode } from './pci/vfio-node.js';
export type { PciCapability } from './vfio/config-space.js';
export { CapabilityId, ConfigRegister, ConfigSpace } from './vfio/config-space.js';
export type { DependentDevice, DeviceInfo } from './vfio/device.js';
export { Device } from './vfio/device.js';
export type { InterruptInfo, InterruptListener } from './vfio/interrupts.js';
export { InterruptKind, Interrupts, InterruptVector } from './vfio/interrupts.js';
export type { MappableArea, RegionInfo } from './vfio/region.js';
export { Region } from './vfio/region.js';
export { Type1Container } from './vfio/type1-container.js';
