/** What must be as it was when a test ends: descriptors, mappings, and who has which PCI device. @module */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { listPciDevices } from 'iommufd';
import type { Test } from 'tap';
import { type Simulation, simulation } from '../../support/simulation.js';

/** Descriptors that matter: those of devices, memory and events; not the ones Node opens as it likes. */
function descriptors(): string[] {
  const found: string[] = [];
  for (const fd of readdirSync('/proc/self/fd')) {
    let target: string;
    try {
      target = readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      continue; // the descriptor of the directory itself
    }
    if (/^\/dev\/(iommu|vfio)|^\/memfd:|\[eventfd\]|vfio-device/.test(target)) found.push(target);
  }
  return found.sort();
}

/** Mappings of device memory and DMA memory. */
function mappings(): string[] {
  const lines = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return lines.filter(line => /memfd:|vfio/.test(line)).map(line => line.replace(/^.*?\s(\S*)$/, '$1'));
}

function owners(): string[] {
  return listPciDevices().map(device => `${device.address} ${device.driver ?? '-'}`);
}

/** Pinned memory of this process, in kB. */
function pinned(): number {
  return Number(/^VmPin:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0);
}

export interface Snapshot {
  readonly descriptors: string[];
  readonly mappings: string[];
  readonly owners: string[];
  readonly pinned: number;
}

/** The same of a process on a simulated machine. */
function simulatedSnapshot({ process }: Simulation): Snapshot {
  const matters = /^\/dev\/(iommu|vfio)|^\/memfd:|\[eventfd\]|vfio-device/;
  const { mappings } = process.memory;
  return {
    descriptors: [...process.openFiles.values()].map(file => file.name).filter(name => matters.test(name)),
    mappings: mappings.filter(({ shared }) => shared).map(({ memory }) => memory.name),
    owners: owners(),
    pinned: (process.pinnedPages * 4096) / 1024,
  };
}

export function snapshot(): Snapshot {
  const simulated = simulation();
  if (simulated !== undefined) return simulatedSnapshot(simulated);
  return { descriptors: descriptors(), mappings: mappings(), owners: owners(), pinned: pinned() };
}

/** Compares with an earlier {@link snapshot}. libuv closes poll handles on its next turn, hence the short wait. */
export async function nothingLeaked(
  t: Test,
  before: Snapshot,
  message = 'nothing is left behind',
): Promise<void> {
  await sleep(20);
  t.strictSame(snapshot(), before, message);
}
