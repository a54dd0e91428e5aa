/** The Identify data structures (Base Specification 2.0, 5.17; NVM Command Set Specification 1.0, 4.1.5). @module */

/** Size of every Identify data structure, in bytes. */
export const IDENTIFY_BYTES = 4096;

/** What a controller says of itself. */
export interface ControllerIdentity {
  readonly vendorId: number;
  readonly serialNumber: string;
  readonly modelNumber: string;
  readonly firmwareRevision: string;
  readonly controllerId: number;
  /** Such as `1.4.0`. */
  readonly version: string;
  /** Largest transfer of one command in bytes; `undefined` when the controller sets no limit. */
  readonly maxTransfer: number | undefined;
  /** Abort commands it accepts at a time. */
  readonly abortLimit: number;
  /** Asynchronous Event Requests it accepts at a time. */
  readonly asyncEventLimit: number;
  /** Number of namespaces it can have. */
  readonly namespaceCount: number;
  /** Optional NVM commands. */
  readonly supports: {
    readonly datasetManagement: boolean;
    readonly writeZeroes: boolean;
    /** A write cache may be present: completed writes need a flush to be durable. */
    readonly volatileWriteCache: boolean;
  };
}

/** What a namespace says of itself. */
export interface NamespaceIdentity {
  readonly id: number;
  /** Logical block size in bytes. */
  readonly blockSize: number;
  /** Size in logical blocks. */
  readonly blocks: bigint;
  /** Logical blocks that can be allocated. */
  readonly capacity: bigint;
  /** Logical blocks in use. */
  readonly utilisation: bigint;
  /** Metadata bytes per block; such formats are not supported. */
  readonly metadataSize: number;
  /** Globally unique identifier, as 32 hexadecimal digits, when the namespace has one. */
  readonly nguid: string | undefined;
  /** IEEE extended unique identifier, as 16 hexadecimal digits, when the namespace has one. */
  readonly eui64: string | undefined;
}

function text(bytes: Uint8Array, from: number, to: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + from, to - from)
    .toString('latin1')
    .replace(/[\0 ]+$/, '');
}

function identifier(bytes: Uint8Array, from: number, to: number): string | undefined {
  const value = Buffer.from(bytes.buffer, bytes.byteOffset + from, to - from).toString('hex');
  return /^0*$/.test(value) ? undefined : value;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** @param minPageSize the unit of the transfer limit, in bytes (CAP.MPSMIN) */
export function decodeController(bytes: Uint8Array, minPageSize: number): ControllerIdentity {
  const view = viewOf(bytes);
  const version = view.getUint32(80, true);
  const mdts = view.getUint8(77);
  const optional = view.getUint16(520, true);
  return {
    vendorId: view.getUint16(0, true),
    serialNumber: text(bytes, 4, 24),
    modelNumber: text(bytes, 24, 64),
    firmwareRevision: text(bytes, 64, 72),
    controllerId: view.getUint16(78, true),
    version: `${version >>> 16}.${(version >>> 8) & 0xff}.${version & 0xff}`,
    maxTransfer: mdts === 0 ? undefined : minPageSize * 2 ** mdts,
    abortLimit: view.getUint8(258) + 1,
    asyncEventLimit: view.getUint8(259) + 1,
    namespaceCount: view.getUint32(516, true),
    supports: {
      datasetManagement: (optional & 4) !== 0,
      writeZeroes: (optional & 8) !== 0,
      volatileWriteCache: (view.getUint8(525) & 1) !== 0,
    },
  };
}

export function decodeNamespace(bytes: Uint8Array, id: number): NamespaceIdentity {
  const view = viewOf(bytes);
  const flbas = view.getUint8(26);
  // With more than 16 formats the index goes on in bits 6:5.
  const index = (flbas & 0xf) | (view.getUint8(25) > 15 ? (flbas >> 1) & 0x30 : 0);
  const format = view.getUint32(128 + 4 * index, true);
  return {
    id,
    blockSize: 2 ** ((format >>> 16) & 0xff),
    blocks: view.getBigUint64(0, true),
    capacity: view.getBigUint64(8, true),
    utilisation: view.getBigUint64(16, true),
    metadataSize: format & 0xffff,
    nguid: identifier(bytes, 104, 120),
    eui64: identifier(bytes, 120, 128),
  };
}

/** The ids in an active namespace list: ascending, ends at the first 0. */
export function decodeNamespaceList(bytes: Uint8Array): number[] {
  const view = viewOf(bytes);
  const ids: number[] = [];
  for (let offset = 0; offset < IDENTIFY_BYTES; offset += 4) {
    const id = view.getUint32(offset, true);
    if (id === 0) break;
    ids.push(id);
  }
  return ids;
}
