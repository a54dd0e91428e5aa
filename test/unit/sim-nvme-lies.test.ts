/** A simulated NVMe controller that lies: each lie as it looks to whoever drives it. */
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { type Lie, Lies, type ScriptedLie } from '../../src/sim/devices/nvme/index.js';
import { NvmeBench } from './support/nvme-bench.js';
import { readBar } from './support/plain-port.js';

const READ = 2;

/** A controller that lies about the second read. */
async function liar(
  t: Test,
  lie: Lie,
  more: Partial<ScriptedLie> = {},
  queues = 1,
): Promise<NvmeBench & { told: Lies }> {
  const told = new Lies([{ opcode: READ, queue: 'io', nth: 2, ...more, lie }]);
  const bench = await new NvmeBench({ lies: told }).start(queues);
  const first = await bench.read(0);
  t.equal(first?.status, 0, `${lie.kind}: the first read is as it should be`);
  return Object.assign(bench, { told });
}

t.test('late', async t => {
  const bench = await liar(t, { kind: 'late', milliseconds: 60 });
  const started = performance.now();
  t.match(await bench.read(1), { status: 0 });
  t.ok(performance.now() - started >= 55);
  t.match(bench.told.told, [/opcode 0x02, id \d+ on queue 1: late \(milliseconds 60\)$/]);
});

t.test('twice', async t => {
  const bench = await liar(t, { kind: 'twice' });
  const first = await bench.read(1);
  const second = await bench.first.next();
  t.equal(first?.id, second?.id);
  t.match(await bench.read(2), { status: 0 }, 'and nothing else is out of order');
});

t.test('never', async t => {
  const bench = await liar(t, { kind: 'never' });
  t.equal(await bench.read(1, bench.first, 50), undefined);
  t.match(await bench.read(2), { status: 0 });
});

t.test('wrong id', async t => {
  const bench = await liar(t, { kind: 'wrong-id' });
  const id = bench.first.put(bench.transfer(READ, 1));
  bench.first.ring();
  t.equal((await bench.first.next())?.id, id ^ 0x4000);
});

t.test('wrong phase', async t => {
  const bench = await liar(t, { kind: 'wrong-phase' });
  const messages = bench.port.messages.get(1) ?? 0;
  t.equal(await bench.read(1, bench.first, 50), undefined, 'it cannot be seen');
  t.equal(bench.port.messages.get(1), messages + 1, 'although there was an interrupt');
});

t.test('wrong queue', async t => {
  const bench = await liar(t, { kind: 'wrong-queue' }, {}, 2);
  t.equal(await bench.read(1, bench.first, 30), undefined);
  t.match(await bench.admin.next(), { sqId: 1, status: 0 }, 'it is with the admin queue');
});

t.test('a status', async t => {
  const bench = await liar(t, { kind: 'status', sct: 2, sc: 0x81, dnr: true });
  bench.data.fill(0x33, 0, 512);
  t.match(await bench.read(1), { status: 0x4281 });
  t.equal(bench.data[0], 0x33, 'and nothing was read');
});

t.test('fatal', async t => {
  const bench = await liar(t, { kind: 'fatal' });
  t.equal(await bench.read(1, bench.first, 30), undefined);
  t.equal(bench.status & 2, 2, 'CSTS.CFS');
  t.equal(await bench.read(2, bench.first, 30), undefined, 'and it is dead');
  await bench.start();
  t.match(await bench.read(2), { status: 0 }, 'until it is reset');
});

t.test('a reset by itself', async t => {
  const bench = await liar(t, { kind: 'reset-in-flight' });
  t.equal(await bench.read(1, bench.first, 30), undefined);
  t.equal(bench.status, 0, 'it is not ready');
  t.equal(readBar(bench.model, 0x14, 4), 0n, 'nor enabled');
});

t.test('registers read as all ones', async t => {
  const bench = await liar(t, { kind: 'register-all-ones' });
  t.equal(await bench.read(1, bench.first, 30), undefined);
  t.equal(bench.status, 0xffff_ffff);
  t.equal(readBar(bench.model, 0, 8), 2n ** 64n - 1n);
  bench.model.reset();
  t.equal(bench.status, 0, 'until the function is reset');
  const passing = await liar(t, { kind: 'register-all-ones', milliseconds: 300 });
  t.equal(await passing.read(1, passing.first, 20), undefined);
  t.equal(passing.status, 0xffff_ffff);
  await sleep(400);
  t.equal(passing.status, 1, 'or for a while');
  t.match(await passing.read(2), { status: 0 });
});

t.test('several times', async t => {
  const bench = await liar(t, { kind: 'status', sct: 0, sc: 6 }, { times: 2 });
  const statuses = [];
  for (let lba = 0; lba < 4; lba++) statuses.push((await bench.read(lba))?.status);
  t.strictSame(statuses, [6, 6, 0, 0]);
});

t.test('by chance, and the same again with the same seed', async t => {
  const run = async (seed: number): Promise<readonly string[]> => {
    const lies: readonly Lie[] = [{ kind: 'twice' }, { kind: 'status', sct: 0, sc: 6 }];
    const plan = new Lies({ lies, seed, oneIn: 4, queue: 1 });
    const bench = await new NvmeBench({ lies: plan }).start(2);
    for (let lba = 0; lba < 40; lba++) {
      await bench.read(lba);
      await bench.read(lba, bench.io[2]);
      while (bench.first.take() !== undefined) bench.first.acknowledge();
    }
    return plan.told;
  };
  const told = await run(7);
  t.ok(told.length > 3 && told.length < 20, `${told.length} lies`);
  t.ok(told.every(text => text.includes('on queue 1')));
  t.strictSame(await run(7), told);
  t.notSame(await run(8), told);
});
