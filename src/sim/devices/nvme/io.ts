/** Commands for namespaces (NVM Command Set Specification 1.0). @module */
import type { Controller } from './controller.js';
import { PointerError } from './data-pointer.js';
import { COPY_RANGE_BLOCKS, COPY_RANGES, deallocateLimit, VERIFY_SIZE_LIMIT } from './identify.js';
import type { NvmeNamespaceModel } from './namespace.js';
import { BROADCAST, CommandSets, DNR, IoOpcode, Status, validNamespaceId } from './protocol.js';
import type { Request } from './request.js';

const OPCODES: readonly number[] = Object.values(IoOpcode);
/** Dataset Management: the ranges are no longer needed. */
const DEALLOCATE = 1 << 2;
const DATASET_RANGE = 16;
const COPY_RANGE = 32;
/** Error Recovery: reading a deallocated block is an error. */
const DEALLOCATED_IS_ERROR = 1 << 16;
/** Data is moved in pieces of this size, in bytes. */
const PIECE = 256 * 1024;
const piece = new Uint8Array(PIECE);

/** It counts against a limit of operations. */
export function isLimited(request: Request): boolean {
  return request.opcode !== IoOpcode.FLUSH;
}

/** @returns a status @throws PointerError */
export function executeIo(controller: Controller, request: Request): number {
  if (request.opcode === IoOpcode.FLUSH) return flush(controller, request);
  const nsid = request.namespaceId;
  if (!validNamespaceId(nsid)) return Status.INVALID_NAMESPACE | DNR;
  const namespace = controller.namespace(nsid);
  if (namespace === undefined) return Status.INVALID_FIELD | DNR;
  if (!OPCODES.includes(request.opcode) || controller.commandSets === CommandSets.ADMIN_ONLY) {
    return Status.INVALID_OPCODE | DNR;
  }
  if (request.fuse !== 0) return Status.INVALID_FIELD;
  switch (request.opcode) {
    case IoOpcode.READ:
    case IoOpcode.WRITE:
      return transfer(controller, namespace, request);
    case IoOpcode.WRITE_ZEROES:
      return writeZeroes(namespace, request);
    case IoOpcode.COMPARE:
      return compare(controller, namespace, request);
    case IoOpcode.VERIFY:
      return verify(controller, namespace, request);
    case IoOpcode.DATASET_MANAGEMENT:
      return manageDataset(controller, namespace, request);
    default:
      return copy(controller, namespace, request);
  }
}

function flush(controller: Controller, request: Request): number {
  const nsid = request.namespaceId;
  if (!validNamespaceId(nsid)) return Status.INVALID_NAMESPACE | DNR;
  const targets = controller.namespaces.filter(({ id }) => nsid === BROADCAST || id === nsid);
  if (targets.length === 0 && nsid !== BROADCAST) return Status.INVALID_FIELD | DNR;
  for (const { storage } of targets) if (!attempt(() => storage.flush())) return Status.WRITE_FAULT;
  return Status.SUCCESS;
}

/** Backing storage can fail: a full or broken disk. */
function attempt(action: () => void): boolean {
  try {
    action();
    return true;
  } catch (error) {
    if (error instanceof Error && 'syscall' in error) return false;
    throw error;
  }
}

function checkBounds(namespace: NvmeNamespaceModel, first: number, blocks: number): number {
  return first + blocks > namespace.blocks ? Status.LBA_OUT_OF_RANGE | DNR : Status.SUCCESS;
}

function checkAllocated(namespace: NvmeNamespaceModel, first: number, blocks: number): number {
  if (!(namespace.errorRecovery & DEALLOCATED_IS_ERROR)) return Status.SUCCESS;
  const { blockSize, storage } = namespace;
  return storage.allocated(first * blockSize, blocks * blockSize) ? Status.SUCCESS : Status.DEALLOCATED_BLOCK;
}

function transfer(controller: Controller, namespace: NvmeNamespaceModel, request: Request): number {
  const { firstBlock, blocks } = request;
  const { blockSize, counters, storage } = namespace;
  const length = blocks * blockSize;
  const reads = request.opcode === IoOpcode.READ;
  const wrong =
    controller.checkLength(length) ||
    checkBounds(namespace, firstBlock, blocks) ||
    (reads ? checkAllocated(namespace, firstBlock, blocks) : Status.SUCCESS);
  if (wrong) return wrong | DNR;
  const start = firstBlock * blockSize;
  try {
    const pointer = controller.pointer(request, length);
    const done = attempt(() =>
      pointer.pieces(PIECE, (address, at, bytes) => {
        const part = piece.subarray(0, bytes);
        if (reads) {
          storage.read(start + at, part);
          return controller.dma.write(address, part);
        }
        if (!controller.dma.read(address, part)) return false;
        storage.write(start + at, part);
        return true;
      }),
    );
    if (!done) return reads ? Status.UNRECOVERED_READ : Status.WRITE_FAULT;
  } catch (error) {
    // Nothing about the data pointer will be right the next time, QEMU says.
    if (error instanceof PointerError) return error.status | DNR;
    throw error;
  }
  if (reads) {
    counters.reads++;
    counters.bytesRead += length;
  } else {
    counters.writes++;
    counters.bytesWritten += length;
  }
  return Status.SUCCESS;
}

