// The lanes of verified I/O that other tests, and demonstrations, tell lost and repeated commands by.
import t from 'tap';
import { type InheritedCommand, NvmeController } from '../../src/drivers/nvme/index.js';
import { claim, openDevice } from '../../src/index.js';
import { NvmeModel, NvmeNamespaceModel } from '../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../src/sim/host.js';
import { LaneError, Lanes } from '../../src/testing/lanes.js';

const ADDRESS = '0000:00:04.0';

t.test('a lane with several commands of its predecessor, in whichever order they are named', async t => {
  const namespaces = [new NvmeNamespaceModel({ id: 1, blockSize: 512, size: 4 * 2 ** 20 })];
  using host = new SimulatedHost({
    devices: [{ address: ADDRESS, function: new NvmeModel({ namespaces }) }],
  });
  using claimed = await claim(ADDRESS, { kernel: host.process() });
  using device = openDevice(claimed);
  await using controller = await NvmeController.open(device);
  const lanes = Lanes.create(device.space, controller.namespace(1));
  using _arena = lanes.arena;
  await lanes.start([], (lane, told) => {
    if (lane === 0 && told === 2) lanes.stop();
  });
  t.equal(lanes.toldByLane[0], 2);
  // Two that it was told of, which was not noted any more, and the one that came after them.
  const command = (operation: number): InheritedCommand => ({
    ...{ namespaceId: 1, queue: 1, opcode: 1, lba: 0, blocks: 8, submitted: true, transfer: undefined },
    tag: (1n << 32n) | BigInt(operation),
    done: Promise.resolve(0),
  });
  const running = lanes.start([command(2), command(0), command(1)]);
  lanes.stop();
  await running;
  t.equal(lanes.failure, undefined);
  t.equal(lanes.toldByLane[0], 3, 'it goes on after the later of them');
  t.match(lanes.counts, { inherited: 3, toldTwice: 2 });
  const ended = lanes.start([command(1), command(3)]);
  lanes.stop();
  await ended;
  t.ok(lanes.failure instanceof LaneError, 'one in between was forgotten, and this one was not');
});
