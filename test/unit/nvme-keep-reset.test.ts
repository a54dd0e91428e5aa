// Successors of an NVMe driver whose controller did not go on: it is brought up again on the same memory. And what else may
// happen to a controller that was taken over.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { FeatureId, NvmeController, type NvmeEvent } from '../../src/drivers/nvme/index.js';
import { Journal } from '../../src/drivers/nvme/journal.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { DmaArena, memoryOf } from '../../src/memory/dma-memory.js';
import { Succession } from './support/nvme-succession.js';

const READ = 2;
const WRITE = 1;
const GET_FEATURES = 0x0a;
const SET_FEATURES = 0x09;
const ABORT = 0x08;
const ASYNC_EVENT = 0x0c;
const GET_LOG_PAGE = 0x02;
const OPTIONS = { ioQueues: 2, commandTimeout: 400, abortTimeout: 200 };

t.test('reset meanwhile: commands are issued again, with their data', async t => {
  for (const profile of ['vtd', 'noiommu'] as const) {
    using stage = await Succession.make({
      profile,
      lies: [
        { lie: { kind: 'never' }, opcode: READ, queue: 'io' },
        { lie: { kind: 'never' }, opcode: WRITE, queue: 'io', nth: 3, times: 2 },
        { lie: { kind: 'never' }, opcode: GET_FEATURES, queue: 'admin' },
      ],
    });
    const first = await NvmeController.open(stage.device, { ...OPTIONS, commandTimeout: 5000 });
    const arena = DmaArena.create(stage.device.space, 2 ** 20);
    const source = arena.allocate(128 * 1024, { alignment: 4096 });
    const target = arena.allocate(128 * 1024 + 512, { alignment: 4096 }).part(512);
    const namespace = first.namespace(1);
    for (let i = 0; i < source.byteLength; i++) source.bytes[i] = i >> 9;
    await namespace.write(0, source);
    await namespace.write(2000, new Uint8Array(4096).fill(1));
    const ended = Promise.allSettled([
      namespace.read(0, target, { tag: 1n }),
      namespace.write(1000, source, { tag: 2n }),
      namespace.write(3000, new Uint8Array(4096).fill(0x42), { tag: 3n }),
      namespace.deallocate([{ lba: 5000, blocks: 8 }], { tag: 4n }),
      first.getFeature(1, { tag: 5n }),
    ]);
    await stage.turns();
    target.bytes.fill(0);
    first.freeze();
    const record = first.record();
    first.relinquish(new Error('ended'));
    await ended;
    await stage.device.reset();
    const memory = stage.passArenas();
    const before = stage.trace;
    await t.rejects(NvmeController.restore(stage.device, record, { memory, allowReinitialise: false }), {
      name: 'DeviceError',
      code: 'FATAL',
      message: /cannot go on as it is: it is not ready\. Allow it to be initialised again/,
    });
    t.strictSame(stage.trace, before, 'and is left alone');
    t.equal(stage.device.config.busMaster, true);
    const second = await NvmeController.restore(stage.device, record, { memory });
    t.equal(second.outcome, 're-initialised');
    t.equal(second.resets, 0);
    const byTag = new Map(second.inherited.map(command => [command.tag, command]));
    t.strictSame([...byTag.keys()].sort(), [1n, 2n, 3n, 5n], 'one was completed and told');
    for (const tag of [1n, 2n, 3n]) t.equal(await byTag.get(tag)?.done, 0, `command ${tag}`);
    await t.rejects(byTag.get(5n)!.done, {
      name: 'DeviceError',
      code: 'FATAL',
      message: /command 0xa was lost in a reset/,
    });
    const { transfer } = byTag.get(1n)!;
    const found = new Uint8Array(transfer!.memory.buffer, transfer!.offset, transfer!.length);
    const expected = Buffer.from(await second.namespace(1).readBlocks(0, 256));
    t.equal(expected[512 * 255], 255);
    t.equal(Buffer.compare(found, expected), 0, 'what was read');
    t.equal(Buffer.compare(await second.namespace(1).readBlocks(1000, 256), expected), 0, 'what was written');
    t.ok((await second.namespace(1).readBlocks(3000, 8)).every(byte => byte === 0x42));
    await second.close();
  }
});

