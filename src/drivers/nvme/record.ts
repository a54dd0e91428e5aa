/**
 * The driver's record in a saved state: where its queues are and what the controller said of itself, so that a successor
 * sends no admin command. What changes with every command is in the journals of the queues.
 *
 *     state                    nvme-v1     capabilities: CAP  admin-arena io-arena bounce-arena: tokens, the last once it is
 *                                          made  identify-buffer: offset in the admin arena  max-transfer  bounce-size
 *                                          command-timeout abort-timeout: ms  interrupt-kind interrupt-vectors
 *                                          identity: Identify data of the controller
 *       queue-<id>                         entries vector  submission completion lists journal: offsets, of queue 0 in the
 *                                          admin arena, of the others in that for I/O
 *       namespace-<id>                     identity: Identify data
 *
 * @module
 */
import type { DriverRecord } from '../../keepalive/keepable-driver.js';
import type { FdtNode } from '../../keepalive/state/fdt.js';
import { FdtValue } from '../../keepalive/state/fdt-value.js';
import { StateError, StateErrorCode } from '../../keepalive/state/state-error.js';
import { DEVICE_PAGE } from '../../memory/device-pages.js';
import { InterruptKind } from '../../vfio/interrupts.js';
import {
  type ControllerIdentity,
  decodeController,
  decodeNamespace,
  IDENTIFY_BYTES,
  type NamespaceIdentity,
} from './identify.js';
import { type QueueLayout, queueSizes } from './queue-pair.js';
import { type ControllerCapabilities, decodeCapabilities } from './registers.js';

export const COMPATIBLE = 'nvme-v1';

const MAX_QUEUES = 65536;
const MAX_ENTRIES = 65536;
const MAX_VECTORS = 2048;
/** AQA has 12 bits for each queue. */
const MAX_ADMIN_ENTRIES = 4096;
/** In bytes. */
const MIN_BLOCK = 512;
const MAX_BLOCK = 2 ** 30;

const interruptKinds = {
  intx: InterruptKind.Intx,
  msi: InterruptKind.Msi,
  msix: InterruptKind.Msix,
} as const;

/** An Identify data structure as the controller returned it. */
export type IdentifyData = Uint8Array;

export interface QueueRecord {
  readonly id: number;
  readonly entries: number;
  readonly vector: number;
  readonly layout: QueueLayout;
}

/** The record, taken apart. */
export interface NvmeRecord {
  /** The register CAP. */
  readonly capabilities: bigint;
  readonly adminArena: bigint;
  readonly ioArena: bigint;
  readonly bounceArena: bigint | undefined;
  /** Offset in the admin arena. */
  readonly identifyBuffer: number;
  readonly maxTransfer: number;
  readonly bounceSize: number;
  readonly commandTimeout: number;
  readonly abortTimeout: number;
  readonly interruptKind: InterruptKind;
  readonly vectors: number;
  readonly identity: IdentifyData;
  /** Queue 0 first, all up to the last. */
  readonly queues: readonly QueueRecord[];
  readonly namespaces: ReadonlyMap<number, IdentifyData>;
}

/** {@link NvmeRecord}, with what its bytes mean. */
export interface DecodedRecord extends NvmeRecord {
  readonly decodedCapabilities: ControllerCapabilities;
  readonly controller: ControllerIdentity;
  readonly decodedNamespaces: readonly NamespaceIdentity[];
}

export function encodeRecord(record: NvmeRecord): DriverRecord {
  const { u32, u64, string } = FdtValue;
  const [kindName] = Object.entries(interruptKinds).find(([, kind]) => kind === record.interruptKind) as [
    string,
    InterruptKind,
  ];
  const properties = new Map<string, Uint8Array>([
    ['capabilities', u64(record.capabilities)],
    ['admin-arena', u64(record.adminArena)],
    ['io-arena', u64(record.ioArena)],
    ...(record.bounceArena === undefined ? [] : [['bounce-arena', u64(record.bounceArena)] as const]),
    ['identify-buffer', u64(record.identifyBuffer)],
    ['max-transfer', u64(record.maxTransfer)],
    ['bounce-size', u64(record.bounceSize)],
    ['command-timeout', u64(record.commandTimeout)],
    ['abort-timeout', u64(record.abortTimeout)],
    ['interrupt-kind', string(kindName)],
    ['interrupt-vectors', u32(record.vectors)],
    ['identity', record.identity],
  ]);
  const queues = record.queues.map(
    ({ id, entries, vector, layout }): FdtNode => ({
      name: `queue-${id}`,
      properties: new Map([
        ['entries', u32(entries)],
        ['vector', u32(vector)],
        ...Object.entries(layout).map(([piece, offset]) => [piece, u64(offset)] as const),
      ]),
      children: [],
    }),
  );
  const namespaces = Array.from(
    record.namespaces,
    ([id, identity]): FdtNode => ({
      name: `namespace-${id}`,
      properties: new Map([['identity', identity]]),
      children: [],
    }),
  );
  return { compatible: COMPATIBLE, properties, children: [...queues, ...namespaces] };
}

