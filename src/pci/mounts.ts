/** Finds the file systems that would vanish if a device were taken from its driver. @module */
import type { Syscalls } from '../../bindings/syscalls.js';
import type { PciAddress } from './address.js';
import { devicePath } from './sysfs.js';

/** How far below a PCI device its block devices lie: controller, queue or host, disk, partition. */
const MAX_DEPTH = 8;

/** Mount points that are backed by a block device below `address`. */
export function findMounts(kernel: Syscalls, address: PciAddress): string[] {
  const numbers = new Set<string>();
  collectBlockDevices(kernel, devicePath(address), 0, numbers);
  if (numbers.size === 0) return [];
  const mounts = kernel.readText('/proc/self/mountinfo');
  if (typeof mounts !== 'string') return [];
  const points: string[] = [];
  for (const line of mounts.split('\n')) {
    // "36 35 98:0 /root /mount/point options …", see proc_pid_mountinfo(5)
    const fields = line.split(' ');
    const [number, point] = [fields[2], fields[4]];
    if (number !== undefined && point !== undefined && numbers.has(number)) points.push(point);
  }
  return points;
}

/** Volumes, encrypted disks and arrays that are built on a block device. */
function collectHolders(kernel: Syscalls, path: string, depth: number, numbers: Set<string>): void {
  const names = kernel.readDirectory(`${path}/holders`);
  if (typeof names === 'number' || depth > MAX_DEPTH) return;
  for (const name of names) {
    const holder = `/sys/class/block/${name}`;
    const number = kernel.readText(`${holder}/dev`);
    if (typeof number === 'string') numbers.add(number.trim());
    collectHolders(kernel, holder, depth + 1, numbers);
  }
}

function collectBlockDevices(kernel: Syscalls, path: string, depth: number, numbers: Set<string>): void {
  const names = kernel.readDirectory(path);
  if (typeof names === 'number') return;
  for (const name of names) {
    const child = `${path}/${name}`;
    // Only directories of the device itself: links lead elsewhere in sysfs, other functions are not its own.
    if (typeof kernel.readLink(child) === 'string' || /^\d{4,}:/.test(name)) continue;
    const subsystem = kernel.readLink(`${child}/subsystem`);
    if (typeof subsystem === 'string' && subsystem.endsWith('/block')) {
      const number = kernel.readText(`${child}/dev`);
      if (typeof number === 'string') numbers.add(number.trim());
      collectHolders(kernel, child, 0, numbers);
    }
    if (depth < MAX_DEPTH) collectBlockDevices(kernel, child, depth + 1, numbers);
  }
}
