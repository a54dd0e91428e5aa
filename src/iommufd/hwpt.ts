/** Hardware page tables made on purpose, rather than by the kernel at an attach. @module */
import { DisposedError } from '../errors.js';
import type { Ioas } from './ioas.js';

/** An HWPT. Its existence keeps the memory of its {@link Ioas} pinned. Made by `Device.allocHwpt`. */
export class Hwpt implements Disposable {
  readonly ioas: Ioas;
  /** What it was made with, `IOMMU_HWPT_ALLOC_*`. */
  readonly flags: number;
  /** The device that it was made for, by name. */
  readonly device: string;
  readonly #id: number;
  #destroyed = false;

  /** @internal */
  constructor(ioas: Ioas, id: number, flags: number, device: string) {
    this.ioas = ioas;
    this.#id = id;
    this.flags = flags;
    this.device = device;
    ioas.addHwpt(this);
  }

  /** Its id in the context. @throws DisposedError */
  get id(): number {
    if (this.#destroyed) throw new DisposedError(`Hwpt ${this.#id}`);
    return this.#id;
  }

  /**
   * Destroys the page table. Idempotent.
   *
   * @throws KernelError: EBUSY while a device is attached to it; it is then still there.
   */
  [Symbol.dispose](): void {
    if (this.#destroyed) return;
    if (this.ioas.iommufd.open) this.ioas.iommufd.destroy(this.#id);
    this.relinquish();
  }

  /** @internal It is somebody else's now. */
  relinquish(): void {
    this.#destroyed = true;
    this.ioas.removeHwpt(this);
  }
}