/** Takes properties out of a node, and knows what is left. */
class Properties {
  readonly #path: string;
  readonly #left: Map<string, Uint8Array>;

  constructor(path: string, properties: ReadonlyMap<string, Uint8Array>) {
    this.#path = path;
    this.#left = new Map(properties);
  }

  invalid(property: string, reason: string): never {
    throw new StateError(StateErrorCode.Invalid, { path: this.#path, property }, reason);
  }

  #take<T>(name: string, read: (bytes: Uint8Array) => T | undefined, expected: string): T {
    const bytes = this.#left.get(name) ?? this.invalid(name, 'the record must have it, and has not');
    this.#left.delete(name);
    return read(bytes) ?? this.invalid(name, `it must be ${expected}`);
  }

  has(name: string): boolean {
    return this.#left.has(name);
  }

  u64(name: string): bigint {
    return this.#take(name, FdtValue.readU64, 'two cells');
  }

  /** Two cells. */
  number(name: string, minimum: number, maximum: number): number {
    return this.#within(name, this.u64(name), minimum, maximum);
  }

  u32(name: string, minimum: number, maximum: number): number {
    return this.#within(name, BigInt(this.#take(name, FdtValue.readU32, 'one cell')), minimum, maximum);
  }

  #within(name: string, value: bigint, minimum: number, maximum: number): number {
    if (value >= BigInt(minimum) && value <= BigInt(maximum)) return Number(value);
    return this.invalid(name, `it must be from ${minimum} to ${maximum}, and is ${value}`);
  }

  /** In bytes, a multiple of a page. */
  pages(name: string, minimum: number, maximum: number): number {
    const value = this.number(name, minimum, maximum);
    return value % DEVICE_PAGE === 0
      ? value
      : this.invalid(name, `it must be a multiple of ${DEVICE_PAGE}, and is ${value}`);
  }

  string(name: string): string {
    return this.#take(name, FdtValue.readString, 'one string');
  }

  identifyData(name: string): IdentifyData {
    const read = (bytes: Uint8Array) => (bytes.length === IDENTIFY_BYTES ? bytes : undefined);
    return this.#take(name, read, `${IDENTIFY_BYTES} bytes`);
  }

