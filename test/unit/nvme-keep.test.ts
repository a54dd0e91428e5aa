// An NVMe controller that outlives its driver: commands in flight complete to the successor.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { NvmeController } from '../../src/drivers/nvme/index.js';
import { Journal } from '../../src/drivers/nvme/journal.js';
import type { DriverRecord } from '../../src/keepalive/keepable-driver.js';
import type { FdtNode } from '../../src/keepalive/state/fdt.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { DmaArena, memoryOf } from '../../src/memory/dma-memory.js';
import { by } from '../../src/order.js';
import type { Device } from '../../src/vfio/device.js';
import { InterruptKind } from '../../src/vfio/interrupts.js';
import { random } from '../support/random.js';
import { Succession } from './support/nvme-succession.js';

const READ = 2;
const WRITE = 1;

t.test('kept running: commands in flight complete to the successor', async t => {
  for (const profile of ['vtd', 'noiommu'] as const) {
    using stage = await Succession.make({ profile });
    const first = await NvmeController.open(stage.device, { ioQueues: 2 });
    t.equal(first.outcome, 'started');
    const arena = DmaArena.create(stage.device.space, 256 * 1024);
    const buffer = arena.allocate(128 * 1024, { alignment: 4096 });
    buffer.bytes.fill(0x5a);
    await first.namespace(1).write(8, buffer.part(0, 64 * 1024));
    buffer.bytes.fill(0x33, 64 * 1024);
    // From now on nothing is executed but the first.
    stage.model.throttle(0.01);
    await first.namespace(1).readBlocks(0, 1);
    const before = stage.trace;
    const ended = Promise.allSettled([
      first.namespace(1).read(8, buffer.part(0, 64 * 1024), { tag: 77n }),
      first.namespace(1).write(1000, buffer.part(64 * 1024), { tag: 2n ** 64n - 1n }),
      first.namespace(1).readBlocks(8, 1),
    ]);
    const { offset } = buffer;
    buffer.bytes.fill(0, 0, 64 * 1024);
    await stage.turns();
    const second = await stage.handOver(first);
    t.match(
      await ended,
      [1, 2, 3].map(() => ({ status: 'rejected', reason: { message: 'handed over' } })),
    );
    t.equal(second.outcome, 'kept-running');
    const inherited = second.inherited.toSorted(by(({ tag }) => tag));
    t.match(inherited, [
      { opcode: READ, lba: 8, blocks: 1, tag: 0n, submitted: true, transfer: { length: 512 } },
      { opcode: READ, lba: 8, blocks: 128, tag: 77n, submitted: true, namespaceId: 1 },
      { opcode: WRITE, lba: 1000, blocks: 128, tag: 2n ** 64n - 1n, submitted: true },
    ]);
    t.strictSame([...new Set(inherited.map(({ queue }) => queue))].sort(), [1, 2]);
    const read = inherited[1]!;
    stage.model.throttle(0);
    t.equal(read.transfer!.offset, offset);
    t.equal(read.transfer!.length, 64 * 1024);
    t.equal(await read.done, 0);
    const bytes = new Uint8Array(read.transfer!.memory.buffer, read.transfer!.offset, read.transfer!.length);
    t.ok(bytes.every(byte => byte === 0x5a));
    await Promise.all(second.inherited.map(({ done }) => done));
    t.ok((await second.namespace(1).readBlocks(1000, 128)).every(byte => byte === 0x33));
    t.strictSame(stage.trace, before, 'no admin command, no register written');
    t.equal(second.resets, 0);
    await second.close();
  }
});

