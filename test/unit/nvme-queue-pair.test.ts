// NVMe queues as the controller sees them: it reads entries and PRP lists from memory by their device addresses, and
// writes completions with the phase tag.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import type { Command } from '../../src/drivers/nvme/command.js';
import { SlotState, type Transfer } from '../../src/drivers/nvme/journal.js';
import { type Pending, QueuePair } from '../../src/drivers/nvme/queue-pair.js';
import { DEVICE_PAGE } from '../../src/memory/device-pages.js';
import { DmaArena } from '../../src/memory/dma-memory.js';
import type { Region } from '../../src/vfio/region.js';
import { fakeSpace, scatteredPage } from './support/fake-iommufd.js';
import { NvmeQueueModel } from './support/nvme-queue-model.js';

const PAGE = BigInt(DEVICE_PAGE);

interface Completion {
  readonly status: number;
  readonly result: number;
}

/** A command, and what became of it. */
class Issued implements Pending {
  readonly queue: QueuePair;
  readonly slot: number;
  readonly command: Command;
  readonly transfer: Transfer | undefined;
  readonly tag = 0n;
  readonly internal = false;
  readonly holdsSlot = false;
  readonly timeout = 0;
  readonly reissue = true;
  resets = 0;
  deadline = 0;
  aborting: unknown;
  readonly completions: Completion[] = [];
  readonly cancellations: unknown[] = [];

  constructor(queue: QueuePair, slot: number, command: Command = { opcode: 2 }, transfer?: Transfer) {
    this.queue = queue;
    this.slot = slot;
    this.command = command;
    this.transfer = transfer;
  }

  /** How the controller knows it, once it is submitted. */
  get id(): number {
    return this.queue.commandId(this.slot);
  }

  complete(status: number, result: number): void {
    this.completions.push({ status, result });
  }

  cancel(error: unknown): void {
    this.cancellations.push(error);
  }
}

interface Setup {
  queue: QueuePair;
  memory: DmaArena;
  model: NvmeQueueModel;
  /** Every doorbell written: register offset and value. */
  doorbells: [offset: number, value: number][];
  dispose(): void;
}

function setUp(options: {
  entries: number;
  maxTransfer?: number;
  id?: number;
  stride?: number;
  scattered?: boolean;
}): Setup {
  const { kernel, iommufd, ioas } = fakeSpace();
  const { entries, maxTransfer = DEVICE_PAGE, id = 1, stride = 4, scattered = false } = options;
  if (scattered) kernel.physicalPage = scatteredPage;
  ioas.noteAttached(scattered ? 'none' : 'iommu', 1);
  const memory = DmaArena.create(ioas, QueuePair.memorySize(entries, maxTransfer));
  const doorbells: [number, number][] = [];
  const registers = {
    write32: (offset: number, value: number): void => void doorbells.push([offset, value]),
  } as unknown as Region;
  const queue = new QueuePair({
    id,
    entries,
    vector: id,
    maxTransfer,
    doorbellStride: stride,
    registers,
    memory,
  });
  const model = new NvmeQueueModel([memory], {
    id,
    entries,
    submission: queue.submissionBuffer.deviceAddress(),
    completion: queue.completionBuffer.deviceAddress(),
  });
  return {
    queue,
    memory,
    model,
    doorbells,
    dispose() {
      memory[Symbol.dispose]();
      iommufd[Symbol.dispose]();
    },
  };
}

t.test('the memory it asks for is the memory it takes', async t => {
  for (const entries of [2, 3, 32, 64, 65, 256, 257]) {
    for (const maxTransfer of [1, 511, 512, 513, 514, 1022, 1023, 1024, 1025].map(
      pages => pages * DEVICE_PAGE,
    )) {
      if (entries > 64 && maxTransfer > 513 * DEVICE_PAGE) continue;
      const { queue, memory, dispose } = setUp({ entries, maxTransfer });
      assert.equal(memory.available, 0);
      assert.equal(queue.outstanding, 0);
      assert.equal(queue.submissionBuffer.offset % DEVICE_PAGE, 0);
      assert.equal(queue.completionBuffer.offset % DEVICE_PAGE, 0);
      dispose();
    }
  }
  t.pass();
});

