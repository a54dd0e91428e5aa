/**
 * From a command's data pointer to the memory it stands for: PRP entries and lists (Base Specification 2.0, 4.1.1) and
 * scatter-gather lists (4.1.2).
 *
 * @module
 */

import { DNR, Status } from './protocol.js';
import type { Request } from './request.js';

/** Memory as the controller reaches it. False when an access did not work. */
export interface DmaAccess {
  read(address: bigint, into: Uint8Array): boolean;
  write(address: bigint, from: Uint8Array): boolean;
  /** It is in the controller's own memory buffer. */
  isLocal(address: bigint): boolean;
  /** It is where the controller's registers are, which it does not reach itself. */
}

/** Pieces of memory that a transfer may have; QEMU's limit (IOV_MAX). */
const MAX_PIECES = 1024;
/** SGL descriptors that are read at a time. */
const CHUNK_DESCRIPTORS = 256;
const DESCRIPTOR = 16;
const MAX_ADDRESS = 2n ** 64n - 1n;

const SglType = { DATA_BLOCK: 0, SEGMENT: 2, LAST_SEGMENT: 3 } as const;

/** A failure to make sense of a data pointer: the status to complete the command with. */
export class PointerError extends Error {
  readonly status: number;

  constructor(status: number) {
    super(`status 0x${status.toString(16)}`);
    this.status = status;
  }
}

function fail(status: number): never {
  throw new PointerError(status);
}

/** Pieces of memory, in the order of the data. Those that follow each other in memory are one. */
export class DataPointer {
  readonly addresses: bigint[] = [];
  /** In bytes. */
  readonly lengths: number[] = [];
  #pieces = 0;
  #local: boolean | undefined;
  readonly #dma: DmaAccess;
  readonly #pageSize: number;

  /**
   * The memory of `length` bytes that a command points at.
   *
   * @throws PointerError
   */
  constructor(dma: DmaAccess, pageSize: number, request: Request, length: number) {
    this.#dma = dma;
    this.#pageSize = pageSize;
    if (request.pointerKind === 0) this.#mapPrp(request.prp1, request.prp2, length);
    else if (request.pointerKind === 3) fail(Status.INVALID_FIELD);
    else this.#mapSgl(new DataView(request.view.buffer, request.view.byteOffset + 24, DESCRIPTOR), length);
  }

  #add(address: bigint, length: number): void {
    if (length === 0) return;
    const local = this.#dma.isLocal(address);
    this.#local ??= local;
    if (local !== this.#local) fail(Status.INVALID_USE_OF_CMB | DNR);
    if (this.#pieces++ === MAX_PIECES) fail(Status.INTERNAL_ERROR | DNR);
    const last = this.addresses.length - 1;
    if (last >= 0 && (this.addresses[last] as bigint) + BigInt(this.lengths[last] as number) === address) {
      (this.lengths[last] as number) += length;
      return;
    }
    this.addresses.push(address);
    this.lengths.push(length);
  }

  #mapPrp(prp1: bigint, prp2: bigint, length: number): void {
    const page = this.#pageSize;
    const mask = BigInt(page - 1);
    const first = Math.min(length, page - Number(prp1 & mask));
    this.#add(prp1, first);
    let left = length - first;
    if (left === 0) return;
    if (left <= page) {
      if (prp2 & mask) fail(Status.INVALID_PRP_OFFSET | DNR);
      this.#add(prp2, left);
      return;
    }
    // The first list may begin anywhere in its page; it ends with it.
    let count = (page - Number(prp2 & mask)) >>> 3;
    let list = this.#readList(prp2, count);
    for (let index = 0; left > 0; index++) {
      let entry = list.getBigUint64(index * 8, true);
      if (index === count - 1 && left > page) {
        // The last entry of a page leads to the next page of the list.
        if (entry & mask) fail(Status.INVALID_PRP_OFFSET | DNR);
        count = Math.min(Math.ceil(left / page), page / 8);
        list = this.#readList(entry, count);
        index = 0;
        entry = list.getBigUint64(0, true);
      }
      if (entry & mask) fail(Status.INVALID_PRP_OFFSET | DNR);
      const piece = Math.min(left, page);
      this.#add(entry, piece);
      left -= piece;
    }
  }

  #readList(address: bigint, count: number): DataView {
    const bytes = new Uint8Array(Math.max(count, 1) * 8);
    if (!this.#dma.read(address, bytes.subarray(0, count * 8))) fail(Status.DATA_TRANSFER_ERROR);
    return new DataView(bytes.buffer);
  }

