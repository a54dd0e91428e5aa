// A driver that ends at any instruction: memory and controller are copied at every store of the journal and at every
// doorbell, and a successor goes on from each copy. No command is lost, and none is executed twice.
import assert from 'node:assert/strict';
import t from 'tap';
import { decodeCommand } from '../../src/drivers/nvme/inherited.js';
import { Journal, positionModulus, SlotState } from '../../src/drivers/nvme/journal.js';
import { type Pending, type QueueLayout, QueuePair } from '../../src/drivers/nvme/queue-pair.js';
import { readJournal } from '../../src/drivers/nvme/restore-plan.js';
import { DEVICE_PAGE } from '../../src/memory/device-pages.js';
import { DmaArena } from '../../src/memory/dma-memory.js';
import type { Region } from '../../src/vfio/region.js';
import { type Random, random } from '../support/random.js';
import { fakeSpace } from './support/fake-iommufd.js';

const MAX_TRANSFER = 4 * DEVICE_PAGE;
const SUBMISSION_DOORBELL = 0x1008;

/** The controller of one queue pair. A command is known by its dword 10. */
class ModelController {
  readonly entries: number;
  memory: DmaArena;
  readonly layout: QueueLayout;
  tail: number;
  head: number;
  completionTail: number;
  phase = 1;
  /** As far as the driver says that it has read completions. */
  read: number;
  /** Executed and not completed yet. */
  executed: { id: number; serial: number }[] = [];
  /** How often each command was executed. */
  counts = new Map<number, number>();

  constructor(entries: number, memory: DmaArena, layout: QueueLayout, start = 0) {
    this.entries = entries;
    this.memory = memory;
    this.layout = layout;
    this.tail = this.head = this.completionTail = this.read = start;
  }

  copy(memory: DmaArena): ModelController {
    const copy = new ModelController(this.entries, memory, this.layout);
    Object.assign(copy, this, { memory, executed: [...this.executed], counts: new Map(this.counts) });
    return copy;
  }

  ring(offset: number, value: number): void {
    assert.ok(value < this.entries);
    if (offset === SUBMISSION_DOORBELL) this.tail = value;
    else this.read = value;
  }

  /** Takes up to `limit` commands from the ring, and executes them. */
  fetch(limit: number): void {
    const words = new Uint32Array(this.memory.buffer, this.layout.submission, this.entries * 16);
    for (let i = 0; i < limit && this.head !== this.tail; i++) {
      const serial = words[this.head * 16 + 10] as number;
      this.executed.push({ id: (words[this.head * 16] as number) >>> 16, serial });
      this.counts.set(serial, (this.counts.get(serial) ?? 0) + 1);
      this.head = (this.head + 1) % this.entries;
    }
  }

  /** Completes up to `limit` commands, in any order. */
  complete(limit: number, rng: Random): void {
    const words = new Uint32Array(this.memory.buffer, this.layout.completion, this.entries * 4);
    for (let i = 0; i < limit && this.executed.length > 0; i++) {
      const next = (this.completionTail + 1) % this.entries;
      assert.notEqual(next, this.read, 'the completion queue cannot be full');
      const [{ id, serial }] = this.executed.splice(rng.below(this.executed.length), 1) as [
        { id: number; serial: number },
      ];
      const at = this.completionTail * 4;
      words[at] = serial;
      words[at + 2] = (1 << 16) | this.head;
      words[at + 3] = (this.phase << 16) | id;
      this.completionTail = next;
      if (next === 0) this.phase ^= 1;
    }
  }
}

/** What the application knows. Commands are known by a serial number, which is their tag as well. */
class Application {
  /** Given to the driver, whatever became of that. */
  issued = new Set<number>();
  told = new Set<number>();
  /** Told, and the application has run since. */
  settled = new Set<number>();

  copy(): Application {
    const copy = new Application();
    copy.issued = new Set(this.issued);
    copy.told = new Set(this.told);
    copy.settled = new Set(this.settled);
    return copy;
  }
}

interface Moment {
  readonly memory: Uint8Array;
  readonly controller: ModelController;
  readonly application: Application;
}

/** Calls `observe` before and after every store of journals, and every doorbell, while `body` runs. */
function observing(observe: () => void, body: () => void): void {
  const { store } = Atomics;
  const around = <A extends unknown[], R>(call: (...args: A) => R) =>
    function (this: unknown, ...args: A): R {
      observe();
      const result = call.apply(this, args);
      observe();
      return result;
    };
  Atomics.store = around(store as (...args: unknown[]) => unknown) as typeof store;
  const { prototype } = Journal;
  const plain = ['rung', 'acknowledged', 'free'] as const;
  const before = plain.map(name => [name, Object.getOwnPropertyDescriptor(prototype, name)!] as const);
  for (const [name, descriptor] of before) {
    Object.defineProperty(prototype, name, {
      ...descriptor,
      ...(descriptor.set && { set: around(descriptor.set) }),
      ...(descriptor.value && { value: around(descriptor.value) }),
    });
  }
  try {
    body();
  } finally {
    Atomics.store = store;
    for (const [name, descriptor] of before) Object.defineProperty(prototype, name, descriptor);
  }
}

