/** A saved state as JSON: identifiers, tokens, flags and addresses as `0x` strings, what is not understood in hex. @module */
import type { IovaRange } from '../../address.js';
import { hex } from '../../hex.js';
import { RlimitMode } from '../../iommufd/iommufd.js';
import type { ExtentTable } from '../../keepalive/state/extent-table.js';
import type { FdtNode } from '../../keepalive/state/fdt.js';
import type { MappingTable } from '../../keepalive/state/mapping-table.js';
import { nothingMore } from '../../keepalive/state/nothing-more.js';
import {
  type Kept,
  RecordType,
  type SavedArena,
  type SavedDevice,
  type SavedDriver,
  type SavedHwpt,
  type SavedIoas,
  type SavedIommufd,
  type SavedSession,
  type State,
} from '../../keepalive/state/saved-state.js';
import { kindNames } from '../../vfio/interrupts.js';
import { JsonRows } from '../json.js';
import { className } from '../pci-class.js';
import { formatHex } from '../units.js';
import { mappedBytes } from './mapped.js';

/** Whether tables are shown row by row, or only what is in them. */
type Detail = 'all' | 'summary';

function propertiesJson(properties: ReadonlyMap<string, Uint8Array>): unknown {
  return Object.fromEntries(
    Array.from(properties, ([name, value]) => [name, Buffer.from(value).toString('hex')]),
  );
}

function nodeJson({ name, properties, children }: FdtNode): unknown {
  return { name, properties: propertiesJson(properties), children: children.map(nodeJson) };
}

function keptJson(kept: Kept | undefined): unknown {
  if (!kept) return null;
  return { properties: propertiesJson(kept.properties), nodes: kept.nodes.map(nodeJson) };
}

function* extentRows(table: ExtentTable): Generator<unknown> {
  for (const { offset, address, length } of table) {
    yield { offset: BigInt(offset), address: hex(address), length: BigInt(length) };
  }
}

function* mappingRows(table: MappingTable): Generator<unknown> {
  for (const { iova, length, arena, offset, readable, writeable } of table) {
    yield {
      iova: hex(iova),
      length: BigInt(length),
      arena: hex(arena),
      offset: BigInt(offset),
      readable,
      writeable,
    };
  }
}

function arenaJson(arena: SavedArena, detail: Detail): unknown {
  const { token, size, pageSize, name, extents, place, kept, ...rest } = arena;
  nothingMore(rest);
  return {
    token: hex(token),
    name,
    size: BigInt(size),
    pageSize: BigInt(pageSize),
    place: place ? { iommufd: place.iommufd, ioas: place.ioas, iova: hex(place.iova) } : null,
    extentCount: extents?.length ?? null,
    ...(detail === 'all' && { extents: extents ? new JsonRows(extentRows(extents)) : null }),
    kept: keptJson(kept),
  };
}

function rangeJson({ first, last }: IovaRange): unknown {
  return { first: hex(first), last: hex(last) };
}

function hwptJson(hwpt: SavedHwpt): unknown {
  const { id, flags, device, kept, ...rest } = hwpt;
  nothingMore(rest);
  return { id, flags: hex(flags), device, kept: keptJson(kept) };
}

function ioasJson(ioas: SavedIoas, detail: Detail): unknown {
  const { id, allowed, mappings, hwpts = [], hugePages = true, kept, ...rest } = ioas;
  nothingMore(rest);
  return {
    id,
    allowed: allowed.map(rangeJson),
    hugePages,
    hwpts: hwpts.map(hwptJson),
    mappingCount: mappings.length,
    mappedBytes: mappedBytes(mappings),
    ...(detail === 'all' && { mappings: new JsonRows(mappingRows(mappings)) }),
    kept: keptJson(kept),
  };
}

function iommufdJson(iommufd: SavedIommufd, detail: Detail): unknown {
  const { id, ioases, rlimitMode, kept, ...rest } = iommufd;
  nothingMore(rest);
  return {
    id,
    rlimitMode: rlimitMode === RlimitMode.Process ? 'process' : 'user',
    ioases: ioases.map(ioas => ioasJson(ioas, detail)),
    kept: keptJson(kept),
  };
}

function deviceJson(device: SavedDevice): unknown {
  const { address, vendorId, deviceId, subsystemVendorId, subsystemDeviceId, classCode, ...more } = device;
  const { interface: kind, translation, addressSpace, ...facts } = more;
  const { serial, bars, capabilities, resetMethods, interrupts, kept, ...rest } = facts;
  nothingMore(rest);
  return {
    address,
    className: className(classCode),
    classCode: formatHex(classCode, 6),
    vendorId: formatHex(vendorId, 4),
    deviceId: formatHex(deviceId, 4),
    subsystemVendorId: formatHex(subsystemVendorId, 4),
    subsystemDeviceId: formatHex(subsystemDeviceId, 4),
    interface: kind,
    translation,
    addressSpace: addressSpace ? { ...addressSpace, hwpt: addressSpace.hwpt ?? null } : null,
    serial: serial === undefined ? null : formatHex(serial, 16),
    bars: bars ?? null,
    capabilities:
      capabilities?.map(capability => ({
        ...capability,
        id: formatHex(capability.id, capability.extended ? 4 : 2),
        offset: hex(capability.offset),
      })) ?? null,
    resetMethods: resetMethods ?? null,
    interrupts: interrupts?.map(item => ({ kind: kindNames[item.kind], count: item.count })) ?? null,
    kept: keptJson(kept),
  };
}

function driverJson(driver: SavedDriver): unknown {
  const { device, compatible, properties, children, kept, ...rest } = driver;
  nothingMore(rest);
  return {
    device,
    compatible,
    properties: propertiesJson(properties),
    children: children.map(nodeJson),
    kept: keptJson(kept),
  };
}

function sessionJson(session: SavedSession): unknown {
  const { name, tokens, kept, ...rest } = session;
  nothingMore(rest);
  return {
    name,
    tokens: Object.fromEntries(Array.from(tokens, ([purpose, token]) => [purpose, hex(token)])),
    kept: keptJson(kept),
  };
}

/** For programs. With all detail it is for `jsonPieces` alone. */
export function stateJson(state: State, detail: Detail): unknown {
  const { arenas, iommufds, devices, drivers, sessions, kept, ...rest } = state;
  nothingMore(rest);
  return {
    compatible: RecordType.State,
    devices: devices.map(deviceJson),
    drivers: drivers.map(driverJson),
    iommufds: iommufds.map(iommufd => iommufdJson(iommufd, detail)),
    arenas: arenas.map(arena => arenaJson(arena, detail)),
    sessions: sessions.map(sessionJson),
    kept: keptJson(kept),
  };
}
