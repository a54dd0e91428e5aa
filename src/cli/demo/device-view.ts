/** The memory that a device of the simulated host can reach, as a picture. @module */
import type { SimulatedHost } from '../../sim/host.js';
import { PAGE } from '../../sim/machine/physical-memory.js';
import { drawSpace, joinPieces } from '../space-picture.js';

/**
 * Behind an IOMMU: its IOVAs, read out of the very page table that the IOMMU walks. Without: all of physical memory,
 * with the pages that were pinned for DMA.
 */
export function deviceView(host: SimulatedHost, device: string, wild: bigint, width: number): string[] {
  const marks = [{ at: wild, label: 'the wild write' }];
  const view = host.iommu.view(device);
  if (view === undefined) {
    const pieces = host.physical
      .pinned()
      .map(({ frame, owner }) => ({ first: BigInt(frame * PAGE), length: BigInt(PAGE), label: owner }));
    return [
      `What ${device} can reach: all of physical memory. What it was given:`,
      ...drawSpace(
        { first: 0n, last: BigInt(host.physical.size) - 1n, pieces: joinPieces(pieces), marks },
        width,
      ),
    ];
  }
  const pieces = [...view.table.extents()].flatMap(({ iova, address, length }) =>
    Array.from({ length: Number(length) / PAGE }, (_, page) => ({
      first: iova + BigInt(page * PAGE),
      length: BigInt(PAGE),
      label: host.physical.ownerOf(Number(address >> 12n) + page) ?? 'unknown',
    })),
  );
  const reserved = view.reserved.map(({ first, last, kind }) => ({
    first,
    length: last - first + 1n,
    label: kind === 'msi' ? 'interrupt messages' : 'reserved',
  }));
  return [
    `What ${device} can reach, read from the IOMMU's page table:`,
    ...drawSpace({ first: 0n, last: view.last, pieces: joinPieces(pieces), reserved, marks }, width),
  ];
}
