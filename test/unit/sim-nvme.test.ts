/** The simulated NVMe controller beyond what is compared with QEMU's: limits, interrupts, storage, its own memory. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { NvmeModel, NvmeNamespaceModel } from '../../src/sim/devices/nvme/index.js';
import type { DeviceMemory } from '../../src/sim/machine/device-memory.js';
import type { Completion } from '../support/nvme-probe/raw-queue.js';
import { NvmeBench } from './support/nvme-bench.js';
import { readBar, writeBar } from './support/plain-port.js';

const SUCCESS = 0;
const ABORT_REQUESTED = 7;

const filled = (length: number, value: number): Buffer => Buffer.alloc(length, value);

t.test('PCI identity, as QEMU shows it', async t => {
  const model = new NvmeModel();
  t.match(model.identity, { vendorId: 0x1b36, deviceId: 0x10, classCode: 0x010802, revision: 2 });
  t.strictSame(
    model.bars.map(({ index, size }) => ({ index, size })),
    [{ index: 0, size: 0x4000 }],
  );
  t.match(model.capabilities, {
    msix: { vectors: 65, tableBar: 0, tableOffset: 0x2000, pbaBar: 0, pbaOffset: 0x3000 },
    functionLevelReset: true,
  });
});

t.test('a limit of operations: they wait, can be aborted, and go on when it is lifted', async t => {
  const bench = await new NvmeBench().start();
  bench.model.throttle(0.2);
  t.equal((await bench.read(0))?.status, SUCCESS, 'the first is let through');
  const id = bench.first.put(bench.transfer(2, 1));
  bench.first.put(bench.transfer(2, 2));
  bench.first.ring();
  t.equal(await bench.first.next(50), undefined, 'the next waits');
  const abort = await bench.run({ opcode: 8, cdw10: ((id << 16) | 1) >>> 0 });
  t.match(abort, { status: SUCCESS, result: 0 }, 'it was aborted');
  t.match(await bench.first.next(), { status: ABORT_REQUESTED, id });
  const unknown = await bench.run({ opcode: 8, cdw10: ((id << 16) | 1) >>> 0 });
  t.match(unknown, { status: SUCCESS, result: 1 }, 'there is nothing to abort any more');
  t.equal(await bench.first.next(50), undefined);
  bench.model.throttle(0);
  t.match(await bench.first.next(100), { status: SUCCESS }, 'the other goes on');
  t.match(await bench.run({ opcode: 0, nsid: 1 }, bench.first), { status: SUCCESS }, 'flush');
});

t.test('an abort of an event request', async t => {
  const bench = await new NvmeBench().start();
  const id = bench.admin.put({ opcode: 12 });
  const abort = bench.admin.put({ opcode: 8, cdw10: (id << 16) >>> 0 });
  bench.admin.ring();
  const both = [await bench.admin.next(), await bench.admin.next()] as Completion[];
  t.match(
    both.find(entry => entry.id === id),
    { status: ABORT_REQUESTED },
  );
  t.match(
    both.find(entry => entry.id === abort),
    { status: SUCCESS, result: 0 },
  );
});

t.test('deleting a submission queue ends what it has', async t => {
  const bench = await new NvmeBench().start();
  bench.model.throttle(0.2);
  await bench.read(0);
  bench.first.put(bench.transfer(2, 1));
  bench.first.ring();
  await sleep(10);
  t.match(await bench.run({ opcode: 0, cdw10: 1 }), { status: SUCCESS });
  t.match(await bench.first.next(), { status: 8 }, 'Command Aborted due to SQ Deletion');
  t.match(await bench.run({ opcode: 4, cdw10: 1 }), { status: SUCCESS }, 'then its completion queue');
});

t.test('a reset forgets commands in flight', async t => {
  const bench = await new NvmeBench().start();
  bench.model.throttle(10);
  for (let i = 0; i < 4; i++) bench.first.put(bench.transfer(2, i));
  bench.first.ring();
  await sleep(10);
  bench.configure(0n);
  t.equal(bench.status, 0);
  bench.model.throttle(0);
  const before = Buffer.from(bench.port.memory);
  await sleep(50);
  t.equal(Buffer.compare(before, Buffer.from(bench.port.memory)), 0, 'memory is left alone');
  await bench.start();
  t.match(await bench.read(0), { status: SUCCESS });
});

t.test('the pin is asserted until the queue is empty, and can be masked', async t => {
  const bench = new NvmeBench();
  bench.port.interruptMode = 'intx';
  await bench.start();
  t.equal(bench.port.asserted, false, 'everything was taken');
  bench.first.put(bench.transfer(2, 0));
  bench.first.put(bench.transfer(2, 1));
  bench.first.ring();
  await sleep(10);
  t.equal(bench.port.asserted, true);
  writeBar(bench.model, 0x0c, 4, 1n);
  t.equal(bench.port.asserted, false, 'masked');
  writeBar(bench.model, 0x10, 4, 1n);
  t.equal(bench.port.asserted, true, 'and not masked any more');
  bench.first.take();
  bench.first.acknowledge();
  t.equal(bench.port.asserted, true, 'one is left');
  bench.first.take();
  bench.first.acknowledge();
  t.equal(bench.port.asserted, false);
  t.equal(bench.port.messages.size, 0, 'no messages');
  bench.first.put(bench.transfer(2, 0));
  bench.first.ring();
  await sleep(10);
  bench.configure(0n);
  t.equal(bench.port.asserted, false, 'a reset lowers it');
});

t.test('each queue has its vector', async t => {
  const bench = await new NvmeBench().start(3);
  bench.port.messages.clear();
  await bench.read(0, bench.io[3]);
  t.strictSame([...bench.port.messages], [[3, 1]]);
});

t.test('what is written stays', async t => {
  const namespace = new NvmeNamespaceModel({ id: 1, blockSize: 512, size: 2 ** 20 });
  const bench = await new NvmeBench({ namespaces: [namespace] }).start();
  bench.data.fill(0x5a, 0, 512);
  await bench.write(2047);
  bench.model.reset();
  t.equal(bench.status, 0, 'after a reset of the function');
  await bench.start();
  bench.data.fill(0);
  await bench.read(2047);
  t.strictSame(Buffer.from(bench.data.subarray(0, 512)), filled(512, 0x5a));
  bench.model.plug(undefined);
  t.doesNotThrow(() => bench.model.throttle(0), 'pulled out');
  const next = await new NvmeBench({ namespaces: [namespace] }).start();
  await next.read(2047);
  t.strictSame(Buffer.from(next.data.subarray(0, 512)), filled(512, 0x5a), 'in another controller');
});

t.test('a disk image', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'sim-nvme-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'disk');
  using namespace = new NvmeNamespaceModel({ id: 1, blockSize: 4096, size: 2 ** 20, file });
  const bench = await new NvmeBench({ namespaces: [namespace] }).start();
  bench.data.fill(0xa5, 0, 4096);
  t.match(await bench.write(3), { status: SUCCESS });
  t.match(await bench.run({ opcode: 0, nsid: 1 }, bench.first), { status: SUCCESS });
  const image = readFileSync(file);
  t.equal(image.length, 2 ** 20);
  t.strictSame(image.subarray(3 * 4096, 4 * 4096), filled(4096, 0xa5));
  bench.data.fill(0xff, 0, 4096);
  t.match(await bench.read(200), { status: SUCCESS });
  t.strictSame(
    Buffer.from(bench.data.subarray(0, 4096)),
    filled(4096, 0),
    'zeroes where nothing was written',
  );
  await bench.run({ opcode: 8, nsid: 1, cdw10: 3 }, bench.first);
  t.strictSame(readFileSync(file).subarray(3 * 4096, 4 * 4096), filled(4096, 0), 'write zeroes');
});

t.test('another block size by Format', async t => {
  const bench = await new NvmeBench().start();
  bench.data.fill(0x11, 0, 4096);
  await bench.write(0);
  t.match(await bench.run({ opcode: 0x80, nsid: 1, cdw10: 4 }), { status: SUCCESS });
  await bench.run({ opcode: 6, nsid: 1, prp1: bench.dataAddress });
  t.equal(new DataView(bench.data.buffer, bench.data.byteOffset).getBigUint64(0, true), 32768n);
  t.equal(bench.data[26], 4);
  bench.data.fill(0xff, 0, 4096);
  await bench.read(0);
  t.strictSame(Buffer.from(bench.data.subarray(0, 4096)), filled(4096, 0), 'and everything is erased');
});

t.test('reading deallocated blocks can be made an error', async t => {
  const bench = await new NvmeBench().start();
  await bench.run({ opcode: 9, cdw10: 5, nsid: 1, cdw11: 1 << 16 });
  t.match(await bench.read(0), { status: 0x4287 }, 'Deallocated or Unwritten Logical Block');
  await bench.write(0);
  t.match(await bench.read(0), { status: SUCCESS });
});

t.test('doorbells in memory', async t => {
  const bench = await new NvmeBench().start();
  const [doorbells, eventIndexes] = [12, 13];
  const prps = { prp1: bench.address(doorbells), prp2: bench.address(eventIndexes) };
  t.match(await bench.run({ opcode: 0x7c, ...prps }), { status: SUCCESS });
  const view = new DataView(bench.port.memory.buffer);
  bench.first.put(bench.transfer(2, 0));
  bench.first.put(bench.transfer(2, 1));
  view.setUint32(doorbells * 4096 + 8, 2, true);
  bench.first.ring();
  await sleep(10);
  t.equal(bench.first.take()?.status, SUCCESS);
  t.equal(bench.first.take()?.status, SUCCESS);
  t.equal(view.getUint32(eventIndexes * 4096 + 8, true), 2, 'it says how far it has looked');
});

t.test('memory of its own', async t => {
  const bench = await new NvmeBench({ cmbSize: 2 ** 20 }).start();
  const bar = bench.model.bars.find(({ index }) => index === 2);
  t.match(bar, { size: 2 ** 20, prefetchable: true, is64Bit: true });
  const memory = bar?.memory as DeviceMemory;
  t.equal(readBar(bench.model, 0, 8) & (1n << 57n), 1n << 57n, 'CAP.CMBS');
  t.equal(readBar(bench.model, 0x38, 8), 0n, 'CMBLOC and CMBSZ are hidden');
  const at = 0x8000_0000n;
  writeBar(bench.model, 0x50, 8, at | 3n);
  t.equal(readBar(bench.model, 0x38, 4), 0x142n, 'CMBLOC: BAR 2');
  t.equal(readBar(bench.model, 0x3c, 4), 0x121dn, 'CMBSZ: 1 MiB');
  memory.bytes.fill(0x77, 0, 512);
  const write = await bench.run({ ...bench.transfer(1, 5), prp1: at }, bench.first);
  t.match(write, { status: SUCCESS });
  await bench.read(5);
  t.strictSame(Buffer.from(bench.data.subarray(0, 512)), filled(512, 0x77));
  const mixed = { ...bench.transfer(2, 0, 16), prp1: at, prp2: bench.dataAddress };
  t.match(await bench.run(mixed, bench.first), { status: 0x4012 }, 'Invalid Use of Controller Memory Buffer');
});

t.test('more pieces of memory than it takes', async t => {
  // 4 MiB that begin in the middle of a page touch 1025 pages; QEMU takes 1024.
  const bench = await new NvmeBench({ mdts: 10 }, 8 * 2 ** 20).start();
  const list = new BigUint64Array(bench.port.memory.buffer, 8 * 4096, 3 * 512);
  const half = bench.dataAddress + 2048n;
  for (let i = 0; i < 1025; i++) list[i + Math.floor(i / 511)] = bench.dataAddress + BigInt(4096 * (i + 1));
  list[511] = bench.address(9);
  list[1023] = bench.address(10);
  const read = { opcode: 2, nsid: 1, cdw12: 8191, prp1: half, prp2: bench.address(8) };
  t.match(await bench.run(read, bench.first), { status: 0x4006 });
  t.match(await bench.run({ ...read, prp1: bench.dataAddress }, bench.first), { status: SUCCESS });
});

t.test('it is fast', async t => {
  const bench = await new NvmeBench({ mdts: 10 }, 8 * 2 ** 20).start();
  const list = new BigUint64Array(bench.port.memory.buffer, 8 * 4096, 512);
  for (let i = 0; i < 512; i++) list[i] = bench.dataAddress + BigInt(4096 * (i + 1));
  const bytes = 512 * 4096;
  const started = performance.now();
  for (let round = 0; round < 64; round++) {
    for (const opcode of [1, 2]) {
      const command = { opcode, nsid: 1, cdw10: (round % 32) * 4096, cdw12: 4095 };
      await bench.run({ ...command, prp1: bench.dataAddress, prp2: bench.address(8) }, bench.first);
    }
  }
  const rate = (128 * bytes) / 2 ** 20 / ((performance.now() - started) / 1000);
  t.comment(`${Math.round(rate)} MiB/s`);
  t.ok(rate > 50, 'not a matter of seconds');
});
