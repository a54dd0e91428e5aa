/** An NVMe queue pair without a driver: entries as they are, doorbells when told. @module */

/** The controller, and memory that it can reach. */
export interface ProbedController {
  /** One access of BAR 0. */
  read(offset: number, size: 2 | 4 | 8): bigint;
  write(offset: number, size: 2 | 4 | 8, value: bigint): void;
  /** Whole pages. */
  readonly memory: Uint8Array;
  /** Where page `index` of it is for the controller. */
  address(index: number): bigint;
  /** An address that it cannot reach, page-aligned; undefined when it can reach everything. */
  readonly unreachable: bigint | undefined;
  setBusMaster(enabled: boolean): void;
  /** Interrupts of a vector so far. */
  interrupts(vector: number): number;
  sleep(milliseconds: number): Promise<void>;
}

export const PAGE = 4096;
export const DOORBELLS = 0x1000;

/** Fields of a submission queue entry; those of CDW0 are `opcode` and `flags`. */
export interface Entry {
  readonly opcode: number;
  readonly flags?: number;
  readonly nsid?: number;
  readonly prp1?: bigint;
  readonly prp2?: bigint;
  readonly cdw10?: number;
  readonly cdw11?: number;
  readonly cdw12?: number;
  readonly cdw13?: number;
  readonly cdw14?: number;
}

export interface Completion {
  readonly result: number;
  readonly sqHead: number;
  readonly sqId: number;
  readonly id: number;
  /** Without the phase tag. */
  readonly status: number;
}

/** A queue pair in the memory of a controller. */
export class RawQueue {
  readonly id: number;
  readonly entries: number;
  readonly #controller: ProbedController;
  readonly #view: DataView;
  readonly #sq: number;
  readonly #cq: number;
  #tail = 0;
  #head = 0;
  #phase = 1;
  #nextId = 0x100;

  constructor(controller: ProbedController, id: number, sqPage: number, cqPage: number, entries: number) {
    this.id = id;
    this.entries = entries;
    this.#controller = controller;
    const { memory } = controller;
    this.#view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
    this.#sq = sqPage * PAGE;
    this.#cq = cqPage * PAGE;
    memory.fill(0, this.#sq, this.#sq + PAGE);
    memory.fill(0, this.#cq, this.#cq + PAGE);
  }

  /** Puts an entry in the queue, without a doorbell. @returns its command identifier */
  put(entry: Entry): number {
    const at = this.#sq + this.#tail * 64;
    const id = this.#nextId++;
    for (let i = 0; i < 64; i += 4) this.#view.setUint32(at + i, 0, true);
    const words: [number, number][] = [
      [0, ((id << 16) | ((entry.flags ?? 0) << 8) | entry.opcode) >>> 0],
      [4, entry.nsid ?? 0],
      [40, entry.cdw10 ?? 0],
      [44, entry.cdw11 ?? 0],
      [48, entry.cdw12 ?? 0],
      [52, entry.cdw13 ?? 0],
      [56, entry.cdw14 ?? 0],
    ];
    for (const [offset, value] of words) this.#view.setUint32(at + offset, value >>> 0, true);
    this.#view.setBigUint64(at + 24, entry.prp1 ?? 0n, true);
    this.#view.setBigUint64(at + 32, entry.prp2 ?? 0n, true);
    this.#tail = (this.#tail + 1) % this.entries;
    return id;
  }

  /** Where an SGL descriptor of the entry put last is, in the probe's memory. */
  get lastPointer(): number {
    return this.#sq + ((this.#tail + this.entries - 1) % this.entries) * 64 + 24;
  }

  ring(): void {
    this.#controller.write(DOORBELLS + 8 * this.id, 4, BigInt(this.#tail));
  }

  /** The next completion, when there is one. */
  take(): Completion | undefined {
    const at = this.#cq + this.#head * 16;
    const last = this.#view.getUint32(at + 12, true);
    if (((last >>> 16) & 1) !== this.#phase) return undefined;
    const third = this.#view.getUint32(at + 8, true);
    this.#head++;
    if (this.#head === this.entries) {
      this.#head = 0;
      this.#phase ^= 1;
    }
    return {
      result: this.#view.getUint32(at, true),
      sqHead: third & 0xffff,
      sqId: third >>> 16,
      id: last & 0xffff,
      status: last >>> 17,
    };
  }

  /** Tells the controller what was taken. */
  acknowledge(): void {
    this.#controller.write(DOORBELLS + 8 * this.id + 4, 4, BigInt(this.#head));
  }

  /** The next completion, acknowledged; undefined when none comes within `ms`. */
  async next(ms = 3000): Promise<Completion | undefined> {
    for (let waited = 0; ; waited++) {
      const completion = this.take();
      if (completion) {
        this.acknowledge();
        return completion;
      }
      if (waited >= ms) return undefined;
      await this.#controller.sleep(1);
    }
  }
}