t.test('after a live update: interrupts and bus mastering are off', async t => {
  using stage = await Succession.make({ profile: 'noiommu' });
  const first = await NvmeController.open(stage.device);
  await first.namespace(1).write(5, new Uint8Array(512).fill(9));
  t.equal(await first.settle(performance.now() + 1000), true);
  const record = first.record();
  const before = stage.trace;
  first.relinquish(new Error('another kernel'));
  const { interrupts, config } = stage.device;
  for (const kind of interrupts.enabled) interrupts.disable(kind);
  config.busMaster = false;
  const second = await stage.restore(record);
  t.equal(second.outcome, 'kept-running');
  t.equal(config.busMaster, true);
  t.equal(interrupts.vectors(InterruptKind.Msix).length, 2);
  t.strictSame(second.inherited, []);
  t.strictSame(second.identity, first.identity);
  t.strictSame(second.namespace(1).identity, first.namespace(1).identity);
  t.ok((await second.namespace(1).readBlocks(5, 1)).every(byte => byte === 9));
  t.strictSame(stage.trace, before);
  await second.close();
});

t.test('many successors under load: no command is lost, none is repeated', async t => {
  const seed = Number(process.env.SEED) || Date.now() & 0x7fff_ffff;
  t.comment(`seed ${seed}`);
  const rng = random(seed | 1);
  using stage = await Succession.make();
  let controller = await NvmeController.open(stage.device, { ioQueues: 2, queueEntries: 9 });
  const { token } = DmaArena.create(stage.device.space, 32 * 4096);
  // Until the requests for events are fetched.
  await stage.turns();
  const before = stage.trace;
  const workers = 24;
  /** What each block holds, and what is being written to it. */
  const blocks = new Uint8Array(workers);
  const tally = { commands: 0, inherited: 0, again: 0 };
  /** Commands that were issued and whose end is not known, by tag. */
  const open = new Map<bigint, number>();
  let nextTag = 1n;
  for (let round = 0; round < 30; round++) {
    const arena = [...memoryOf(stage.device.space)].find(
      memory => memory instanceof DmaArena && memory.token === token,
    ) as DmaArena;
    if (round > 0) arena.releaseUnclaimed();
    let ending = false;
    const work = async (worker: number): Promise<void> => {
      for (const { lba, tag, done } of controller.inherited) {
        if (lba !== worker) continue;
        tally.inherited++;
        if (await done.catch(() => 'handed over again')) return;
        open.delete(tag);
      }
      const buffer = arena.allocateAt(worker * 4096, 512);
      while (!ending) {
        // One that was not taken over never reached the controller: the same once more.
        const left = [...open].find(([, owner]) => owner === worker);
        const tag = left ? left[0] : nextTag++;
        if (left) tally.again++;
        else blocks[worker] = (blocks[worker] as number) + 1;
        buffer.bytes.fill(blocks[worker] as number);
        open.set(tag, worker);
        try {
          await controller.namespace(1).write(worker, buffer, { tag });
          open.delete(tag);
          tally.commands++;
          await controller.namespace(1).read(worker, buffer);
          if (!buffer.bytes.every(byte => byte === blocks[worker])) t.fail(`block ${worker} has other data`);
        } catch (error) {
          if (!ending) throw error;
        }
      }
    };
    const all = Promise.all(Array.from({ length: workers }, (_, worker) => work(worker)));
    await new Promise(resolve => setTimeout(resolve, rng.below(12)));
    for (let i = rng.below(6); i > 0; i--) await new Promise(resolve => setImmediate(resolve));
    ending = true;
    controller.freeze();
    const record = controller.record();
    controller.relinquish(new Error('handed over'));
    await all;
    controller = await stage.restore(record);
  }
  await Promise.all(controller.inherited.map(({ done }) => done));
  t.comment(JSON.stringify(tally));
  t.ok(tally.inherited > 20 && tally.commands > 50);
  t.strictSame(stage.trace, before, 'no admin command, no register written');
  await controller.close();
});

