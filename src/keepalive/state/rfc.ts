/**
 * The layout in which the 2024 kernel RFC "iommufd: persisted iommufds" (2024-09-16, patches 05 and 07) hands mappings
 * over, for what reads or writes it:
 *
 *     / { compatible = "iommufd-v0";
 *         iommufds { <id> { ioases { <id> { <n> { iova-start iova-len iommu-prot } } } } } }
 *
 * The RFC writes its variables as they lie in memory, two `unsigned long` and an `int`, without turning them into cells;
 * and so does this, little-endian, as on all machines that have both an IOMMU and Linux today. In the kernel's tree the
 * layout is a node "iommufd" below the root of all subsystems: it is read there as well.
 *
 * What it cannot carry: which file is behind a mapping and where in it, arenas and their physical addresses, devices,
 * sessions and drivers. A state cannot be restored from it.
 *
 * @module
 */
import { checkInteger } from '../../check.js';
import { hex } from '../../hex.js';
import { by } from '../../order.js';
import { AreaTable } from './area-table.js';
import { type Codec, NO_MEMORY, reasonOf, withCodec } from './codec.js';
import { MAX_ENTRIES, openBlob } from './fdt-tree.js';
import { FdtValue } from './fdt-value.js';
import { FdtWriter } from './fdt-writer.js';
import { MappingTable } from './mapping-table.js';
import { StateError, StateErrorCode } from './state-error.js';

/** An IOAS in the RFC's layout. */
export interface RfcIoas<Areas = AreaTable> {
  readonly id: number;
  readonly mappings: Areas;
}

/** An iommufd in the RFC's layout. The kernel counts their ids from 1. */
export interface RfcIommufd<Areas = AreaTable> {
  readonly id: number;
  readonly ioases: readonly RfcIoas<Areas>[];
}

/** What the RFC's layout holds. */
export interface RfcState<Areas = AreaTable> {
  readonly iommufds: readonly RfcIommufd<Areas>[];
}

const COMPATIBLE = 'iommufd-v0';
/** Bytes of a row, of either table. */
const ROW = 24;

/**
 * Writes the mappings of a state, or of what {@link importRfc} returned, in the RFC's layout.
 *
 * @throws TypeError, RangeError when ids are not from 0 to 2^32-1, or are there twice.
 */
export function exportRfc(state: RfcState<MappingTable | AreaTable>): Uint8Array {
  return withCodec(codec => {
    const writer = new FdtWriter(codec, codec.free);
    writer.beginNode('');
    writer.property('compatible', FdtValue.string(COMPATIBLE));
    writer.beginNode('iommufds');
    for (const { id, ioases } of inOrder('iommufd', state.iommufds)) {
      writer.beginNode(String(id));
      writer.beginNode('ioases');
      for (const ioas of inOrder('IOAS', ioases)) {
        writer.beginNode(String(ioas.id));
        writeAreas(codec, writer, ioas.mappings);
        writer.endNode();
      }
      writer.endNode();
      writer.endNode();
    }
    writer.endNode();
    writer.endNode();
    return writer.finish();
  });
}

function inOrder<T extends { readonly id: number }>(title: string, items: readonly T[]): T[] {
  const sorted = items.toSorted((a, b) => a.id - b.id);
  for (const [index, { id }] of sorted.entries()) {
    checkInteger(`${title} id`, id, 0, 0xffff_ffff);
    if (sorted[index - 1]?.id === id) throw new RangeError(`two have the ${title} id ${id}`);
  }
  return sorted;
}

function writeAreas(codec: Codec, writer: FdtWriter, table: MappingTable | AreaTable): void {
  if (!(table instanceof MappingTable || table instanceof AreaTable)) {
    throw new TypeError('mappings must be a MappingTable or an AreaTable');
  }
  const { core, staging, stagingSize } = codec;
  const names = ['iova-start', 'iova-len', 'iommu-prot'].map(name => writer.string(name));
  const [start, length, prot] = names as [number, number, number];
  const { rows } = table;
  const chunk = Math.floor(stagingSize / ROW);
  for (let first = 0; first < table.length; first += chunk) {
    const piece = rows.subarray(first * ROW, (first + chunk) * ROW);
    codec.bytes.set(piece, staging);
    const mappings = table instanceof MappingTable ? 1 : 0;
    const written = core.codecRfcWrite(staging, piece.length / ROW, mappings, first, start, length, prot);
    if (!written) codec.exhausted();
  }
}

