/** NVMe controller registers (NVM Express Base Specification 2.0, section 3.1.3). @module */

/** Offsets in BAR 0, in bytes. */
export const Register = {
  /** Controller Capabilities, 64 bits. */
  CAP: 0x00,
  /** Version. */
  VS: 0x08,
  /** Interrupt Mask Set; for pin and MSI interrupts only. */
  INTMS: 0x0c,
  /** Interrupt Mask Clear; for pin and MSI interrupts only. */
  INTMC: 0x10,
  /** Controller Configuration. */
  CC: 0x14,
  /** Controller Status. */
  CSTS: 0x1c,
  /** Admin Queue Attributes. */
  AQA: 0x24,
  /** Admin Submission Queue base address, 64 bits. */
  ASQ: 0x28,
  /** Admin Completion Queue base address, 64 bits. */
  ACQ: 0x30,
  /** First doorbell. */
  DOORBELLS: 0x1000,
} as const;

/** Bits of {@link Register.CC}. */
export const CC = {
  EN: 1,
  /** I/O submission queue entry size 2^6, completion queue entry size 2^4. */
  ENTRY_SIZES: (4 << 20) | (6 << 16),
  SHN_MASK: 3 << 14,
  SHN_NORMAL: 1 << 14,
} as const;

/** Bits of {@link Register.CSTS}. */
export const CSTS = {
  RDY: 1,
  /** Controller Fatal Status. */
  CFS: 2,
  SHST_MASK: 3 << 2,
  SHST_COMPLETE: 2 << 2,
} as const;

/** What a read returns when nothing answers any more. */
export const ALL_ONES = 0xffff_ffff;

/** {@link Register.CAP}, decoded. */
export interface ControllerCapabilities {
  /** Largest queue, in entries (MQES + 1). */
  readonly maxQueueEntries: number;
  /** Queues must be physically contiguous (CQR). */
  readonly contiguousQueues: boolean;
  /** How long enabling or disabling may take, in ms (TO). */
  readonly readyTimeout: number;
  /** Distance of doorbells in bytes (DSTRD). */
  readonly doorbellStride: number;
  /** The NVM command set is supported (CSS bit 37). */
  readonly nvmCommandSet: boolean;
  /** Smallest memory page, in bytes (MPSMIN). */
  readonly minPageSize: number;
  /** Largest memory page, in bytes (MPSMAX). */
  readonly maxPageSize: number;
}

/** @param low bits 31:0 of CAP @param high bits 63:32 of CAP */
export function decodeCapabilities(low: number, high: number): ControllerCapabilities {
  return {
    maxQueueEntries: (low & 0xffff) + 1,
    contiguousQueues: (low & (1 << 16)) !== 0,
    // A controller that says 0 still gets one unit of 500 ms.
    readyTimeout: Math.max((low >>> 24) & 0xff, 1) * 500,
    doorbellStride: 4 << (high & 0xf),
    nvmCommandSet: (high & (1 << 5)) !== 0,
    minPageSize: 2 ** (12 + ((high >>> 16) & 0xf)),
    maxPageSize: 2 ** (12 + ((high >>> 20) & 0xf)),
  };
}

/** A version register as text, such as `1.4.0`. */
export function versionText(vs: number): string {
  return `${vs >>> 16}.${(vs >>> 8) & 0xff}.${vs & 0xff}`;
}