function writeZeroes(namespace: NvmeNamespaceModel, request: Request): number {
  const { firstBlock, blocks } = request;
  const { blockSize, storage } = namespace;
  const wrong = checkBounds(namespace, firstBlock, blocks);
  if (wrong) return wrong;
  const done = attempt(() => storage.clear(firstBlock * blockSize, blocks * blockSize));
  return done ? Status.SUCCESS : Status.WRITE_FAULT;
}

function compare(controller: Controller, namespace: NvmeNamespaceModel, request: Request): number {
  const { firstBlock, blocks } = request;
  const { blockSize, counters, storage } = namespace;
  const length = blocks * blockSize;
  const wrong =
    controller.checkLength(length) ||
    checkBounds(namespace, firstBlock, blocks) ||
    checkAllocated(namespace, firstBlock, blocks);
  if (wrong) return wrong;
  const theirs = new Uint8Array(length);
  controller.pointer(request, length).read(theirs);
  const ours = new Uint8Array(length);
  if (!attempt(() => storage.read(firstBlock * blockSize, ours))) return Status.UNRECOVERED_READ;
  counters.reads++;
  counters.bytesRead += length;
  return Buffer.compare(ours, theirs) === 0 ? Status.SUCCESS : Status.COMPARE_FAILURE;
}

function verify(controller: Controller, namespace: NvmeNamespaceModel, request: Request): number {
  const { firstBlock, blocks } = request;
  const { blockSize, counters, storage } = namespace;
  const length = blocks * blockSize;
  if (length > controller.pageSize * 2 ** VERIFY_SIZE_LIMIT) return Status.INVALID_FIELD | DNR;
  const wrong = checkBounds(namespace, firstBlock, blocks) || checkAllocated(namespace, firstBlock, blocks);
  if (wrong) return wrong;
  if (!attempt(() => storage.read(firstBlock * blockSize, new Uint8Array(length))))
    return Status.UNRECOVERED_READ;
  counters.reads++;
  counters.bytesRead += length;
  return Status.SUCCESS;
}

function manageDataset(controller: Controller, namespace: NvmeNamespaceModel, request: Request): number {
  // Hints of how data will be used are of no use here.
  if (!(request.dword(11) & DEALLOCATE)) return Status.SUCCESS;
  const count = (request.dword(10) & 0xff) + 1;
  const bytes = new Uint8Array(count * DATASET_RANGE);
  controller.pointer(request, bytes.length).read(bytes);
  const view = new DataView(bytes.buffer);
  const limit = deallocateLimit(controller);
  const { blockSize, storage } = namespace;
  for (let at = 0; at < bytes.length; at += DATASET_RANGE) {
    const blocks = view.getUint32(at + 4, true);
    const first = Number(view.getBigUint64(at + 8, true));
    // What cannot be deallocated is left as it is.
    if (blocks > limit || checkBounds(namespace, first, blocks)) continue;
    if (!attempt(() => storage.clear(first * blockSize, blocks * blockSize))) return Status.WRITE_FAULT;
  }
  return Status.SUCCESS;
}

function copy(controller: Controller, namespace: NvmeNamespaceModel, request: Request): number {
  const count = (request.dword(12) & 0xff) + 1;
  const format = (request.dword(12) >>> 8) & 0xf;
  if (format > 1) return Status.INVALID_FIELD | DNR;
  if (count > COPY_RANGES) return Status.SIZE_LIMIT_EXCEEDED | DNR;
  // Format 1 is for formats with other protection information.
  if (format === 1) return Status.INVALID_FORMAT | DNR;
  const bytes = new Uint8Array(count * COPY_RANGE);
  controller.pointer(request, bytes.length).read(bytes);
  const view = new DataView(bytes.buffer);
  const { blockSize, counters, storage } = namespace;
  let target = request.firstBlock;
  for (let index = 0; index < count; index++) {
    const first = Number(view.getBigUint64(index * COPY_RANGE + 8, true));
    const blocks = view.getUint16(index * COPY_RANGE + 16, true) + 1;
    const wrong =
      blocks > COPY_RANGE_BLOCKS ||
      checkBounds(namespace, first, blocks) ||
      checkBounds(namespace, target, blocks) ||
      checkAllocated(namespace, first, blocks);
    if (wrong) {
      // As many ranges as were copied before.
      request.result = index;
      return Status.INTERNAL_ERROR;
    }
    const data = new Uint8Array(blocks * blockSize);
    if (!attempt(() => storage.read(first * blockSize, data))) return Status.UNRECOVERED_READ;
    if (!attempt(() => storage.write(target * blockSize, data))) return Status.WRITE_FAULT;
    counters.reads++;
    counters.writes++;
    counters.bytesRead += data.length;
    counters.bytesWritten += data.length;
    target += blocks;
  }
  return Status.SUCCESS;
}
