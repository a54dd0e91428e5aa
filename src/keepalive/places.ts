/** Which address space of a state an arena has its own mapping in, and as what. @module */
import type { SpacePlace } from './layout.js';
import type { SavedMapping } from './state/mapping-table.js';
import { nodeName, type SavedArena, type State } from './state/saved-state.js';
import { StateError, StateErrorCode } from './state/state-error.js';

/** For maps by address space. */
export function spaceKey({ iommufd, ioas }: SpacePlace): string {
  return `${iommufd}/${ioas}`;
}

/**
 * The arena's own mapping: all of it, at the IOVA that its device addresses are counted from; and the row of the table
 * of its address space that it is.
 *
 * @throws StateError when the state does not say where, or has no such mapping there
 */
export function arenaMapping(
  arena: SavedArena,
  iommufds: State['iommufds'],
): { place: SpacePlace; row: number; mapping: Required<SavedMapping> } {
  const { token, place, size } = arena;
  const refuse = (reason: string): never => {
    throw new StateError(
      StateErrorCode.Invalid,
      { path: `/${nodeName.arena(token)}`, property: 'place' },
      reason,
    );
  };
  if (place === undefined) return refuse('it does not say where the arena is mapped');
  const ioas = iommufds.find(({ id }) => id === place.iommufd)?.ioases.find(({ id }) => id === place.ioas);
  const { mappings } = ioas ?? refuse('there is no such address space');
  // In ascending order.
  let [low, high] = [0, mappings.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (mappings.get(middle).iova < place.iova) low = middle + 1;
    else high = middle;
  }
  const mapping = low < mappings.length ? mappings.get(low) : undefined;
  if (
    mapping?.iova !== place.iova ||
    mapping.arena !== token ||
    mapping.offset !== 0 ||
    mapping.length !== size
  ) {
    return refuse('no mapping of all of the arena begins there');
  }
  return { place, row: low, mapping };
}
