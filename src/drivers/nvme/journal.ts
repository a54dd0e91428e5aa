/**
 * What a successor must know of a queue pair, written with every command to the memory that outlives this process. At
 * whichever instruction the process is killed, what is there can be made sense of.
 *
 * A header says how far the queues are, by positions: counts of entries from the start of the queue on. Each slot has a
 * record of its command. The order of writing is what makes it work; words that publish others are stored atomically.
 *
 * To submit: the entry in the ring → the record, its state last → `tail` → the doorbell → `rung`. So
 * - a command in the controller's hands whose position is the tail was never made known to the controller;
 * - where `tail` and `rung` differ, the doorbell may not have been written. It is written again: at most the controller
 *   reports a value that it had already as an event.
 *
 * To complete: status and result in the record, its state last → the application is told → `head` → the doorbell →
 * `acknowledged`; and the record is free, and its slot to be had, only when the application has run, in a later turn of
 * the event loop. So
 * - a completion in the ring at the head whose command is completed by its record was taken already;
 * - a command is reported to the successor, with what it came to, unless the application is known to have been told: it
 *   may be told twice, never not at all. What was neither told nor is in the journal never reached the controller.
 *
 * `generation` is odd while the queues are in use. It changes before the controller is disabled, and when it is in use
 * again; in between, positions mean nothing, and every command that is in the controller's hands by its record was taken
 * from it by a reset. Only the journal of the admin queue has it.
 *
 * It says as well which memory it is in, and where the controller sees its queue: so that other memory is not taken for it.
 *
 * @module
 */
import type { DmaBuffer } from '../../memory/dma-buffer.js';
import { DmaArena, type DmaMemory } from '../../memory/dma-memory.js';
import { ENTRY_DWORDS } from './command.js';

/** Of header and record, in 32-bit words. */
const RECORD_WORDS = 32;
/** Of a record, in words: where in it the submission queue entry is. */
const ENTRY = 16;

/** Words of the header; token and address have two each, low first. */
const Header = { Tail: 0, Rung: 1, Head: 2, Acknowledged: 3, Generation: 4, Token: 6, Address: 8 } as const;

/** Words of a record; tag, token, offset and length have two each, low first. */
const Field = {
  State: 0,
  Position: 1,
  Tag: 2,
  Token: 4,
  Offset: 6,
  Length: 8,
  Status: 10,
  Result: 11,
} as const;

/** Of {@link Field.State}. */
export const SlotState = {
  Free: 0,
  /** In the controller's hands, or about to be. */
  InHands: 1,
  /** The application is being told. */
  Completed: 2,
} as const;
export type SlotState = (typeof SlotState)[keyof typeof SlotState];

/** Beside the state: the driver's own command, of which no application waits. */
const INTERNAL = 4;

const DWORD = 2 ** 32;
/** Positions stay below this, so that they are small integers to the engine. */
const POSITION_LIMIT = 2 ** 31;

/** The memory a command transfers. `offset` must be a multiple of 4. */
export interface Transfer {
  readonly memory: DmaMemory;
  /** In bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
}

/** What a record says. */
export interface SlotRecord {
  readonly state: number;
  readonly internal: boolean;
  readonly position: number;
  /** What the application knows the command by; 0 for none. */
  readonly tag: bigint;
  /** Of the arena that it transfers to or from; 0 for none. */
  readonly token: bigint;
  readonly offset: number;
  readonly length: number;
  readonly status: number;
  readonly result: number;
  /** The submission queue entry. */
  readonly entry: Uint32Array;
}

/** How far the queues are, in positions. */
export interface JournalHeader {
  readonly tail: number;
  readonly rung: number;
  readonly head: number;
  readonly acknowledged: number;
  readonly generation: number;
}

/** Where a journal belongs. */
export interface JournalPlace {
  /** Of the arena it is in; 0 for memory that is not kept. */
  readonly token: bigint;
  /** Of the first entry of the submission queue, as the controller sees it. */
  readonly address: bigint;
}

/** Positions start again at this many, a multiple of two laps: so that a position says index and phase as well. */
export function positionModulus(entries: number): number {
  return Math.floor(POSITION_LIMIT / (2 * entries)) * 2 * entries;
}

export class Journal {
  readonly #words: Uint32Array;
  /** The same memory: bigints are stored without arithmetic. */
  readonly #longs: BigUint64Array;

  /** In bytes. */
  static size(slots: number): number {
    return (slots + 1) * RECORD_WORDS * 4;
  }

