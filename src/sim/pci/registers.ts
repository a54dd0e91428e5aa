/** Offsets and bits of PCI configuration space (linux/pci_regs.h), as far as the simulated machine has them. @module */

export const HEADER_SIZE = 0x40;
export const CONVENTIONAL_SIZE = 256;
export const EXPRESS_SIZE = 4096;

export const Header = {
  VendorId: 0x00,
  DeviceId: 0x02,
  Command: 0x04,
  Status: 0x06,
  Revision: 0x08,
  Class: 0x09,
  CacheLineSize: 0x0c,
  LatencyTimer: 0x0d,
  Type: 0x0e,
  Bist: 0x0f,
  Bar0: 0x10,
  SubsystemVendorId: 0x2c,
  SubsystemId: 0x2e,
  Rom: 0x30,
  Capabilities: 0x34,
  InterruptLine: 0x3c,
  InterruptPin: 0x3d,
} as const;

export const Command = {
  Io: 0x001,
  Memory: 0x002,
  Master: 0x004,
  Serr: 0x100,
  IntxDisable: 0x400,
} as const;

export const Status = { Interrupt: 0x08, Capabilities: 0x10 } as const;

export const CapabilityId = { Power: 0x01, Msi: 0x05, Express: 0x10, Msix: 0x11 } as const;

/** Within the capability. */
export const Power = { Capabilities: 2, Control: 4, Size: 8, StateMask: 3, NoSoftReset: 8 } as const;

export const Msi = {
  Flags: 2,
  AddressLow: 4,
  AddressHigh: 8,
  Data64: 12,
  Size: 14,
  Enable: 1,
  CountMask: 0x0e,
  EnabledMask: 0x70,
  Is64Bit: 0x80,
} as const;

export const Msix = {
  Flags: 2,
  Table: 4,
  Pba: 8,
  Size: 12,
  Enable: 0x8000,
  MaskAll: 0x4000,
  CountMask: 0x7ff,
  EntrySize: 16,
} as const;

export const Express = {
  Flags: 2,
  DeviceCapabilities: 4,
  DeviceControl: 8,
  LinkCapabilities: 12,
  LinkStatus: 18,
  DeviceCapabilities2: 0x24,
  DeviceControl2: 0x28,
  LinkControl2: 0x30,
  /** Of an endpoint, as it is in the device. */
  Size: 0x3c,
  /** As far as an endpoint in the root complex has registers, which has no link. */
  IntegratedSize: 0x2c,
  TypeMask: 0xf0,
  TypeIntegrated: 0x90,
  FunctionLevelReset: 0x1000_0000,
  RoleBasedErrors: 0x8000,
  PayloadMask: 0x00e0,
  ReadRequestMask: 0x7000,
  PhantomFunctions: 0x0200,
  InitiateReset: 0x8000,
  AriForwarding: 0x0020,
} as const;
