/** A simulated NVMe controller in a machine of its own, with queues that a test fills by hand. @module */
import { setTimeout as sleep } from 'node:timers/promises';
import { NvmeModel } from '../../../src/sim/devices/nvme/index.js';
import type { NvmeModelOptions } from '../../../src/sim/devices/nvme/options.js';
import { type Completion, type Entry, PAGE, RawQueue } from '../../support/nvme-probe/raw-queue.js';
import { PlainPort, readBar, writeBar } from './plain-port.js';

const CC = 0x14;
const CSTS = 0x1c;
const AQA = 0x24;
const ASQ = 0x28;
const ACQ = 0x30;
const ENABLED = 0x0046_0001n;
const ADMIN_ENTRIES = 16;
const IO_ENTRIES = 16;
/** Queues have the first pages; data comes after them. */
const FIRST_DATA_PAGE = 16;

export class NvmeBench {
  readonly port: PlainPort;
  readonly model: NvmeModel;
  admin!: RawQueue;
  /** Queues 1, 2 … by their number. */
  readonly io: RawQueue[] = [];

  constructor(options: NvmeModelOptions = {}, memory = 2 ** 20) {
    this.port = new PlainPort(memory);
    this.model = new NvmeModel(options);
    this.model.plug(this.port);
  }

  /** Address of a page of the memory. */
  address(page: number): bigint {
    return this.port.base + BigInt(page * PAGE);
  }

  get data(): Uint8Array {
    return this.port.memory.subarray(FIRST_DATA_PAGE * PAGE);
  }

  get dataAddress(): bigint {
    return this.address(FIRST_DATA_PAGE);
  }

  get status(): number {
    return Number(readBar(this.model, CSTS, 4));
  }

  configure(value: bigint): void {
    writeBar(this.model, CC, 4, value);
  }

  #queue(id: number, entries: number): RawQueue {
    const { model, port } = this;
    const controller = {
      read: (offset: number, size: number) => readBar(model, offset, size),
      write: (offset: number, size: number, value: bigint) => writeBar(model, offset, size, value),
      memory: port.memory,
      address: (page: number) => this.address(page),
      unreachable: undefined,
      setBusMaster: () => undefined,
      interrupts: () => 0,
      sleep,
    };
    return new RawQueue(controller, id, 2 * id, 2 * id + 1, entries);
  }

  /** Enables the controller, and makes I/O queues 1 to `queues`, each with its own vector. */
  async start(queues = 1): Promise<this> {
    this.configure(0n);
    this.admin = this.#queue(0, ADMIN_ENTRIES);
    writeBar(this.model, AQA, 4, BigInt(((ADMIN_ENTRIES - 1) << 16) | (ADMIN_ENTRIES - 1)));
    writeBar(this.model, ASQ, 8, this.address(0));
    writeBar(this.model, ACQ, 8, this.address(1));
    this.configure(ENABLED);
    this.io.length = 0;
    for (let id = 1; id <= queues; id++) {
      const vector = this.port.interruptMode === 'msix' ? id : 0;
      const cdw10 = ((IO_ENTRIES - 1) << 16) | id;
      await this.run({ opcode: 5, cdw10, cdw11: (vector << 16) | 3, prp1: this.address(2 * id + 1) });
      await this.run({ opcode: 1, cdw10, cdw11: (id << 16) | 1, prp1: this.address(2 * id) });
      this.io[id] = this.#queue(id, IO_ENTRIES);
    }
    return this;
  }

  get first(): RawQueue {
    return this.io[1] as RawQueue;
  }

  /** Issues a command, and waits for a completion. */
  async run(entry: Entry, queue = this.admin, ms = 1000): Promise<Completion | undefined> {
    queue.put(entry);
    queue.ring();
    return queue.next(ms);
  }

  /** A read or a write of blocks in one page of memory. */
  transfer(opcode: 1 | 2, lba: number, blocks = 1, nsid = 1): Entry {
    return { opcode, nsid, cdw10: lba, cdw12: blocks - 1, prp1: this.dataAddress };
  }

  read(lba: number, queue = this.first, ms = 1000): Promise<Completion | undefined> {
    return this.run(this.transfer(2, lba), queue, ms);
  }

  write(lba: number, queue = this.first): Promise<Completion | undefined> {
    return this.run(this.transfer(1, lba), queue);
  }
}
