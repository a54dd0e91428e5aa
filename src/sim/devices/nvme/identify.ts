/**
 * The Identify data structures, with what QEMU's controller says in them (Base Specification 2.0, 5.17).
 *
 * @module
 */
import type { Controller } from './controller.js';
import { TEMPERATURE_CRITICAL, TEMPERATURE_WARNING } from './features.js';
import { BLOCK_FORMATS, type NvmeNamespaceModel } from './namespace.js';
import {
  BROADCAST,
  DNR,
  MAX_EVENT_REQUESTS,
  MAX_NAMESPACES,
  STRUCTURE_BYTES,
  Status,
  validNamespaceId,
} from './protocol.js';
import type { Request } from './request.js';

export const VENDOR_ID = 0x1b36;
export const SUBSYSTEM_VENDOR_ID = 0x1af4;
/** 1.4.0 */
export const VERSION = 0x0001_0400;
/** Abort commands at a time, less one. */
const ABORT_LIMIT = 3;
/** The firmware has one slot, which cannot be written. */
const FIRMWARE_SLOTS = (1 << 1) | 1;
/** Verify: at most 2^7 pages. */
export const VERIFY_SIZE_LIMIT = 7;
/** Copy: blocks of a range, and ranges of a command. */
export const COPY_RANGE_BLOCKS = 128;
export const COPY_RANGES = 128;
/** What QEMU's block layer takes at a time, in bytes. */
const MAX_REQUEST_BYTES = 0x7fff_fe00;
const COMMAND_SET_NVM = 0;
const COMMAND_SET_ZONED = 2;

/** CNS: what is asked for. */
const Target = {
  NAMESPACE: 0x00,
  CONTROLLER: 0x01,
  ACTIVE_NAMESPACES: 0x02,
  DESCRIPTORS: 0x03,
  SET_NAMESPACE: 0x05,
  SET_CONTROLLER: 0x06,
  SET_ACTIVE_NAMESPACES: 0x07,
  ALLOCATED_NAMESPACES: 0x10,
  ALLOCATED_NAMESPACE: 0x11,
  PRIMARY_CONTROLLER: 0x14,
  SECONDARY_CONTROLLERS: 0x15,
  SET_ALLOCATED_NAMESPACES: 0x1a,
  SET_ALLOCATED_NAMESPACE: 0x1b,
  COMMAND_SETS: 0x1c,
} as const;

/** Blocks of one range of Dataset Management; larger ones are passed over. */
export function deallocateLimit(controller: Controller): number {
  const limits = controller.namespaces.map(({ blockSize }) => Math.floor(MAX_REQUEST_BYTES / blockSize));
  return Math.min(...limits, 0xffff_ffff);
}

/** @returns the structure asked for, or a status */
export function identify(controller: Controller, request: Request): Uint8Array | number {
  const nsid = request.namespaceId;
  const commandSet = request.dword(11) >>> 24;
  switch (request.dword(10) & 0xff) {
    case Target.NAMESPACE:
    case Target.ALLOCATED_NAMESPACE:
      return ofNamespace(controller, nsid, describeNamespace);
    case Target.CONTROLLER:
      return describeController(controller);
    case Target.ACTIVE_NAMESPACES:
    case Target.ALLOCATED_NAMESPACES:
      return listNamespaces(controller, nsid, COMMAND_SET_NVM);
    case Target.DESCRIPTORS:
      return describeIdentifiers(controller, nsid);
    case Target.SET_NAMESPACE:
    case Target.SET_ALLOCATED_NAMESPACE:
      return ofNamespace(controller, nsid, () =>
        commandSet === COMMAND_SET_NVM ? structure() : Status.INVALID_FIELD | DNR,
      );
    case Target.SET_CONTROLLER:
      return describeLimits(controller, commandSet);
    case Target.SET_ACTIVE_NAMESPACES:
    case Target.SET_ALLOCATED_NAMESPACES:
      return listNamespaces(controller, nsid, commandSet);
    case Target.PRIMARY_CONTROLLER:
      return describeResources(controller);
    case Target.SECONDARY_CONTROLLERS:
      return structure();
    case Target.COMMAND_SETS: {
      const bytes = structure();
      bytes[0] = (1 << COMMAND_SET_NVM) | (1 << COMMAND_SET_ZONED);
      return bytes;
    }
    default:
      return Status.INVALID_FIELD | DNR;
  }
}

