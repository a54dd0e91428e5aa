/** What lanes have written, looked for in the image of a disk. @module */
import { closeSync, openSync, readSync } from 'node:fs';
import { BLOCK, matches } from '../../src/testing/lanes.js';

/**
 * How many of the blocks that lanes have written and been told of are not in the image of the disk as they were written.
 *
 * @param file of the image
 * @param told the number of operations of each lane
 * @param turns of the lanes
 */
export function wrongBlocks(file: string, told: readonly number[], turns: number): number {
  const image = openSync(file, 'r');
  const block = new Uint8Array(BLOCK);
  let wrong = 0;
  try {
    for (const [lane, count] of told.entries()) {
      const written = Math.ceil(count / 2);
      for (let turn = Math.max(written - turns, 0); turn < written; turn++) {
        const read = readSync(image, block, 0, BLOCK, (lane * turns + (turn % turns)) * BLOCK);
        if (read !== BLOCK || !matches(block, lane, turn)) wrong++;
      }
    }
  } finally {
    closeSync(image);
  }
  return wrong;
}