t.test('what was completed before the reset is not issued again', async t => {
  using stage = await Succession.make({
    lies: [{ lie: { kind: 'status', sct: 2, sc: 0x80 }, opcode: WRITE, queue: 'io', nth: 3, times: 100 }],
  });
  const first = await NvmeController.open(stage.device, OPTIONS);
  const writes = [1, 2].map(tag => first.namespace(1).write(tag, new Uint8Array(512), { tag: BigInt(tag) }));
  for (const write of writes) write.catch(() => undefined);
  // Until they are submitted, and nobody listens any more.
  for (let i = 0; i < 20; i++) await Promise.resolve();
  first.freeze();
  await stage.turns();
  const record = first.record();
  first.relinquish(new Error('ended'));
  await stage.device.reset();
  const second = await stage.restore(record);
  t.match(second.inherited, [{ opcode: WRITE }, { opcode: WRITE }]);
  for (const { done } of second.inherited) t.equal(await done, 0);
  await t.rejects(second.namespace(1).write(3, new Uint8Array(512)), { name: 'NvmeError' });
  await second.close();
});

/** Where a driver that was frozen has the journal of the admin queue. */
function adminJournal(stage: Succession, record: ReturnType<NvmeController['record']>): Journal {
  const token = FdtValue.readU64(record.properties.get('admin-arena')!);
  const queue = record.children.find(({ name }) => name === 'queue-0')!;
  const entries = FdtValue.readU32(queue.properties.get('entries')!)!;
  const offset = Number(FdtValue.readU64(queue.properties.get('journal')!));
  for (const memory of memoryOf(stage.device.space)) {
    if (!(memory instanceof DmaArena) || memory.token !== token) continue;
    return new Journal(new Uint8Array(memory.buffer, offset, Journal.size(entries - 1)));
  }
  throw new Error('there is no such arena');
}

t.test('ended in the middle of a reset', async t => {
  using stage = await Succession.make({
    lies: [{ lie: { kind: 'never' }, opcode: WRITE, queue: 'io' }],
  });
  const first = await NvmeController.open(stage.device, { ...OPTIONS, commandTimeout: 5000 });
  first
    .namespace(1)
    .write(7, new Uint8Array(512).fill(7), { tag: 1n })
    .catch(() => undefined);
  await stage.turns();
  first.freeze();
  const record = first.record();
  const journal = adminJournal(stage, record);
  t.equal(journal.generation, 1);
  // Enabled again, with no I/O queues yet: nothing of that shows in the registers.
  journal.inUse = false;
  first.relinquish(new Error('ended'));
  const second = await stage.restore(record);
  t.equal(second.outcome, 're-initialised');
  t.equal(await second.inherited[0]?.done, 0);
  t.equal((await second.namespace(1).readBlocks(7, 1))[0], 7);
  second.freeze();
  t.equal(adminJournal(stage, record).generation, 3);
  second.thaw();
  await second.close();
});

/** A driver that was frozen when the controller had not yet begun with a read, and nobody looks after it any more. */
async function frozenWithRead(stage: Succession): Promise<ReturnType<NvmeController['record']>> {
  const driver = await NvmeController.open(stage.device, { ...OPTIONS, commandTimeout: 5000 });
  const buffer = DmaArena.create(stage.device.space, 4096).allocate(512);
  driver
    .namespace(1)
    .read(0, buffer, { tag: 1n })
    .catch(() => undefined);
  driver.freeze();
  await stage.turns();
  const record = driver.record();
  driver.relinquish(new Error('ended'));
  return record;
}

t.test('a controller that failed, or is gone', async t => {
  using stage = await Succession.make({ lies: [{ lie: { kind: 'fatal' }, opcode: READ, queue: 'io' }] });
  const record = await frozenWithRead(stage);
  const memory = stage.passArenas();
  await t.rejects(NvmeController.restore(stage.device, record, { memory, allowReinitialise: false }), {
    message: /it reports a fatal error \(CSTS\.CFS\)/,
  });
  const second = await NvmeController.restore(stage.device, record, { memory });
  t.equal(second.outcome, 're-initialised');
  t.equal(await second.inherited[0]?.done, 0);
  await second.close();

  using other = await Succession.make({
    lies: [{ lie: { kind: 'register-all-ones' }, opcode: READ, queue: 'io' }],
  });
  const its = await frozenWithRead(other);
  await t.rejects(other.restore(its), { name: 'DeviceError', code: 'GONE' });
});

