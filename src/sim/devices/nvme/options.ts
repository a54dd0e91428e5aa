/** What a simulated NVMe controller can be made with. @module */
import type { Lies } from './lies.js';
import { NvmeNamespaceModel, type NvmeNamespaceOptions } from './namespace.js';

export interface NvmeModelOptions {
  /** Up to 20 characters; `simulated` unless told. */
  readonly serial?: string;
  /** One of 128 MiB with blocks of 512 bytes unless told. A namespace made before can outlive the controller. */
  readonly namespaces?: readonly (NvmeNamespaceModel | NvmeNamespaceOptions)[];
  /** Largest transfer of a command: 2^mdts pages; 0: no limit. 7 unless told, as QEMU's. */
  readonly mdts?: number;
  /** I/O queue pairs; 64 unless told. */
  readonly maxQueues?: number;
  /** MSI-X vectors; 65 unless told. */
  readonly msixVectors?: number;
  /** Controller memory buffer, at BAR 2, in bytes: a multiple of 1 MiB, and a power of two. None unless told. */
  readonly cmbSize?: number;
  /** `7.2.22` unless told. */
  readonly firmware?: string;
  /**
   * Abort commands end what they are asked to, as from QEMU 8.0 on; unless told. Otherwise they succeed and say that
   * the command was not aborted.
   */
  readonly aborts?: boolean;
  /** What it is to get wrong. */
  readonly lies?: Lies;
}

export type CompleteNvmeOptions = Required<Omit<NvmeModelOptions, 'namespaces' | 'lies'>> &
  Pick<NvmeModelOptions, 'lies'> & { readonly namespaces: readonly NvmeNamespaceModel[] };

export function completeNvmeOptions(options: NvmeModelOptions): CompleteNvmeOptions {
  const { namespaces = [{ id: 1, blockSize: 512 }] } = options;
  return {
    serial: 'simulated',
    mdts: 7,
    maxQueues: 64,
    msixVectors: 65,
    cmbSize: 0,
    firmware: '7.2.22',
    aborts: true,
    ...options,
    namespaces: namespaces.map(namespace =>
      namespace instanceof NvmeNamespaceModel ? namespace : new NvmeNamespaceModel(namespace),
    ),
  };
}
