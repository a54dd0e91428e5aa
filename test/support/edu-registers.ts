/** Registers of the edu device (QEMU docs/specs/edu). @module */

export const Edu = {
  Identification: 0x00,
  Liveness: 0x04,
  Factorial: 0x08,
  Status: 0x20,
  InterruptStatus: 0x24,
  InterruptRaise: 0x60,
  InterruptAcknowledge: 0x64,
  DmaSource: 0x80,
  DmaDestination: 0x88,
  DmaCount: 0x90,
  DmaCommand: 0x98,
} as const;

/** Bits of the DMA command. */
export const EduDma = { Start: 1, FromDevice: 2, Interrupt: 4 } as const;

/** Where the device's own buffer of 4 KiB is in its DMA address space. */
export const EDU_BUFFER = 0x40000n;
/** One byte short of the buffer: QEMU's range check stops one byte early, and ends the machine. */
export const EDU_MAX_DMA = 4095;
