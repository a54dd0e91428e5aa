/** A command in a simulated controller's hands, and the queues it came from and goes to. @module */
import type { Lie } from './lies.js';
import { SQ_ENTRY } from './protocol.js';

export class CompletionQueue {
  readonly id: number;
  /** In entries. */
  readonly size: number;
  readonly address: bigint;
  readonly vector: number;
  readonly interrupts: boolean;
  head = 0;
  tail = 0;
  phase = 1;
  /** Completed, and not yet written to the queue. */
  readonly completed: Request[] = [];
  readonly submissionQueues = new Set<SubmissionQueue>();
  /** Its completions are to be written at the next opportunity. */
  due = false;
  shadow: ShadowDoorbell | undefined;

  constructor(id: number, size: number, address: bigint, vector: number, interrupts: boolean) {
    this.id = id;
    this.size = size;
    this.address = address;
    this.vector = vector;
    this.interrupts = interrupts;
  }

  get full(): boolean {
    return (this.tail + 1) % this.size === this.head;
  }

  get empty(): boolean {
    return this.tail === this.head;
  }

  advance(): void {
    this.tail++;
    if (this.tail === this.size) {
      this.tail = 0;
      this.phase ^= 1;
    }
  }
}

export class SubmissionQueue {
  readonly id: number;
  /** In entries. */
  readonly size: number;
  readonly address: bigint;
  readonly completions: CompletionQueue;
  head = 0;
  tail = 0;
  /** Fetched commands whose completion is not yet written. */
  readonly inFlight = new Set<Request>();
  /** It is to be looked at at the next opportunity. */
  due = false;
  shadow: ShadowDoorbell | undefined;

  constructor(id: number, size: number, address: bigint, completions: CompletionQueue) {
    this.id = id;
    this.size = size;
    this.address = address;
    this.completions = completions;
    completions.submissionQueues.add(this);
  }

  /** Commands can be fetched. */
  get ready(): boolean {
    return this.head !== this.tail && this.inFlight.size < this.size;
  }
}

/** Where a doorbell is in memory (Doorbell Buffer Config), and where the controller says how far it looked. */
export interface ShadowDoorbell {
  readonly doorbell: bigint;
  readonly eventIndex: bigint;
}

export class Request {
  readonly queue: SubmissionQueue;
  readonly view: DataView;
  /** Status field without the phase tag. */
  status = 0;
  /** Dword 0 of the completion. */
  result = 0;
  /** What the controller gets wrong about it. */
  lie: Lie | undefined;
  /** It waits its turn, or is being executed: it can still be aborted. */
  waiting = false;

  /** @param entry the 64 bytes of the submission queue entry, which are its own from then on */
  constructor(queue: SubmissionQueue, entry: Uint8Array) {
    this.queue = queue;
    this.view = new DataView(entry.buffer, entry.byteOffset, SQ_ENTRY);
  }

  get opcode(): number {
    return this.view.getUint8(0);
  }

  /** 0 unless it is part of a fused operation. */
  get fuse(): number {
    return this.view.getUint8(1) & 3;
  }

  /** How its data pointer is to be read: 0 PRP, 1 and 2 SGL. */
  get pointerKind(): number {
    return this.view.getUint8(1) >>> 6;
  }

  get id(): number {
    return this.view.getUint16(2, true);
  }

  get namespaceId(): number {
    return this.view.getUint32(4, true);
  }

  /** CDW10 to CDW15. */
  dword(index: 10 | 11 | 12 | 13 | 14 | 15): number {
    return this.view.getUint32(index * 4, true);
  }

  get prp1(): bigint {
    return this.view.getBigUint64(24, true);
  }

  get prp2(): bigint {
    return this.view.getBigUint64(32, true);
  }

  /** CDW10 and CDW11: the first block. Beyond 2^53 it is not exact, and out of range all the same. */
  get firstBlock(): number {
    return this.dword(11) * 2 ** 32 + this.dword(10);
  }

  /** Number of blocks; 1 to 65536. */
  get blocks(): number {
    return (this.dword(12) & 0xffff) + 1;
  }
}
