/**
 * DMA that an IOMMU stopped, as the kernel writes it down in its log: there is no other place where it says so.
 *
 * Only some of it is written down. Linux limits how many lines it writes in five seconds, and says so only with the next
 * fault after them; an IOMMU has few registers for faults. What is found here did happen; whether there was more,
 * {@link DmaFaults.complete} says as well as it can be known.
 *
 * @module
 */
import { constants } from 'node:fs';
import { defaultKernel } from '../../bindings/kernel.js';
import type { Syscalls } from '../../bindings/syscalls.js';
import { EAGAIN, EPIPE } from '../../bindings/uapi/errno.js';
import type { Iova } from '../address.js';
import { KernelError } from '../errors.js';
import { check, openFile } from '../ioctl.js';

const KMSG = '/dev/kmsg';
/** No record is longer (linux kernel/printk/internal.h, PRINTK_MESSAGE_MAX, with what devkmsg adds). */
const MAX_RECORD = 8192;
/** Of the kernel's limit on lines (linux ratelimit_types.h, DEFAULT_RATELIMIT_INTERVAL), in ms. */
const LIMIT_INTERVAL = 5000;
/**
 * So many faults in that time may use the limit up. It is ten lines, and VT-d counts three for each interrupt
 * (dmar_fault in drivers/iommu/intel/dmar.c).
 */
const LIMIT_FAULTS = 3;

/** A DMA that was stopped. */
export interface DmaFault {
  /** PCI address of the device. */
  readonly device: string;
  /** What it asked for, rounded down to a page with VT-d; `undefined` where the kernel does not say. */
  readonly address: Iova | undefined;
  /** It was a write; `undefined` where the kernel does not say. */
  readonly write: boolean | undefined;
  /** The line in the log. */
  readonly text: string;
}

/** Faults of a time. */
export interface DmaFaults {
  readonly faults: readonly DmaFault[];
  /** False when there may have been more of which the kernel did not write. */
  readonly complete: boolean;
}

const ADDRESS = /(?:([\da-f]{4}):)?([\da-f]{2}:[\da-f]{2}\.[0-7])/;
/** `DMAR: [DMA Read NO_PASID] Request device [0000:00:05.0] fault addr 0x1000 [fault reason …`; once without domain. */
const VTD = new RegExp(
  `^DMAR: \\[DMA (Read|Write)[^\\]]*\\] Request device \\[${ADDRESS.source}\\] fault addr 0x([\\da-f]+)`,
);
/** `vfio-pci 0000:00:05.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0001 address=0x1000 flags=0x0020]` */
const AMD = new RegExp(
  `^(?:\\S+ ${ADDRESS.source}: )?AMD-Vi: Event logged \\[IO_PAGE_FAULT ` +
    `(?:device=${ADDRESS.source} )?domain=0x[\\da-f]+ address=0x([\\da-f]+) flags=0x([\\da-f]+)\\]`,
);
/** The second line after `Event logged [Device not attached to domain properly]`: between two page tables. */
const AMD_DETACHED = new RegExp(`^AMD-Vi: {3}device=${ADDRESS.source} domain=0x[\\da-f]+$`);
/** EVENT_FLAG_RW in drivers/iommu/amd/amd_iommu_types.h. */
const AMD_WRITE = 0x20;
/** What is in the way of more: `dmar_fault: 29 callbacks suppressed`. */
const SUPPRESSED = /^(?:dmar|amd_iommu)_\w+: \d+ callbacks suppressed$/;
/** Bit 0: the IOMMU had no register left for a fault. */
const VTD_STATUS = /^DMAR: DRHD: handling fault status reg ([\da-f]+)$/;

const fullAddress = (domain: string | undefined, rest: string | undefined): string =>
  `${domain ?? '0000'}:${rest}`;

/**
 * A line of the kernel log, if it is about a DMA that was stopped.
 *
 * @param text without priority and time
 */
