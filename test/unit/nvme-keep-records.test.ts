// Records and journals that cannot be: each is refused with a StateError, and the device and its driver know nothing of it.
import t, { type Test } from 'tap';
import { NvmeController } from '../../src/drivers/nvme/index.js';
import { Journal, positionModulus } from '../../src/drivers/nvme/journal.js';
import type { DriverRecord } from '../../src/keepalive/keepable-driver.js';
import type { FdtNode } from '../../src/keepalive/state/fdt.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { StateError } from '../../src/keepalive/state/state-error.js';
import { DmaArena, memoryOf } from '../../src/memory/dma-memory.js';
import { InterruptKind } from '../../src/vfio/interrupts.js';
import { Succession } from './support/nvme-succession.js';

const ROOT = '/driver-0000-00-04.0/state';
const { u32, u64, string } = FdtValue;

type Properties = ReadonlyMap<string, Uint8Array>;

function withProperty(properties: Properties, name: string, value: Uint8Array | undefined): Properties {
  const changed = new Map(properties);
  if (value === undefined) changed.delete(name);
  else changed.set(name, value);
  return changed;
}

/** A record with one property of the record or of one of its nodes changed; taken away for `undefined`. */
function change(
  record: DriverRecord,
  node: string | undefined,
  name: string,
  value: Uint8Array | undefined,
): DriverRecord {
  if (node === undefined) return { ...record, properties: withProperty(record.properties, name, value) };
  const children = record.children.map(child =>
    child.name === node ? { ...child, properties: withProperty(child.properties, name, value) } : child,
  );
  return { ...record, children };
}

function arenaOf(stage: Succession, record: DriverRecord, property: string): DmaArena {
  const token = FdtValue.readU64(record.properties.get(property)!);
  const found = [...memoryOf(stage.device.space)].find(
    memory => memory instanceof DmaArena && memory.token === token,
  );
  return found as DmaArena;
}

/** A driver that is frozen. Restoring what is passed to `refused` must fail and change nothing. */
class Refusals {
  readonly t: Test;
  readonly stage: Succession;
  readonly controller: NvmeController;
  readonly record: DriverRecord;
  readonly #before: unknown;
  count = 0;

  constructor(t: Test, stage: Succession, controller: NvmeController) {
    this.t = t;
    this.stage = stage;
    this.controller = controller;
    controller.freeze();
    this.record = controller.record();
    this.#before = this.#state();
  }

  #state(): unknown {
    const { device, trace } = this.stage;
    const { space } = device;
    return {
      ...trace,
      busMaster: device.config.busMaster,
      vectors: [0, 1, 2].map(kind => device.interrupts.vectors(kind as InterruptKind).length),
      available: [...memoryOf(space)].map(({ available }) => available),
    };
  }

  arena(token: bigint): DmaArena | undefined {
    for (const memory of memoryOf(this.stage.device.space)) {
      if (memory instanceof DmaArena && memory.token === token) return memory;
    }
    return undefined;
  }

  async refused(
    what: string,
    record: DriverRecord,
    place: { path?: string | undefined; property?: string | undefined; message?: RegExp; code?: string },
  ): Promise<void> {
    this.count++;
    const memory = (token: bigint) => this.arena(token);
    const error = await NvmeController.restore(this.stage.device, record, { memory }).then(
      () => undefined,
      (error: unknown) => error,
    );
    if (!(error instanceof StateError)) {
      this.t.fail(`${what}: ${error instanceof Error ? error.stack : 'it was accepted'}`);
      return;
    }
    this.t.match(error, { code: 'INVALID', ...place }, what);
    this.t.strictSame(this.#state(), this.#before, `${what}: nothing has changed`);
  }

  /** The driver goes on as if nothing had been. */
  async end(): Promise<void> {
    this.controller.thaw();
    const block = new Uint8Array(512).fill(0x3c);
    await this.controller.namespace(1).write(1, block);
    this.t.strictSame(await this.controller.namespace(1).readBlocks(1, 1), block);
    await this.controller.close();
  }
}