t.test('the entry of a command', async t => {
  const { queue, model, doorbells, dispose } = setUp({ entries: 4, id: 3, stride: 16 });
  const command = {
    opcode: 0x81,
    namespaceId: 0xffff_fffe,
    cdw10: 0x1010_1010,
    cdw11: 0xffff_ffff,
    cdw12: 12,
    cdw13: 0x8000_0000,
  };
  const slots = [queue.tryAcquire(), queue.tryAcquire(), queue.tryAcquire()];
  t.equal(queue.tryAcquire(), -1, 'one slot fewer than entries');
  t.same([...slots].sort(), [0, 1, 2]);
  queue.submit(new Issued(queue, slots[2]!, command));
  t.same(model.entry(0), [
    (0x81 | (queue.commandId(slots[2]!) << 16)) >>> 0,
    0xffff_fffe,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0x1010_1010,
    0xffff_ffff,
    12,
    0x8000_0000,
    0,
    0,
  ]);
  queue.submit(new Issued(queue, slots[0]!, { opcode: 0 }));
  t.same(
    model.entry(1),
    [queue.commandId(slots[0]!) << 16, ...new Array<number>(15).fill(0)],
    'what is not given is zero',
  );
  t.same(
    doorbells,
    [
      [0x1000 + 6 * 16, 1],
      [0x1000 + 6 * 16, 2],
    ],
    'the submission doorbell of queue 3',
  );
  model.complete(queue.commandId(slots[2]!), 0x4002, 0xdead_beef);
  t.equal(queue.drain(), true);
  t.same(doorbells.at(-1), [0x1000 + 7 * 16, 1], 'its completion doorbell');
  dispose();
});

t.test('the largest command identifier', async t => {
  const { queue, model, dispose } = setUp({ entries: 65536 });
  let slot = -1;
  for (let i = 0; i < 65535; i++) {
    const acquired = queue.tryAcquire();
    if (acquired > slot) slot = acquired;
  }
  t.equal(slot, 65534);
  const last = new Issued(queue, slot, { opcode: 0xff });
  queue.submit(last);
  t.equal(model.entry(0)[0], 0xfffe_00ff);
  model.complete(last.id, 0x7fff, 0xffff_ffff);
  t.equal(queue.drain(), true);
  t.same(last.completions, [{ status: 0x7fff, result: 0xffff_ffff }]);
  dispose();
});

