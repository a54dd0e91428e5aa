/**
 * A submission queue with its completion queue (Base Specification 2.0, 3.3), in DMA memory.
 *
 * A command's identifier is its slot, 0 to entries - 2: with one slot fewer than entries the submission queue cannot
 * overflow. Each slot has pages of its own for a PRP list.
 *
 * @module
 */
import { DEVICE_PAGE } from '../../memory/device-pages.js';
import type { DmaBuffer } from '../../memory/dma-buffer.js';
import type { DmaMemory } from '../../memory/dma-memory.js';
import type { Region } from '../../vfio/region.js';
import { type Command, ENTRY_DWORDS, encodeCommand } from './command.js';
import { Register } from './registers.js';

const SUBMISSION_ENTRY = 64;
const COMPLETION_ENTRY = 16;
const COMPLETION_DWORDS = COMPLETION_ENTRY / 4;
/** PRP entries in one page of a list. */
const LIST_ENTRIES = DEVICE_PAGE / 8;
/** Phase tag in dword 3 of a completion. */
const PHASE = 1 << 16;

/** The memory a command transfers. `offset` must be a multiple of 4. */
export interface Transfer {
  readonly memory: DmaMemory;
  /** In bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
}

/** A command in the controller's hands. */
export interface Pending {
  readonly queue: QueuePair;
  readonly slot: number;
  readonly command: Command;
  /** When it is late, in ms as `performance.now()` counts. */
  deadline: number;
  /** Set once an abort was asked for, and why: the error it then ends with. */
  aborting: unknown;
  /** @param status the 15-bit status field @param result dword 0 of the completion */
  complete(status: number, result: number): void;
  /** It was taken away from the controller. */
  cancel(error: unknown): void;
}

export interface QueuePairOptions {
  /** 0 is the admin queue. */
  id: number;
  /** Entries of both queues. */
  entries: number;
  /** Interrupt vector of the completion queue. */
  vector: number;
  /** Largest transfer of one command, in bytes. */
  maxTransfer: number;
  doorbellStride: number;
  registers: Region;
  memory: DmaMemory;
}

/** Pages of PRP list that a transfer of `bytes` can need: the last entry of a full page points to the next one. */
function listPages(bytes: number): number {
  // Not aligned to a page, a transfer touches one page more; the first is in the command itself.
  const entries = Math.ceil(bytes / DEVICE_PAGE);
  return entries <= LIST_ENTRIES ? 1 : Math.ceil((entries - 1) / (LIST_ENTRIES - 1));
}

function roundToPage(bytes: number): number {
  return Math.ceil(bytes / DEVICE_PAGE) * DEVICE_PAGE;
}

export class QueuePair {
  readonly id: number;
  readonly entries: number;
  readonly vector: number;
  readonly submissionBuffer: DmaBuffer;
  readonly completionBuffer: DmaBuffer;
  readonly #listBuffer: DmaBuffer;
  readonly #listPages: number;
  readonly #lists: BigUint64Array;
  readonly #registers: Region;
  readonly #submissionDoorbell: number;
  readonly #completionDoorbell: number;
  readonly #submissions: Uint32Array;
  readonly #completions: Uint32Array;
  readonly #pending: (Pending | undefined)[];
  readonly #freeSlots: Uint16Array;
  #freeCount = 0;
  readonly #waiting: ((slot: number) => void)[] = [];
  #tail = 0;
  #head = 0;
  #phase = PHASE;

  /** Bytes of DMA memory that {@link QueuePair} takes. */
  static memorySize(entries: number, maxTransfer: number): number {
    const lists = (entries - 1) * listPages(maxTransfer) * DEVICE_PAGE;
    return roundToPage(entries * SUBMISSION_ENTRY) + roundToPage(entries * COMPLETION_ENTRY) + lists;
  }