t.test('every property of the record', async t => {
  using stage = await Succession.make();
  const controller = await NvmeController.open(stage.device, { ioQueues: 2, queueEntries: 16 });
  await controller.namespace(1).readBlocks(0, 1);
  await stage.turns();
  const refusals = new Refusals(t, stage, controller);
  const { record } = refusals;
  const admin = arenaOf(stage, record, 'admin-arena');
  const io = arenaOf(stage, record, 'io-arena');
  const bounce = arenaOf(stage, record, 'bounce-arena');
  t.strictSame(
    [admin, io, bounce].map(({ name }) => name),
    ['nvme-admin', 'nvme-io', 'nvme-bounce'],
  );

  const nodes: [string | undefined, Properties][] = [
    [undefined, record.properties],
    ...record.children.map(({ name, properties }) => [name, properties] as [string, Properties]),
  ];
  for (const [node, properties] of nodes) {
    const path = node === undefined ? ROOT : `${ROOT}/${node}`;
    for (const property of properties.keys()) {
      const place = { path, property };
      // An arena for bounces need not be there.
      if (property !== 'bounce-arena') {
        await refusals.refused(`no ${property}`, change(record, node, property, undefined), place);
      }
      const bytes = properties.get(property)!;
      await refusals.refused(
        `${property} cut off`,
        change(record, node, property, bytes.subarray(0, bytes.length - 1)),
        place,
      );
      await refusals.refused(
        `${property} too long`,
        change(record, node, property, Uint8Array.of(...bytes, 0)),
        place,
      );
    }
    await refusals.refused('a property more', change(record, node, 'more', u32(1)), {
      path,
      property: 'more',
      code: 'UNSUPPORTED',
    });
  }

  const huge = u64(2n ** 64n - 4096n);
  const values: [string | undefined, string, Uint8Array, object?][] = [
    [undefined, 'capabilities', u64(FdtValue.readU64(record.properties.get('capabilities')!)! ^ (1n << 24n))],
    [undefined, 'admin-arena', u64(1)],
    [undefined, 'io-arena', u64(1)],
    [undefined, 'bounce-arena', u64(1)],
    [undefined, 'io-arena', u64(admin.token)],
    [undefined, 'bounce-arena', u64(admin.token)],
    [undefined, 'bounce-arena', u64(io.token)],
    [undefined, 'identify-buffer', u64(64)],
    [undefined, 'identify-buffer', u64(admin.size)],
    [undefined, 'identify-buffer', huge],
    [undefined, 'max-transfer', u64(0)],
    [undefined, 'max-transfer', u64(6000)],
    [undefined, 'max-transfer', u64(2n ** 30n)],
    [undefined, 'max-transfer', huge],
    [undefined, 'bounce-size', u64(0)],
    [undefined, 'bounce-size', u64(4097)],
    [undefined, 'command-timeout', u64(0)],
    [undefined, 'command-timeout', huge],
    [undefined, 'abort-timeout', u64(0)],
    [undefined, 'interrupt-kind', string('msi-y')],
    [undefined, 'interrupt-vectors', u32(0)],
    [undefined, 'interrupt-vectors', u32(2049)],
    ['queue-0', 'entries', u32(1)],
    ['queue-0', 'entries', u32(4097)],
    ['queue-1', 'entries', u32(0)],
    ['queue-1', 'entries', u32(2049)],
    ['queue-1', 'vector', u32(3)],
    ['queue-0', 'journal', u64(admin.size)],
    ...(['submission', 'completion', 'lists', 'journal'] as const).flatMap(
      piece =>
        [
          ['queue-2', piece, u64(100)],
          ['queue-2', piece, u64(io.size)],
          ['queue-2', piece, huge],
        ] as [string, string, Uint8Array][],
    ),
  ];
  for (const [node, property, value] of values) {
    const path = node === undefined ? ROOT : `${ROOT}/${node}`;
    await refusals.refused(`another ${property}`, change(record, node, property, value), { path, property });
  }
  await refusals.refused('one vector', change(record, undefined, 'interrupt-vectors', u32(1)), {
    property: 'vector',
  });
  await refusals.refused(
    'a pin has one vector',
    change(record, undefined, 'interrupt-kind', string('intx')),
    {
      property: 'interrupt-vectors',
    },
  );

  // Two pieces at one place, in the same queue and in two.
  const offset = (node: string, piece: string): Uint8Array =>
    record.children.find(({ name }) => name === node)!.properties.get(piece)!;
  for (const [node, piece, other] of [
    ['queue-1', 'submission', offset('queue-1', 'completion')],
    ['queue-1', 'journal', offset('queue-1', 'lists')],
    ['queue-2', 'lists', offset('queue-1', 'journal')],
    ['queue-0', 'completion', record.properties.get('identify-buffer')!],
  ] as const) {
    await refusals.refused('two at one place', change(record, node, piece, other), {
      message: /overlap with others/,
    });
  }

  const identity = record.properties.get('identity')!.slice();
  identity[77] = 1;
  await refusals.refused('the controller transfers less', change(record, undefined, 'identity', identity), {
    property: 'max-transfer',
  });
  const namespace = offset('namespace-1', 'identity').slice();
  for (const shift of [8, 31]) {
    namespace[130] = shift;
    await refusals.refused('blocks of an odd size', change(record, 'namespace-1', 'identity', namespace), {
      path: `${ROOT}/namespace-1`,
      property: 'identity',
    });
  }
  t.ok(refusals.count > 120, `${refusals.count} records`);
  await refusals.end();
});

