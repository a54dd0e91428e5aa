/**
 * What Linux writes into its log about DMA that the IOMMU stopped, and what it keeps to itself: it limits the lines.
 *
 * @module
 */
import { type KernelLog, LogLevel } from '../process/kernel-log.js';
import type { MachineProfile } from './hardware.js';
import type { DmaFault } from './iommu.js';

/** DEFAULT_RATELIMIT_INTERVAL in ms, and DEFAULT_RATELIMIT_BURST, of linux/ratelimit_types.h. */
const INTERVAL = 5000;
const BURST = 10;

/** So many lines in a time, and then none (linux lib/ratelimit.c). */
class RateLimit {
  #begin: number | undefined;
  #left = BURST;
  #missed = 0;

  /** @param report called with how many were kept back, before the first that is not */
  permits(report: (missed: number) => void): boolean {
    const now = performance.now();
    if (this.#begin === undefined || now - this.#begin >= INTERVAL) {
      if (this.#missed > 0) report(this.#missed);
      this.#begin = now;
      this.#left = BURST;
      this.#missed = 0;
    }
    if (this.#left > 0) {
      this.#left--;
      return true;
    }
    this.#missed++;
    return false;
  }
}

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;
const PAGE_MASK = ~0xfffn;

/** Writes down the faults of one machine. */
export class FaultMessages {
  readonly #log: KernelLog;
  readonly #profile: MachineProfile;
  /** Without PASID tables. */
  readonly #legacyMode: boolean;
  readonly #vtdLimit = new RateLimit();
  readonly #amdLimits = new Map<string, RateLimit>();

  constructor(profile: MachineProfile, log: KernelLog) {
    this.#profile = profile;
    this.#legacyMode = profile === 'vtd' || profile === 'legacy';
    this.#log = log;
  }

  write(fault: DmaFault): void {
    if (this.#profile === 'amd') this.#writeAmd(fault);
    else this.#writeVtd(fault);
  }

  #suppressed(where: string): (missed: number) => void {
    return missed => this.#log.write(LogLevel.Warning, `${where}: ${missed} callbacks suppressed`);
  }

  /** dmar_fault in drivers/iommu/intel/dmar.c: an interrupt for each fault, and three uses of the limit for each interrupt. */
  #writeVtd({ device, address, access, reason }: DmaFault): void {
    const permits = (): boolean => this.#vtdLimit.permits(this.#suppressed('dmar_fault'));
    if (permits()) this.#log.write(LogLevel.Error, 'DMAR: DRHD: handling fault status reg 2');
    if (permits()) {
      const blocked = reason === 'blocked';
      // Without a PASID-table entry the IOMMU does not get as far as a PASID.
      const pasid = this.#legacyMode || blocked ? 'NO_PASID' : 'PASID 0x0';
      const why = blocked ? this.#blockedReason() : this.#reason(access);
      this.#log.write(
        LogLevel.Error,
        `DMAR: [DMA ${access === 'read' ? 'Read' : 'Write'} ${pasid}] Request device [${device}] ` +
          `fault addr ${hex(address & PAGE_MASK)} [fault reason ${why}`,
      );
    }
    // It looks for another one.
    permits();
  }

  #blockedReason(): string {
    return this.#legacyMode
      ? '0x02] Present bit in context entry is clear'
      : '0x59] SM: Present bit in PASID Table Entry is clear';
  }

  #reason(access: DmaFault['access']): string {
    if (this.#profile === 'vtd-first-stage')
      return '0x71] SM: Present bit in first-level paging entry is clear';
    return access === 'read' ? '0x06] PTE Read access is not set' : '0x05] PTE Write access is not set';
  }

  /** amd_iommu_report_page_fault in drivers/iommu/amd/iommu.c: a limit for each device. */
  #writeAmd({ device, address, access }: DmaFault): void {
    const limit = this.#amdLimits.get(device) ?? new RateLimit();
    this.#amdLimits.set(device, limit);
    if (!limit.permits(this.#suppressed('amd_iommu_report_page_fault'))) return;
    // EVENT_FLAG_RW
    const flags = access === 'write' ? '0x0020' : '0x0000';
    this.#log.write(
      LogLevel.Error,
      `vfio-pci ${device}: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0001 address=${hex(address)} flags=${flags}]`,
    );
  }
}
