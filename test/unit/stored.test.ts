// Drivers that die: what the descriptor store has of them, and the successor that goes on with it, on the simulated host.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { iova } from '../../src/address.js';
import { NvmeController } from '../../src/drivers/nvme/index.js';
import { claim, DmaArena, type Ioas, openDevice } from '../../src/index.js';
import { HandoffError, HandoffErrorCode } from '../../src/keepalive/handoff/handoff-error.js';
import { receiveInherited } from '../../src/keepalive/handoff/inheritance.js';
import { KeepAlive } from '../../src/keepalive/keep-alive.js';
import { KEEPALIVE_CHANNEL, type KeepAliveEvent } from '../../src/keepalive/keepalive-events.js';
import { FdStore } from '../../src/keepalive/store/fd-store.js';
import { recover, StoredKeepAlive } from '../../src/keepalive/store/stored.js';
import { NvmeModel, NvmeNamespaceModel } from '../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../src/sim/host.js';
import type { MachineProfile } from '../../src/sim/iommu/hardware.js';
import type { SimulatedProcess } from '../../src/sim/process/process.js';
import { LANES_ARENA, Lanes } from '../../src/testing/lanes.js';
import { ServiceManager } from '../../src/testing/service-manager.js';
import { random } from '../support/random.js';

const ADDRESS = '0000:00:04.0';

function machine(profile: MachineProfile) {
  const namespaces = [new NvmeNamespaceModel({ id: 1, blockSize: 512, size: 8 * 2 ** 20 })];
  const model = new NvmeModel({ serial: 'a', namespaces });
  const host = new SimulatedHost({ profile, devices: [{ address: ADDRESS, function: model }] });
  return { host, model, namespaces };
}

/** A process that is started with everything. */
function start(keeper: ServiceManager): {
  process: SimulatedProcess;
  store: FdStore;
  inherited: Map<string, number[]>;
} {
  const { process, kernel, env } = keeper.start();
  const store = FdStore.fromEnvironment(env, kernel)!;
  return { process, store, inherited: receiveInherited(env, kernel) };
}

for (const profile of ['vtd', 'noiommu'] as const) {
  t.test(`killed at random moments, ${profile}`, async t => {
    const rng = random(Number(process.env.SEED) || 20_261_126);
    t.comment(`seed ${rng.seed}`);
    const { host, model, namespaces } = machine(profile);
    const keeper = new ServiceManager(host);
    let { process: running, store, inherited } = start(keeper);
    t.equal(recover(store, inherited), undefined, 'nothing yet');
    const device = openDevice(await claim(ADDRESS, { kernel: store.kernel }), {
      noiommu: profile === 'noiommu',
    });
    let kept = KeepAlive.of(device);
    StoredKeepAlive.keep(kept, store);
    let controller = await NvmeController.open(device, { bounceSize: 65536 });
    kept.add(controller);
    let lanes = Lanes.create(device.space, controller.namespace(1));
    let done = lanes.start();
    // Requests for events are the last thing that it asks for; the controller takes them before what comes after.
    while (lanes.told === 0) await sleep(1);
    const admin = model.trace.adminCommands.length;
    const configured = (): number =>
      model.trace.registerWrites.filter(({ offset }) => offset < 0x1000).length;
    const writes = configured();
    let told = 0;
    for (let count = 0; count < 25; count++) {
      await sleep(rng.below(8));
      if (rng.below(3) === 0) DmaArena.create(kept.devices[0]!.space, 4096, { name: 'spare' });
      told = lanes.told;
      running.exit();
      // The JavaScript of a process that is killed ends with it.
      controller.relinquish(new HandoffError(HandoffErrorCode.HandedOver, 'killed'));
      const next = start(keeper);
      running = next.process;
      const recovered = recover(next.store, next.inherited)!;
      ({ kept } = recovered);
      const found = kept;
      controller = await NvmeController.restore(kept.device(ADDRESS), kept.record(ADDRESS)!, {
        memory: token => found.arena(token),
      });
      t.equal(controller.outcome, 'kept-running');
      kept.add(controller);
      lanes = Lanes.adopt(kept.arenas.find(({ name }) => name === LANES_ARENA)!, controller.namespace(1));
      t.ok(lanes.told >= told, 'nothing that was told is forgotten');
      done = lanes.start(controller.inherited);
      for (const arena of kept.arenas)
        if (arena.name === 'spare' && rng.below(2) === 0) arena[Symbol.dispose]();
    }
    await sleep(10);
    lanes.stop();
    await done;
    t.equal(lanes.failure, undefined);
    t.equal(lanes.wrong, 0);
    t.ok(lanes.told > told);
    const executed = namespaces.reduce((sum, { counters }) => sum + counters.reads + counters.writes, 0);
    t.equal(executed, lanes.told, 'no command is lost, and none executed twice');
    t.equal(model.trace.adminCommands.length, admin, 'no admin command');
    t.equal(configured(), writes, 'no register write but doorbells');
    await controller.close();
    kept[Symbol.dispose]();
    t.strictSame(keeper.stored, [], 'the store is empty after an orderly end');
    keeper.process.exit();
    t.strictSame(host.leftovers(), []);
  });
}

t.test('a mapping that was not written down is undone, memory that nobody claims is not', async t => {
  const { host } = machine('noiommu');
  const keeper = new ServiceManager(host);
  const { process, store } = start(keeper);
  const device = openDevice(await claim(ADDRESS, { kernel: store.kernel }), { noiommu: true });
  const arena = DmaArena.create(device.space, 8192, { name: 'memory' });
  StoredKeepAlive.keep(KeepAlive.of(device), store);
  // More mappings of an arena are noted with the next change, which never comes.
  (device.space as Ioas).mapFile({ fd: arena, length: 8192 }, iova(0x8000_0000));
  process.exit();

  const told: unknown[] = [];
  const listen = (event: unknown): void => {
    const { kind } = event as KeepAliveEvent;
    if (kind === 'recovered' || kind === 'released') told.push(event);
  };
  subscribe(KEEPALIVE_CHANNEL, listen);
  t.teardown(() => unsubscribe(KEEPALIVE_CHANNEL, listen));
  const next = start(keeper);
  const { kept } = recover(next.store, next.inherited)!;
  const [ioas] = [...kept.iommufds[0]!.ioases];
  kept.arenas[0]?.allocateAt(0, 64);
  t.match(kept.unclaimed, [{ ranges: [{ offset: 64, length: 8192 - 64 }] }]);
  kept.releaseUnclaimed();
  kept.releaseUnclaimed();
  t.match(told, [
    { kind: 'recovered', strayBytes: 8192n },
    { kind: 'released', bytes: 8192 - 64 },
    { kind: 'released', bytes: 0 },
  ]);
  t.equal(ioas?.mappingCount, 1);
  kept[Symbol.dispose]();
  keeper.process.exit();
  t.strictSame(host.leftovers(), []);
});

t.test('a service manager that is not there', async t => {
  const { host } = machine('vtd');
  const kernel = host.process();
  const store = FdStore.fromEnvironment({ NOTIFY_SOCKET: '/run/notify' }, kernel)!;
  const device = openDevice(await claim(ADDRESS, { kernel }));
  const kept = KeepAlive.of(device);
  t.throws(() => StoredKeepAlive.keep(kept, store), {
    name: 'KernelError',
    code: 'ENOENT',
    hint: 'The service manager that NOTIFY_SOCKET names is not there',
  });
  DmaArena.create(device.space, 4096, { name: 'after' });
  t.pass('what is kept goes on without');
  kernel.exit();
});
