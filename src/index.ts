/**
 * User-mode device drivers on Linux iommufd and VFIO.
 *
 * The usual way: {@link claim} a device, {@link openDevice} it, make a {@link DmaArena} in its address space, talk to
 * its registers through {@link Device.bar}.
 *
 * @module
 */
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
export { Hwpt } from './iommufd/hwpt.js';
export type { FileRange, MapOptions, PhysicalExtent, Translation } from './iommufd/ioas.js';
export { Ioas } from './iommufd/ioas.js';
export { Iommufd, RlimitMode } from './iommufd/iommufd.js';
export type { SavedArea } from './keepalive/area-table.js';
export { AreaTable } from './keepalive/area-table.js';
export { decodeState, decodeStateInPieces, PackedMappings } from './keepalive/decode-state.js';
export { encodeState } from './keepalive/encode-state.js';
export type { SavedExtent } from './keepalive/extent-table.js';
export { ExtentTable } from './keepalive/extent-table.js';
export type { Fdt, FdtNode } from './keepalive/fdt.js';
export { readFdt, writeFdt } from './keepalive/fdt.js';
export { FdtValue } from './keepalive/fdt-value.js';
export type { FdtReservation } from './keepalive/fdt-writer.js';
export type { SavedMapping } from './keepalive/mapping-table.js';
export { MappingTable } from './keepalive/mapping-table.js';
export type { RfcIoas, RfcIommufd, RfcState } from './keepalive/rfc.js';
export { exportRfc, importRfc } from './keepalive/rfc.js';
export type {
  Kept,
  MappingSource,
  SavedArena,
  SavedDevice,
  SavedDriver,
  SavedIoas,
  SavedIommufd,
  SavedSession,
  State,
} from './keepalive/saved-state.js';
export { RecordType } from './keepalive/saved-state.js';
export type { StatePlace } from './keepalive/state-error.js';
export { StateError, StateErrorCode } from './keepalive/state-error.js';
export type { AddressSpace } from './memory/address-space.js';
export { allocateIova, freeIova } from './memory/address-space.js';
export type { DeviceSegment } from './memory/device-pages.js';
export { DEVICE_PAGE, DevicePages } from './memory/device-pages.js';
export { DmaBuffer } from './memory/dma-buffer.js';
export type { AllocateOptions, DmaArenaOptions, DmaMemoryOptions } from './memory/dma-memory.js';
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
