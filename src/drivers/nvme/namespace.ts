/** A namespace: a disk of logical blocks. @module */
import { checkInteger, checkRange } from '../../check.js';
import { DeviceError, DeviceErrorCode } from '../../errors.js';
import { DmaBuffer } from '../../memory/dma-buffer.js';
import { NvmOpcode } from './command.js';
import type { NvmeController } from './controller.js';
import type { NamespaceIdentity } from './identify.js';
import type { Transfer } from './journal.js';
import type { CommandOptions } from './options.js';

/** Logical blocks of one command: a 16-bit field that counts from 0. */
const MAX_BLOCKS = 65536;
const RANGE_BYTES = 16;
/** Ranges of one Dataset Management command. */
const MAX_RANGES = 256;
const MAX_RANGE_BLOCKS = 0xffff_ffff;
const DEALLOCATE = 1 << 2;
const WRITE_ZEROES_DEALLOCATE = 1 << 25;
const DWORD = 2 ** 32;

/** A range of logical blocks. */
export interface BlockRange {
  readonly lba: number;
  readonly blocks: number;
}

export interface TransferOptions extends CommandOptions {
  /** Called as parts of a long transfer complete, with the bytes done so far. */
  onProgress?: (bytesDone: number) => void;
}

export interface WriteZeroesOptions extends CommandOptions {
  /** Let the controller deallocate the blocks, if that reads back as zeroes. */
  deallocate?: boolean;
}

interface Part {
  readonly lba: number;
  /** Where it begins in the whole, in bytes. */
  readonly start: number;
  /** In bytes. */
  readonly length: number;
}

export class Namespace {
  readonly #controller: NvmeController;
  readonly identity: NamespaceIdentity;
  readonly id: number;
  /** In bytes. */
  readonly blockSize: number;
  /** Size in logical blocks. */
  readonly blocks: number;

  /** @internal Use `NvmeController.namespaces`. */
  constructor(controller: NvmeController, identity: NamespaceIdentity) {
    this.#controller = controller;
    this.identity = identity;
    this.id = identity.id;
    this.blockSize = identity.blockSize;
    this.blocks = Number(identity.blocks);
  }

  /** In bytes. */
  get size(): number {
    return this.blocks * this.blockSize;
  }