  #mapSgl(first: DataView, length: number): void {
    let descriptor = first;
    let left = length;
    if (typeOf(descriptor) === SglType.DATA_BLOCK) {
      left = this.#mapBlocks(descriptor, 1, left);
      if (left > 0) fail(Status.SGL_LENGTH_INVALID | DNR);
      return;
    }
    for (;;) {
      const before = left;
      const type = typeOf(descriptor);
      if (type !== SglType.SEGMENT && type !== SglType.LAST_SEGMENT) fail(Status.INVALID_SGL_SEGMENT | DNR);
      const bytes = lengthOf(descriptor);
      if (bytes === 0 || bytes % DESCRIPTOR !== 0) fail(Status.INVALID_SGL_SEGMENT | DNR);
      let address = addressOf(descriptor);
      if (MAX_ADDRESS - address < BigInt(bytes)) fail(Status.SGL_LENGTH_INVALID | DNR);
      let count = bytes / DESCRIPTOR;
      for (; count > CHUNK_DESCRIPTORS; count -= CHUNK_DESCRIPTORS) {
        left = this.#mapBlocks(this.#readSegment(address, CHUNK_DESCRIPTORS), CHUNK_DESCRIPTORS, left);
        address += BigInt(CHUNK_DESCRIPTORS * DESCRIPTOR);
      }
      const segment = this.#readSegment(address, count);
      const last = new DataView(segment.buffer, (count - 1) * DESCRIPTOR, DESCRIPTOR);
      if (typeOf(last) === SglType.DATA_BLOCK) {
        left = this.#mapBlocks(segment, count, left);
        if (left > 0) fail(Status.SGL_LENGTH_INVALID | DNR);
        return;
      }
      if (type === SglType.LAST_SEGMENT) fail(Status.INVALID_SGL_SEGMENT | DNR);
      left = this.#mapBlocks(segment, count - 1, left);
      // Segments that only lead on could lead in a circle.
      if (left === before) fail(Status.INVALID_SGL_SEGMENT | DNR);
      descriptor = last;
    }
  }

  #readSegment(address: bigint, count: number): DataView {
    const bytes = new Uint8Array(count * DESCRIPTOR);
    if (!this.#dma.read(address, bytes)) fail(Status.DATA_TRANSFER_ERROR);
    return new DataView(bytes.buffer);
  }

  /** @returns what is left of `length` */
  #mapBlocks(descriptors: DataView, count: number, length: number): number {
    let left = length;
    for (let index = 0; index < count; index++) {
      const at = descriptors.byteOffset + index * DESCRIPTOR;
      const descriptor = new DataView(descriptors.buffer, at, DESCRIPTOR);
      const type = typeOf(descriptor);
      if (type === SglType.SEGMENT || type === SglType.LAST_SEGMENT) fail(Status.INVALID_SGL_COUNT | DNR);
      if (type !== SglType.DATA_BLOCK) fail(Status.SGL_TYPE_INVALID | DNR);
      const bytes = lengthOf(descriptor);
      if (bytes === 0) continue;
      if (left === 0) fail(Status.SGL_LENGTH_INVALID | DNR);
      const address = addressOf(descriptor);
      if (MAX_ADDRESS - address < BigInt(bytes)) fail(Status.SGL_LENGTH_INVALID | DNR);
      const piece = Math.min(left, bytes);
      this.#add(address, piece);
      left -= piece;
    }
    return left;
  }

  /** Data from memory. @throws PointerError */
  read(into: Uint8Array): void {
    this.pieces(into.byteLength, (address, at, length) =>
      this.#dma.read(address, into.subarray(at, at + length)),
    );
  }

  /** Data to memory. @throws PointerError */
  write(from: Uint8Array): void {
    this.pieces(from.byteLength, (address, at, length) =>
      this.#dma.write(address, from.subarray(at, at + length)),
    );
  }

  /**
   * Visits the memory in pieces of at most `most` bytes.
   *
   * @param visit is told where the piece is in the data; false: it could not be reached
   * @throws PointerError
   */
  pieces(most: number, visit: (address: bigint, at: number, length: number) => boolean): void {
    let at = 0;
    for (const [index, start] of this.addresses.entries()) {
      const length = this.lengths[index] as number;
      for (let done = 0; done < length; ) {
        const piece = Math.min(most, length - done);
        if (!visit(start + BigInt(done), at, piece)) fail(Status.DATA_TRANSFER_ERROR);
        done += piece;
        at += piece;
      }
    }
  }
}

function typeOf(descriptor: DataView): number {
  return descriptor.getUint8(15) >>> 4;
}

function lengthOf(descriptor: DataView): number {
  return descriptor.getUint32(8, true);
}

function addressOf(descriptor: DataView): bigint {
  return descriptor.getBigUint64(0, true);
}