/** What codecRfcNext() comes upon: assembly/codec/rfc.ts. */
const Event = { Done: 0, Iommufd: 1, Ioas: 2, Rows: 3 } as const;

/**
 * Reads the RFC's layout. Properties that the layout does not have are ignored; nodes that it does not have are refused.
 *
 * Memory beyond the tables that it returns (24 bytes for each area of at least 76): the input once, and 256 KiB.
 *
 * @throws StateError when it is not a flattened device tree, or not in the RFC's layout, or areas overlap.
 */
export function importRfc(bytes: Uint8Array): RfcState {
  return withCodec(codec => {
    openBlob(codec, bytes);
    const { core, free, staging, stagingSize } = codec;
    const iommufds: { id: number; ioases: { id: number; mappings: AreaTable }[] }[] = [];
    // What began last, and where it is.
    let ioases: (typeof iommufds)[number]['ioases'] = [];
    let areas = new AreaTable();
    let path = '/iommufds';
    let pathOfIoases = path;
    const paths = new Set<string>();
    core.codecRfcBegin();
    for (;;) {
      const event = core.codecRfcNext(staging, Math.floor(stagingSize / ROW));
      if (event === -NO_MEMORY) codec.exhausted();
      if (event < 0) {
        const offset = (core.codecFault() >>> 0) - free;
        throw new StateError(StateErrorCode.Damaged, { path, offset }, reasonOf(-event));
      }
      if (event === Event.Done) break;
      if (event === Event.Rows) {
        areas.decodedRows(codec.bytes.subarray(staging, staging + core.codecRfcRows() * ROW));
        if (!core.codecRfcInOrder()) areas.inOrder = false;
        continue;
      }
      const id = core.codecRfcId() >>> 0;
      if (event === Event.Iommufd) {
        path = `/iommufds/${id}`;
        pathOfIoases = `${path}/ioases`;
        ioases = [];
        iommufds.push({ id, ioases });
      } else {
        path = `${pathOfIoases}/${id}`;
        areas = new AreaTable();
        ioases.push({ id, mappings: areas });
      }
      if (paths.has(path)) {
        throw new StateError(StateErrorCode.Damaged, { path }, 'there is a second node of that name');
      }
      paths.add(path);
      if (paths.size > MAX_ENTRIES) {
        const reason = `it has more than ${MAX_ENTRIES} iommufds and IOASes`;
        throw new StateError(StateErrorCode.Damaged, { path }, reason);
      }
    }
    for (const { id, ioases } of iommufds) {
      for (const ioas of ioases) {
        if (ioas.mappings.inOrder) continue;
        ioas.mappings = sorted(ioas.mappings, `/iommufds/${id}/ioases/${ioas.id}`);
      }
    }
    return { iommufds };
  });
}

/** Areas whose nodes came in another order, as libfdt adds nodes and dtc sorts them: now by IOVA. */
function sorted(areas: AreaTable, path: string): AreaTable {
  const names = areas.decodedNames().sort();
  for (let index = 1; index < names.length; index++) {
    if (names[index] === names[index - 1]) {
      throw new StateError(
        StateErrorCode.Damaged,
        { path: `${path}/${names[index]}` },
        'there is a second node of that name',
      );
    }
  }
  const order = [...areas].sort(by(({ iova }) => iova));
  const table = new AreaTable(areas.length);
  let end = 0n;
  for (const area of order) {
    if (area.iova < end) {
      throw new StateError(StateErrorCode.Invalid, { path }, `areas overlap at IOVA ${hex(area.iova)}`);
    }
    table.push(area);
    end = area.iova + area.length;
  }
  return table;
}
