/** NVMe completion status and the errors made of it (Base Specification 2.0, 3.3.3.2.1). @module */
import type { Command } from './command.js';

const genericStatus: Readonly<Record<number, string>> = {
  1: 'Invalid Command Opcode',
  2: 'Invalid Field in Command',
  3: 'Command ID Conflict',
  4: 'Data Transfer Error',
  5: 'Commands Aborted due to Power Loss Notification',
  6: 'Internal Error',
  7: 'Command Abort Requested',
  8: 'Command Aborted due to SQ Deletion',
  9: 'Command Aborted due to Failed Fused Command',
  10: 'Command Aborted due to Missing Fused Command',
  11: 'Invalid Namespace or Format',
  12: 'Command Sequence Error',
  13: 'Invalid SGL Segment Descriptor',
  14: 'Invalid Number of SGL Descriptors',
  15: 'Data SGL Length Invalid',
  16: 'Metadata SGL Length Invalid',
  17: 'SGL Descriptor Type Invalid',
  18: 'Invalid Use of Controller Memory Buffer',
  19: 'PRP Offset Invalid',
  20: 'Atomic Write Unit Exceeded',
  21: 'Operation Denied',
  22: 'SGL Offset Invalid',
  27: 'Command Aborted due to Preempt and Abort',
  28: 'Sanitize Failed',
  29: 'Sanitize In Progress',
  32: 'Namespace is Write Protected',
  33: 'Command Interrupted',
  34: 'Transient Transport Error',
  128: 'LBA Out of Range',
  129: 'Capacity Exceeded',
  130: 'Namespace Not Ready',
  131: 'Reservation Conflict',
  132: 'Format In Progress',
};

const commandStatus: Readonly<Record<number, string>> = {
  0: 'Completion Queue Invalid',
  1: 'Invalid Queue Identifier',
  2: 'Invalid Queue Size',
  3: 'Abort Command Limit Exceeded',
  5: 'Asynchronous Event Request Limit Exceeded',
  6: 'Invalid Firmware Slot',
  8: 'Invalid Interrupt Vector',
  9: 'Invalid Log Page',
  10: 'Invalid Format',
  12: 'Invalid Queue Deletion',
  13: 'Feature Identifier Not Saveable',
  14: 'Feature Not Changeable',
  15: 'Feature Not Namespace Specific',
  128: 'Conflicting Attributes',
  129: 'Invalid Protection Information',
  130: 'Attempted Write to Read Only Range',
};

const mediaStatus: Readonly<Record<number, string>> = {
  128: 'Write Fault',
  129: 'Unrecovered Read Error',
  130: 'End-to-end Guard Check Error',
  131: 'End-to-end Application Tag Check Error',
  132: 'End-to-end Reference Tag Check Error',
  133: 'Compare Failure',
  134: 'Access Denied',
  135: 'Deallocated or Unwritten Logical Block',
};

const statusTypes = ['generic', 'command specific', 'media', 'path'] as const;

function statusName(type: number, code: number): string {
  const table = type === 0 ? genericStatus : type === 1 ? commandStatus : type === 2 ? mediaStatus : {};
  return table[code] ?? 'unknown status';
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(2, '0')}`;
}

/** A command that the controller completed with an error status. */
export class NvmeError extends Error {
  override readonly name = 'NvmeError';
  /** Status Code Type: 0 generic, 1 command specific, 2 media and data integrity, 3 path. */
  readonly sct: number;
  /** Status Code. */
  readonly sc: number;
  /** Do Not Retry: the same command would fail again. */
  readonly dnr: boolean;
  readonly command: Command;

  /** @param status the 15-bit status field, without the phase bit */
  constructor(status: number, command: Command, device: string, queue: number) {
    const sc = status & 0xff;
    const sct = (status >>> 8) & 7;
    const dnr = (status & 0x4000) !== 0;
    const where = `${queue === 0 ? 'admin' : 'I/O'} command ${hex(command.opcode)}`;
    super(
      `${device}: ${where}: ${statusName(sct, sc)} (${statusTypes[sct] ?? 'vendor'} ${hex(sc)}${dnr ? ', do not retry' : ''})`,
    );
    this.sc = sc;
    this.sct = sct;
    this.dnr = dnr;
    this.command = command;
  }
}