function structure(): Uint8Array {
  return new Uint8Array(STRUCTURE_BYTES);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Text padded with spaces. */
export function text(bytes: Uint8Array, offset: number, length: number, value: string): void {
  bytes.set(Buffer.from(value.padEnd(length).slice(0, length), 'latin1'), offset);
}

/** A namespace that could exist and does not is described by zeroes. */
function ofNamespace(
  controller: Controller,
  nsid: number,
  describe: (namespace: NvmeNamespaceModel) => Uint8Array | number,
): Uint8Array | number {
  if (!validNamespaceId(nsid) || nsid === BROADCAST) return Status.INVALID_NAMESPACE | DNR;
  const namespace = controller.namespace(nsid);
  return namespace === undefined ? structure() : describe(namespace);
}

function describeController({ options }: Controller): Uint8Array {
  const bytes = structure();
  const view = viewOf(bytes);
  view.setUint16(0, VENDOR_ID, true);
  view.setUint16(2, SUBSYSTEM_VENDOR_ID, true);
  text(bytes, 4, 20, options.serial);
  text(bytes, 24, 40, 'QEMU NVMe Ctrl');
  text(bytes, 64, 8, options.firmware);
  bytes[72] = 6; // arbitration burst
  bytes.set([0x00, 0x54, 0x52], 73); // IEEE OUI
  bytes[77] = options.mdts;
  view.setUint32(80, VERSION, true);
  view.setUint32(92, 1 << 8, true); // OAES: namespace attributes
  view.setUint32(96, 1 << 15, true); // CTRATT: extended LBA formats
  bytes[111] = 1; // an I/O controller
  view.setUint16(256, (1 << 1) | (1 << 3) | (1 << 8), true); // OACS: format, namespaces, doorbell buffers
  bytes[258] = ABORT_LIMIT;
  bytes[259] = MAX_EVENT_REQUESTS - 1;
  bytes[260] = FIRMWARE_SLOTS;
  bytes[261] = 0x7; // LPA: SMART by namespace, command effects, extended data
  view.setUint16(266, TEMPERATURE_WARNING, true);
  view.setUint16(268, TEMPERATURE_CRITICAL, true);
  bytes[512] = 0x66; // submission queue entries of 2^6 bytes
  bytes[513] = 0x44; // completion queue entries of 2^4 bytes
  view.setUint32(516, MAX_NAMESPACES, true);
  // ONCS: compare, deallocate, write zeroes, features, timestamp, copy
  view.setUint16(520, 0x15d, true);
  bytes[525] = 0x7; // VWC: there is one, and flush takes all namespaces
  view.setUint16(534, 0x3, true); // copy descriptor formats 0 and 1
  view.setUint32(536, 1, true); // SGLs, of any alignment
  bytes.set(Buffer.from(`nqn.2019-08.org.qemu:${options.serial}`, 'latin1'), 768);
  view.setUint16(2048, 0x9c4, true); // power state 0
  view.setUint32(2052, 0x10, true);
  view.setUint32(2056, 0x4, true);
  return bytes;
}

function describeNamespace(namespace: NvmeNamespaceModel): Uint8Array {
  const bytes = structure();
  const view = viewOf(bytes);
  const blocks = BigInt(namespace.blocks);
  for (const offset of [0, 8, 16]) view.setBigUint64(offset, blocks, true);
  bytes[24] = (1 << 2) | (1 << 4); // NSFEAT: deallocated blocks can be an error, preferred sizes
  bytes[25] = BLOCK_FORMATS.length - 1;
  bytes[26] = namespace.format;
  bytes[27] = 0x3; // metadata either way
  bytes[28] = 0x1f; // protection information of every kind
  bytes[33] = 1; // deallocated blocks read as zeroes
  const granularity = Math.max(namespace.blockSize, 4096) / namespace.blockSize - 1;
  view.setUint16(68, granularity, true); // NPDG
  view.setUint16(70, granularity, true); // NPDA
  view.setUint16(74, COPY_RANGE_BLOCKS, true);
  view.setUint32(76, COPY_RANGE_BLOCKS, true);
  bytes[80] = COPY_RANGES - 1;
  for (const [index, { shift, metadata }] of BLOCK_FORMATS.entries()) {
    view.setUint32(128 + 4 * index, (shift << 16) | metadata, true);
  }
  return bytes;
}

/** The namespaces above `after`, in ascending order. */
function listNamespaces(controller: Controller, after: number, commandSet: number): Uint8Array | number {
  if (after >= BROADCAST - 1) return Status.INVALID_NAMESPACE | DNR;
  if (commandSet !== COMMAND_SET_NVM && commandSet !== COMMAND_SET_ZONED) return Status.INVALID_FIELD | DNR;
  const bytes = structure();
  if (commandSet === COMMAND_SET_ZONED) return bytes;
  const view = viewOf(bytes);
  const ids = controller.namespaces.map(({ id }) => id).filter(id => id > after);
  for (const [index, id] of ids.sort((a, b) => a - b).entries()) view.setUint32(index * 4, id, true);
  return bytes;
}

/** The only identifier there is: the command set. */
function describeIdentifiers(controller: Controller, nsid: number): Uint8Array | number {
  if (!validNamespaceId(nsid) || nsid === BROADCAST) return Status.INVALID_NAMESPACE | DNR;
  if (controller.namespace(nsid) === undefined) return Status.INVALID_FIELD | DNR;
  const bytes = structure();
  bytes.set([4, 1, 0, 0, COMMAND_SET_NVM]);
  return bytes;
}

function describeLimits(controller: Controller, commandSet: number): Uint8Array | number {
  if (commandSet !== COMMAND_SET_NVM && commandSet !== COMMAND_SET_ZONED) return Status.INVALID_FIELD | DNR;
  const bytes = structure();
  if (commandSet === COMMAND_SET_ZONED) return bytes;
  bytes[0] = VERIFY_SIZE_LIMIT;
  viewOf(bytes).setUint32(4, deallocateLimit(controller), true);
  return bytes;
}

/** What a primary controller could give to secondary ones: nothing. */
function describeResources({ options }: Controller): Uint8Array {
  const bytes = structure();
  const view = viewOf(bytes);
  bytes[4] = 0x3; // queues and interrupts
  view.setUint16(42, options.maxQueues + 1, true);
  view.setUint16(46, 1, true);
  view.setUint16(74, options.msixVectors, true);
  view.setUint16(78, 1, true);
  return bytes;
}
