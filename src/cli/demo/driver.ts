/** A driver that is replaced while it works: verified I/O of an NVMe controller, 32 commands at a time. @module */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { NvmeController } from '../../drivers/nvme/index.js';
import { HandoffError, HandoffErrorCode } from '../../keepalive/handoff/handoff-error.js';
import { KeepAlive } from '../../keepalive/keep-alive.js';
import type { DmaArena } from '../../memory/dma-memory.js';
import { claimOf, openDevice } from '../../open-device.js';
import { claim } from '../../pci/claim.js';
import { BLOCK, LANES, LANES_ARENA, Lanes } from '../../testing/lanes.js';
import { NVME, type Stage } from './stage.js';
import { atDepth } from './workload.js';

const OPTIONS = { ioQueues: 2, maxTransfer: 2 ** 20, bounceSize: 2 ** 20 } as const;
/** Blocks that each lane writes before it begins again. */
const TURNS = 8;
/**
 * How often a lane that is to go on, or to end, is looked at. It takes a few milliseconds; on a machine with other things
 * to do more, but hardly more turns of the event loop.
 */
const PATIENCE = 3000;
const POLL_MS = 1;

/** What was read back of what was written. */
export interface ReadBack {
  /** Commands that it took. */
  readonly reads: number;
  /** As it was written. */
  readonly bytes: number;
  readonly bytesWrong: number;
}

export class Driver {
  readonly kept: KeepAlive;
  readonly controller: NvmeController;
  readonly lanes: Lanes;
  /** Operations that have ended, by lane, as the process has noted it: not in the memory that is kept. */
  readonly toldByLane: number[];
  /** When the first and the last operation ended here, as `performance.now()` counts. */
  readonly times = { first: 0, last: 0 };
  /** Lanes that were told of nothing here yet. */
  readonly #silent = new Set(Array.from({ length: LANES }, (_, lane) => lane));
  #closed = false;

  private constructor(kept: KeepAlive, controller: NvmeController, lanes: Lanes) {
    this.kept = kept;
    this.controller = controller;
    this.lanes = lanes;
    this.toldByLane = [...lanes.toldByLane];
  }

  /** Brings the controller up. */
  static async start({ mode }: Stage, kernel: Syscalls): Promise<Driver> {
    const device = openDevice(await claim(NVME, { kernel }), { noiommu: mode === 'noiommu' });
    const kept = KeepAlive.of(device);
    const controller = await NvmeController.open(device, OPTIONS);
    kept.add(controller);
    return new Driver(kept, controller, Lanes.create(device.space, controller.namespace(1), TURNS));
  }

  /** Goes on with what a predecessor left. */
  static async goOn(kept: KeepAlive): Promise<Driver> {
    const arena = kept.arenas.find(({ name }) => name === LANES_ARENA);
    if (arena === undefined) throw new Error('the predecessor left no lanes');
    const memory = (token: bigint): DmaArena | undefined => kept.arena(token);
    const controller = await NvmeController.restore(kept.device(NVME), kept.record(NVME), { memory });
    kept.add(controller);
    return new Driver(kept, controller, Lanes.adopt(arena, controller.namespace(1), TURNS));
  }

  /** The commands that the predecessor had in flight. */
  get inherited(): number {
    return this.controller.inherited.filter(({ tag }) => tag !== 0n).length;
  }

  /** Operations that have ended here and with all predecessors, as the memory that is kept has it. */
  get told(): number {
    return this.lanes.told;
  }

  /** Of these, bytes that a lane read back as something else than it had written. */
  get bytesWrong(): number {
    return this.lanes.wrong * BLOCK;
  }

  /** Goes on from where the lanes are. */
  run(): void {
    void this.lanes.start(this.controller.inherited, (lane, count) => {
      this.toldByLane[lane] = count;
      this.times.last = performance.now();
      this.times.first ||= this.times.last;
      this.#silent.delete(lane);
    });
  }

  /** Waits until every lane has gone on here. @returns how many have not, although they had time */
  async progress(signal: AbortSignal): Promise<number> {
    await this.#until(() => this.#silent.size === 0, signal);
    return this.#silent.size;
  }

  /** Ends all lanes when their commands have ended. @returns how many have not, although they had time */
  async pause(signal: AbortSignal): Promise<number> {
    this.lanes.stop();
    await this.#until(() => this.lanes.working === 0, signal);
    return this.lanes.working;
  }

  /** @throws what a lane ended with */
  async #until(done: () => boolean, signal: AbortSignal): Promise<void> {
    for (let looks = 0; !done() && looks < PATIENCE && this.lanes.failure === undefined; looks++) {
      await sleep(POLL_MS, undefined, { signal });
    }
    if (this.lanes.failure !== undefined) throw this.lanes.failure;
  }

  /** Reads back all that the lanes have written, while none of them works. */
  async verify(): Promise<ReadBack> {
    const namespace = this.controller.namespace(1);
    const blocks = BLOCK / namespace.blockSize;
    const expected = this.lanes.expected();
    let bytes = 0;
    await atDepth(expected, async ({ lba, pattern }) => {
      const found = await namespace.readBlocks(lba * blocks, blocks);
      if (Buffer.compare(found, pattern) === 0) bytes += BLOCK;
    });
    return { reads: expected.length, bytes, bytesWrong: expected.length * BLOCK - bytes };
  }

  /** Shuts the controller down in an orderly way, and gives it back. */
  async close(): Promise<void> {
    this.#closed = true;
    const { kept, controller, lanes } = this;
    const { device } = controller;
    await controller.close();
    kept[Symbol.dispose]();
    // What a predecessor left is gone with it by now; what the driver began with itself is not.
    lanes.arena[Symbol.dispose]();
    device[Symbol.dispose]();
    claimOf(device)?.release();
  }

  /** The process is no more, by whatever way: its program ends where it is. */
  end(): void {
    if (this.#closed) return;
    this.lanes.stop();
    this.controller.relinquish(new HandoffError(HandoffErrorCode.HandedOver, 'the process has ended'));
  }
}
