/** Works out what a transfer covers, and refuses what does not fit, before anything is transferred. @module */
import type { Length } from '../arguments.js';

/** What a plan needs to know of a namespace. */
export interface Disk {
  readonly id: number;
  readonly blockSize: number;
  /** Size in logical blocks. */
  readonly blocks: number;
}

/** A range of whole blocks, and the bytes of it that are wanted. */
export interface Extent {
  readonly lba: number;
  readonly blocks: number;
  /** At most `blocks` blocks; the last one may be used in part. */
  readonly bytes: number;
}

/** How much of a long transfer is in memory at a time, twice. */
const CHUNK = 4 * 2 ** 20;

/** A few MiB, in whole blocks. */
export function chunkSize(blockSize: number): number {
  return Math.max(Math.floor(CHUNK / blockSize), 1) * blockSize;
}

function checkStart(disk: Disk, lba: number): void {
  if (lba >= disk.blocks) {
    throw new RangeError(
      `block ${lba} is beyond the end of namespace ${disk.id}, whose last block is ${disk.blocks - 1}`,
    );
  }
}

function extent(disk: Disk, lba: number, bytes: number, what: string): Extent {
  checkStart(disk, lba);
  const blocks = Math.ceil(bytes / disk.blockSize);
  const room = disk.blocks - lba;
  if (blocks > room) {
    const roomBytes = room * disk.blockSize;
    throw new RangeError(
      `${what} ${bytes} bytes, but from block ${lba} on namespace ${disk.id} has only ${roomBytes}`,
    );
  }
  return { lba, blocks, bytes };
}

/** What to read; up to the end unless `length` says how much. */
export function planRead(disk: Disk, lba: number, length: Length): Extent {
  checkStart(disk, lba);
  const { blocks = disk.blocks - lba, bytes = blocks * disk.blockSize } = length;
  return extent(disk, lba, bytes, 'asked for');
}

/**
 * What an input of `size` bytes overwrites; up to the end when nobody knows its size.
 *
 * @param pad whether the last block may be filled up
 */
export function planWrite(disk: Disk, lba: number, size: number | undefined, pad: boolean): Extent {
  if (size === undefined) return planRead(disk, lba, {});
  if (size === 0) throw new RangeError('the input is empty');
  const plan = extent(disk, lba, size, 'the input has');
  if (!pad) checkWhole(disk, size);
  return plan;
}

/** That `size` bytes fill their blocks. */
export function checkWhole(disk: Disk, size: number): void {
  if (size % disk.blockSize === 0) return;
  throw new RangeError(
    `the input, ${size} bytes, is no multiple of the block size, ${disk.blockSize}. ` +
      'Pass --pad to fill its last block up with zeroes',
  );
}
