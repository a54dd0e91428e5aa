/** Names of PCI class codes. @module */
import { formatHex } from './units.js';

/** By base class and subclass. */
const subclasses: Readonly<Record<number, string>> = {
  0: 'unclassified device',
  1: 'VGA-compatible device',
  256: 'SCSI controller',
  257: 'IDE controller',
  260: 'RAID controller',
  261: 'ATA controller',
  262: 'SATA controller',
  263: 'SAS controller',
  264: 'non-volatile memory controller',
  384: 'storage controller',
  512: 'Ethernet controller',
  519: 'InfiniBand controller',
  520: 'fabric controller',
  640: 'network controller',
  768: 'VGA controller',
  770: '3D controller',
  896: 'display controller',
  1024: 'video device',
  1025: 'audio device',
  1027: 'HD Audio controller',
  1152: 'multimedia controller',
  1280: 'RAM controller',
  1282: 'CXL memory',
  1408: 'memory controller',
  1536: 'host bridge',
  1537: 'ISA bridge',
  1540: 'PCI bridge',
  1545: 'semi-transparent PCI bridge',
  1664: 'bridge',
  1792: 'serial controller',
  1920: 'communication controller',
  2048: 'interrupt controller',
  2049: 'DMA controller',
  2050: 'timer',
  2051: 'real-time clock',
  2053: 'SD host controller',
  2054: 'IOMMU',
  2176: 'system peripheral',
  2304: 'keyboard controller',
  2432: 'input device controller',
  2880: 'co-processor',
  3075: 'USB controller',
  3076: 'Fibre Channel controller',
  3077: 'SMBus',
  3079: 'IPMI interface',
  3328: 'IrDA controller',
  3345: 'Bluetooth controller',
  3456: 'wireless controller',
  4096: 'network and computing encryption device',
  4224: 'encryption controller',
  4353: 'performance counters',
  4480: 'signal processing controller',
  4608: 'processing accelerator',
  4864: 'non-essential instrumentation',
};

/** Where the programming interface says more than the subclass. */
const interfaces: Readonly<Record<number, string>> = {
  67073: 'AHCI controller',
  67586: 'NVMe controller',
  525840: 'IOMMU',
  787200: 'USB controller (UHCI)',
  787216: 'USB controller (OHCI)',
  787232: 'USB controller (EHCI)',
  787248: 'USB controller (xHCI)',
  787264: 'USB4 host interface',
  787454: 'USB device controller',
};

const BRIDGE = 0x06;

/** The name of a 24-bit class code, or the code itself in hexadecimal when it has none here. */
export function className(classCode: number): string {
  return interfaces[classCode] ?? subclasses[classCode >>> 8] ?? formatHex(classCode, 6);
}

/** Bridges hold the machine together; no one wants to drive them from a program. */
export function isBridge(classCode: number): boolean {
  return classCode >>> 16 === BRIDGE;
}

/** NVM Express, I/O controller. */
export function isNvme(classCode: number): boolean {
  return classCode === 0x010802;
}
