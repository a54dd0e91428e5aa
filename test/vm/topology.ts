// What sits where in every test VM. Pure data without imports, so that guest programs can use it too.

/** PCI addresses; the same in every profile, because every device is given its slot. */
export const address = {
  nvmeA: '0000:00:04.0',
  edu: '0000:00:05.0',
  /** The hot-pluggable slot (a PCIe root port) that nvmeB sits in. */
  nvmeBPort: '0000:00:07.0',
  nvmeB: '0000:01:00.0',
  /** A second hot-pluggable slot, empty at boot; what is plugged in there becomes 0000:02:00.0. */
  emptyPort: '0000:00:08.0',
} as const;

/** QEMU's names (`id=`) of the devices, as its monitor knows them. */
export const qemuId = {
  nvmeA: 'nvmeA',
  edu: 'edu',
  nvmeBPort: 'portB',
  nvmeB: 'nvmeB',
  emptyPort: 'portEmpty',
} as const;

/** Slots on bus 0 that a caller's own devices may take (`addr=10.0`). */
export const freeSlots = { first: 0x10, last: 0x1d } as const;

export const nvmeA = {
  address: address.nvmeA,
  serial: 'iommufd-a',
  namespaces: [
    { nsid: 1, blockSize: 512, disk: 'a1' },
    { nsid: 2, blockSize: 4096, disk: 'a2' },
  ],
} as const;

export const nvmeB = {
  address: address.nvmeB,
  serial: 'iommufd-b',
  /** The size of its memory buffer: a BAR of plain memory. */
  cmbMebibytes: 1,
  namespaces: [{ nsid: 1, blockSize: 512, disk: 'b1' }],
} as const;

/** Controller B as a QEMU device, to be plugged in at boot or later. */
export const nvmeBDevice = {
  driver: 'nvme',
  id: qemuId.nvmeB,
  bus: qemuId.nvmeBPort,
  addr: '00.0',
  serial: nvmeB.serial,
  cmb_size_mb: nvmeB.cmbMebibytes,
  drive: nvmeB.namespaces[0].disk,
  logical_block_size: nvmeB.namespaces[0].blockSize,
  physical_block_size: nvmeB.namespaces[0].blockSize,
} as const;

/**
 * A device with a translation cache of its own (ATS), which the kernel therefore keeps where it is while it is reset. For
 * the VMs that ask for it, in a free slot. Not with QEMU's AMD IOMMU, which would have to see it plugged in late.
 */
export const resettable = {
  address: '0000:03:00.0',
  /** On a bus of its own: on that of the machine it would be no PCI Express device. */
  devices: [
    'pcie-root-port,id=portResettable,addr=10.0,chassis=3,slot=3',
    'virtio-rng-pci,bus=portResettable,ats=on',
  ],
} as const;

export const diskNames = ['a1', 'a2', 'b1'] as const;
export type DiskName = (typeof diskNames)[number];

/** Environment of the program in the guest. */
export const guestEnv = {
  /** The profile's name; unset outside a test VM. */
  profile: 'IOMMUFD_VM',
  /** A directory the host reads after power-off. */
  results: 'IOMMUFD_VM_RESULTS',
  /** 1 in the kernel that QEMU booted, 2 after the first kexec, and so on. */
  boot: 'IOMMUFD_VM_BOOT',
  /** The running kernel's own image and initrd, to kexec into. */
  bzImage: 'IOMMUFD_VM_BZIMAGE',
  initrd: 'IOMMUFD_VM_INITRD',
} as const;

/** The driver program of hand-offs and crashes as one file, which the host puts among the results: see `test/vm/kept-nvme.ts`. */
export const keptDriver = 'kept-driver.cjs';

/** Where the per-VM directory is mounted in the guest. */
export const guestRunDirectory = '/run/iommufd';

/** The virtio-serial port that leads to QEMU's monitor. */
export const monitorPort = 'iommufd.monitor';
