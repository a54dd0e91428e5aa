/** The DMA memory of some contexts that can be kept. @module */
import type { Iommufd } from '../iommufd/iommufd.js';
import { DmaArena, memoryOf } from '../memory/dma-memory.js';

/** In the order in which it was made. */
export function arenasOf(iommufds: readonly Iommufd[]): DmaArena[] {
  return iommufds.flatMap(({ ioases }) =>
    [...ioases].flatMap(ioas => [...memoryOf(ioas)].filter(memory => memory instanceof DmaArena)),
  );
}
