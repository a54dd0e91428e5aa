/**
 * NVMe commands: opcodes and the 64-byte submission queue entry, as 16 dwords (Base Specification 2.0, 3.3.3.1).
 * Dword 0's command identifier and the data pointer (dwords 6 to 9) belong to the queue that submits.
 *
 * @module
 */
import { checkInteger } from '../../check.js';

export const AdminOpcode = {
  DeleteIoSubmissionQueue: 0x00,
  CreateIoSubmissionQueue: 0x01,
  GetLogPage: 0x02,
  DeleteIoCompletionQueue: 0x04,
  CreateIoCompletionQueue: 0x05,
  Identify: 0x06,
  Abort: 0x08,
  SetFeatures: 0x09,
  GetFeatures: 0x0a,
  AsynchronousEventRequest: 0x0c,
} as const;

export const NvmOpcode = {
  Flush: 0x00,
  Write: 0x01,
  Read: 0x02,
  WriteZeroes: 0x08,
  DatasetManagement: 0x09,
} as const;

export const FeatureId = {
  TemperatureThreshold: 0x04,
  NumberOfQueues: 0x07,
  AsynchronousEventConfiguration: 0x0b,
} as const;

export const LogPage = {
  ErrorInformation: 0x01,
  Smart: 0x02,
  FirmwareSlot: 0x03,
  ChangedNamespaceList: 0x04,
} as const;

/** CNS values of Identify. */
export const IdentifyTarget = {
  Namespace: 0x00,
  Controller: 0x01,
  ActiveNamespaces: 0x02,
} as const;

/** What a command needs beyond its data buffer. */
export interface Command {
  readonly opcode: number;
  readonly namespaceId?: number;
  readonly cdw10?: number;
  readonly cdw11?: number;
  readonly cdw12?: number;
  readonly cdw13?: number;
}

/** @throws TypeError, RangeError for a field that does not fit */
export function checkCommand(command: Command): void {
  const { opcode, ...dwords } = command;
  checkInteger('opcode', opcode, 0, 0xff);
  for (const [name, value] of Object.entries(dwords)) checkInteger(name, value, 0, 0xffff_ffff);
}

/** Number of dwords in a submission queue entry. */
export const ENTRY_DWORDS = 16;

/** Writes `command` with `id` to a submission queue entry; the data pointer is left zero. */
export function encodeCommand(entries: Uint32Array, slot: number, id: number, command: Command): void {
  const at = slot * ENTRY_DWORDS;
  entries.fill(0, at, at + ENTRY_DWORDS);
  entries[at] = command.opcode | (id << 16);
  entries[at + 1] = command.namespaceId ?? 0;
  entries[at + 10] = command.cdw10 ?? 0;
  entries[at + 11] = command.cdw11 ?? 0;
  entries[at + 12] = command.cdw12 ?? 0;
  entries[at + 13] = command.cdw13 ?? 0;
}
