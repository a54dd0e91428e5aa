/** Physical memory of the guest, from the kernel's own accounts of it: no part of the library is asked. @module */
import { closeSync, openSync, readSync } from 'node:fs';
import { linux } from '../../../bindings/linux.js';

const PAGE = 4096;

/** What the whole of `length` bytes at `position` of a file are; throws when there are fewer. */
function readAt(path: string, position: bigint, length: number): Uint8Array {
  const fd = openSync(path, 'r');
  try {
    const bytes = new Uint8Array(length);
    const count = readSync(fd, bytes, 0, length, position);
    if (count !== length)
      throw new Error(`${path}: ${count} of ${length} bytes at 0x${position.toString(16)}`);
    return bytes;
  } finally {
    closeSync(fd);
  }
}

const PRESENT = 1n << 63n;
const FRAME_NUMBER = (1n << 55n) - 1n;

/** A run of memory that is contiguous both in this process and physically. */
export interface Run {
  /** In bytes from the start of the memory. */
  readonly offset: number;
  readonly physical: bigint;
  /** In bytes. */
  length: number;
}

/**
 * Where memory of this process is, by `/proc/self/pagemap`. It must be in use (written) and pinned, or the answer
 * may be out of date when it arrives.
 *
 * @param most the longest run to make of it, in bytes
 */
export function physicalRuns(memory: Uint8Array, most = Number.POSITIVE_INFINITY): Run[] {
  const address = linux().addressOf(memory);
  const pages = memory.length / PAGE;
  const map = readAt('/proc/self/pagemap', (address / BigInt(PAGE)) * 8n, pages * 8);
  const view = new DataView(map.buffer);
  const runs: Run[] = [];
  for (let page = 0; page < pages; page++) {
    const entry = view.getBigUint64(page * 8, true);
    if (!(entry & PRESENT) || !(entry & FRAME_NUMBER)) {
      throw new Error(
        `page ${page} of memory at 0x${address.toString(16)} is not present, or pagemap hides it`,
      );
    }
    const physical = (entry & FRAME_NUMBER) * BigInt(PAGE);
    const last = runs.at(-1);
    const next = last && last.length < most ? last.physical + BigInt(last.length) : undefined;
    if (last && next === physical) last.length += PAGE;
    else runs.push({ offset: page * PAGE, physical, length: PAGE });
  }
  return runs;
}

/** Guest-physical memory, through `/dev/mem`. */
export function readPhysical(address: bigint, length: number): Uint8Array {
  return readAt('/dev/mem', address, length);
}