t.test('a restoration that fails halfway can be tried again', async t => {
  using stage = await Succession.make({
    lies: [
      { lie: { kind: 'never' }, opcode: READ, queue: 'io' },
      // The number of queues, the second time.
      { lie: { kind: 'never' }, opcode: SET_FEATURES, queue: 'admin', nth: 2 },
    ],
  });
  const driver = await NvmeController.open(stage.device, OPTIONS);
  const arena = DmaArena.create(stage.device.space, 4096);
  driver
    .namespace(1)
    .read(0, arena.allocate(512), { tag: 1n })
    .catch(() => undefined);
  driver.freeze();
  await stage.turns();
  const record = driver.record();
  driver.relinquish(new Error('ended'));
  await stage.device.reset();
  const memory = stage.passArenas();
  await t.rejects(NvmeController.restore(stage.device, record, { memory }), {
    name: 'DeviceError',
    code: 'TIMEOUT',
  });
  t.equal(stage.device.config.busMaster, false, 'the controller reaches no memory');
  const second = await NvmeController.restore(stage.device, record, { memory });
  t.equal(second.outcome, 're-initialised');
  t.match(second.inherited, [{ tag: 1n, opcode: READ }]);
  t.equal(await second.inherited[0]?.done, 0);
  await second.close();
});

t.test('a controller that runs otherwise', async t => {
  for (const [offset, value, message] of [
    [0x24, 0x0007_0007, /its admin queue has another size/],
    [0x28, 0x1000, /its admin queue is elsewhere/],
    [0x34, 0x1, /its admin queue is elsewhere/],
  ] as const) {
    using stage = await Succession.make();
    const first = await NvmeController.open(stage.device, OPTIONS);
    first.freeze();
    const record = first.record();
    first.relinquish(new Error('ended'));
    stage.device.bar(0).write32(offset, value);
    const memory = stage.passArenas();
    await t.rejects(NvmeController.restore(stage.device, record, { memory, allowReinitialise: false }), {
      message,
    });
    const second = await NvmeController.restore(stage.device, record, { memory });
    t.equal(second.outcome, 're-initialised');
    await second.namespace(1).flush();
    await second.close();
  }
  using stage = await Succession.make();
  const first = await NvmeController.open(stage.device, OPTIONS);
  await first.close();
  await t.rejects(async () => first.record(), { code: 'DISPOSED' });
});

t.test('a reset of a controller that was taken over', async t => {
  using stage = await Succession.make({
    lies: [
      { lie: { kind: 'never' }, opcode: READ, queue: 'io', times: 2 },
      { lie: { kind: 'never' }, opcode: GET_FEATURES, queue: 'admin' },
    ],
  });
  const first = await NvmeController.open(stage.device, { ...OPTIONS, commandTimeout: 5000 });
  const arena = DmaArena.create(stage.device.space, 8192);
  for (const [index, tag] of [1n, 2n].entries()) {
    const buffer = arena.allocate(512);
    first
      .namespace(1)
      .read(index, buffer, { tag })
      .catch(() => undefined);
  }
  first.getFeature(1, { tag: 3n }).catch(() => undefined);
  await stage.turns();
  const second = await stage.handOver(first);
  t.equal(second.outcome, 'kept-running');
  const ends = Promise.allSettled(second.inherited.map(({ done }) => done));
  await second.reset();
  t.strictSame(
    second.inherited.map(({ tag }) => tag),
    [3n, 1n, 2n],
  );
  t.match(await ends, [
    { status: 'rejected', reason: { name: 'DeviceError', code: 'FATAL', message: /was lost in a reset/ } },
    { status: 'fulfilled', value: 0 },
    { status: 'fulfilled', value: 0 },
  ]);
  await second.namespace(1).flush();
  await second.close();
});