class Driver {
  readonly queue: QueuePair;
  readonly controller: ModelController;
  readonly application: Application;
  readonly data: DmaArena;
  observe: () => void = () => undefined;

  constructor(
    memory: DmaArena,
    data: DmaArena,
    entries: number,
    application: Application,
    controllerOf: (layout: QueueLayout) => ModelController,
    layout?: QueueLayout,
  ) {
    this.application = application;
    this.data = data;
    const registers = {
      write32: (offset: number, value: number): void => {
        this.observe();
        this.controller.ring(offset, value);
        this.observe();
      },
    } as unknown as Region;
    this.queue = new QueuePair({
      id: 1,
      entries,
      vector: 0,
      maxTransfer: MAX_TRANSFER,
      doorbellStride: 4,
      registers,
      memory,
      ...(layout && { layout }),
    });
    this.controller = controllerOf(this.queue.layout);
  }

  pending(slot: number, serial: number): Pending {
    return {
      queue: this.queue,
      slot,
      command: { opcode: serial % 2 === 0 ? 1 : 2, namespaceId: 1, cdw10: serial, cdw12: 3 },
      transfer: { memory: this.data, offset: (serial % 64) << 6, length: 8192 + 512 * (serial % 8) },
      tag: BigInt(serial),
      internal: false,
      holdsSlot: false,
      timeout: 0,
      reissue: true,
      resets: 0,
      deadline: 0,
      aborting: undefined,
      complete: (status, result) => {
        assert.equal(status, 0);
        assert.equal(result, serial, 'a completion of its own');
        this.application.told.add(serial);
      },
      cancel: () => assert.fail('nothing is cancelled'),
    };
  }

  submit(serial: number): boolean {
    const slot = this.queue.tryAcquire();
    if (slot < 0) return false;
    this.application.issued.add(serial);
    this.queue.submit(this.pending(slot, serial));
    return true;
  }

  /** The event loop turns: the application has run. */
  turn(): void {
    const told = [...this.application.told];
    this.queue.forgetTold();
    for (const serial of told) this.application.settled.add(serial);
  }
}

class World {
  readonly entries: number;
  readonly data: DmaArena;
  readonly memories: readonly DmaArena[];
  readonly rng: Random;
  recoveries = 0;
  unsubmitted = 0;
  repeated = 0;
  readonly #ioas: ReturnType<typeof fakeSpace>['ioas'];

  constructor(entries: number, seed: number) {
    const { ioas } = fakeSpace();
    ioas.noteAttached('iommu', 1);
    this.#ioas = ioas;
    this.entries = entries;
    this.rng = random(seed);
    const size = QueuePair.memorySize(entries, MAX_TRANSFER);
    this.memories = [0, 1, 2].map(() => DmaArena.create(ioas, size));
    this.data = DmaArena.create(ioas, 64 * 1024);
  }

  /** A driver, `steps` actions, and what there was at every moment. */
  run(steps: number, start: number): Moment[] {
    const [memory] = this.memories as [DmaArena];
    const { entries, rng } = this;
    const size = QueuePair.memorySize(entries, MAX_TRANSFER);
    const layout = new QueuePair({
      id: 1,
      entries,
      vector: 0,
      maxTransfer: MAX_TRANSFER,
      doorbellStride: 4,
      registers: {} as Region,
      memory,
    });
    layout.dispose();
    // As if it had been in use for long: positions start again soon.
    const journal = new Journal(
      new Uint8Array(memory.buffer, layout.layout.journal, Journal.size(entries - 1)),
    );
    journal.tail = journal.rung = journal.head = journal.acknowledged = start;
    journal.inUse = true;
    const driver = new Driver(
      memory,
      this.data,
      entries,
      new Application(),
      where => new ModelController(entries, memory, where),
      layout.layout,
    );
    const moments: Moment[] = [];
    driver.observe = () => {
      moments.push({
        memory: new Uint8Array(memory.buffer.slice(0, size)),
        controller: driver.controller.copy(memory),
        application: driver.application.copy(),
      });
    };
    observing(driver.observe, () => {
      let serial = 1;
      for (let step = 0; step < steps; step++) {
        const action = rng.below(5);
        if (action < 2) {
          if (driver.submit(serial)) serial++;
        } else if (action === 2) driver.controller.fetch(1 + rng.below(entries));
        else if (action === 3) driver.controller.complete(1 + rng.below(entries), rng);
        else {
          assert.ok(driver.queue.drain());
          if (rng.below(3) > 0) driver.turn();
        }
      }
    });
    return moments;
  }