t.test('PRP entries lead to exactly the bytes of the transfer', async t => {
  const maxTransfer = 1100 * DEVICE_PAGE;
  let chained = 0;
  for (const scattered of [true, false]) {
    const { kernel, iommufd, ioas } = fakeSpace();
    if (scattered) kernel.physicalPage = scatteredPage;
    ioas.noteAttached(scattered ? 'none' : 'iommu', 1);
    const entries = 4;
    const memory = DmaArena.create(ioas, QueuePair.memorySize(entries, maxTransfer));
    // Large enough for the largest transfer at any offset in a page.
    const data = DmaArena.create(ioas, maxTransfer + 8 * DEVICE_PAGE);
    const registers = { write32: () => undefined } as unknown as Region;
    const queue = new QueuePair({
      id: 1,
      entries,
      vector: 0,
      maxTransfer,
      doorbellStride: 4,
      registers,
      memory,
    });
    const model = new NvmeQueueModel([memory], {
      id: 1,
      entries,
      submission: queue.submissionBuffer.deviceAddress(),
      completion: queue.completionBuffer.deviceAddress(),
    });
    /** The device addresses of the transfer, the slow way. */
    const expected = ({ offset, length }: Transfer): [bigint, bigint][] => {
      const pieces: [bigint, bigint][] = [];
      for (let at = offset; at < offset + length; ) {
        const end = Math.min(at - (at % DEVICE_PAGE) + DEVICE_PAGE, offset + length);
        const page = scattered
          ? scatteredPage(data.iova + BigInt(at - (at % DEVICE_PAGE)))
          : data.iova + BigInt(at - (at % DEVICE_PAGE));
        pieces.push([page + (BigInt(at) % PAGE), BigInt(end - at)]);
        at = end;
      }
      return pieces;
    };
    const anyTransfer = fc
      .tuple(
        fc.oneof(fc.nat(8 * 1024 - 1), fc.constantFrom(0, 1, 1023, 1024)),
        fc.oneof(
          fc.integer({ min: 1, max: 4 * DEVICE_PAGE }),
          fc.integer({ min: 1, max: maxTransfer }),
          // Around the sizes where a list gets one page more.
          fc
            .tuple(
              fc.constantFrom(1, 2, 3, 511, 512, 513, 514, 1022, 1023, 1024, 1025, 1100),
              fc.integer({ min: -8, max: 8 }),
            )
            .map(([pages, delta]) => Math.min(Math.max(pages * DEVICE_PAGE + 4 * delta, 1), maxTransfer)),
        ),
      )
      .map(([dword, length]): Transfer => ({ memory: data, offset: 4 * dword, length }));
    fc.assert(
      fc.property(fc.array(anyTransfer, { minLength: 1, maxLength: 3 }), transfers => {
        const issued = transfers.map(transfer => {
          const command = new Issued(queue, queue.tryAcquire(), { opcode: 2 }, transfer);
          const at = model.nextEntry();
          queue.submit(command);
          return { command, transfer, at };
        });
        // Only now: a list must not be disturbed by the ones after it.
        for (const { transfer, at } of issued) {
          const { pieces, lists } = model.walk(at, transfer.length);
          assert.deepEqual(pieces, expected(transfer));
          if (lists.length > 1) chained++;
        }
        const pages = issued.flatMap(({ transfer, at }) => model.walk(at, transfer.length).lists);
        assert.equal(new Set(pages).size, pages.length, 'every list page has one owner');
        for (const { command } of issued) {
          model.complete(command.id, 0, command.slot);
          assert.ok(queue.drain());
          assert.deepEqual(command.completions, [{ status: 0, result: command.slot }]);
          queue.forgetTold();
        }
      }),
      { numRuns: 400 },
    );
    data[Symbol.dispose]();
    memory[Symbol.dispose]();
    iommufd[Symbol.dispose]();
  }
  t.ok(chained > 100, `${chained} lists of several pages`);
});

t.test('completions over many laps', async t => {
  for (const entries of [2, 3, 5, 64]) {
    const { queue, model, doorbells, dispose } = setUp({ entries });
    let completed = 0;
    let serial = 0;
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: entries - 1 }), fc.nat()), {
          minLength: 40,
          maxLength: 60,
        }),
        rounds => {
          for (const [count, order] of rounds) {
            assert.equal(queue.drain(), true, 'nothing new yet');
            const issued = Array.from({ length: count }, () => {
              const command = new Issued(queue, queue.tryAcquire(), { opcode: serial++ & 0xff });
              assert.ok(command.slot >= 0);
              model.nextEntry();
              queue.submit(command);
              return command;
            });
            // Completed in another order than submitted, in two portions.
            const first = order % count;
            const shuffled = [...issued.slice(first), ...issued.slice(0, first)];
            const portion = order % (count + 1);
            for (const part of [shuffled.slice(0, portion), shuffled.slice(portion)]) {
              for (const command of part)
                model.complete(command.id, command.command.opcode, serial ^ command.slot);
              const before = doorbells.length;
              assert.equal(queue.drain(), true);
              assert.deepEqual(
                doorbells.slice(before),
                part.length > 0 ? [[0x1000 + 3 * 4, model.completionTail]] : [],
                'the doorbell tells how far it was read, once',
              );
            }
            for (const command of issued) {
              assert.deepEqual(command.completions, [
                { status: command.command.opcode, result: serial ^ command.slot },
              ]);
              completed++;
            }
            assert.equal(queue.outstanding, count, 'their slots are not to be had in the same turn');
            queue.forgetTold();
            assert.equal(queue.outstanding, 0);
          }
        },
      ),
      { numRuns: 60 },
    );
    t.ok(model.laps > 20, `${entries} entries: ${completed} completions, ${model.laps} laps`);
    dispose();
  }
});

