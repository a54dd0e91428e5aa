/** Where DMA memory is physically: as the simulated machine has it, whatever a kernel or the library says of it. @module */
import type { KeepAlive } from '../../keepalive/keep-alive.js';
import { PAGE } from '../../sim/machine/physical-memory.js';
import { MemFd } from '../../sim/process/memfd.js';
import type { SimulatedProcess } from '../../sim/process/process.js';
import { drawCells } from '../space-picture.js';

const LABEL = 'DMA memory';
const CELL = '█';

/** Of each arena, by token, the frame of each page; `undefined` for a page that has none. */
export type Frames = ReadonlyMap<bigint, readonly (number | undefined)[]>;

/** @param process whose descriptors the arenas have */
export function framesOf(kept: KeepAlive, process: SimulatedProcess): Frames {
  return new Map(
    kept.arenas.map(({ token, name, fd, size }) => {
      const file = process.file(fd);
      if (!(file instanceof MemFd)) throw new Error(`the memory of arena ${name} is not there`);
      const { memory } = file;
      return [token, Array.from({ length: size / PAGE }, (_, page) => memory.frameIfPresent(page))] as const;
    }),
  );
}

export function countPages(frames: Frames): number {
  return [...frames.values()].reduce((sum, { length }) => sum + length, 0);
}

/** How many pages are not where they were, or are not there at all. */
export function countMoved(before: Frames, now: Frames): number {
  let moved = 0;
  for (const [token, frames] of before) {
    moved += frames.filter((frame, page) => frame === undefined || now.get(token)?.[page] !== frame).length;
  }
  return moved;
}

/** All of physical memory in one line, with what has these frames in it. @param size of the memory, in bytes */
export function drawFrames(frames: Frames, size: number, columns: number): string {
  const pieces = [...frames.values()].flatMap(pages =>
    pages
      .filter(frame => frame !== undefined)
      .map(frame => ({ first: BigInt(frame * PAGE), length: BigInt(PAGE), label: LABEL })),
  );
  return drawCells({ first: 0n, last: BigInt(size) - 1n, pieces }, new Map([[LABEL, CELL]]), columns);
}