  constructor(options: QueuePairOptions) {
    const { id, entries, memory } = options;
    this.id = id;
    this.entries = entries;
    this.vector = options.vector;
    this.#registers = options.registers;
    this.#submissionDoorbell = Register.DOORBELLS + 2 * id * options.doorbellStride;
    this.#completionDoorbell = this.#submissionDoorbell + options.doorbellStride;
    const placement = { alignment: DEVICE_PAGE, contiguous: true };
    this.submissionBuffer = memory.allocate(roundToPage(entries * SUBMISSION_ENTRY), placement);
    this.completionBuffer = memory.allocate(roundToPage(entries * COMPLETION_ENTRY), placement);
    this.#listPages = listPages(options.maxTransfer);
    this.#listBuffer = memory.allocate((entries - 1) * this.#listPages * DEVICE_PAGE, {
      alignment: DEVICE_PAGE,
    });
    const { bytes: submissions } = this.submissionBuffer;
    const { bytes: completions } = this.completionBuffer;
    const { bytes: lists } = this.#listBuffer;
    this.#submissions = new Uint32Array(submissions.buffer, submissions.byteOffset, entries * ENTRY_DWORDS);
    this.#completions = new Uint32Array(
      completions.buffer,
      completions.byteOffset,
      entries * COMPLETION_DWORDS,
    );
    this.#lists = new BigUint64Array(lists.buffer, lists.byteOffset, lists.byteLength / 8);
    this.#pending = new Array<Pending | undefined>(entries - 1).fill(undefined);
    this.#freeSlots = new Uint16Array(entries - 1);
    for (let slot = entries - 2; slot >= 0; slot--) this.#freeSlots[this.#freeCount++] = slot;
  }

  /** Commands in the controller's hands, and slots taken for others about to be. */
  get outstanding(): number {
    return this.entries - 1 - this.#freeCount;
  }

  /** Back to the state the controller expects of a new queue. Only while the controller cannot touch it. */
  rewind(): void {
    this.submissionBuffer.bytes.fill(0);
    this.completionBuffer.bytes.fill(0);
    this.#tail = 0;
    this.#head = 0;
    this.#phase = PHASE;
  }

  /** A free slot, or -1. */
  tryAcquire(): number {
    if (this.#freeCount === 0) return -1;
    return this.#freeSlots[--this.#freeCount] as number;
  }

  /**
   * A slot as soon as one is free, first come first served; -1 when `signal` is aborted, or {@link dismissAll} called,
   * before that.
   */
  acquire(signal?: AbortSignal): Promise<number> {
    const slot = this.tryAcquire();
    if (slot >= 0) return Promise.resolve(slot);
    return new Promise(resolve => {
      const take = (slot: number): void => {
        signal?.removeEventListener('abort', leave);
        resolve(slot);
      };
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(take), 1);
        resolve(-1);
      };
      this.#waiting.push(take);
      signal?.addEventListener('abort', leave, { once: true });
    });
  }

  /** Returns a slot. Whoever waits longest gets it at once, so that no newcomer can be faster. */
  release(slot: number): void {
    const next = this.#waiting.shift();
    if (next) next(slot);
    else this.#freeSlots[this.#freeCount++] = slot;
  }

  /** Sends away whoever waits for a slot, since the controller is of no further use. */
  dismissAll(): void {
    for (const take of this.#waiting.splice(0)) take(-1);
  }

  /**
   * Hands a command to the controller. `pending.slot` came from {@link acquire}, and is still the caller's when this
   * throws.
   */
  submit(pending: Pending, transfer?: Transfer): void {
    const { slot } = pending;
    const at = this.#tail;
    encodeCommand(this.#submissions, at, slot, pending.command);
    if (transfer) this.#pointAt(at, slot, transfer);
    this.#pending[slot] = pending;
    this.#tail = at + 1 === this.entries ? 0 : at + 1;
    // On x86-64 stores become visible in program order, also from ordinary memory to device registers: the
    // controller cannot see the doorbell before the entry.
    try {
      this.#registers.write32(this.#submissionDoorbell, this.#tail);
    } catch (error) {
      this.#pending[slot] = undefined;
      throw error;
    }
  }

  /** Writes the data pointer: PRP entries 1 and 2 (Base Specification 2.0, 4.1.1). */
  #pointAt(entry: number, slot: number, { memory, offset, length }: Transfer): void {
    const sq = this.#submissions;
    const { words, addresses } = memory.pages;
    const first = Math.floor(offset / DEVICE_PAGE);
    const inPage = offset % DEVICE_PAGE;
    const at = entry * ENTRY_DWORDS;
    // Page addresses end in 12 zero bits: no carry.
    sq[at + 6] = (words[2 * first] as number) + inPage;
    sq[at + 7] = words[2 * first + 1] as number;
    const last = Math.floor((offset + length - 1) / DEVICE_PAGE);
    if (last === first) return;
    if (last === first + 1) {
      sq[at + 8] = words[2 * last] as number;
      sq[at + 9] = words[2 * last + 1] as number;
      return;
    }
    const listWords = this.#listBuffer.memory.pages.words;
    const listAddresses = this.#listBuffer.memory.pages.addresses;
    const basePage = this.#listBuffer.offset / DEVICE_PAGE;
    let listPage = slot * this.#listPages;
    sq[at + 8] = listWords[2 * (basePage + listPage)] as number;
    sq[at + 9] = listWords[2 * (basePage + listPage) + 1] as number;
    for (let page = first + 1; page <= last; ) {
      const remaining = last - page + 1;
      const count = remaining <= LIST_ENTRIES ? remaining : LIST_ENTRIES - 1;
      const place = listPage * LIST_ENTRIES;
      this.#lists.set(addresses.subarray(page, page + count), place);
      page += count;
      if (page <= last) {
        listPage++;
        this.#lists[place + count] = listAddresses[basePage + listPage] as bigint;
      }
    }
  }

  /**
   * Takes every new completion and tells its command.
   *
   * @param acknowledge tell the controller of the room in its completion queue: not once it is disabled
   * @returns false when the controller completed something that was not submitted
   */
  drain(acknowledge = true): boolean {
    let taken = 0;
    let sane = true;
    for (; taken < this.entries; taken++) {
      const at = this.#head * COMPLETION_DWORDS;
      // An atomic load: read once, and before the rest of the entry.
      const dword3 = Atomics.load(this.#completions, at + 3);
      if ((dword3 & PHASE) !== this.#phase) break;
      const result = this.#completions[at] as number;
      this.#head++;
      if (this.#head === this.entries) {
        this.#head = 0;
        this.#phase ^= PHASE;
      }
      const slot = dword3 & 0xffff;
      const pending = this.#pending[slot];
      if (!pending) {
        sane = false;
        continue;
      }
      this.#pending[slot] = undefined;
      this.release(slot);
      pending.complete(dword3 >>> 17, result);
    }
    if (taken > 0 && acknowledge) this.#registers.write32(this.#completionDoorbell, this.#head);
    return sane;
  }

  /** Every command in the controller's hands. */
  *inFlight(): Generator<Pending> {
    for (const pending of this.#pending) if (pending) yield pending;
  }

  /** True while this very command is in the controller's hands. */
  holds(pending: Pending): boolean {
    return this.#pending[pending.slot] === pending;
  }

  /** Takes every command away from the controller, which must not be able to touch their memory any more. */
  cancelAll(errorFor: (pending: Pending) => unknown): void {
    for (const pending of [...this.inFlight()]) {
      this.#pending[pending.slot] = undefined;
      this.release(pending.slot);
      pending.cancel(errorFor(pending));
    }
  }
}
