/**
 * A controller that lies: whatever it gets wrong, the driver delivers right data or a typed error, and leaves nothing
 * behind.
 */
import { claim, type Device, DeviceError, DmaArena, Ioas, KernelError, openDevice } from 'iommufd';
import { NvmeController, NvmeError, type NvmeOptions } from 'iommufd/nvme';
import t, { type Test } from 'tap';
import {
  type Lie,
  Lies,
  NvmeModel,
  type RandomLies,
  type ScriptedLie,
} from '../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../src/sim/host.js';
import { random } from '../support/random.js';

const ADDRESS = '0000:00:04.0';
const READ = 2;
const IDENTIFY = 6;
const FOREVER = 1e9;
/** What is not lied about must not run into a timeout on a slow machine. In ms. */
const PATIENT = 20_000;
const OPTIONS: NvmeOptions = { ioQueues: 2, queueEntries: 16, commandTimeout: PATIENT, abortTimeout: 150 };
/** For what is. In ms. */
const IMPATIENT = 300;

interface Bench {
  readonly host: SimulatedHost;
  readonly device: Device;
}

/** Runs `body` with a device whose controller lies; afterwards everything must be back. */
async function withLiar(
  t: Test,
  plan: readonly ScriptedLie[] | RandomLies,
  body: (bench: Bench) => Promise<void>,
  profile: 'vtd' | 'noiommu' = 'vtd',
): Promise<void> {
  const lies = new Lies(plan);
  using host = new SimulatedHost({
    profile,
    devices: [
      { address: ADDRESS, function: new NvmeModel({ lies, namespaces: [{ id: 1, blockSize: 512 }] }) },
    ],
  });
  const kernel = host.process();
  {
    using claimed = await claim(ADDRESS, { kernel });
    using device = openDevice(claimed, { noiommu: profile === 'noiommu' });
    await body({ host, device });
  }
  if (!t.strictSame(host.leftovers(), [], 'nothing is left behind')) t.comment(lies.told.join('\n'));
}

const pattern = (lba: number): Uint8Array => new Uint8Array(512).fill(lba * 7 + 1);

/** Brings the controller up, writes a few blocks, and reads some of them, each with a time limit in ms. */
async function readEach(
  device: Device,
  ...timeouts: readonly number[]
): Promise<('right' | 'wrong' | Error)[]> {
  const controller = await NvmeController.open(device, OPTIONS);
  try {
    const namespace = controller.namespace(1);
    for (let lba = 0; lba < 4; lba++) await namespace.write(lba, pattern(lba));
    const found: ('right' | 'wrong' | Error)[] = [];
    for (const [lba, timeout] of timeouts.entries()) {
      found.push(
        await namespace.readBlocks(lba, 1, { timeout }).then(
          data => (Buffer.compare(data, pattern(lba)) === 0 ? 'right' : 'wrong'),
          (error: Error) => error,
        ),
      );
    }
    return found;
  } finally {
    await controller.close().catch(() => undefined);
  }
}

interface Expectation {
  readonly lie: Lie;
  /** What the read that was lied about must come to: right data, or an error like this. */
  readonly once: 'right' | Record<string, unknown>;
  /** The same when every read is lied about. */
  readonly always: 'right' | Record<string, unknown>;
}

const gone = { name: 'DeviceError', code: 'GONE' };
const timeout = { name: 'DeviceError', code: 'TIMEOUT' };
const fatal = { name: 'DeviceError', code: 'FATAL' };

