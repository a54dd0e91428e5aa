/** What the kernel writes into its log of DMA that an IOMMU stopped, counted without the library. @module */
import { closeSync, constants, openSync, readSync } from 'node:fs';

/** No record is longer. */
const MAX_RECORD = 8192;
/** A line of the driver of either IOMMU for each fault; details that follow stand in lines of their own. */
const FAULT = /;(?:DMAR: \[DMA |(?:\S+ \S+: )?AMD-Vi: Event logged \[)/;
const SUPPRESSED = /;(?:dmar|amd_iommu)_\w+: (\d+) callbacks suppressed/;

export interface LoggedFaults {
  readonly lines: number;
  /** Lines that the kernel says it has left out, because there were too many. */
  readonly suppressed: number;
}

export class KernelLog implements Disposable {
  readonly #fd = openSync('/dev/kmsg', constants.O_RDONLY | constants.O_NONBLOCK);
  readonly #record = Buffer.alloc(MAX_RECORD);

  constructor() {
    this.faults();
  }

  /** Since the last time, or since it was opened. */
  faults(): LoggedFaults {
    let lines = 0;
    let suppressed = 0;
    for (let text = this.#next(); text !== undefined; text = this.#next()) {
      if (FAULT.test(text)) lines++;
      suppressed += Number(SUPPRESSED.exec(text)?.[1] ?? 0);
    }
    return { lines, suppressed };
  }

  #next(): string | undefined {
    try {
      return this.#record.toString('utf8', 0, readSync(this.#fd, this.#record));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return undefined;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}