  end(): void {
    for (const property of this.#left.keys()) {
      const reason = `a record ${COMPATIBLE} has no such property`;
      throw new StateError(StateErrorCode.Unsupported, { path: this.#path, property }, reason);
    }
  }
}

/**
 * Takes a record apart, and checks all that can be checked without memory and device.
 *
 * @param path of the record in the state
 * @throws StateError
 */
export function decodeRecord(record: DriverRecord, path: string): DecodedRecord {
  if (record.compatible !== COMPATIBLE) {
    const reason = `it must be a record ${COMPATIBLE}, and is ${JSON.stringify(record.compatible)}`;
    throw new StateError(StateErrorCode.Unsupported, { path, property: 'compatible' }, reason);
  }
  const root = new Properties(path, record.properties);
  const capabilities = root.u64('capabilities');
  const decodedCapabilities = decodeCapabilities(
    Number(capabilities & 0xffff_ffffn),
    Number(capabilities >> 32n),
  );
  const adminArena = root.u64('admin-arena');
  const ioArena = root.u64('io-arena');
  if (ioArena === adminArena) root.invalid('io-arena', 'it must not be the admin arena');
  const bounceArena = root.has('bounce-arena') ? root.u64('bounce-arena') : undefined;
  if (bounceArena === adminArena || bounceArena === ioArena) {
    root.invalid('bounce-arena', 'it must not be the arena of queues');
  }
  const identifyBuffer = root.pages('identify-buffer', 0, Number.MAX_SAFE_INTEGER);
  const maxTransfer = root.pages('max-transfer', DEVICE_PAGE, Number.MAX_SAFE_INTEGER);
  const bounceSize = root.pages('bounce-size', DEVICE_PAGE, Number.MAX_SAFE_INTEGER);
  const commandTimeout = root.number('command-timeout', 1, Number.MAX_SAFE_INTEGER);
  const abortTimeout = root.number('abort-timeout', 1, Number.MAX_SAFE_INTEGER);
  const kindName = root.string('interrupt-kind');
  const interruptKind = new Map<string, InterruptKind>(Object.entries(interruptKinds)).get(kindName);
  if (interruptKind === undefined) {
    const names = Object.keys(interruptKinds).join(', ');
    root.invalid('interrupt-kind', `it must be one of ${names}, and is ${JSON.stringify(kindName)}`);
  }
  const most = interruptKind === InterruptKind.Intx ? 1 : MAX_VECTORS;
  const vectors = root.u32('interrupt-vectors', 1, most);
  const identity = root.identifyData('identity');
  const controller = decodeController(identity, decodedCapabilities.minPageSize);
  if (controller.maxTransfer !== undefined && maxTransfer > controller.maxTransfer) {
    root.invalid('max-transfer', `the controller transfers at most ${controller.maxTransfer} bytes`);
  }
  root.end();

  const queues: QueueRecord[] = [];
  const namespaces = new Map<number, IdentifyData>();
  const decodedNamespaces: NamespaceIdentity[] = [];
  const names = new Set<string>();
  for (const node of record.children) {
    const nodePath = `${path}/${node.name}`;
    const refuse = (code: StateErrorCode, reason: string): never => {
      throw new StateError(code, { path: nodePath }, reason);
    };
    const [, type, digits] = /^(queue|namespace)-(0|[1-9][0-9]{0,9})$/.exec(node.name) ?? [];
    if (type === undefined || node.children.length > 0) {
      refuse(StateErrorCode.Unsupported, `a record ${COMPATIBLE} has no such node`);
    }
    if (names.has(node.name)) refuse(StateErrorCode.Invalid, 'there is a second node of that name');
    names.add(node.name);
    const reader = new Properties(nodePath, node.properties);
    const id = Number(digits);
    if (type === 'queue') {
      const limit = id === 0 ? MAX_ADMIN_ENTRIES : MAX_ENTRIES;
      const highest = Math.min(limit, decodedCapabilities.maxQueueEntries);
      const offset = (piece: string): number => reader.pages(piece, 0, Number.MAX_SAFE_INTEGER);
      queues.push({
        id,
        entries: reader.u32('entries', 2, highest),
        vector: reader.u32('vector', 0, vectors - 1),
        layout: {
          submission: offset('submission'),
          completion: offset('completion'),
          lists: offset('lists'),
          journal: offset('journal'),
        },
      });
    } else {
      if (id === 0 || id >= 0xffff_ffff) refuse(StateErrorCode.Invalid, 'that is no id of a namespace');
      const data = reader.identifyData('identity');
      const namespace = decodeNamespace(data, id);
      if (namespace.blockSize < MIN_BLOCK || namespace.blockSize > MAX_BLOCK) {
        reader.invalid('identity', `blocks of ${namespace.blockSize} bytes are not supported`);
      }
      namespaces.set(id, data);
      decodedNamespaces.push(namespace);
    }
    reader.end();
  }
  queues.sort((a, b) => a.id - b.id);
  const gap = queues.findIndex(({ id }, index) => id !== index);
  if (gap >= 0 || queues.length < 2 || queues.length > MAX_QUEUES) {
    const missing = gap >= 0 ? gap : queues.length;
    throw new StateError(StateErrorCode.Invalid, { path }, `it has no queue ${missing}, which it must have`);
  }
  return {
    capabilities,
    adminArena,
    ioArena,
    bounceArena,
    identifyBuffer,
    maxTransfer,
    bounceSize,
    commandTimeout,
    abortTimeout,
    interruptKind: interruptKind as InterruptKind,
    vectors,
    identity,
    queues,
    namespaces,
    decodedCapabilities,
    controller,
    decodedNamespaces,
  };
}

/** A part of an arena that the record claims. */
interface Piece {
  readonly path: string;
  readonly property: string;
  readonly offset: number;
  readonly size: number;
}

/** Largest transfer by which the lists of a queue are measured, in bytes. */
export function transferOf(record: NvmeRecord, queue: QueueRecord): number {
  return queue.id === 0 ? IDENTIFY_BYTES : record.maxTransfer;
}

/**
 * That everything is where memory is, and nothing where something else is.
 *
 * @param size of an arena, in bytes, by its token
 * @throws StateError
 */
export function checkPlaces(record: DecodedRecord, path: string, size: (token: bigint) => number): void {
  const inArena = (queue: QueueRecord): Piece[] => {
    const sizes = queueSizes(queue.entries, transferOf(record, queue));
    return Object.entries(queue.layout).map(([property, offset]) => ({
      path: `${path}/queue-${queue.id}`,
      property,
      offset,
      size: sizes[property as keyof QueueLayout],
    }));
  };
  const [admin, ...io] = record.queues as [QueueRecord, ...QueueRecord[]];
  const identify = { path, property: 'identify-buffer', offset: record.identifyBuffer, size: IDENTIFY_BYTES };
  checkPieces([...inArena(admin), identify], size(record.adminArena));
  checkPieces(io.flatMap(inArena), size(record.ioArena));
}

function checkPieces(pieces: Piece[], arenaSize: number): void {
  let end = 0;
  for (const { path, property, offset, size } of pieces.sort((a, b) => a.offset - b.offset)) {
    const refuse = (reason: string): never => {
      throw new StateError(StateErrorCode.Invalid, { path, property }, reason);
    };
    if (offset + size > arenaSize) {
      refuse(`${size} bytes at ${offset} reach beyond the end of the arena, ${arenaSize}`);
    }
    if (offset < end) refuse(`${size} bytes at ${offset} overlap with others`);
    end = offset + size;
  }
}
