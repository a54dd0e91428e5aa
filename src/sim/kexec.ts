/**
 * What a kexec does to the machine: one kernel ends without closing anything, and the next begins with what it finds.
 *
 * @module
 */
import type { LiveUpdate } from './liveupdate/live-update.js';
import { type Preserved, preservedFrames } from './liveupdate/preserved.js';
import type { PhysicalMemory } from './machine/physical-memory.js';
import type { SimulatedProcess } from './process/process.js';

/** The kernel that ends. */
export interface EndingKernel {
  readonly physical: PhysicalMemory;
  /** All of them, those of other programs included. */
  readonly processes: Iterable<SimulatedProcess>;
  /** Undefined without `liveupdate=on`: nothing is preserved. */
  readonly liveUpdate: LiveUpdate | undefined;
  /** Turns bus mastering off in every PCI function, as the shutdown of the PCI bus does. */
  clearBusMasters(): void;
}

/** What the next kernel boots with. */
export interface Handover {
  /** The machine's memory: only preserved frames are in use. Devices and IOMMUs reach this one from now on. */
  readonly physical: PhysicalMemory;
  /** For the next {@link LiveUpdate}, which must be made before anything else allocates memory. */
  readonly preserved: Preserved | undefined;
}

/**
 * Ends a kernel. In order: sessions are frozen and serialised as they are at this moment, functions lose bus mastering,
 * processes are gone.
 *
 * Nothing is closed: no `release` of a file runs, so vfio resets no device, iommufd unmaps nothing and sessions are not
 * un-preserved. The old kernel's objects are still there afterwards, for JavaScript, and lead nowhere: calls of its
 * processes throw, `close` says EBADF, and what they do to their memory is lost. What the caller must do:
 *
 * - Plug every function into a new {@link FunctionPort} over {@link Handover.physical} without unplugging it first
 *   (`plug(undefined)` stops it): what a device knows inside, such as its queues and their doorbells, stays.
 * - Drop the IOMMU drivers with their domains and tables and make new ones: translation is off until then.
 */
export function kexec(kernel: EndingKernel): Handover {
  const preserved = kernel.liveUpdate?.reboot();
  kernel.clearBusMasters();
  for (const process of [...kernel.processes]) process.vanish();
  const kept = preserved === undefined ? new Set<number>() : preservedFrames(preserved);
  return { physical: kernel.physical.successor(kept), preserved };
}
