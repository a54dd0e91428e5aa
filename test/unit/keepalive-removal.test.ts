// A device that is pulled out while it is kept alive: nobody gets it, whoever has it is told, and nothing is left.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { NvmeController } from '../../src/drivers/nvme/index.js';
import { Channel, claim, handOff, KeepAlive, openDevice, preserve, takeOver } from '../../src/index.js';
import { NvmeModel, SimulatedHost } from '../../src/testing/index.js';

const ADDRESS = '0000:01:00.0';
const gone = { name: 'DeviceError', code: 'GONE', hint: /look for the device/ };

for (const profile of ['vtd', 'noiommu'] as const) {
  t.test(`pulled out, ${profile}`, async t => {
    const model = new NvmeModel({ namespaces: [{ id: 1, blockSize: 512 }] });
    const host = new SimulatedHost({
      profile,
      devices: [{ address: ADDRESS, function: model, port: '0000:00:07.0' }],
    });
    const kernel = host.process();
    const claimed = await claim(ADDRESS, { kernel });
    const device = openDevice(claimed, { noiommu: profile === 'noiommu' });
    const kept = KeepAlive.of(device);
    const controller = await NvmeController.open(device);
    kept.add(controller);
    const left = host.pull(ADDRESS);
    await sleep(5);

    t.ok(kept.serialise().length > 0, 'what was kept can still be written down');
    const [mine, theirs] = Channel.pair(kernel);
    const [given, taken] = await Promise.allSettled([handOff(kept, mine), takeOver(theirs)]);
    t.match(taken, { reason: { name: 'KeepAliveError', code: 'DIFFERENT', message: /being removed/ } });
    t.match(given, { reason: { name: 'HandoffError', code: 'REFUSED', hint: String } });
    for (const channel of [mine, theirs]) channel[Symbol.dispose]();
    await t.rejects(preserve(kept, { session: 'kept' }), gone);
    t.equal(kept.frozen, false, 'taken back each time');
    await t.rejects(controller.namespace(1).readBlocks(0, 1), gone);

    await controller.close();
    kept[Symbol.dispose]();
    for (const arena of kept.arenas) arena[Symbol.dispose]();
    device[Symbol.dispose]();
    await left;
    claimed.release();
    t.strictSame(host.leftovers(), []);
    kernel.exit();
    host[Symbol.dispose]();
  });
}
