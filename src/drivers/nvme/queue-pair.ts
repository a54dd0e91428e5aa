/**
 * A submission queue with its completion queue (Base Specification 2.0, 3.3), in DMA memory.
 *
 * A command's slot is 0 to entries - 2: with one slot fewer than entries the submission queue cannot overflow. Each slot
 * has pages of its own for a PRP list. The command's identifier is its slot and, above it, a count of the commands that
 * had the slot: so a controller that completes a command twice does not complete the next one in its slot.
 *
 * A slot of a command that ended is to be had again after {@link QueuePair.forgetTold}, when the application has run:
 * its record in the journal tells a successor of it until then.
 *
 * @module
 */
import { DEVICE_PAGE } from '../../memory/device-pages.js';
import type { DmaBuffer } from '../../memory/dma-buffer.js';
import { DmaArena, type DmaMemory } from '../../memory/dma-memory.js';
import type { Region } from '../../vfio/region.js';
import { type Command, ENTRY_DWORDS, encodeCommand } from './command.js';
import { Journal, positionModulus, SlotState, type Transfer } from './journal.js';
import { Register } from './registers.js';

const SUBMISSION_ENTRY = 64;
const COMPLETION_ENTRY = 16;
const COMPLETION_DWORDS = COMPLETION_ENTRY / 4;
/** PRP entries in one page of a list. */
const LIST_ENTRIES = DEVICE_PAGE / 8;
/** Bits of an identifier that say the slot, where the queue is not longer; those above count. */
const SLOT_BITS = 12;
/** Status "Command Aborted due to SQ Deletion". */
const QUEUE_DELETED = 8;
/** Phase tag in dword 3 of a completion. */
const PHASE = 1 << 16;

/** A command in the controller's hands. */
export interface Pending {
  readonly queue: QueuePair;
  readonly slot: number;
  readonly command: Command;
  readonly transfer: Transfer | undefined;
  /** What a successor knows it by; 0 for none. */
  readonly tag: bigint;
  /** The driver's own: a successor tells nobody of it. */
  readonly internal: boolean;
  /** Its slot stays taken after it completed, until {@link QueuePair.noteTold}. */
  readonly holdsSlot: boolean;
  /** How long it may take, in ms, each time it is submitted. */
  readonly timeout: number;
  /** It is submitted again after a reset that took it away. */
  readonly reissue: boolean;
  /** How often that has been. */
  resets: number;
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
  /** Where a predecessor has it in the memory: it goes on as it is. A new one is made when left out. */
  layout?: QueueLayout;
}

/** Where a queue pair is in its memory, in bytes. */
export interface QueueLayout {
  readonly submission: number;
  readonly completion: number;
  readonly lists: number;
  readonly journal: number;
}

/** How much it takes there, in bytes. */
export function queueSizes(entries: number, maxTransfer: number): QueueLayout {
  return {
    submission: roundToPage(entries * SUBMISSION_ENTRY),
    completion: roundToPage(entries * COMPLETION_ENTRY),
    lists: (entries - 1) * listPages(maxTransfer) * DEVICE_PAGE,
    journal: roundToPage(Journal.size(entries - 1)),
  };
}

