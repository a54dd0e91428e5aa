/** Memory of a device with a descriptor (dma-buf), as far as iommufd uses it. @module */
import { OpenFile } from '../process/open-file.js';

/** Where the memory lies. */
export interface PhysicalRange {
  readonly address: bigint;
  /** In bytes. */
  readonly length: number;
}

/** Whoever exports device memory derives from this. */
export abstract class DmaBufFile extends OpenFile {
  override readonly name = '/dmabuf:';
  /** In bytes. */
  abstract readonly size: number;
  readonly #users = new Set<() => void>();

  /**
   * The memory, in one piece.
   *
   * @returns minus ENODEV once it is revoked, minus EOPNOTSUPP when it is in several pieces
   */
  abstract physicalRange(): PhysicalRange | number;

  /** Calls `revoked` when the memory goes away. @returns how to stop */
  onRevoke(revoked: () => void): () => void {
    this.#users.add(revoked);
    return () => this.#users.delete(revoked);
  }

  /** For exporters: the memory is gone, and whoever maps it stops now. */
  protected revokeAll(): void {
    for (const revoked of [...this.#users]) revoked();
  }
}