t.test('commands wait while it is frozen', async t => {
  using stage = await Succession.make();
  const controller = await NvmeController.open(stage.device, { commandTimeout: 200 });
  const namespace = controller.namespace(1);
  const flying = namespace.read(0, DmaArena.create(stage.device.space, 4096).allocate(512));
  controller.freeze();
  await stage.turns();
  controller.freeze();
  const abort = new AbortController();
  const states: string[] = [];
  const note = (name: string, promise: Promise<unknown>) =>
    promise.then(
      () => states.push(name),
      (error: Error) => states.push(`${name}: ${error.message}`),
    );
  const waiting = [
    note('flying', flying),
    note('copied', namespace.readBlocks(1, 1)),
    note('flush', namespace.flush()),
    note('admin', controller.getFeature(1)),
    note('log', controller.getLogPage(2, 512)),
    note('impatient', namespace.flush({ signal: abort.signal })),
  ];
  const before = stage.trace;
  await sleep(300);
  t.strictSame(states, [], 'also one that is completed');
  t.strictSame(stage.trace, before);
  abort.abort(new Error('no longer wanted'));
  await stage.turns();
  t.strictSame(states, ['impatient: no longer wanted']);
  controller.thaw();
  controller.thaw();
  await Promise.all(waiting);
  t.strictSame(states.sort(), ['admin', 'copied', 'flush', 'flying', 'impatient: no longer wanted', 'log']);
  controller.freeze();
  states.length = 0;
  const last = note('flush', namespace.flush());
  const reset = note('reset', controller.reset());
  const closing = note('closed', controller.close());
  await stage.turns();
  t.strictSame(states, [], 'nor is it reset or closed');
  controller.thaw();
  await Promise.all([last, reset, closing]);
  t.strictSame(states.sort(), ['closed', 'flush', 'reset: NvmeController 0000:00:04.0 was already released']);
});

t.test('an abort that is asked for while it is frozen', async t => {
  using stage = await Succession.make();
  const controller = await NvmeController.open(stage.device);
  stage.model.throttle(0.1);
  await controller.namespace(1).readBlocks(0, 1);
  const abort = new AbortController();
  const read = controller.namespace(1).readBlocks(1, 1, { signal: abort.signal });
  await stage.turns();
  controller.freeze();
  const before = stage.trace;
  abort.abort(new Error('no longer wanted'));
  await stage.turns();
  t.strictSame(stage.trace, before);
  controller.thaw();
  await t.rejects(read, { message: 'no longer wanted' });
  t.equal(stage.trace.adminCommands, before.adminCommands + 1, 'an Abort command');
  stage.model.throttle(0);
  await controller.close();
});

t.test('settling', async t => {
  using stage = await Succession.make();
  const controller = await NvmeController.open(stage.device, { queueEntries: 5 });
  const namespace = controller.namespace(1);
  stage.model.throttle(0.1);
  await namespace.readBlocks(0, 1);
  const reads = Array.from({ length: 7 }, (_, lba) => namespace.readBlocks(lba, 1));
  let done = 0;
  for (const read of reads) void read.then(() => done++);
  await stage.turns();
  const started = performance.now();
  t.equal(await controller.settle(started + 50), false, 'there is something in flight');
  t.ok(performance.now() - started >= 45);
  stage.model.throttle(0);
  await stage.turns();
  t.equal(done, 0, 'and it is frozen');
  controller.thaw();
  stage.model.throttle(0.1);
  const settled = controller.settle(performance.now() + 5000);
  const late = namespace.flush();
  await stage.turns();
  stage.model.throttle(0);
  t.equal(await settled, true);
  t.ok(done >= 4, 'those in flight were waited for');
  const count = done;
  await stage.turns();
  t.equal(done, count, 'but those that waited for a slot were not issued');
  controller.thaw();
  await Promise.all([...reads, late]);
  t.equal(await controller.settle(0), true, 'with nothing in flight');
  controller.thaw();
  await controller.close();
  t.equal(await controller.settle(0), true, 'when it is closed');
});