/** Bits of an identifier that say its slot. */
export function slotMask(entries: number): number {
  return entries <= 1 << SLOT_BITS ? (1 << SLOT_BITS) - 1 : 0xffff;
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
  readonly layout: QueueLayout;
  readonly journal: Journal;
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
  /** The identifier of the last command in each slot. */
  readonly #ids: Uint16Array;
  /** What is added to an identifier for the next command in its slot; 0 where there is no room to count. */
  readonly #idStep: number;
  readonly #slotMask: number;
  #freeCount = 0;
  readonly #waiting: ((slot: number) => void)[] = [];
  #tail = 0;
  #head = 0;
  #phase = PHASE;
  /** Of tail and head: see `journal.ts`. */
  #tailPosition = 0;
  #headPosition = 0;
  readonly #modulus: number;
  readonly #buffers: readonly DmaBuffer[];
  /** Slots whose commands ended in this turn of the event loop. */
  readonly #told: Uint16Array;
  #toldCount = 0;
  /** What was completed to a predecessor may be in the ring still. */
  #mayRepeat: boolean;

  /** Bytes of DMA memory that {@link QueuePair} takes. */
  static memorySize(entries: number, maxTransfer: number): number {
    const { submission, completion, lists, journal } = queueSizes(entries, maxTransfer);
    return submission + completion + lists + journal;
  }

  /** @throws DeviceError (BUSY) when there is no room in the memory */
  constructor(options: QueuePairOptions) {
    const { id, entries, memory, maxTransfer, layout } = options;
    this.id = id;
    this.entries = entries;
    this.vector = options.vector;
    this.#registers = options.registers;
    this.#submissionDoorbell = Register.DOORBELLS + 2 * id * options.doorbellStride;
    this.#completionDoorbell = this.#submissionDoorbell + options.doorbellStride;
    const sizes = queueSizes(entries, maxTransfer);
    const buffers: DmaBuffer[] = [];
    const place = (piece: keyof QueueLayout, contiguous: boolean): DmaBuffer => {
      const buffer = layout
        ? memory.allocateAt(layout[piece], sizes[piece])
        : memory.allocate(sizes[piece], { alignment: DEVICE_PAGE, contiguous });
      buffers.push(buffer);
      return buffer;
    };
    try {
      this.submissionBuffer = place('submission', true);
      this.completionBuffer = place('completion', true);
      this.#listBuffer = place('lists', false);
      this.journal = Journal.of(place('journal', false));
    } catch (error) {
      for (const buffer of buffers) buffer[Symbol.dispose]();
      throw error;
    }
    this.#buffers = buffers;
    const [submission, completion, lists, journal] = buffers.map(({ offset }) => offset);
    this.layout = { submission, completion, lists, journal } as QueueLayout;
    this.#listPages = listPages(maxTransfer);
    const { bytes: submissions } = this.submissionBuffer;
    const { bytes: completions } = this.completionBuffer;
    const { bytes: listBytes } = this.#listBuffer;
    this.#submissions = new Uint32Array(
      submissions.buffer,
      submissions.byteOffset,
      submissions.byteLength / 4,
    );
    this.#completions = new Uint32Array(
      completions.buffer,
      completions.byteOffset,
      completions.byteLength / 4,
    );
    this.#lists = new BigUint64Array(listBytes.buffer, listBytes.byteOffset, listBytes.byteLength / 8);
    this.#pending = new Array<Pending | undefined>(entries - 1).fill(undefined);
    this.#freeSlots = new Uint16Array(entries - 1);
    this.#told = new Uint16Array(entries - 1);
    this.#ids = Uint16Array.from({ length: entries - 1 }, (_, slot) => slot);
    this.#slotMask = slotMask(entries);
    this.#idStep = this.#slotMask === 0xffff ? 0 : this.#slotMask + 1;
    this.#modulus = positionModulus(entries);
    this.#mayRepeat = layout !== undefined;
    // The journal of new memory is empty.
    for (let slot = entries - 2; slot >= 0; slot--) {
      if (this.journal.isFree(slot)) this.#freeSlots[this.#freeCount++] = slot;
    }
    if (layout) this.#restore();
    const token = memory instanceof DmaArena ? memory.token : 0n;
    this.journal.place = { token, address: this.submissionBuffer.deviceAddress() };
  }

  /** As it is in the journal. */
  #restore(): void {
    for (let slot = 0; slot < this.entries - 1; slot++) {
      const id = this.journal.commandId(slot);
      if ((id & this.#slotMask) === slot) this.#ids[slot] = id;
    }
    const { tail, head } = this.journal.header;
    this.#tailPosition = tail;
    this.#tail = tail % this.entries;
    this.#headPosition = head;
    this.#head = head % this.entries;
    this.#phase = Math.floor(head / this.entries) % 2 === 0 ? PHASE : 0;
  }

  /** Gives its memory back, with what is in it. */
  dispose(): void {
    for (const buffer of this.#buffers) buffer[Symbol.dispose]();
  }

  /** Commands in the controller's hands, and slots taken for others about to be, or that just ended. */
  get outstanding(): number {
    return this.entries - 1 - this.#freeCount;
  }

  /**
   * Back to the state the controller expects of a new queue. Only while the controller cannot touch it.
   *
   * @returns the commands that were in its hands, oldest first, to be submitted again as they are
   */
  rewind(): Pending[] {
    const age = ({ slot }: Pending): number =>
      (this.#tailPosition - this.journal.position(slot) + this.#modulus) % this.#modulus;
    const pending = [...this.inFlight()].sort((a, b) => age(b) - age(a));
    this.submissionBuffer.bytes.fill(0);
    this.completionBuffer.bytes.fill(0);
    this.journal.rewind();
    this.#tail = 0;
    this.#head = 0;
    this.#phase = PHASE;
    this.#tailPosition = 0;
    this.#headPosition = 0;
    this.#mayRepeat = false;
    return pending;
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
   * throws; or the command was in the controller's hands before {@link rewind}.
   */
  submit(pending: Pending): void {
    const { slot, transfer } = pending;
    const id = ((this.#ids[slot] as number) + this.#idStep) & 0xffff;
    this.#ids[slot] = id;
    const at = this.#tail;
    encodeCommand(this.#submissions, at, id, pending.command);
    if (transfer) this.#pointAt(at, slot, transfer);
    const { journal } = this;
    const position = this.#tailPosition;
    journal.take(
      slot,
      position,
      this.#submissions,
      at * ENTRY_DWORDS,
      pending.tag,
      transfer,
      pending.internal,
    );
    this.#pending[slot] = pending;
    try {
      this.#pushTail();
    } catch (error) {
      // The doorbell cannot be written: as if nothing had been.
      this.#pending[slot] = undefined;
      journal.free(slot);
      this.#tail = at;
      this.#tailPosition = position;
      journal.tail = position;
      throw error;
    }
  }

  /** Makes one entry more known to the controller. */
  #pushTail(): void {
    const { journal } = this;
    this.#tail = this.#tail + 1 === this.entries ? 0 : this.#tail + 1;
    const position = this.#tailPosition + 1 === this.#modulus ? 0 : this.#tailPosition + 1;
    this.#tailPosition = position;
    journal.tail = position;
    // On x86-64 stores become visible in program order, also from ordinary memory to device registers: the
    // controller cannot see the doorbell before the entry.
    this.#registers.write32(this.#submissionDoorbell, this.#tail);
    journal.rung = position;
  }

  // What a predecessor left

  /** A predecessor's command goes on as this one's. */
  adopt(pending: Pending): void {
    this.#pending[pending.slot] = pending;
  }

  /** Nobody else has submitted or taken anything, by the journal. */
  get isUntouched(): boolean {
    const { tail, head } = this.journal.header;
    return tail === this.#tailPosition && head === this.#headPosition;
  }

  /** Tells the controller what the predecessor may not have told it: how far it wrote and read the rings. */
  ringAgain(): void {
    const { tail, rung, head, acknowledged } = this.journal.header;
    if (rung !== tail) {
      this.#registers.write32(this.#submissionDoorbell, this.#tail);
      this.journal.rung = tail;
    }
    if (acknowledged !== head) {
      this.#registers.write32(this.#completionDoorbell, this.#head);
      this.journal.acknowledged = head;
    }
  }

  /** Submits an {@link adopt}ed command that the predecessor was about to submit: its record is complete. */
  submitAdopted({ slot, command, transfer }: Pending): void {
    encodeCommand(this.#submissions, this.#tail, this.#ids[slot] as number, command);
    if (transfer) this.#pointAt(this.#tail, slot, transfer);
    this.#pushTail();
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
    const { journal } = this;
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
      const id = dword3 & 0xffff;
      const slot = id & this.#slotMask;
      const pending = this.#pending[slot];
      // Of this very queue, and of the command that is in the slot now.
      const queue = (this.#completions[at + 2] as number) >>> 16;
      if (!pending || this.#ids[slot] !== id || queue !== this.id) {
        sane &&= this.#mayRepeat && this.#isRepeated(slot, id, queue);
        continue;
      }
      this.#pending[slot] = undefined;
      const status = dword3 >>> 17;
      journal.complete(slot, status, result);
      if (!pending.holdsSlot) this.#told[this.#toldCount++] = slot;
      pending.complete(status, result);
    }
    this.#mayRepeat = false;
    if (taken === 0) return sane;
    let position = this.#headPosition + taken;
    if (position >= this.#modulus) position -= this.#modulus;
    this.#headPosition = position;
    journal.head = position;
    if (acknowledge) {
      this.#registers.write32(this.#completionDoorbell, this.#head);
      journal.acknowledged = position;
    }
    return sane;
  }

  /** A predecessor took this completion already. */
  #isRepeated(slot: number, id: number, queue: number): boolean {
    if (slot >= this.entries - 1 || this.#ids[slot] !== id || queue !== this.id) return false;
    return this.journal.record(slot).state === SlotState.Completed;
  }

  /** The command in `slot` ended, and the application has been, or is being, told. */
  noteTold(slot: number): void {
    this.#told[this.#toldCount++] = slot;
  }

  /** True when there are slots for {@link forgetTold}. */
  get hasTold(): boolean {
    return this.#toldCount > 0;
  }

  /** Frees the slots of commands that ended. To be called when the application has run: in a later turn. */
  forgetTold(): void {
    for (let i = 0; i < this.#toldCount; i++) {
      const slot = this.#told[i] as number;
      this.journal.free(slot);
      this.release(slot);
    }
    this.#toldCount = 0;
  }

  /** How the controller knows the command in `slot`. */
  commandId(slot: number): number {
    return this.#ids[slot] as number;
  }

  /** Every command in the controller's hands. */
  *inFlight(): Generator<Pending> {
    for (const pending of this.#pending) if (pending) yield pending;
  }

  /** True while this very command is in the controller's hands. */
  holds(pending: Pending): boolean {
    return this.#pending[pending.slot] === pending;
  }

  /**
   * Takes commands away from the controller, which must not be able to touch their memory any more.
   *
   * @param errorFor what to tell of a command; it stays where that is `undefined`
   */
  cancelAll(errorFor: (pending: Pending) => unknown): void {
    for (const pending of [...this.inFlight()]) {
      const error = errorFor(pending);
      if (error !== undefined) this.cancel(pending, error);
    }
  }

  /** Takes a command away from the controller, which must not be able to touch its memory any more. */
  cancel(pending: Pending, error: unknown): void {
    this.#pending[pending.slot] = undefined;
    // A successor must not take it for one that is in flight.
    this.journal.complete(pending.slot, QUEUE_DELETED, 0);
    this.noteTold(pending.slot);
    pending.cancel(error);
  }

  /** Ends every command here, and leaves the memory, where a successor finds them, as it is. */
  relinquish(error: unknown): void {
    this.#toldCount = 0;
    for (const pending of [...this.inFlight()]) {
      this.#pending[pending.slot] = undefined;
      pending.cancel(error);
    }
    this.dismissAll();
  }
}