t.test('a full completion queue is taken in one go', async t => {
  const { queue, model, dispose } = setUp({ entries: 8 });
  for (let lap = 0; lap < 5; lap++) {
    const issued = Array.from({ length: 7 }, () => new Issued(queue, queue.tryAcquire()));
    for (const command of issued) queue.submit(command);
    for (const command of issued) model.complete(command.id, 0, 0);
    t.equal(queue.drain(), true);
    t.ok(issued.every(command => command.completions.length === 1));
    queue.forgetTold();
  }
  dispose();
});

t.test('completions of what was not submitted', async t => {
  const { queue, model, dispose } = setUp({ entries: 4 });
  const command = new Issued(queue, queue.tryAcquire());
  queue.submit(command);
  const taken = queue.tryAcquire();
  model.complete(0xffff, 0, 0);
  t.equal(queue.drain(), false, 'an identifier beyond all slots');
  model.complete(3, 0, 0);
  t.equal(queue.drain(), false, 'one beyond the last slot');
  model.complete(taken, 0, 0);
  t.equal(queue.drain(), false, 'a slot that was taken but not submitted');
  t.equal(queue.outstanding, 2, 'no slot was returned for them');
  model.complete(0xeeee, 0, 0);
  model.complete(command.id, 0, 5);
  t.equal(queue.drain(), false, 'reported although a good one follows');
  t.same(command.completions, [{ status: 0, result: 5 }], 'which is delivered');
  model.complete(command.id, 0, 5);
  t.equal(queue.drain(), false, 'the same one twice');
  t.equal(command.completions.length, 1);
  t.equal(queue.drain(), true, 'and then all is quiet');
  dispose();
});

t.test('completions that are not the command’s own', async t => {
  const { queue, model, dispose } = setUp({ entries: 4, id: 2 });
  const submit = (slot: number): Issued => {
    const command = new Issued(queue, slot);
    queue.submit(command);
    model.nextEntry();
    return command;
  };
  const first = submit(queue.tryAcquire());
  const { id } = first;
  model.complete(id, 0, 1);
  t.equal(queue.drain(), true);
  queue.forgetTold();
  const second = submit(queue.tryAcquire());
  t.equal(second.slot, first.slot, 'the same slot again');
  model.complete(id, 0, 2);
  t.equal(queue.drain(), false, 'the first one once more');
  t.strictSame(second.completions, [], 'does not complete the second');
  model.complete(second.id, 0, 3, 1);
  t.equal(queue.drain(), false, 'a completion that speaks of another queue');
  t.strictSame(second.completions, []);
  model.complete(second.id, 0, 4);
  t.equal(queue.drain(), true);
  t.strictSame(second.completions, [{ status: 0, result: 4 }]);
  dispose();
});

t.test('slots are never handed out twice', async t => {
  const { queue, model, dispose } = setUp({ entries: 9 });
  const action = fc.oneof(
    fc.constant('acquire' as const),
    fc.constant('release' as const),
    fc.constant('submit' as const),
    fc.constant('complete' as const),
  );
  fc.assert(
    fc.property(
      fc.array(fc.tuple(action, fc.nat()), { minLength: 50, maxLength: 100, size: 'max' }),
      steps => {
        const held: number[] = [];
        const inFlight: Issued[] = [];
        const pick = <T>(list: T[], choice: number): T | undefined =>
          list.splice(choice % Math.max(list.length, 1), 1)[0];
        for (const [name, choice] of steps) {
          if (name === 'acquire') {
            const slot = queue.tryAcquire();
            const used = [...held, ...inFlight.map(command => command.slot)];
            assert.equal(slot < 0, used.length === 8, 'none only when all are out');
            if (slot < 0) continue;
            assert.ok(slot < 8 && !used.includes(slot));
            held.push(slot);
          } else if (name === 'release') {
            const slot = pick(held, choice);
            if (slot !== undefined) queue.release(slot);
          } else if (name === 'submit') {
            const slot = pick(held, choice);
            if (slot === undefined) continue;
            const command = new Issued(queue, slot);
            queue.submit(command);
            assert.ok(queue.holds(command));
            inFlight.push(command);
          } else {
            const command = pick(inFlight, choice);
            if (!command) continue;
            model.complete(command.id, 0, 0);
            assert.ok(queue.drain());
            assert.equal(command.completions.length, 1);
            assert.ok(!queue.holds(command));
            queue.forgetTold();
          }
          assert.equal(queue.outstanding, held.length + inFlight.length);
          assert.deepEqual(new Set(queue.inFlight()), new Set(inFlight));
        }
        for (const slot of held) queue.release(slot);
        for (const command of inFlight) model.complete(command.id, 0, 0);
        assert.ok(queue.drain());
        queue.forgetTold();
        assert.equal(queue.outstanding, 0);
      },
    ),
    { numRuns: 200 },
  );
  t.pass();
  dispose();
});

