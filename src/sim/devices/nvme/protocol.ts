/**
 * Numbers of the NVMe interface that the simulated controller uses (NVM Express Base Specification 2.0, NVM Command
 * Set Specification 1.0).
 *
 * @module
 */

/** Offsets in BAR 0, in bytes. */
export const Register = {
  CAP: 0x00,
  VS: 0x08,
  INTMS: 0x0c,
  INTMC: 0x10,
  CC: 0x14,
  CSTS: 0x1c,
  AQA: 0x24,
  ASQ: 0x28,
  ACQ: 0x30,
  CMBLOC: 0x38,
  CMBSZ: 0x3c,
  CMBMSC: 0x50,
  DOORBELLS: 0x1000,
} as const;

/** Bits of CSTS. */
export const Csts = { READY: 1, FATAL: 2, SHUTDOWN_MASK: 3 << 2, SHUTDOWN_COMPLETE: 2 << 2 } as const;

/** Values of CC.CSS, the selected command sets. */
export const CommandSets = { NVM: 0, ALL: 6, ADMIN_ONLY: 7 } as const;

export const AdminOpcode = {
  DELETE_SQ: 0x00,
  CREATE_SQ: 0x01,
  GET_LOG_PAGE: 0x02,
  DELETE_CQ: 0x04,
  CREATE_CQ: 0x05,
  IDENTIFY: 0x06,
  ABORT: 0x08,
  SET_FEATURES: 0x09,
  GET_FEATURES: 0x0a,
  ASYNC_EVENT: 0x0c,
  NAMESPACE_ATTACHMENT: 0x15,
  VIRTUALIZATION_MANAGEMENT: 0x1c,
  DOORBELL_BUFFER: 0x7c,
  FORMAT: 0x80,
} as const;

export const IoOpcode = {
  FLUSH: 0x00,
  WRITE: 0x01,
  READ: 0x02,
  COMPARE: 0x05,
  WRITE_ZEROES: 0x08,
  DATASET_MANAGEMENT: 0x09,
  VERIFY: 0x0c,
  COPY: 0x19,
} as const;

/** Do Not Retry. */
export const DNR = 0x4000;

/** Status field of a completion, without the phase tag: status code, status code type from bit 8, {@link DNR}. */
export const Status = {
  SUCCESS: 0x0000,
  INVALID_OPCODE: 0x0001,
  INVALID_FIELD: 0x0002,
  DATA_TRANSFER_ERROR: 0x0004,
  INTERNAL_ERROR: 0x0006,
  ABORT_REQUESTED: 0x0007,
  ABORTED_SQ_DELETION: 0x0008,
  INVALID_NAMESPACE: 0x000b,
  SEQUENCE_ERROR: 0x000c,
  INVALID_SGL_SEGMENT: 0x000d,
  INVALID_SGL_COUNT: 0x000e,
  SGL_LENGTH_INVALID: 0x000f,
  SGL_TYPE_INVALID: 0x0011,
  INVALID_USE_OF_CMB: 0x0012,
  INVALID_PRP_OFFSET: 0x0013,
  COMMAND_SET_COMBINATION_REJECTED: 0x002b,
  LBA_OUT_OF_RANGE: 0x0080,
  INVALID_CQ: 0x0100,
  INVALID_QUEUE_ID: 0x0101,
  INVALID_QUEUE_SIZE: 0x0102,
  ASYNC_EVENT_LIMIT: 0x0105,
  INVALID_VECTOR: 0x0108,
  INVALID_FORMAT: 0x010a,
  INVALID_QUEUE_DELETION: 0x010c,
  FEATURE_NOT_SAVEABLE: 0x010d,
  FEATURE_NOT_CHANGEABLE: 0x010e,
  FEATURE_NOT_NAMESPACE_SPECIFIC: 0x010f,
  SIZE_LIMIT_EXCEEDED: 0x0183,
  WRITE_FAULT: 0x0280,
  UNRECOVERED_READ: 0x0281,
  COMPARE_FAILURE: 0x0285,
  DEALLOCATED_BLOCK: 0x0287,
} as const;

/** In bytes; what Identify and some log pages return. */
export const STRUCTURE_BYTES = 4096;
export const SQ_ENTRY = 64;
export const CQ_ENTRY = 16;
/** All namespaces. */
export const BROADCAST = 0xffff_ffff;
/** Namespaces that a controller can have. */
export const MAX_NAMESPACES = 256;
/** Queues have at most this many entries. */
export const MAX_QUEUE_ENTRIES = 2048;
/** Event requests that can be outstanding. */
export const MAX_EVENT_REQUESTS = 4;

/** A namespace id that some controller could have; whether this one has it is another question. */
export function validNamespaceId(id: number): boolean {
  return id !== 0 && (id === BROADCAST || id <= MAX_NAMESPACES);
}