t.test('a command that was taken over, and is late', async t => {
  using stage = await Succession.make({
    lies: [
      { lie: { kind: 'never' }, opcode: READ, queue: 'io', times: 100 },
      { lie: { kind: 'never' }, opcode: ABORT, queue: 'admin', times: 100 },
    ],
  });
  const first = await NvmeController.open(stage.device, OPTIONS);
  first
    .namespace(1)
    .readBlocks(0, 1)
    .catch(() => undefined);
  await stage.turns();
  const second = await stage.handOver(first);
  const flush = second.namespace(1).flush();
  await t.rejects(second.inherited[0]!.done, { name: 'DeviceError', code: 'TIMEOUT' });
  t.equal(second.resets, 1);
  await flush;
  await second.close();
});

t.test('requests for events stay with the controller', async t => {
  using stage = await Succession.make({
    lies: [{ lie: { kind: 'late', milliseconds: 50 }, opcode: SET_FEATURES, queue: 'admin', nth: 4 }],
  });
  const first = await NvmeController.open(stage.device, OPTIONS);
  await first.setFeature(FeatureId.AsynchronousEventConfiguration, 2);
  await stage.turns();
  const second = await stage.handOver(first);
  const before = stage.model.trace.adminCommands.length;
  const events: NvmeEvent[] = [];
  second.onEvent(event => events.push(event));
  await second.setFeature(FeatureId.TemperatureThreshold, 200);
  for (let i = 0; i < 100 && events.length === 0; i++) await sleep(2);
  await stage.turns();
  t.match(events, [{ type: 1, info: 1, logPage: 2, log: { length: 512 } }]);
  t.strictSame(stage.model.trace.adminCommands.slice(before), [SET_FEATURES, GET_LOG_PAGE, ASYNC_EVENT]);
  // An event that was not reported by the time the driver ends is reported by its successor.
  const set = second.setFeature(FeatureId.TemperatureThreshold, 200);
  // The driver issues nothing more from now on: it cannot read the log page.
  t.equal(await second.settle(performance.now() + 2000), true);
  await set;
  t.equal(events.length, 1);
  const third = await stage.handOver(second);
  third.onEvent(event => events.push(event));
  for (let i = 0; i < 100 && events.length === 1; i++) await sleep(2);
  t.match(events[1], { type: 1, info: 1, logPage: 2, log: { length: 512 } });
  t.equal(events.length, 2);
  await third.close();
});

t.test('a driver that is being reset or closed cannot be frozen', async t => {
  using stage = await Succession.make({ lies: [{ lie: { kind: 'never' }, opcode: READ, queue: 'io' }] });
  const controller = await NvmeController.open(stage.device, { ...OPTIONS, commandTimeout: 5000 });
  const read = controller.namespace(1).readBlocks(0, 1);
  await stage.turns();
  const reset = controller.reset();
  t.throws(() => controller.freeze(), { code: 'BUSY', message: /is being reset/ });
  t.throws(() => controller.record(), { code: 'BUSY', message: /is being reset/ });
  t.throws(() => controller.relinquish(new Error('no')), { code: 'BUSY' });
  t.equal(await controller.settle(performance.now() + 5000), true, 'settling waits for that');
  controller.thaw();
  await reset;
  await read;
  const closing = controller.close();
  t.throws(() => controller.freeze(), { code: 'BUSY', message: /is being closed/ });
  await t.rejects(controller.settle(performance.now() + 10), { code: 'BUSY' });
  await closing;
});

t.test('a command that never completes does not keep a controller from being closed', async t => {
  using stage = await Succession.make({
    lies: [
      { lie: { kind: 'never' }, opcode: READ, queue: 'io', times: 100 },
      { lie: { kind: 'never' }, opcode: ABORT, queue: 'admin', times: 100 },
    ],
  });
  const controller = await NvmeController.open(stage.device, { ...OPTIONS, commandTimeout: 100 });
  const read = controller.namespace(1).readBlocks(0, 1);
  read.catch(() => undefined);
  await stage.turns();
  await controller.close();
  await t.rejects(read, { code: 'TIMEOUT' });
});