t.test('waiting for a slot', async t => {
  const { queue, dispose } = setUp({ entries: 3 });
  const order: string[] = [];
  const wait = (name: string, signal?: AbortSignal): void =>
    void queue.acquire(signal).then(slot => order.push(`${name} ${slot}`));
  const a = await queue.acquire();
  const b = await queue.acquire();
  t.not(a, b);
  const abort = new AbortController();
  wait('first');
  wait('impatient', abort.signal);
  wait('second');
  wait('third', abort.signal);
  wait('fourth');
  await null;
  t.same(order, []);
  queue.release(a);
  t.equal(queue.tryAcquire(), -1, 'a newcomer is not faster than whoever waits');
  await null;
  t.same(order, [`first ${a}`], 'one per slot, first come first served');
  abort.abort();
  await null;
  t.same(order, [`first ${a}`, 'impatient -1', 'third -1'], 'an aborted one goes at once');
  queue.release(b);
  await null;
  t.equal(order.at(-1), `second ${b}`, 'and takes no slot with it');
  queue.dismissAll();
  await null;
  t.equal(order.at(-1), 'fourth -1');
  queue.dismissAll();
  t.equal(order.length, 5, 'each is told once');
  queue.release(a);
  queue.release(b);
  t.equal(queue.outstanding, 0, 'no slot is lost');
  dispose();
});

t.test('completions that are taken without telling the controller', async t => {
  const { queue, model, doorbells, dispose } = setUp({ entries: 4 });
  const command = new Issued(queue, queue.tryAcquire());
  queue.submit(command);
  model.complete(command.id, 0, 9);
  const { length } = doorbells;
  t.equal(queue.drain(false), true);
  t.same(command.completions, [{ status: 0, result: 9 }]);
  t.equal(doorbells.length, length, 'the doorbell of a disabled controller is left alone');
  dispose();
});

t.test('taking commands away', async t => {
  const { queue, model, dispose } = setUp({ entries: 5 });
  const issued = Array.from({ length: 3 }, () => new Issued(queue, queue.tryAcquire()));
  for (const command of issued) queue.submit(command);
  model.complete(issued[1]!.id, 0, 0);
  queue.drain();
  queue.forgetTold();
  queue.tryAcquire();
  queue.tryAcquire();
  const waiting = queue.acquire();
  queue.cancelAll(pending => `slot ${pending.slot}`);
  t.same(issued[0]!.cancellations, [`slot ${issued[0]!.slot}`]);
  t.same(issued[1]!.cancellations, [], 'a completed one is not cancelled');
  t.same(issued[2]!.cancellations, [`slot ${issued[2]!.slot}`]);
  t.match(queue.journal.record(issued[2]!.slot), { state: SlotState.Completed, status: 8 });
  queue.forgetTold();
  t.ok(queue.journal.isFree(issued[2]!.slot));
  t.equal(queue.outstanding, 3, 'their slots are back, one of them with who waited for it');
  t.ok((await waiting) >= 0);
  t.same([...queue.inFlight()], []);

  // As after a reset: the controller starts at entry 0 with phase 1 again.
  queue.rewind();
  model.rewind();
  t.ok(queue.completionBuffer.bytes.every(byte => byte === 0));
  const slot = queue.tryAcquire();
  const command = new Issued(queue, slot, { opcode: 0x42 });
  queue.submit(command);
  t.equal(model.entry(0)[0], (0x42 | (command.id << 16)) >>> 0);
  t.equal(queue.drain(), true, 'no old completion is mistaken for a new one');
  t.same(command.completions, []);
  model.complete(command.id, 0, 1);
  t.equal(queue.drain(), true);
  t.same(command.completions, [{ status: 0, result: 1 }]);
  dispose();
});
