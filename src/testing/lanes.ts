/** Verified I/O that an NVMe controller goes on with while its driver is replaced. @module */
import type { InheritedCommand, Namespace, NvmeController } from '../drivers/nvme/index.js';
import type { AddressSpace } from '../memory/address-space.js';
import type { DmaBuffer } from '../memory/dma-buffer.js';
import { DmaArena } from '../memory/dma-memory.js';
import { by } from '../order.js';

/** How many lanes there are, and commands in flight. */
export const LANES = 32;
/** In bytes. */
export const BLOCK = 4096;
/** Blocks that a lane writes in turn, unless told. */
const TURNS = 16;
const HEADER = 4096;
const SIZE = HEADER + LANES * BLOCK;
/** Name of the arena, by which a successor finds it. */
export const LANES_ARENA = 'lanes';

/** Words of a lane's record. */
const Word = { told: 0, wrong: 1, turns: 2 } as const;
const WORDS = 4;
/** Words after the lanes: for whoever runs them. */
const SHARED = LANES * WORDS;

/** Even operations write, odd ones read back what the one before wrote. */
const isWrite = (operation: number): boolean => operation % 2 === 0;

/** A command was in flight that its lane was not at. */
export class LaneError extends Error {}

/**
 * So many lanes, each one command at a time, writing a pattern and reading it back. How far each lane is, is in the kept
 * memory itself, so that whoever comes next goes on exactly there, and notices what was lost or done twice:
 *
 * ```ts
 * const lanes = Lanes.create(device.space, controller.namespace(1));
 * const running = lanes.start();
 * await handOff(kept, channel); // and, in the successor:
 * const arena = kept.arenas.find(({ name }) => name === LANES_ARENA);
 * const lanes = Lanes.adopt(arena, controller.namespace(1));
 * const running = lanes.start(controller.inherited);
 * ```
 *
 * They overwrite the first {@link LANES} × `turns` × 4096 bytes of the namespace.
 */
export class Lanes {
  readonly arena: DmaArena;
  readonly #namespace: Namespace;
  readonly #words: Uint32Array;
  readonly #buffers: readonly DmaBuffer[];
  /** Commands that were issued here, and how they were told: to compare with what the device saw. */
  readonly counts = { asked: 0, told: 0, inherited: 0, toldTwice: 0 };
  #running = false;
  #working = 0;
  #failure: unknown;

  private constructor(arena: DmaArena, namespace: Namespace, buffers: readonly DmaBuffer[]) {
    this.arena = arena;
    this.#namespace = namespace;
    this.#words = new Uint32Array(arena.buffer, 0, HEADER / 4);
    this.#buffers = buffers;
  }

  /** @param turns blocks that each lane writes before it begins again with its first */
  static create(space: AddressSpace, namespace: Namespace, turns = TURNS): Lanes {
    const arena = DmaArena.create(space, SIZE, { name: LANES_ARENA });
    return Lanes.adopt(arena, namespace, turns);
  }

  /** What a predecessor left. @param turns as {@link create}, for one that ended before it could say */
  static adopt(arena: DmaArena, namespace: Namespace, turns = TURNS): Lanes {
    const lanes = new Lanes(arena, namespace, Lanes.#carve(arena));
    for (let at = Word.turns; at < LANES * WORDS; at += WORDS) lanes.#words[at] ||= turns;
    return lanes;
  }

  static #carve(arena: DmaArena): DmaBuffer[] {
    arena.allocateAt(0, HEADER);
    return Array.from({ length: LANES }, (_, lane) => arena.allocateAt(HEADER + lane * BLOCK, BLOCK));
  }

  /** Operations that ended, over all lanes and processes. */
  get told(): number {
    return this.toldByLane.reduce((sum, told) => sum + told, 0);
  }