t.test('other nodes, and another type', async t => {
  using stage = await Succession.make();
  const controller = await NvmeController.open(stage.device, { ioQueues: 2 });
  await stage.turns();
  const refusals = new Refusals(t, stage, controller);
  const { record } = refusals;
  const [queue0, queue1, queue2, namespace] = record.children as [FdtNode, FdtNode, FdtNode, FdtNode];
  const without = (...nodes: FdtNode[]): DriverRecord => ({
    ...record,
    children: record.children.filter(node => !nodes.includes(node)),
  });
  const unsupported = { code: 'UNSUPPORTED' };
  await refusals.refused(
    'another version',
    { ...record, compatible: 'nvme-v2' },
    {
      ...unsupported,
      path: ROOT,
      property: 'compatible',
    },
  );
  await refusals.refused('no admin queue', without(queue0), { message: /no queue 0/ });
  await refusals.refused('no I/O queue', without(queue1, queue2), { message: /no queue 1/ });
  await refusals.refused('a gap', without(queue1), { message: /no queue 1/ });
  const renamed = (node: FdtNode, name: string): DriverRecord => ({
    ...record,
    children: record.children.map(child => (child === node ? { ...child, name } : child)),
  });
  for (const name of ['queue', 'queue-', 'queue-01', 'queue--1', 'queue-1a', 'Queue-1', 'namespace-00']) {
    await refusals.refused(name, renamed(queue1, name), { ...unsupported, path: `${ROOT}/${name}` });
  }
  await refusals.refused('twice', renamed(queue2, 'queue-1'), { message: /second node/ });
  for (const name of ['namespace-0', 'namespace-4294967295']) {
    await refusals.refused(name, renamed(namespace, name), { path: `${ROOT}/${name}` });
  }
  await refusals.refused(
    'nodes below',
    { ...record, children: [...record.children.slice(1), { ...queue0, children: [queue0] }] },
    unsupported,
  );
  await refusals.end();
});

t.test('journals', async t => {
  using stage = await Succession.make();
  const entries = 8;
  const controller = await NvmeController.open(stage.device, { queueEntries: entries });
  const arena = DmaArena.create(stage.device.space, 65536);
  const large = DmaArena.create(stage.device.space, 2 ** 21);
  await stage.turns();
  const refusals = new Refusals(t, stage, controller);
  const { record } = refusals;
  const io = arenaOf(stage, record, 'io-arena');
  const queue = record.children.find(({ name }) => name === 'queue-1')!;
  const at = Number(FdtValue.readU64(queue.properties.get('journal')!));
  const bytes = new Uint8Array(io.buffer, at, Journal.size(entries - 1));
  const journal = new Journal(bytes);
  const words = new Uint32Array(io.buffer, at, bytes.length / 4);
  const good = words.slice();
  const damaged = async (what: string, edit: () => void, message: RegExp): Promise<void> => {
    edit();
    await refusals.refused(what, record, {
      code: 'DAMAGED',
      path: `${ROOT}/queue-1`,
      property: 'journal',
      message,
    });
    words.set(good);
  };
  const modulus = positionModulus(entries);
  for (const name of ['tail', 'rung', 'head', 'acknowledged'] as const) {
    await damaged(name, () => (journal[name] = modulus), /positions are less than/);
  }
  await damaged('behind', () => (journal.tail = 2), /more than one entry behind/);
  await damaged('rung ahead', () => (journal.rung = 1), /more than one entry behind/);
  await damaged(
    'full',
    () => {
      journal.tail = journal.rung = entries;
    },
    /more commands are outstanding/,
  );
  await damaged('ahead', () => (journal.head = 1), /more commands are outstanding/);
  await damaged(
    'not acknowledged',
    () => {
      journal.tail = journal.rung = journal.head = entries + 1;
    },
    /more completions are not acknowledged/,
  );

  const entry = (slot: number): Uint32Array => {
    const entry = new Uint32Array(16);
    entry[0] = 2 | (slot << 16);
    entry[6] = 0x1000;
    return entry;
  };
  const transfer = { memory: arena, offset: 4096, length: 4096 };
  const take = (slot: number, position = 0): void =>
    journal.take(slot, position, entry(slot), 0, 0n, transfer, false);
  const record32 = 32;
  const field = (slot: number, index: number, value: number): void => {
    words[(slot + 1) * record32 + index] = value;
  };
  await damaged(
    'a state',
    () => {
      take(1);
      field(1, 0, 3);
    },
    /slot 1: it is in no state 3/,
  );
  await damaged(
    'a state',
    () => {
      take(1);
      field(1, 0, 0x101);
    },
    /it is in no state 257/,
  );
  await damaged(
    'an identifier',
    () => {
      journal.take(1, 0, entry(2), 0, 0n, transfer, false);
    },
    /slot 1: its command has an identifier of another slot/,
  );
  await damaged('a position', () => take(6, modulus), /slot 6: its position must be less than/);
  await damaged(
    'two',
    () => {
      take(1);
      take(2);
    },
    /the second that was about to be submitted/,
  );
  await damaged(
    'an arena',
    () => {
      take(1);
      field(1, 4, 5);
    },
    /there is no memory at 4096 to 8192 of an arena with token/,
  );
  await damaged(
    'beyond',
    () => {
      take(1);
      field(1, 6, 65536 - 4092);
    },
    /there is no memory at/,
  );
  await damaged(
    'far beyond',
    () => {
      take(1);
      field(1, 7, 0xffff_ffff);
    },
    /there is no memory at/,
  );
  await damaged(
    'no arena',
    () => {
      journal.take(1, 0, entry(1), 0, 0n, undefined, false);
    },
    /it transfers, and not to an arena/,
  );
  await damaged(
    'odd',
    () => {
      take(1);
      field(1, 6, 4098);
    },
    /it cannot transfer 4096 bytes at 4098/,
  );
  await damaged(
    'nothing',
    () => {
      take(1);
      field(1, 8, 0);
    },
    /it cannot transfer 0 bytes/,
  );
  // Longer than the lists of the queue are for, in an arena that is large enough.
  await damaged(
    'too much',
    () => {
      const transfer = { memory: large, offset: 0, length: 2 ** 20 };
      journal.take(1, 0, entry(1), 0, 0n, transfer, false);
    },
    /it cannot transfer 1048576 bytes/,
  );

  // The application may have given back the memory of a command that is complete.
  const other = DmaArena.create(stage.device.space, 4096);
  journal.take(3, 0, entry(3), 0, 12n, { memory: other, offset: 0, length: 4096 }, false);
  journal.complete(3, 0, 0);
  other[Symbol.dispose]();
  controller.relinquish(new Error('ended'));
  const second = await stage.restore(record);
  t.match(second.inherited, [{ tag: 12n, transfer: undefined }]);
  await second.close();
});