  #checkBlocks(lba: number, blocks: number): void {
    checkInteger('lba', lba);
    checkInteger('blocks', blocks, 1);
    if (lba + blocks > this.blocks) {
      throw new RangeError(
        `blocks ${lba} to ${lba + blocks - 1} reach beyond the end, ${this.blocks} blocks`,
      );
    }
  }

  #checkLength(lba: number, length: number): void {
    if (this.identity.metadataSize > 0) {
      throw new DeviceError(
        DeviceErrorCode.Unsupported,
        `${this.#controller.device.name} namespace ${this.id}`,
        `is formatted with ${this.identity.metadataSize} bytes of metadata per block`,
        'Format it without metadata',
      );
    }
    if (length === 0 || length % this.blockSize !== 0) {
      throw new RangeError(
        `the length must be a multiple of the block size, ${this.blockSize}, got ${length}`,
      );
    }
    this.#checkBlocks(lba, length / this.blockSize);
  }

  /**
   * Reads from block `lba` on into `target`, whose length says how much. A {@link DmaBuffer} is filled in place; other
   * memory is copied to. Long transfers are split and run in parallel.
   *
   * @returns `target`
   * @throws RangeError for a length that is no multiple of the block size or reaches beyond the end; NvmeError;
   * DeviceError. Some parts may then have been transferred, but none still is.
   */
  async read<T extends DmaBuffer | Uint8Array>(
    lba: number,
    target: T,
    options: TransferOptions = {},
  ): Promise<T> {
    await this.#transfer(NvmOpcode.Read, lba, target, options);
    return target;
  }

  /**
   * Writes `source` from block `lba` on. A {@link DmaBuffer} is read in place, and must not change meanwhile; other
   * memory is copied from. With a volatile write cache the data is durable only after {@link flush}.
   *
   * @throws as {@link read}
   */
  async write(lba: number, source: DmaBuffer | Uint8Array, options: TransferOptions = {}): Promise<void> {
    await this.#transfer(NvmOpcode.Write, lba, source, options);
  }

  async #transfer(
    opcode: number,
    lba: number,
    data: DmaBuffer | Uint8Array,
    options: TransferOptions,
  ): Promise<void> {
    if (!(data instanceof DmaBuffer || data instanceof Uint8Array)) {
      throw new TypeError('data must be a DmaBuffer or a Uint8Array');
    }
    this.#checkLength(lba, data.byteLength);
    if (data instanceof DmaBuffer) {
      data.bytes; // throws when it was freed
      if (data.memory.space !== this.#controller.device.space) {
        throw new TypeError('the buffer must be in the address space of the device');
      }
      if (data.offset % 4 !== 0) throw new RangeError('the buffer must be aligned to 4 bytes');
    }
    const limit = data instanceof DmaBuffer ? data.byteLength : this.#controller.bounceCapacity;
    const parts = this.#split(lba, data.byteLength, limit);
    let done = 0;
    const run = async (part: Part): Promise<void> => {
      if (data instanceof DmaBuffer) {
        const transfer = { memory: data.memory, offset: data.offset + part.start, length: part.length };
        await this.#command(opcode, part, transfer, options);
      } else {
        await this.#copied(opcode, part, data.subarray(part.start, part.start + part.length), options);
      }
      done += part.length;
      options.onProgress?.(done);
    };
    await settleAll(parts.map(run));
  }

  /** Parts of at most `limit` bytes, and of at most what one command can transfer. */
  #split(lba: number, length: number, limit: number): Part[] {
    const most = Math.min(limit, this.#controller.maxTransfer, MAX_BLOCKS * this.blockSize);
    const step = Math.max(Math.floor(most / this.blockSize), 1) * this.blockSize;
    const parts: Part[] = [];
    for (let start = 0; start < length; start += step) {
      parts.push({ lba: lba + start / this.blockSize, start, length: Math.min(step, length - start) });
    }
    return parts;
  }

  #command(opcode: number, part: Part, transfer: Transfer, options: CommandOptions): Promise<number> {
    return this.#controller.io(
      {
        opcode,
        namespaceId: this.id,
        cdw10: part.lba % DWORD,
        cdw11: Math.floor(part.lba / DWORD),
        cdw12: part.length / this.blockSize - 1,
      },
      transfer,
      options,
    );
  }

  async #copied(opcode: number, part: Part, data: Uint8Array, options: CommandOptions): Promise<void> {
    const controller = this.#controller;
    const buffer = await controller.acquireBounce(part.length, options.signal);
    try {
      if (opcode === NvmOpcode.Write) buffer.bytes.set(data);
      const transfer = { memory: buffer.memory, offset: buffer.offset, length: part.length };
      await this.#command(opcode, part, transfer, options);
      if (opcode === NvmOpcode.Read) data.set(buffer.bytes);
    } finally {
      controller.releaseBounce(buffer);
    }
  }

  /** Makes every completed write durable. @throws NvmeError, DeviceError */
  async flush(options: CommandOptions = {}): Promise<void> {
    await this.#controller.io({ opcode: NvmOpcode.Flush, namespaceId: this.id }, undefined, options);
  }

  /**
   * Writes zeroes without transferring any.
   *
   * @throws DeviceError (UNSUPPORTED) when the controller lacks the command; RangeError; NvmeError
   */
  async writeZeroes(lba: number, blocks: number, options: WriteZeroesOptions = {}): Promise<void> {
    this.#checkBlocks(lba, blocks);
    this.#require('writeZeroes', 'Write Zeroes');
    const commands: Promise<number>[] = [];
    for (let done = 0; done < blocks; done += MAX_BLOCKS) {
      const first = lba + done;
      const count = Math.min(MAX_BLOCKS, blocks - done);
      commands.push(
        this.#controller.io(
          {
            opcode: NvmOpcode.WriteZeroes,
            namespaceId: this.id,
            cdw10: first % DWORD,
            cdw11: Math.floor(first / DWORD),
            cdw12: (count - 1) | (options.deallocate ? WRITE_ZEROES_DEALLOCATE : 0),
          },
          undefined,
          options,
        ),
      );
    }
    await settleAll(commands);
  }

  /**
   * Tells the controller that blocks are no longer needed (Dataset Management). What they read as afterwards is the
   * controller's choice.
   *
   * @throws DeviceError (UNSUPPORTED) when the controller lacks the command; RangeError; NvmeError
   */
  async deallocate(ranges: readonly BlockRange[], options: CommandOptions = {}): Promise<void> {
    for (const { lba, blocks } of ranges) this.#checkBlocks(lba, blocks);
    this.#require('datasetManagement', 'Dataset Management');
    const pieces = ranges.flatMap(splitRange);
    const batches: BlockRange[][] = [];
    for (let at = 0; at < pieces.length; at += MAX_RANGES) batches.push(pieces.slice(at, at + MAX_RANGES));
    await settleAll(batches.map(batch => this.#deallocateBatch(batch, options)));
  }

  async #deallocateBatch(ranges: readonly BlockRange[], options: CommandOptions): Promise<void> {
    const controller = this.#controller;
    const length = MAX_RANGES * RANGE_BYTES;
    const buffer = await controller.acquireBounce(length, options.signal);
    try {
      const { bytes } = buffer;
      bytes.fill(0);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      for (const [index, { lba, blocks }] of ranges.entries()) {
        view.setUint32(index * RANGE_BYTES + 4, blocks, true);
        view.setBigUint64(index * RANGE_BYTES + 8, BigInt(lba), true);
      }
      await controller.io(
        {
          opcode: NvmOpcode.DatasetManagement,
          namespaceId: this.id,
          cdw10: ranges.length - 1,
          cdw11: DEALLOCATE,
        },
        { memory: buffer.memory, offset: buffer.offset, length },
        options,
      );
    } finally {
      controller.releaseBounce(buffer);
    }
  }

  #require(feature: 'writeZeroes' | 'datasetManagement', name: string): void {
    if (this.#controller.identity.supports[feature]) return;
    throw new DeviceError(
      DeviceErrorCode.Unsupported,
      this.#controller.device.name,
      `does not support ${name}`,
    );
  }

  /** A `Uint8Array` with the content of `blocks` blocks. @throws as {@link read} */
  async readBlocks(lba: number, blocks: number, options: TransferOptions = {}): Promise<Uint8Array> {
    checkRange('blocks', checkInteger('lba', lba), checkInteger('blocks', blocks, 1), this.blocks);
    return this.read(lba, new Uint8Array(blocks * this.blockSize), options);
  }
}

function splitRange({ lba, blocks }: BlockRange): BlockRange[] {
  const pieces: BlockRange[] = [];
  for (let done = 0; done < blocks; done += MAX_RANGE_BLOCKS) {
    pieces.push({ lba: lba + done, blocks: Math.min(MAX_RANGE_BLOCKS, blocks - done) });
  }
  return pieces;
}

/** Waits for all, also when one fails: a caller may free the memory as soon as it is told of the failure. */
async function settleAll(tasks: readonly Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(tasks);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
