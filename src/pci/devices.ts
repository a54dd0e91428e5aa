/** Enumerates PCI devices from sysfs. @module */
import { defaultKernel } from '../../bindings/kernel.js';
import type { Syscalls } from '../../bindings/syscalls.js';
import type { PhysicalAddress } from '../address.js';
import { KernelError } from '../errors.js';
import { isPciAddress, type PciAddress, pciAddress } from './address.js';
import { PCI_DEVICES, readAttribute, readLinkName, requireDevice } from './sysfs.js';
import { findVfioNode, type VfioNode } from './vfio-node.js';

/** A base address register, as the kernel assigned it. */
export interface PciBar {
  /** 0 to 5; the upper half of a 64-bit BAR has no entry of its own. */
  readonly index: number;
  readonly address: PhysicalAddress;
  /** In bytes. */
  readonly size: number;
  readonly kind: 'memory' | 'io';
  readonly prefetchable: boolean;
  readonly is64Bit: boolean;
}

/** What sysfs tells of a PCI device. */
export interface PciDevice {
  readonly address: PciAddress;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly subsystemVendorId: number;
  readonly subsystemDeviceId: number;
  /** Base class, subclass and programming interface: 0x010802 is an NVMe controller. */
  readonly classCode: number;
  readonly revision: number;
  /** The driver bound to it. */
  readonly driver: string | undefined;
  /** Number of its IOMMU group. */
  readonly iommuGroup: number | undefined;
  /** True when the group stands for the absence of an IOMMU. */
  readonly noiommu: boolean;
  /** NUMA node, where the machine has such. */
  readonly numaNode: number | undefined;
  readonly bars: readonly PciBar[];
  /** Where VFIO offers it, when vfio-pci owns it. */
  readonly vfio: VfioNode | undefined;
}

/** include/linux/ioport.h */
const IORESOURCE_IO = 0x100;
const IORESOURCE_MEM = 0x200;
const IORESOURCE_PREFETCH = 0x2000;
const IORESOURCE_MEM_64 = 0x100000;
const BAR_COUNT = 6;

/**
 * Every PCI device of the machine, by address.
 *
 * @throws KernelError when sysfs cannot be read.
 */
export function listPciDevices(kernel: Syscalls = defaultKernel()): PciDevice[] {
  const names = kernel.readDirectory(PCI_DEVICES);
  if (typeof names === 'number') {
    throw new KernelError(-names, {
      syscall: 'readdir',
      path: PCI_DEVICES,
      hint: 'Is sysfs mounted on /sys?',
    });
  }
  return names.filter(isPciAddress).map(name => readPciDevice(name, kernel));
}

/**
 * One PCI device.
 *
 * @throws RangeError when `address` is not a PCI address; KernelError (ENOENT) when there is no such device.
 */
export function readPciDevice(address: string, kernel: Syscalls = defaultKernel()): PciDevice {
  const device = pciAddress(address);
  requireDevice(kernel, device);
  const number = (name: string): number => Number(readAttribute(kernel, device, name) ?? 0);
  const group = readLinkName(kernel, device, 'iommu_group');
  const numaNode = Number(readAttribute(kernel, device, 'numa_node') ?? -1);
  const vfio = findVfioNode(kernel, device);
  return {
    address: device,
    vendorId: number('vendor'),
    deviceId: number('device'),
    subsystemVendorId: number('subsystem_vendor'),
    subsystemDeviceId: number('subsystem_device'),
    classCode: number('class'),
    revision: number('revision'),
    driver: readLinkName(kernel, device, 'driver'),
    iommuGroup: group === undefined ? undefined : Number(group),
    noiommu: vfio?.noiommu ?? false,
    numaNode: numaNode < 0 ? undefined : numaNode,
    bars: parseBars(readAttribute(kernel, device, 'resource') ?? ''),
    vfio,
  };
}

function parseBars(resource: string): PciBar[] {
  const bars: PciBar[] = [];
  for (const [index, line] of resource.split('\n').slice(0, BAR_COUNT).entries()) {
    const [start, end, flagText] = line.trim().split(/\s+/);
    if (start === undefined || end === undefined || flagText === undefined) continue;
    const flags = Number(BigInt(flagText));
    if (!(flags & (IORESOURCE_IO | IORESOURCE_MEM))) continue;
    bars.push({
      index,
      address: BigInt(start) as PhysicalAddress,
      size: Number(BigInt(end) - BigInt(start) + 1n),
      kind: flags & IORESOURCE_IO ? 'io' : 'memory',
      prefetchable: (flags & IORESOURCE_PREFETCH) !== 0,
      is64Bit: (flags & IORESOURCE_MEM_64) !== 0,
    });
  }
  return bars;
}

/** The other devices of the same IOMMU group, with their drivers. */
export function groupMembers(group: number, kernel: Syscalls = defaultKernel()): PciDevice[] {
  const path = `/sys/kernel/iommu_groups/${group}/devices`;
  const names = kernel.readDirectory(path);
  if (typeof names === 'number') throw new KernelError(-names, { syscall: 'readdir', path });
  return names.filter(isPciAddress).map(name => readPciDevice(name, kernel));
}
