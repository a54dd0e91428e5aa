/** A device that writes where its driver never meant it to. @module */
import { DmaArena } from '../../memory/dma-memory.js';
import { openDevice } from '../../open-device.js';
import type { Claim } from '../../pci/claim.js';
import type { SimulatedHost } from '../../sim/host.js';
import { formatSize } from '../units.js';

export interface WildWrite {
  /** Where the device wrote to, as it knows addresses. */
  readonly address: bigint;
  /** In bytes. */
  readonly length: number;
  readonly stopped: boolean;
  /** What happened, in a sentence. */
  readonly text: string;
}

/** Registers of QEMU's edu device (docs/specs/edu). */
const Edu = { DmaSource: 0x80, DmaDestination: 0x88, DmaCount: 0x90, DmaCommand: 0x98 } as const;
const START_FROM_DEVICE = 3;
const RUNNING = 1;
/** Where the device's own buffer is, for its DMA. */
const DEVICE_BUFFER = 0x40000n;
const LENGTH = 2048;
/** Behind an IOMMU: an address that nobody has mapped. Without: the kernel's own memory. */
const UNMAPPED = 0x13_3700_0000n;
const KERNEL_MEMORY = 0x0200_0000n - 0x1000n;

/** Lets the edu device write its buffer to an address that no driver gave it. */
export async function letGoWild(host: SimulatedHost, claimed: Claim, noiommu: boolean): Promise<WildWrite> {
  using device = openDevice(claimed, { noiommu });
  using _mapped = DmaArena.create(device.space, 4096, { name: 'edu' });
  const address = noiommu ? KERNEL_MEMORY : UNMAPPED;
  const registers = device.bar(0);
  const faults = host.iommu.faultCount;
  device.config.busMaster = true;
  registers.write64(Edu.DmaSource, DEVICE_BUFFER);
  registers.write64(Edu.DmaDestination, address);
  registers.write64(Edu.DmaCount, BigInt(LENGTH));
  registers.write64(Edu.DmaCommand, BigInt(START_FROM_DEVICE));
  while (registers.read64(Edu.DmaCommand) & BigInt(RUNNING)) await new Promise(setImmediate);
  const where = `0x${address.toString(16)}`;
  const fault = host.iommu.faultCount > faults ? host.iommu.faults.at(-1) : undefined;
  const text =
    fault === undefined
      ? `${claimed.address} writes ${formatSize(LENGTH)} to ${where}, memory of the kernel: nothing stops it`
      : `${claimed.address} writes ${formatSize(LENGTH)} to ${where}: stopped by the IOMMU, ${fault.reason}`;
  return { address, length: LENGTH, stopped: fault !== undefined, text };
}