  /** @param bytes {@link size} of them, aligned to 8 */
  constructor({ buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>) {
    this.#words = new Uint32Array(buffer, byteOffset, byteLength / 4);
    this.#longs = new BigUint64Array(buffer, byteOffset, byteLength / 8);
  }

  static of(buffer: DmaBuffer): Journal {
    return new Journal(buffer.bytes as Uint8Array<ArrayBuffer>);
  }

  /** A command is in the ring at `position`; its entry is at `at` of `ring`. */
  take(
    slot: number,
    position: number,
    ring: Uint32Array,
    at: number,
    tag: bigint,
    transfer: Transfer | undefined,
    internal: boolean,
  ): void {
    const words = this.#words;
    const record = (slot + 1) * RECORD_WORDS;
    for (let i = 0; i < ENTRY_DWORDS; i++) words[record + ENTRY + i] = ring[at + i] as number;
    words[record + Field.Position] = position;
    this.#longs[(record + Field.Tag) >>> 1] = tag;
    if (transfer === undefined) {
      this.#longs[(record + Field.Token) >>> 1] = 0n;
      words[record + Field.Offset] = 0;
      words[record + Field.Offset + 1] = 0;
      words[record + Field.Length] = 0;
      words[record + Field.Length + 1] = 0;
    } else {
      const { memory, offset, length } = transfer;
      this.#longs[(record + Field.Token) >>> 1] = memory instanceof DmaArena ? memory.token : 0n;
      words[record + Field.Offset] = offset;
      words[record + Field.Offset + 1] = offset / DWORD;
      words[record + Field.Length] = length;
      words[record + Field.Length + 1] = length / DWORD;
    }
    Atomics.store(words, record, internal ? SlotState.InHands | INTERNAL : SlotState.InHands);
  }

  /** A command came to an end, and the application is about to be told. */
  complete(slot: number, status: number, result: number): void {
    const words = this.#words;
    const record = (slot + 1) * RECORD_WORDS;
    words[record + Field.Status] = status;
    words[record + Field.Result] = result;
    Atomics.store(words, record, ((words[record] as number) & INTERNAL) | SlotState.Completed);
  }

  /** Nobody needs to be told of the command in a slot any more. */
  free(slot: number): void {
    this.#words[(slot + 1) * RECORD_WORDS] = SlotState.Free;
  }

  set tail(position: number) {
    Atomics.store(this.#words, Header.Tail, position);
  }

  set rung(position: number) {
    this.#words[Header.Rung] = position;
  }

  set head(position: number) {
    Atomics.store(this.#words, Header.Head, position);
  }

  set acknowledged(position: number) {
    this.#words[Header.Acknowledged] = position;
  }

  /** Odd: the queues are in use. */
  get generation(): number {
    return Atomics.load(this.#words, Header.Generation);
  }

  set inUse(inUse: boolean) {
    const { generation } = this;
    if ((generation & 1) !== Number(inUse)) Atomics.store(this.#words, Header.Generation, generation + 1);
  }

  get header(): JournalHeader {
    const [tail, rung, head, acknowledged, generation] = this.#words as unknown as number[];
    return { tail, rung, head, acknowledged, generation } as JournalHeader;
  }

  /** Which memory it is in, and where the controller sees the queue. */
  get place(): JournalPlace {
    return {
      token: this.#longs[Header.Token >>> 1] as bigint,
      address: this.#longs[Header.Address >>> 1] as bigint,
    };
  }

  set place({ token, address }: JournalPlace) {
    this.#longs[Header.Token >>> 1] = token;
    this.#longs[Header.Address >>> 1] = address;
  }

  /** Nothing was ever written to its header: the memory is new. */
  get isBlank(): boolean {
    return this.#words.subarray(0, RECORD_WORDS).every(word => word === 0);
  }

  /** The queues begin at their first entries again. */
  rewind(): void {
    this.#words.fill(0, Header.Tail, Header.Generation);
  }

  isFree(slot: number): boolean {
    return this.#words[(slot + 1) * RECORD_WORDS] === SlotState.Free;
  }

  position(slot: number): number {
    return this.#words[(slot + 1) * RECORD_WORDS + Field.Position] as number;
  }

  /** The identifier of the last command that was in a slot; 0 when there was none. */
  commandId(slot: number): number {
    return (this.#words[(slot + 1) * RECORD_WORDS + ENTRY] as number) >>> 16;
  }

  record(slot: number): SlotRecord {
    const words = this.#words;
    const at = (slot + 1) * RECORD_WORDS;
    const word = (field: number): number => words[at + field] as number;
    const two = (field: number): number => word(field) + word(field + 1) * DWORD;
    const state = Atomics.load(words, at);
    return {
      state: state & ~INTERNAL,
      internal: (state & INTERNAL) !== 0,
      position: word(Field.Position),
      tag: this.#longs[(at + Field.Tag) >>> 1] as bigint,
      token: this.#longs[(at + Field.Token) >>> 1] as bigint,
      offset: two(Field.Offset),
      length: two(Field.Length),
      status: word(Field.Status),
      result: word(Field.Result),
      entry: words.slice(at + ENTRY, at + ENTRY + ENTRY_DWORDS),
    };
  }
}