export function parseDmaFault(text: string): DmaFault | undefined {
  const vtd = VTD.exec(text);
  if (vtd) {
    const [, access, domain, rest, address] = vtd;
    return {
      device: fullAddress(domain, rest),
      address: BigInt(`0x${address}`) as Iova,
      write: access === 'Write',
      text,
    };
  }
  const amd = AMD.exec(text);
  if (amd) {
    const [, domain, rest, domain2, rest2, address, flags] = amd;
    if (rest === undefined && rest2 === undefined) return undefined;
    return {
      device: rest === undefined ? fullAddress(domain2, rest2) : fullAddress(domain, rest),
      address: BigInt(`0x${address}`) as Iova,
      write: (Number(`0x${flags}`) & AMD_WRITE) !== 0,
      text,
    };
  }
  const detached = AMD_DETACHED.exec(text);
  if (!detached) return undefined;
  return { device: fullAddress(detached[1], detached[2]), address: undefined, write: undefined, text };
}

/** Whether a line says that faults were not written down. */
function tellsOfMore(text: string): boolean {
  if (SUPPRESSED.test(text)) return true;
  const status = VTD_STATUS.exec(text)?.[1];
  return status !== undefined && (Number(`0x${status}`) & 1) !== 0;
}

/** Follows the kernel log, from when it is opened on. */
export class DmaFaultLog implements Disposable {
  readonly #kernel: Syscalls;
  readonly #fd: number;
  readonly #record = new Uint8Array(MAX_RECORD);
  /** When faults were found lately, as `performance.now()` counts. */
  #recent: number[] = [];
  #closed = false;

  private constructor(kernel: Syscalls, fd: number) {
    this.#kernel = kernel;
    this.#fd = fd;
  }

  /**
   * Opens the kernel log; what is in it already is skipped.
   *
   * @throws KernelError: EPERM and EACCES for a user who may not read it, ENOENT where there is none.
   */
  static open(kernel: Syscalls = defaultKernel()): DmaFaultLog {
    const log = new DmaFaultLog(kernel, openFile(kernel, KMSG, constants.O_RDONLY | constants.O_NONBLOCK));
    try {
      log.read();
      return log;
    } catch (error) {
      log[Symbol.dispose]();
      throw error;
    }
  }

  /** The faults since the last time. @throws KernelError */
  read(): DmaFaults {
    const faults: DmaFault[] = [];
    let complete = true;
    for (;;) {
      const length = this.#kernel.read(this.#fd, this.#record);
      if (length === -EAGAIN || length === 0) break;
      // Records were overwritten before they were read; the next call gives the first that is left.
      if (length === -EPIPE) {
        complete = false;
        continue;
      }
      if (length < 0) throw new KernelError(-length, { syscall: 'read', path: KMSG });
      const text = textOf(this.#record.subarray(0, length));
      if (text === undefined) continue;
      if (tellsOfMore(text)) complete = false;
      const fault = parseDmaFault(text);
      if (fault) faults.push(fault);
    }
    const now = performance.now();
    this.#recent = this.#recent.filter(time => now - time < LIMIT_INTERVAL);
    for (const _ of faults) this.#recent.push(now);
    return { faults, complete: complete && this.#recent.length < LIMIT_FAULTS };
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    check(this.#kernel.close(this.#fd), 'close', { path: KMSG });
  }
}

/**
 * The text of a record: `3,361,21992957,-;DMAR: …`, and lines with properties behind it (Linux
 * Documentation/ABI/testing/dev-kmsg). Not of those that a process has written: they come from other facilities than the
 * kernel's, which is 0.
 */
function textOf(record: Uint8Array): string | undefined {
  const [, priority, text] = /^(\d+),[^;]*;(.*)/.exec(Buffer.from(record).toString('utf8')) ?? [];
  return Number(priority) >> 3 === 0 ? text : undefined;
}
