/** The simulated NVMe controller answers as QEMU 7.2's does, in everything that software can ask it. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { NvmeModel } from '../../src/sim/devices/nvme/index.js';
import { type Answers, PROBE_MEMORY, probeController } from '../support/nvme-probe/index.js';
import { nvmeA } from '../vm/topology.js';
import { PlainPort, readBar, writeBar } from './support/plain-port.js';

/** Recorded by test/kernel/nvme-model.test.ts. */
const golden = JSON.parse(
  readFileSync(new URL('../../../test/golden/nvme-qemu-7.2.json', import.meta.url), 'utf8'),
) as Answers;

/**
 * Where it does better. QEMU does not look at whether data reached memory or came from it: the command succeeds all
 * the same. Here it fails as on hardware: Data Transfer Error.
 */
const better: Answers = {
  'data at an address it cannot reach: read': '4004 0',
  'data at an address it cannot reach: write': '4004 0',
  'what was written then: data': '4192853445', // nothing was
  'an entry of a list it cannot reach': '4004 0',
  'compare with what it cannot reach': '0004 0',
  'ranges at an address it cannot reach': '0004 0',
  'identify to an address it cannot reach': '0004 0',
  'timestamp from an address it cannot reach': '0004 0',
};

t.test('the same answers as from QEMU', async t => {
  const port = new PlainPort(PROBE_MEMORY);
  const model = new NvmeModel({
    serial: nvmeA.serial,
    mdts: 10,
    namespaces: nvmeA.namespaces.map(({ nsid: id, blockSize }) => ({ id, blockSize })),
    // QEMU 7.2 does not abort anything.
    aborts: false,
  });
  model.plug(port);
  const answers = await probeController({
    read: (offset, size) => readBar(model, offset, size),
    write: (offset, size, value) => writeBar(model, offset, size, value),
    memory: port.memory,
    address: index => port.base + BigInt(index * 4096),
    unreachable: 0x70_0000_0000n,
    setBusMaster: enabled => {
      port.busMaster = enabled;
    },
    interrupts: vector => port.messages.get(vector) ?? 0,
    sleep,
  });
  t.ok(Object.keys(golden).length > 1900, 'a lot is asked');
  t.strictSame(answers, { ...golden, ...better });
});
