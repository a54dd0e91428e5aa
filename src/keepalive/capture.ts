/** From objects at run time to a {@link State}: what would have to be rebuilt. @module */
import type { Ioas } from '../iommufd/ioas.js';
import { type Iommufd, RlimitMode } from '../iommufd/iommufd.js';
import type { DmaArena } from '../memory/dma-memory.js';
import { ascending } from '../order.js';
import { pciAddress } from '../pci/address.js';
import { devicesOf } from '../vfio/device.js';
import { arenasOf } from './arenas.js';
import { deviceRecord } from './device-record.js';
import { physicalExtents } from './extents.js';
import type { DriverRecord } from './keepable-driver.js';
import { Layout } from './layout.js';
import { isGoing } from './refusals.js';
import { MappingTable } from './state/mapping-table.js';
import type { SavedArena, SavedIoas, SavedSession, State } from './state/saved-state.js';

/** What a state is made of. */
export interface Captured {
  readonly iommufds: readonly Iommufd[];
  /** By PCI address. */
  readonly drivers: ReadonlyMap<string, DriverRecord>;
  /** By PCI address: as sysfs had them before keepalive emptied them. */
  readonly resetMethods: ReadonlyMap<string, string>;
  readonly sessions: readonly SavedSession[];
}

/** @throws KernelError; RangeError for what a state has no room for */
export function capture({ iommufds, drivers, resetMethods, sessions }: Captured): State {
  const layout = new Layout(iommufds);
  return {
    arenas: arenasOf(iommufds).map(arena => savedArena(arena, layout)),
    iommufds: iommufds.map((iommufd, id) => ({
      id,
      ioases: layout.of(iommufd).map(ioas => savedIoas(ioas, layout)),
      ...(iommufd.rlimitMode === RlimitMode.Process && { rlimitMode: RlimitMode.Process }),
    })),
    devices: iommufds.flatMap(iommufd =>
      [...devicesOf(iommufd)].map(device => deviceRecord(device, layout, resetMethods.get(device.name))),
    ),
    sessions,
    drivers: [...drivers].map(([device, record]) => ({ device: pciAddress(device), ...record })),
  };
}

function savedArena(arena: DmaArena, layout: Layout): SavedArena {
  const { token, size, pageSize, name, iova } = arena;
  const space = arena.space as Ioas;
  return {
    ...{ token, size, pageSize, name },
    place: { ...layout.place(space), iova },
    ...(space.translation === 'none' && { extents: physicalExtents(space, iova, size) }),
  };
}

function savedIoas(ioas: Ioas, layout: Layout): SavedIoas {
  const hwpts = [...ioas.hwpts].map(hwpt => {
    return { id: layout.hwpt(hwpt), flags: hwpt.flags, device: pciAddress(hwpt.device) };
  });
  return {
    id: layout.place(ioas).ioas,
    allowed: ioas.allowedIovas.toSorted((a, b) => ascending(a.first, b.first)),
    mappings: mappingTable(ioas),
    ...(hwpts.length > 0 && { hwpts }),
    ...(!ioas.hugePages && { hugePages: false as const }),
  };
}

function mappingTable(ioas: Ioas): MappingTable {
  const { files, pieces } = ioas.mappingBook;
  const table = new MappingTable(ioas.mappingCount);
  if (![...files].some(file => (file as DmaArena).disposed)) {
    for (const rows of pieces) table.pushRows(rows, file => (files.at(file) as DmaArena).token);
    return table;
  }
  for (const { iova, length, file, offset, readable, writeable } of ioas.mappings) {
    if (isGoing(iova, file)) continue;
    const { token } = file as DmaArena;
    table.push({ iova, length: Number(length), arena: token, offset: Number(offset), readable, writeable });
  }
  return table;
}
