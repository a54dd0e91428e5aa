/** Which record of a state stands for which object: ids that mean the same in every process and kernel. @module */
import type { Hwpt } from '../iommufd/hwpt.js';
import type { Ioas } from '../iommufd/ioas.js';
import type { Iommufd } from '../iommufd/iommufd.js';
import { isSpare } from './swap/spare.js';

/** An address space, by the ids of the state. */
export interface SpacePlace {
  readonly iommufd: number;
  readonly ioas: number;
}

/** Numbers what is in some contexts, in the order in which it was made; but not what is for a swap only. */
export class Layout {
  readonly iommufds: readonly Iommufd[];
  readonly #ioases = new Map<Ioas, SpacePlace>();
  readonly #hwpts = new Map<Hwpt, number>();

  constructor(iommufds: readonly Iommufd[]) {
    this.iommufds = iommufds;
    for (const [iommufd, context] of iommufds.entries()) {
      const spaces = [...context.ioases].filter(space => !isSpare(space));
      for (const [ioas, space] of spaces.entries()) {
        this.#ioases.set(space, { iommufd, ioas });
        for (const [id, hwpt] of [...space.hwpts].entries()) this.#hwpts.set(hwpt, id);
      }
    }
  }

  /** Each address space, and where it is. */
  get spaces(): Iterable<readonly [Ioas, SpacePlace]> {
    return this.#ioases;
  }

  /** The address spaces of a context that have a place. */
  of(iommufd: Iommufd): Ioas[] {
    return [...iommufd.ioases].filter(ioas => this.#ioases.has(ioas));
  }

  place(ioas: Ioas): SpacePlace {
    return this.#ioases.get(ioas) as SpacePlace;
  }

  /** The id of a page table in its address space. */
  hwpt(hwpt: Hwpt): number {
    return this.#hwpts.get(hwpt) as number;
  }
}