t.test('what is wrong with the arguments, and not with the state', async t => {
  using stage = await Succession.make();
  using elsewhere = await Succession.make();
  const controller = await NvmeController.open(stage.device);
  await stage.turns();
  const refusals = new Refusals(t, stage, controller);
  const { record } = refusals;
  const { device } = stage;
  await t.rejects(NvmeController.restore(device, record, {} as { memory: () => undefined }), TypeError);
  using foreign = DmaArena.create(elsewhere.device.space, 2 ** 20);
  await t.rejects(NvmeController.restore(device, record, { memory: () => foreign }), {
    name: 'TypeError',
    message: /in the address space of the device/,
  });
  const io = FdtValue.readU64(record.properties.get('io-arena')!)!;
  await t.rejects(NvmeController.restore(device, record, { memory: () => refusals.arena(io) }), {
    name: 'TypeError',
    message: /the arena with the token it is asked for/,
  });
  const memory = (token: bigint) => refusals.arena(token);
  await t.rejects(NvmeController.restore(device, record, { memory }), {
    name: 'DeviceError',
    code: 'BUSY',
    message: /is allocated already/,
  });
  const [kind] = device.interrupts.enabled;
  t.equal(kind, InterruptKind.Msix);
  device.interrupts.disable(InterruptKind.Msix);
  device.interrupts.enable(InterruptKind.Msix, 5);
  await t.rejects(NvmeController.restore(device, record, { memory }), {
    code: 'BUSY',
    message: /has other interrupts enabled/,
  });
  device.interrupts.disable(InterruptKind.Msix);
  device.interrupts.enable(InterruptKind.Intx);
  await t.rejects(NvmeController.restore(device, record, { memory }), { code: 'BUSY' });
  device.interrupts.disable(InterruptKind.Intx);
  await refusals.end();
});

t.test('tags', async t => {
  using stage = await Succession.make();
  const controller = await NvmeController.open(stage.device);
  const namespace = controller.namespace(1);
  await t.rejects(namespace.flush({ tag: -1n }), RangeError);
  await t.rejects(namespace.flush({ tag: 2n ** 64n }), RangeError);
  await t.rejects(namespace.flush({ tag: 'a' as unknown as bigint }), TypeError);
  await namespace.flush({ tag: 2n ** 64n - 1n });
  await controller.close();
});