t.test('given up to a successor', async t => {
  using stage = await Succession.make();
  const controller = await NvmeController.open(stage.device, { queueEntries: 3, bounceSize: 8192 });
  const namespace = controller.namespace(1);
  stage.model.throttle(0.1);
  await namespace.readBlocks(0, 1);
  const arena = DmaArena.create(stage.device.space, 4096 * 8);
  const buffers = Array.from({ length: 4 }, () => arena.allocate(512));
  const inFlight = [
    ...buffers.map((buffer, lba) => namespace.read(lba, buffer)),
    ...[0, 1, 2, 3].map(lba => namespace.write(lba, new Uint8Array(4096))),
  ];
  const settled = Promise.allSettled(inFlight);
  await stage.turns();
  controller.freeze();
  const waiting = Promise.allSettled([namespace.flush(), controller.getFeature(1)]);
  const closing = controller.close();
  const before = stage.trace;
  const memory = Buffer.from(arena.buffer.slice(0));
  const error = new Error('process 12 has it');
  controller.relinquish(error);
  controller.relinquish(new Error('not twice'));
  for (const result of [...(await settled), ...(await waiting)]) t.match(result, { reason: error });
  await t.rejects(namespace.flush(), error);
  await t.rejects(controller.admin({ opcode: 2 }), error);
  t.throws(() => controller.record(), error);
  controller.thaw();
  controller.freeze();
  await closing;
  await controller.close();
  await t.rejects(namespace.flush(), error);
  t.strictSame(stage.trace, before, 'not a word to the controller');
  t.equal(Buffer.compare(memory, Buffer.from(arena.buffer)), 0, 'nor to memory');
  t.equal(stage.device.interrupts.vectors(InterruptKind.Msix).length, 2);
});

t.test('new commands do not overtake inherited ones', async t => {
  using stage = await Succession.make();
  const first = await NvmeController.open(stage.device, { ioQueues: 2, bounceSize: 8192 });
  stage.model.throttle(0.01);
  await first.namespace(1).readBlocks(0, 1);
  const write = first.namespace(1).write(3, new Uint8Array(8192).fill(1), { tag: 5n });
  write.catch(() => undefined);
  await stage.turns();
  const second = await stage.handOver(first);
  const order: string[] = [];
  const [inherited] = second.inherited;
  void inherited?.done.then(() => order.push('inherited'));
  const { memory, offset, length } = inherited!.transfer!;
  t.equal(memory.name, 'nvme-bounce');
  t.strictSame(memory.unclaimed, [{ offset, length }], 'its memory is kept from others');
  stage.model.throttle(0);
  await Promise.all([
    second
      .namespace(1)
      .flush()
      .then(() => order.push('flush')),
    second
      .namespace(1)
      .readBlocks(3, 16)
      .then(data => order.push(`read ${data[0]}`)),
    second.getFeature(1).then(() => order.push('feature')),
  ]);
  t.equal(order[0], 'inherited');
  t.strictSame(order.slice(1).sort(), ['feature', 'flush', 'read 1']);
  t.strictSame(memory.unclaimed, []);
  t.equal(memory.available, memory.size, 'and nothing is left of it in the pool');
  await second.close();
});

/** The journal and the rings of queue 1 of a driver that was frozen. */
function queueMemory(device: Device, record: DriverRecord, entries: number) {
  const token = FdtValue.readU64(record.properties.get('io-arena')!);
  const arena = [...memoryOf(device.space)].find(
    memory => memory instanceof DmaArena && memory.token === token,
  ) as DmaArena;
  const { properties } = record.children.find(({ name }) => name === 'queue-1') as FdtNode;
  const at = (piece: string): number => Number(FdtValue.readU64(properties.get(piece)!));
  return {
    journal: new Journal(new Uint8Array(arena.buffer, at('journal'), Journal.size(entries - 1))),
    submissions: new Uint32Array(arena.buffer, at('submission'), entries * 16),
  };
}

