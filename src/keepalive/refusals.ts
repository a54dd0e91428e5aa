/** What in some contexts cannot be kept, and why. @module */
import type { Iova } from '../address.js';
import { hex } from '../hex.js';
import type { IoasMapping } from '../iommufd/ioas.js';
import type { Iommufd } from '../iommufd/iommufd.js';
import { DmaArena } from '../memory/dma-memory.js';
import { arenasOf } from './arenas.js';
import { isSpare } from './swap/spare.js';

/** @returns a sentence for each thing; none when all can be kept */
export function refusals(iommufds: readonly Iommufd[]): string[] {
  const arenas = new Set<unknown>(arenasOf(iommufds));
  return iommufds.flatMap(({ ioases }) =>
    [...ioases]
      .filter(ioas => !isSpare(ioas))
      // Only where something is refused is it of interest which mappings there are.
      .filter(({ mappingBook }) => [...mappingBook.files].some(file => !arenas.has(file)))
      .flatMap(ioas => [...ioas.mappings].flatMap(mapping => refusalOf(mapping, arenas))),
  );
}

function refusalOf({ iova, length, file }: IoasMapping, arenas: ReadonlySet<unknown>): string[] {
  const where = `the mapping at ${hex(iova)} (${length} bytes)`;
  if (file === undefined) return [`${where} is of ephemeral memory, which ends with this process`];
  if (typeof file === 'number') return [`${where} is of a descriptor, and no arena says whose memory it is`];
  if (arenas.has(file) || isGoing(iova, file)) return [];
  return [`${where} is of a file that is no arena of these contexts, or of one that was disposed of`];
}

/** An arena that is being disposed of is gone already, and its own mapping not yet. */
export function isGoing(iova: Iova, file: unknown): boolean {
  return file instanceof DmaArena && file.disposed && file.iova === iova;
}
