/** A disk of the kernel's own NVMe driver, for tests of what must not happen to it. @module */
import {
  closeSync,
  constants,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  writeSync,
} from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 20;
const TIMEOUT_MS = 20_000;

/** The block device of the first namespace of a controller, when the kernel has it. */
export async function kernelDisk(address: string): Promise<string> {
  const controllers = `/sys/bus/pci/devices/${address}/nvme`;
  for (const end = Date.now() + TIMEOUT_MS; Date.now() < end; await sleep(POLL_MS)) {
    const [controller] = names(controllers);
    const disk = controller && names(`${controllers}/${controller}`).find(name => /^nvme\d+n\d+$/.test(name));
    if (disk !== undefined) return `/dev/${disk}`;
  }
  throw new Error(`${address}: the kernel has no disk of it`);
}

function names(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return []; // not there yet
  }
}

/** Writes through the kernel's driver, on to the medium. */
export function writeDisk(disk: string, offset: number, bytes: Uint8Array): void {
  const fd = openSync(disk, constants.O_WRONLY);
  if (writeSync(fd, bytes, 0, bytes.length, offset) !== bytes.length)
    throw new Error(`${disk}: a short write`);
  fsyncSync(fd);
  closeSync(fd);
}

/** Reads what another kernel wrote: this one has nothing of it in its caches. */
export function readDisk(disk: string, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const fd = openSync(disk, constants.O_RDONLY);
  if (readSync(fd, bytes, 0, length, offset) !== length) throw new Error(`${disk}: a short read`);
  closeSync(fd);
  return bytes;
}

/** Who has a device, and what was said about it in sysfs. */
export function ownership(address: string): {
  driver: string | undefined;
  override: string;
  resetMethod: string;
} {
  const directory = `/sys/bus/pci/devices/${address}`;
  const attribute = (name: string): string => readFileSync(`${directory}/${name}`, 'utf8').trim();
  let driver: string | undefined;
  try {
    driver = basename(readlinkSync(`${directory}/driver`));
  } catch {
    // nobody has it
  }
  return { driver, override: attribute('driver_override'), resetMethod: attribute('reset_method') };
}

/** Where the registers of a device are in memory, of BAR 0, and how many bytes. */
export function registersOf(address: string): { bar: number; size: number } {
  const [line = ''] = readFileSync(`/sys/bus/pci/devices/${address}/resource`, 'utf8').split('\n');
  const [start, end] = line.split(' ').map(Number) as [number, number];
  return { bar: start, size: end - start + 1 };
}