  /** A successor goes on from a moment; it may end itself, at a moment that is gone on from once more. */
  recover(moment: Moment, generation = 1): void {
    this.recoveries++;
    const { entries, rng } = this;
    const memory = this.memories[generation] as DmaArena;
    new Uint8Array(memory.buffer).set(moment.memory);
    const application = moment.application.copy();
    const layoutOf = moment.controller.layout;
    const journal = new Journal(new Uint8Array(memory.buffer, layoutOf.journal, Journal.size(entries - 1)));
    const limits = {
      inUse: true,
      maxTransfer: MAX_TRANSFER,
      memory: (token: bigint) => (token === this.data.token ? this.data : undefined),
      space: this.#ioas,
    };
    const left = readJournal(journal, entries, limits, '/queue-1');
    const driver = new Driver(
      memory,
      this.data,
      entries,
      application,
      () => moment.controller.copy(memory),
      layoutOf,
    );
    const { queue, controller } = driver;
    const reported = new Set<number>();
    const again: Moment[] = [];
    if (generation === 1) {
      driver.observe = () => {
        if (rng.below(8) > 0) return;
        again.push({
          memory: new Uint8Array(memory.buffer.slice(0)),
          controller: controller.copy(memory),
          application: application.copy(),
        });
      };
    }
    const work = (): void => {
      const unsubmitted: Pending[] = [];
      for (const { slot, record, submitted } of left) {
        const serial = decodeCommand(record.entry).cdw10 as number;
        assert.equal(record.tag, BigInt(serial));
        assert.ok(!reported.has(serial));
        reported.add(serial);
        const pending = driver.pending(slot, serial);
        assert.deepEqual(decodeCommand(record.entry), {
          cdw11: 0,
          cdw13: 0,
          ...pending.command,
        });
        assert.deepEqual(
          [record.offset, record.length],
          [pending.transfer?.offset, pending.transfer?.length],
        );
        assert.ok(application.issued.has(serial));
        assert.ok(!application.settled.has(serial), 'the application was told long ago');
        if (record.state === SlotState.Completed) {
          assert.equal(record.result, serial);
          assert.equal(controller.counts.get(serial), 1);
          if (application.told.has(serial)) this.repeated++;
          pending.complete(record.status, record.result);
          queue.noteTold(slot);
          continue;
        }
        assert.ok(!application.told.has(serial), 'told of, and in flight');
        queue.adopt(pending);
        if (submitted) continue;
        this.unsubmitted++;
        assert.equal(controller.counts.get(serial), undefined, 'said to be unknown to the controller');
        unsubmitted.push(pending);
      }
      queue.ringAgain();
      for (const pending of unsubmitted) queue.submitAdopted(pending);
      for (let round = 0; round < 4 * entries; round++) {
        assert.ok(queue.drain());
        driver.turn();
        controller.fetch(1 + rng.below(2));
        controller.complete(1 + rng.below(2), rng);
      }
      assert.ok(queue.drain());
      driver.turn();
    };
    if (generation === 1) observing(driver.observe, work);
    else work();
    assert.equal(queue.outstanding, 0, 'every slot is free again');
    for (const serial of application.issued) {
      const count = controller.counts.get(serial) ?? 0;
      assert.ok(count <= 1, `command ${serial} was executed ${count} times`);
      if (count === 1) assert.ok(application.told.has(serial), `nobody was told of command ${serial}`);
      else assert.ok(!application.told.has(serial) && !reported.has(serial));
    }
    // And it goes on.
    for (let serial = 1000; serial < 1000 + 2 * entries; serial++) {
      assert.ok(driver.submit(serial));
      controller.fetch(1);
      controller.complete(1, rng);
      assert.ok(queue.drain());
      driver.turn();
      assert.ok(application.told.has(serial));
    }
    queue.dispose();
    for (const next of again) this.recover(next, 2);
  }
}

for (const entries of [2, 3, 5, 9]) {
  t.test(`ended at any instruction, ${entries} entries`, t => {
    const seed = Number(process.env.SEED) || Date.now() & 0x7fff_ffff;
    const total = { moments: 0, recoveries: 0, unsubmitted: 0, repeated: 0 };
    for (let round = 0; round < 6; round++) {
      const world = new World(entries, (seed + round) | 1);
      const moments = world.run(60, round % 2 === 0 ? 0 : positionModulus(entries) - 2 * entries);
      for (const moment of moments) world.recover(moment);
      total.moments += moments.length;
      total.recoveries += world.recoveries;
      total.unsubmitted += world.unsubmitted;
      total.repeated += world.repeated;
      for (const memory of [...world.memories, world.data]) memory[Symbol.dispose]();
    }
    t.comment(`seed ${seed}: ${JSON.stringify(total)}`);
    t.ok(total.moments > 200 && total.recoveries > total.moments);
    t.ok(total.unsubmitted > 0, 'some were about to be submitted');
    t.ok(total.repeated > 0, 'some were being told of');
    t.end();
  });
}