  /** The same by lane. */
  get toldByLane(): readonly number[] {
    return Array.from({ length: LANES }, (_, lane) => this.#words[lane * WORDS + Word.told] as number);
  }

  /** Blocks that did not read back as they were written. */
  get wrong(): number {
    let sum = 0;
    for (let lane = 0; lane < LANES; lane++) sum += this.#words[lane * WORDS + Word.wrong] as number;
    return sum;
  }

  /** A word that is kept for whoever runs the lanes. */
  get shared(): Uint32Array {
    return this.#words.subarray(SHARED, SHARED + 8);
  }

  /** How many lanes have not come to their end since they were last started. */
  get working(): number {
    return this.#working;
  }

  /** Why a lane ended although it was not stopped. */
  get failure(): unknown {
    return this.#failure;
  }

  /**
   * Starts all lanes, which go on until they are stopped or the controller is handed over: each first waits for what the
   * predecessor had in flight. After a crash that may be several commands: those that the lane was told of a moment before,
   * and the next.
   *
   * @param onTold called whenever an operation has ended, with how many of its lane have
   */
  start(inherited: NvmeController['inherited'] = [], onTold: OnTold = () => undefined): Promise<void> {
    this.#running = true;
    const lanes = Array.from({ length: LANES }, (_, lane) => this.#run(lane, inherited, onTold));
    return Promise.all(lanes).then(() => undefined);
  }

  /** No lane begins another operation. */
  stop(): void {
    this.#running = false;
  }

  async #run(lane: number, inherited: readonly InheritedCommand[], onTold: OnTold): Promise<void> {
    const record = this.#words.subarray(lane * WORDS, (lane + 1) * WORDS);
    this.#working++;
    try {
      const left = inOrder(lane, inherited, record[Word.told] as number);
      for (const command of left) {
        if (await this.#finish(record, command)) onTold(lane, record[Word.told] as number);
      }
      while (this.#running) {
        const operation = record[Word.told] as number;
        await this.#issue(lane, record, operation);
        this.#tell(lane, record, operation);
        onTold(lane, operation + 1);
      }
    } catch (error) {
      if ((error as { code?: string }).code !== 'HANDED_OVER') this.#failure ??= error;
    } finally {
      this.#working--;
    }
  }

  /** A command that the predecessor had in flight. @returns false when the lane was told of its end before */
  async #finish(record: Uint32Array, command: InheritedCommand): Promise<boolean> {
    this.counts.inherited++;
    const operation = operationOf(command);
    await command.done;
    if (operation === record[Word.told]) {
      this.#tell(laneOf(command), record, operation);
      return true;
    }
    this.counts.toldTwice++;
    return false;
  }

  #issue(lane: number, record: Uint32Array, operation: number): Promise<unknown> {
    const buffer = this.#buffers[lane] as DmaBuffer;
    const turn = Math.floor(operation / 2);
    const blocks = BLOCK / this.#namespace.blockSize;
    const turns = record[Word.turns] as number;
    const lba = (lane * turns + (turn % turns)) * blocks;
    const tag = (BigInt(lane + 1) << 32n) | BigInt(operation);
    this.counts.asked++;
    if (!isWrite(operation)) {
      buffer.bytes.fill(0);
      return this.#namespace.read(lba, buffer, { tag });
    }
    fill(buffer.bytes, lane, turn);
    return this.#namespace.write(lba, buffer, { tag });
  }

  #tell(lane: number, record: Uint32Array, operation: number): void {
    this.counts.told++;
    if (
      !isWrite(operation) &&
      !matches((this.#buffers[lane] as DmaBuffer).bytes, lane, Math.floor(operation / 2))
    ) {
      record[Word.wrong] = (record[Word.wrong] as number) + 1;
    }
    record[Word.told] = operation + 1;
  }

  /** What the disk must hold after so many operations of a lane, by block. For whoever looks at the image. */
  expected(): { lane: number; lba: number; pattern: Uint8Array }[] {
    return expectedBlocks(this.toldByLane, this.#words[Word.turns]);
  }
}

const laneOf = ({ tag }: InheritedCommand): number => Number(tag >> 32n) - 1;
const operationOf = ({ tag }: InheritedCommand): number => Number(tag & 0xffff_ffffn);

/**
 * Those of a lane: one after the other, and up to the last that it was told of, or the next. An older one that is there
 * still would have been forgotten by the driver.
 *
 * @throws LaneError
 */
function inOrder(lane: number, all: readonly InheritedCommand[], told: number): InheritedCommand[] {
  // 0 is the tag of commands that are no lane's.
  const left = all.filter(each => each.tag !== 0n && laneOf(each) === lane).toSorted(by(operationOf));
  const last = left.at(-1);
  const operations = left.map(operationOf);
  const gap = operations.some(
    (operation, index) => index > 0 && operation !== (operations[index - 1] as number) + 1,
  );
  if (last && (gap || (operationOf(last) !== told && operationOf(last) + 1 !== told))) {
    throw new LaneError(`lane ${lane} is at ${told}, and ${operations.join(', ')} were in flight`);
  }
  return left;
}

/** @param told operations of the lane that have ended */
export type OnTold = (lane: number, told: number) => void;

/** The blocks that lanes have written and been told of, 4096 bytes each, by the number of operations of each lane. */
export function expectedBlocks(
  told: readonly number[],
  turns = TURNS,
): { lane: number; lba: number; pattern: Uint8Array }[] {
  return told.flatMap((count, lane) => {
    const written = Math.ceil(count / 2);
    const latest = Array.from({ length: Math.min(written, turns) }, (_, back) => written - 1 - back);
    return latest.map(turn => {
      const pattern = new Uint8Array(BLOCK);
      fill(pattern, lane, turn);
      return { lane, lba: lane * turns + (turn % turns), pattern };
    });
  });
}

function word(lane: number, turn: number, index: number): number {
  return (Math.imul(turn + 1, 0x9e37_79b1) ^ Math.imul(lane + 1, 0x85eb_ca6b) ^ index) >>> 0;
}

function fill(bytes: Uint8Array, lane: number, turn: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, BLOCK / 4);
  for (let index = 0; index < words.length; index++) words[index] = word(lane, turn, index);
}

/** Whether a block is as a lane wrote it in a turn. */
export function matches(bytes: Uint8Array, lane: number, turn: number): boolean {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, BLOCK / 4);
  for (let index = 0; index < words.length; index++)
    if (words[index] !== word(lane, turn, index)) return false;
  return true;
}