t.test('commands that the predecessor was about to submit', async t => {
  for (const step of ['in the journal', 'in the ring'] as const) {
    using stage = await Succession.make();
    const entries = 16;
    const first = await NvmeController.open(stage.device, { queueEntries: entries });
    const arena = DmaArena.create(stage.device.space, 8192);
    const buffer = arena.allocate(4096);
    buffer.bytes.fill(0x77);
    first.freeze();
    const record = first.record();
    const { journal, submissions } = queueMemory(stage.device, record, entries);
    // As the driver does it, up to that step.
    const slot = 4;
    submissions.fill(0, 0, 16);
    submissions.set([WRITE | (slot << 16), 1], 0);
    submissions[6] = Number(arena.deviceAddress(buffer.offset) & 0xffff_ffffn);
    submissions[7] = Number(arena.deviceAddress(buffer.offset) >> 32n);
    submissions.set([20, 0, 7], 10);
    const transfer = { memory: arena, offset: buffer.offset, length: 4096 };
    journal.take(slot, 0, submissions, 0, 9n, transfer, false);
    if (step === 'in the ring') journal.tail = 1;
    first.relinquish(new Error('ended'));
    const second = await stage.restore(record);
    t.match(second.inherited, [
      { opcode: WRITE, lba: 20, blocks: 8, tag: 9n, submitted: step === 'in the ring' },
    ]);
    t.equal(await second.inherited[0]?.done, 0, `${step}: it is executed`);
    t.ok((await second.namespace(1).readBlocks(20, 8)).every(byte => byte === 0x77));
    await second.close();
  }
});

t.test('a command that was completed and not told', async t => {
  using stage = await Succession.make();
  const entries = 16;
  const first = await NvmeController.open(stage.device, { queueEntries: entries });
  first.freeze();
  const record = first.record();
  const { journal, submissions } = queueMemory(stage.device, record, entries);
  for (const slot of [2, 3]) {
    submissions.fill(0, 0, 16);
    submissions.set([READ | (slot << 16), 1], 0);
    journal.take(slot, 100 + slot, submissions, 0, BigInt(slot), undefined, false);
    journal.complete(slot, slot === 2 ? 0 : 0x281, 5);
  }
  first.relinquish(new Error('ended'));
  const second = await stage.restore(record);
  t.match(second.inherited, [
    { tag: 2n, submitted: true },
    { tag: 3n, submitted: true },
  ]);
  t.equal(await second.inherited[0]?.done, 5);
  await t.rejects(second.inherited[1]!.done, { name: 'NvmeError', sct: 2, sc: 0x81 });
  // It is told, and forgotten.
  await sleep(2);
  second.freeze();
  t.ok(journal.isFree(2) && journal.isFree(3));
  second.thaw();
  await second.close();
});

t.test('a driver that thaws although a successor has used the queues', async t => {
  using stage = await Succession.make();
  const entries = 16;
  const first = await NvmeController.open(stage.device, { queueEntries: entries });
  await stage.turns();
  const buffer = DmaArena.create(stage.device.space, 4096).allocate(512);
  const read = first.namespace(1).read(0, buffer);
  first.freeze();
  const waiting = first.namespace(1).flush();
  queueMemory(stage.device, first.record(), entries).journal.head = 1;
  first.thaw();
  const failed = { name: 'DeviceError', code: 'FATAL', message: /a successor has used the queues/ };
  await t.rejects(read, failed);
  await t.rejects(waiting, failed);
  await t.rejects(first.namespace(1).flush(), failed);
  await t.rejects(async () => first.record(), failed);
  await first.close();
});

t.test('frozen in the moment in which the application is being told', async t => {
  for (const killed of [true, false]) {
    using stage = await Succession.make();
    const first = await NvmeController.open(stage.device);
    const record = first.record();
    const arena = DmaArena.create(stage.device.space, 4096);
    await stage.turns();
    let told = false;
    const frozen = new Promise<boolean>(resolve => {
      // After the driver's own listener, and before any promise reaction.
      const [, vector] = stage.device.interrupts.vectors(InterruptKind.Msix);
      vector!.listen(() => {
        first.freeze();
        resolve(told);
        if (killed) first.relinquish(new Error('ended'));
      });
    });
    const read = first.namespace(1).read(0, arena.allocate(512), { tag: 7n });
    void read.then(() => {
      told = true;
    });
    t.equal(await frozen, false, 'the application has not run yet');
    if (!killed) {
      await read;
      await stage.turns();
      first.relinquish(new Error('handed over'));
    }
    const second = await stage.restore(record);
    t.strictSame(
      second.inherited.map(({ tag }) => tag),
      killed ? [7n] : [],
      killed ? 'it may not know of it' : 'it knows of it',
    );
    await second.close();
  }
});