const expectations: readonly Expectation[] = [
  { lie: { kind: 'late', milliseconds: 50 }, once: 'right', always: 'right' },
  { lie: { kind: 'late', milliseconds: 2000 }, once: timeout, always: timeout },
  // The second completion comes when nobody waits for it: a reset, which the read after it lives through.
  { lie: { kind: 'twice' }, once: 'right', always: 'right' },
  { lie: { kind: 'never' }, once: timeout, always: timeout },
  // Found out at once: the controller is reset, and the command issued again.
  { lie: { kind: 'wrong-id' }, once: 'right', always: fatal },
  { lie: { kind: 'wrong-queue' }, once: 'right', always: fatal },
  { lie: { kind: 'wrong-phase' }, once: timeout, always: timeout },
  { lie: { kind: 'status', sct: 2, sc: 0x81, dnr: true }, once: { sct: 2, sc: 0x81 }, always: { sct: 2 } },
  { lie: { kind: 'fatal' }, once: 'right', always: fatal },
  { lie: { kind: 'reset-in-flight' }, once: 'right', always: fatal },
  { lie: { kind: 'register-all-ones' }, once: gone, always: gone },
];

function check(
  t: Test,
  found: 'right' | 'wrong' | Error | undefined,
  expected: Expectation['once'],
  what: string,
): void {
  if (expected === 'right') t.equal(found, 'right', `${what}: right data`);
  else t.match(found, expected, `${what}: ${found instanceof Error ? found.message : found}`);
}

t.test('a lie about a read', { jobs: 8 }, async t => {
  for (const { lie, once, always } of expectations) {
    const limit = once === timeout ? IMPATIENT : PATIENT;
    void t.test(JSON.stringify(lie), async t => {
      await withLiar(t, [{ lie, opcode: READ, queue: 'io' }], async ({ device }) => {
        const [first, next] = await readEach(device, limit, PATIENT);
        check(t, first, once, 'told once');
        if (once !== gone) check(t, next, 'right', 'the next');
      });
      await withLiar(t, [{ lie, opcode: READ, queue: 'io', times: FOREVER }], async ({ device }) => {
        const [first] = await readEach(device, limit);
        check(t, first, always, 'told always');
      });
    });
  }
});

t.test('a lie while it is brought up', { jobs: 8 }, async t => {
  const outcomes: readonly { lie: Lie; error: Record<string, unknown> | undefined }[] = [
    { lie: { kind: 'late', milliseconds: 20 }, error: undefined },
    { lie: { kind: 'twice' }, error: fatal },
    { lie: { kind: 'never' }, error: timeout },
    { lie: { kind: 'wrong-id' }, error: fatal },
    { lie: { kind: 'wrong-phase' }, error: timeout },
    { lie: { kind: 'status', sct: 0, sc: 6 }, error: { name: 'NvmeError', sct: 0, sc: 6 } },
    { lie: { kind: 'fatal' }, error: { name: 'DeviceError' } },
    { lie: { kind: 'register-all-ones' }, error: gone },
  ];
  for (const { lie, error } of outcomes) {
    void t.test(JSON.stringify(lie), t =>
      withLiar(t, [{ lie, opcode: IDENTIFY, times: FOREVER }], async ({ device }) => {
        const limit = error === timeout || lie.kind === 'fatal' ? { commandTimeout: IMPATIENT } : {};
        const opened = NvmeController.open(device, { ...OPTIONS, ...limit });
        if (error === undefined) await (await opened).close();
        else
          t.match(
            await opened.then(
              () => 'it works',
              (reason: Error) => reason,
            ),
            error,
          );
      }),
    );
  }
});

