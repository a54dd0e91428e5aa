/**
 * The controller's side of an NVMe queue pair. It knows device addresses only, and reads and writes memory through
 * them, as the hardware does.
 *
 * @module
 */
import assert from 'node:assert/strict';
import { DEVICE_PAGE } from '../../../src/memory/device-pages.js';
import type { DmaMemory } from '../../../src/memory/dma-memory.js';

const PAGE = BigInt(DEVICE_PAGE);
const LIST_ENTRIES = DEVICE_PAGE / 8;

export interface QueueAddresses {
  /** The submission queue's number. */
  readonly id: number;
  readonly entries: number;
  /** Device addresses of the two queues, which are contiguous. */
  readonly submission: bigint;
  readonly completion: bigint;
}

export class NvmeQueueModel {
  /** Where the next completion goes. */
  completionTail = 0;
  laps = 0;
  #phase = 1;
  #head = 0;
  readonly #pages = new Map<bigint, DataView>();
  readonly #queue: QueueAddresses;

  /** @param memories all that it may read */
  constructor(memories: readonly DmaMemory[], queue: QueueAddresses) {
    for (const memory of memories) {
      for (const [index, address] of memory.pages.addresses.entries()) {
        this.#pages.set(address, new DataView(memory.buffer, index * DEVICE_PAGE, DEVICE_PAGE));
      }
    }
    this.#queue = queue;
  }

  #read32(address: bigint): number {
    return this.#page(address).getUint32(Number(address % PAGE), true);
  }

  #page(address: bigint): DataView {
    const page = this.#pages.get(address - (address % PAGE));
    assert.ok(page, `the controller reads at 0x${address.toString(16)}, which is nobody's`);
    return page;
  }

  /** The 16 dwords of a submission queue entry. */
  entry(index: number): number[] {
    const at = this.#queue.submission + BigInt(64 * index);
    return Array.from({ length: 16 }, (_, i) => this.#read32(at + BigInt(4 * i)));
  }

  /** The index of the entry that the next command is written to. */
  nextEntry(): number {
    const index = this.#head;
    this.#head = (index + 1) % this.#queue.entries;
    return index;
  }

  /**
   * Follows the data pointer of an entry for `length` bytes.
   *
   * @returns the pieces of memory it leads to, page by page, and the addresses of the list pages read
   */
  walk(index: number, length: number): { pieces: [address: bigint, length: bigint][]; lists: bigint[] } {
    const dwords = this.entry(index).map(BigInt);
    const prp1 = (dwords[6] as bigint) | ((dwords[7] as bigint) << 32n);
    const prp2 = (dwords[8] as bigint) | ((dwords[9] as bigint) << 32n);
    const lists: bigint[] = [];
    let left = BigInt(length);
    const take = (address: bigint): [bigint, bigint] => {
      const room = PAGE - (address % PAGE);
      const piece = left < room ? left : room;
      left -= piece;
      return [address, piece];
    };
    const pieces = [take(prp1)];
    if (left === 0n) {
      assert.equal(prp2, 0n, 'PRP2 is reserved');
    } else if (left <= PAGE) {
      assert.equal(prp2 % PAGE, 0n);
      pieces.push(take(prp2));
    } else {
      let list = prp2;
      while (left > 0n) {
        assert.equal(list % PAGE, 0n, 'a list begins on a page');
        lists.push(list);
        const page = this.#page(list);
        for (let i = 0; i < LIST_ENTRIES && left > 0n; i++) {
          const value = page.getBigUint64(8 * i, true);
          assert.equal(value % PAGE, 0n, 'an entry of a list is a page');
          // The last entry is a pointer if more is left than it could describe itself.
          if (i === LIST_ENTRIES - 1 && left > PAGE) list = value;
          else pieces.push(take(value));
        }
      }
    }
    return { pieces, lists };
  }

  /** Completes a command. */
  complete(id: number, status: number, result: number, queue = this.#queue.id): void {
    const at = this.#queue.completion + BigInt(16 * this.completionTail);
    const view = this.#page(at);
    const offset = Number(at % PAGE);
    view.setUint32(offset, result >>> 0, true);
    view.setUint32(offset + 8, ((queue << 16) | this.#head) >>> 0, true);
    view.setUint32(offset + 12, ((status << 17) | (this.#phase << 16) | id) >>> 0, true);
    this.completionTail++;
    if (this.completionTail < this.#queue.entries) return;
    this.completionTail = 0;
    this.#phase ^= 1;
    this.laps++;
  }

  /** As after it was disabled and enabled. */
  rewind(): void {
    this.completionTail = 0;
    this.#phase = 1;
    this.#head = 0;
  }
}
