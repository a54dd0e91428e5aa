// Devices that go on while the process that drives them is replaced, on the simulated host.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { NvmeController } from '../../src/drivers/nvme/index.js';
import { claim, openDevice } from '../../src/index.js';
import { Channel } from '../../src/keepalive/handoff/channel.js';
import { handOff, takeOver } from '../../src/keepalive/handoff/handoff.js';
import { KeepAlive } from '../../src/keepalive/keep-alive.js';
import { NvmeModel, NvmeNamespaceModel } from '../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../src/sim/host.js';
import type { MachineProfile } from '../../src/sim/iommu/hardware.js';
import type { SimulatedProcess } from '../../src/sim/process/process.js';
import { LANES_ARENA, Lanes } from '../../src/testing/lanes.js';

const ADDRESS = '0000:00:04.0';

function machine(profile: MachineProfile) {
  const namespaces = [new NvmeNamespaceModel({ id: 1, blockSize: 512, size: 8 * 2 ** 20 })];
  const model = new NvmeModel({ serial: 'a', namespaces });
  return { host: new SimulatedHost({ profile, devices: [{ address: ADDRESS, function: model }] }), model };
}

interface Driver {
  readonly kept: KeepAlive;
  readonly controller: NvmeController;
  readonly lanes: Lanes;
}

async function first(kernel: SimulatedProcess, profile: MachineProfile): Promise<Driver> {
  const claimed = await claim(ADDRESS, { kernel });
  const device = openDevice(claimed, { noiommu: profile === 'noiommu' });
  const kept = KeepAlive.of(device);
  const controller = await NvmeController.open(device);
  kept.add(controller);
  const lanes = Lanes.create(device.space, controller.namespace(1));
  return { kept, controller, lanes };
}

async function next(channel: Channel): Promise<Driver> {
  const kept = await takeOver(channel);
  const controller = await NvmeController.restore(kept.device(ADDRESS), kept.record(ADDRESS)!, {
    memory: token => kept.arena(token),
  });
  kept.add(controller);
  const arena = kept.arenas.find(({ name }) => name === LANES_ARENA)!;
  return { kept, controller, lanes: Lanes.adopt(arena, controller.namespace(1)) };
}

function channels(a: SimulatedProcess, b: SimulatedProcess): [Channel, Channel] {
  const pair = Channel.pair(a);
  // The other end is passed on, as a program that is started inherits it.
  const theirs = Channel.adopt(b.install(a.file(pair[1].fd)!.get()), b);
  pair[1][Symbol.dispose]();
  return [pair[0], theirs];
}

for (const profile of ['vtd', 'noiommu', 'amd'] as const) {
  t.test(`hand-offs under load, ${profile}`, async t => {
    const { host } = machine(profile);
    let process = host.process();
    let driver = await first(process, profile);
    let running = driver.lanes.start();
    for (let count = 0; count < 20; count++) {
      await sleep(5);
      const successor = host.process();
      const [ours, theirs] = channels(process, successor);
      const [report, taken] = await Promise.all([handOff(driver.kept, ours), next(theirs)]);
      ours[Symbol.dispose]();
      theirs[Symbol.dispose]();
      await running;
      t.equal(driver.lanes.failure, undefined);
      t.ok(report.descriptors > 5);
      t.equal(taken.controller.outcome, 'kept-running');
      driver = taken;
      process = successor;
      running = driver.lanes.start(driver.controller.inherited);
    }
    await sleep(5);
    driver.lanes.stop();
    await running;
    t.equal(driver.lanes.failure, undefined);
    t.equal(driver.lanes.wrong, 0);
    t.ok(driver.lanes.told > 100, `${driver.lanes.told} operations`);
    await driver.controller.close();
    driver.kept[Symbol.dispose]();
    t.strictSame(host.leftovers(), []);
  });
}