t.test('lies at random', async t => {
  const seed = Number(process.env.SEED) || Date.now() & 0x7fff_ffff;
  t.comment(`seed ${seed}`);
  const lies: readonly Lie[] = [
    { kind: 'late', milliseconds: 5 },
    { kind: 'twice' },
    { kind: 'never' },
    { kind: 'wrong-id' },
    { kind: 'wrong-phase' },
    { kind: 'wrong-queue' },
    { kind: 'status', sct: 2, sc: 0x80 },
    { kind: 'fatal' },
    { kind: 'reset-in-flight' },
  ];
  const options = { ...OPTIONS, commandTimeout: 60, abortTimeout: 30 };
  await withLiar(t, { lies, seed, oneIn: 12, queue: 'io' }, async ({ device }) => {
    const rng = random(seed || 1);
    const controller = await NvmeController.open(device, options);
    const namespace = controller.namespace(1);
    let right = 0;
    const errors: unknown[] = [];
    /** What each block holds; undefined when a write to it failed, and nobody knows. */
    const shadow = new Map<number, number | undefined>();
    const worker = async (first: number): Promise<void> => {
      for (let round = 0; round < 30; round++) {
        const lba = first + rng.below(8);
        const value = rng.below(256);
        try {
          if (rng.below(2) === 0) {
            shadow.set(lba, undefined);
            await namespace.write(lba, new Uint8Array(512).fill(value));
            shadow.set(lba, value);
          } else {
            const data = await namespace.readBlocks(lba, 1);
            const expected = shadow.get(lba);
            if (expected !== undefined && !data.every(byte => byte === expected)) {
              t.fail(`block ${lba} holds ${data[0]}, not ${expected}`);
            }
          }
          right++;
        } catch (error) {
          errors.push(error);
          if (error instanceof DeviceError && error.code === 'FATAL') return;
        }
      }
    };
    await Promise.all(Array.from({ length: 8 }, (_, index) => worker(index * 8)));
    t.comment(`${right} commands right, ${errors.length} failed, ${controller.resets} resets`);
    const odd = errors.filter(error => !(error instanceof NvmeError || error instanceof DeviceError));
    t.strictSame(odd, [], 'every failure is a typed one');
    t.ok(right > 50, 'most of it worked');
    await controller.close().catch((error: Error) => t.comment(`closing: ${error.message}`));
  });
});

t.test('memory that goes away under a command', async t => {
  await withLiar(t, [], async ({ host, device }) => {
    const controller = await NvmeController.open(device, OPTIONS);
    const arena = DmaArena.create(device.space, 65536);
    const buffer = arena.allocate(4096, { alignment: 4096 });
    await controller.namespace(1).write(0, buffer);
    if (!(device.space instanceof Ioas)) throw new Error('not iommufd');
    device.space.unmap(arena.iova, arena.size);
    const error = await controller
      .namespace(1)
      .read(0, buffer)
      .catch(e => e);
    t.ok(error instanceof NvmeError, 'the controller says what it could not do');
    t.match(error, { sct: 0, sc: 4, message: /Data Transfer Error/ });
    t.ok(host.iommu.faultCount > 0, 'the IOMMU stopped it');
    t.throws(() => arena[Symbol.dispose](), KernelError, 'and releasing it says that it was gone');
    t.strictSame(
      Buffer.from(await controller.namespace(1).readBlocks(1, 1)),
      Buffer.alloc(512),
      'other memory is fine',
    );
    await controller.close();
  });
});

t.test('pulled out in the middle', async t => {
  for (const profile of ['vtd', 'noiommu'] as const) {
    const model = new NvmeModel({ namespaces: [{ id: 1, blockSize: 512 }] });
    const address = '0000:01:00.0';
    using host = new SimulatedHost({
      profile,
      devices: [{ address, function: model, port: '0000:00:07.0' }],
    });
    const kernel = host.process();
    {
      using claimed = await claim(address, { kernel });
      using device = openDevice(claimed, { noiommu: profile === 'noiommu' });
      const controller = await NvmeController.open(device, OPTIONS);
      const reads = Array.from({ length: 20 }, (_, lba) => controller.namespace(1).readBlocks(lba, 1));
      const left = host.pull(address);
      const results = await Promise.allSettled(reads);
      const failed = results.filter(result => result.status === 'rejected');
      t.ok(failed.length > 0, `${failed.length} of 20 failed`);
      t.ok(failed.every(({ reason }) => reason instanceof DeviceError && reason.code === 'GONE'));
      await controller.close();
      device[Symbol.dispose]();
      await left;
    }
    t.strictSame(host.leftovers(), [], 'nothing is left behind');
  }
});
