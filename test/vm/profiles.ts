// The machines: one per way a kernel can (or cannot) translate a device's DMA.
import type { Flavour } from './kernel-config.js';
import { type DiskName, nvmeA, nvmeB, nvmeBDevice, qemuId } from './topology.js';

export const profileNames = ['vtd', 'vtd-scalable', 'vtd-first-stage', 'amd', 'noiommu', 'legacy'] as const;
export type ProfileName = (typeof profileNames)[number];

export type Profile = {
  readonly flavour: Flavour;
  /** The vIOMMU, as a `-device` value. */
  readonly iommu: string | undefined;
  /** Kernel command line. */
  readonly append: string;
  /** More QEMU arguments. */
  readonly extra?: readonly string[];
  /** Needs a QEMU with first-stage translation, which may have to be fetched. */
  readonly firstStage?: boolean;
  /** Plug nvmeB in once the guest runs, rather than before it boots. */
  readonly plugLate?: boolean;
};

// Binding a device to iommufd needs isolated interrupts, hence intremap everywhere. caching-mode makes the
// guest tell QEMU about new mappings, as a guest must that hands devices on.
const vtd = 'intel-iommu,intremap=on,caching-mode=on';

export const profiles: Readonly<Record<ProfileName, Profile>> = {
  // The widths differ, and with them the number of levels that page tables have: 3 here, 4 in the other two.
  vtd: { flavour: 'iommufd', iommu: `${vtd},aw-bits=39`, append: 'intel_iommu=on' },
  'vtd-scalable': {
    flavour: 'iommufd',
    iommu: `${vtd},x-scalable-mode=on,aw-bits=48,snoop-control=on`,
    append: 'intel_iommu=on,sm_on',
  },
  'vtd-first-stage': {
    flavour: 'iommufd',
    iommu: `${vtd},x-scalable-mode=on,x-flts=on`,
    append: 'intel_iommu=on,sm_on',
    firstStage: true,
  },
  amd: {
    flavour: 'iommufd',
    iommu: 'amd-iommu,intremap=on',
    append: '',
    // QEMU's IVRS table puts the I/O APIC at 00:14.0 and nothing is there, but Linux wants to see a south
    // bridge at that address, or it leaves interrupt remapping off. An empty disk posing as an ISA bridge does.
    extra: [
      ...['-blockdev', 'null-co,node-name=southbridge,size=1048576,read-only=on'],
      ...['-device', 'virtio-blk-pci,drive=southbridge,class=0x0601,addr=14.0'],
    ],
    // QEMU files a device's translation under the bus number it has when the machine is created, which is 0
    // behind every port: a device on another bus gets the wrong table. Plugged in later, it gets its own.
    plugLate: true,
  },
  noiommu: { flavour: 'iommufd', iommu: undefined, append: 'vfio.enable_unsafe_noiommu_mode=1' },
  legacy: { flavour: 'legacy', iommu: vtd, append: 'intel_iommu=on' },
};

export type MachineOptions = {
  readonly accel: 'tcg' | 'kvm';
  /** QEMU's major version. */
  readonly qemuVersion: number;
  readonly disks: Readonly<Record<DiskName, string>>;
  readonly extraDevices: readonly string[];
};

export type Machine = {
  readonly args: readonly string[];
  /** A monitor command to give once the guest runs, and the PCI address to wait for. */
  readonly plug: { readonly command: string; readonly address: string } | undefined;
};

// A comma ends an option's value in QEMU's syntax unless it is doubled.
export const escaped = (value: string): string => value.replaceAll(',', ',,');

type Properties = Readonly<Record<string, string | number>>;

const option = ({ driver, ...properties }: Properties): string =>
  [driver, ...Object.entries(properties).map(([name, value]) => `${name}=${value}`)].join(',');

const blockSize = (bytes: number): Properties => ({
  logical_block_size: bytes,
  physical_block_size: bytes,
});

// The IOMMU comes before the devices behind it. amd-iommu adds a PCI function of its own in the first free
// slot; slot 1 is left to it.
const devices = (profile: Profile, options: MachineOptions): string[] => [
  ...(profile.iommu === undefined ? [] : [profile.iommu]),
  // 2^10 pages a command, twice what one page of a PRP list describes; nvmeB has QEMU's default, 512 KiB.
  // QEMU 10 takes no more than 2^9.
  option({
    driver: 'nvme',
    id: qemuId.nvmeA,
    addr: '04.0',
    serial: nvmeA.serial,
    mdts: options.qemuVersion < 10 ? 10 : 9,
  }),
  ...nvmeA.namespaces.map(({ nsid, disk, blockSize: bytes }) =>
    option({ driver: 'nvme-ns', bus: qemuId.nvmeA, drive: disk, nsid, ...blockSize(bytes) }),
  ),
  // By default edu reaches only 28 bits of address, and without an IOMMU memory is not down there.
  option({ driver: 'edu', id: qemuId.edu, addr: '05.0', dma_mask: '0xffffffffffffffff' }),
  option({ driver: 'pcie-root-port', id: qemuId.nvmeBPort, addr: '07.0', chassis: 1, slot: 1 }),
  option({ driver: 'pcie-root-port', id: qemuId.emptyPort, addr: '08.0', chassis: 2, slot: 2 }),
  ...(profile.plugLate === true ? [] : [option(nvmeBDevice)]),
  ...options.extraDevices,
];

/** The machine and its devices under test. */
export const machine = (profile: Profile, options: MachineOptions): Machine => {
  const drives = Object.entries(options.disks).flatMap(([name, file]) => [
    '-drive',
    `if=none,id=${name},format=raw,file=${escaped(file)}`,
  ]);
  const { driver, ...properties } = nvmeBDevice;
  const plug = { execute: 'device_add', arguments: { driver, ...properties } };
  return {
    args: [
      ...['-accel', options.accel, '-cpu', options.accel === 'kvm' ? 'host' : 'max'],
      // Interrupt remapping is emulated outside KVM, which therefore may not keep the I/O APIC to itself.
      // One processor: while a second writes to a device as the memory map changes, which resets and booting kernels make it
      // do, QEMU 7.2 may crash in software emulation (memory_region_dispatch_write of nothing), and its IOMMUs have failed.
      ...['-machine', 'q35,kernel-irqchip=split', '-smp', '1', '-m', '2G'],
      // Leave hot-plug to the root ports, as on real hardware, rather than to ACPI.
      ...['-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off'],
      ...drives,
      ...devices(profile, options).flatMap(device => ['-device', device]),
      ...(profile.extra ?? []),
    ],
    plug: profile.plugLate === true ? { command: JSON.stringify(plug), address: nvmeB.address } : undefined,
  };
};
