/** NVMe beyond reading and writing: other commands, events, aborts, deadlines, and a controller that fails. */
import { setTimeout as sleep } from 'node:timers/promises';
import { DeviceError, DisposedError, DmaArena } from 'iommufd';
import { AdminOpcode, EventType, FeatureId, NvmeController, NvmeError, type NvmeEvent } from 'iommufd/nvme';
import t from 'tap';
import { monitor } from '../vm/monitor.js';
import { nvmeA, nvmeB } from '../vm/topology.js';
import { nothingLeaked, snapshot } from './support/leaks.js';
import { withNvme } from './support/nvme.js';
import { profile } from './support/profile.js';

const pattern = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, index) => (index * 31 + seed) & 0xff);

/** Makes the disk of controller B do at most `iops` operations a second; 0 lifts the limit. */
const throttle = (iops: number): Promise<unknown> =>
  monitor('block_set_io_throttle', {
    device: nvmeB.namespaces[0].disk,
    bps: 0,
    bps_rd: 0,
    bps_wr: 0,
    iops,
    iops_rd: 0,
    iops_wr: 0,
  });

t.test(`NVMe commands, ${profile}`, async t => {
  const before = snapshot();

  await t.test('identity', t =>
    withNvme(nvmeA.address, async controller => {
      t.equal(controller.identity.serialNumber, nvmeA.serial);
      t.match(controller.identity.modelNumber, /QEMU/);
      t.match(controller.version, /^1\.\d\.\d$/);
      t.strictSame(
        controller.namespaces.map(({ id, blockSize }) => ({ nsid: id, blockSize })),
        nvmeA.namespaces.map(({ nsid, blockSize }) => ({ nsid, blockSize })),
      );
      t.throws(() => controller.namespace(3), RangeError);
    }),
  );

  await t.test('write zeroes, deallocate, flush', t =>
    withNvme(nvmeA.address, async controller => {
      for (const namespace of controller.namespaces) {
        const length = 64 * namespace.blockSize;
        await namespace.write(100, pattern(length, 1));
        await namespace.writeZeroes(110, 10);
        await namespace.deallocate([
          { lba: 130, blocks: 2 },
          { lba: 140, blocks: 4 },
        ]);
        await namespace.flush();
        const expected = pattern(length, 1).fill(0, 10 * namespace.blockSize, 20 * namespace.blockSize);
        const back = await namespace.readBlocks(100, 64);
        const cut = (bytes: Uint8Array, from: number, to: number) =>
          Buffer.from(bytes.subarray(from * namespace.blockSize, to * namespace.blockSize));
        t.strictSame(cut(back, 0, 30), cut(expected, 0, 30), 'zeroes where they belong');
        t.strictSame(cut(back, 44, 64), cut(expected, 44, 64), 'the rest is untouched');
        const many = Array.from({ length: 600 }, (_, index) => ({ lba: 1000 + 2 * index, blocks: 1 }));
        await namespace.deallocate(many);
      }
    }),
  );

  await t.test('several queues, depth beyond the number of slots, progress', t =>
    withNvme(
      nvmeA.address,
      async controller => {
        t.equal(controller.queueDepth, 3 * 7);
        const namespace = controller.namespace(1);
        await Promise.all(
          Array.from({ length: 200 }, (_, index) => namespace.write(index, pattern(512, index))),
        );
        const back = await namespace.readBlocks(0, 200);
        for (let index = 0; index < 200; index++) {
          if (Buffer.compare(back.subarray(index * 512, (index + 1) * 512), pattern(512, index)) !== 0) {
            t.fail(`block ${index} is wrong`);
          }
        }
        let last = 0;
        const data = pattern(6 * 2 ** 20, 9);
        await namespace.write(0, data, { onProgress: done => (last = done) });
        t.equal(last, data.length, 'progress reached the end');
        t.equal(Buffer.compare(await namespace.readBlocks(0, data.length / 512), data), 0);
      },
      { ioQueues: 3, queueEntries: 8 },
    ),
  );

  await t.test('a transfer smaller than a page per command', t =>
    withNvme(
      nvmeB.address,
      async controller => {
        t.equal(controller.maxTransfer, 4096);
        const namespace = controller.namespace(1);
        const data = pattern(100 * 512, 3);
        await namespace.write(7, data);
        t.equal(Buffer.compare(await namespace.readBlocks(7, 100), data), 0);
      },
      { maxTransfer: 4096, bounceSize: 8192 },
    ),
  );

  await t.test('wrong arguments are refused before anything is issued', t =>
    withNvme(nvmeA.address, async (controller, device) => {
      const namespace = controller.namespace(2);
      await t.rejects(namespace.readBlocks(namespace.blocks, 1), RangeError);
      await t.rejects(namespace.read(0, new Uint8Array(100)), RangeError);
      await t.rejects(namespace.write(-1, new Uint8Array(4096)), RangeError);
      await t.rejects(namespace.write(0.5, new Uint8Array(4096)), RangeError);
      await t.rejects(namespace.write(0, 'data' as unknown as Uint8Array), TypeError);
      await t.rejects(namespace.writeZeroes(namespace.blocks - 1, 2), RangeError);
      await t.rejects(namespace.read(0, new Uint8Array(4096), { timeout: Number.NaN }), RangeError);
      await t.rejects(controller.admin({ opcode: 256 }), RangeError);
      await t.rejects(controller.admin({ opcode: 2, cdw10: -1 }), RangeError);
      await t.rejects(controller.getLogPage(2, 6), RangeError);
      await t.rejects(NvmeController.open(device, { queueEntries: 1 }), RangeError);
      await t.rejects(NvmeController.open(device, { maxTransfer: 5000 }), RangeError);
      const arena = DmaArena.create(device.space, 8192);
      const buffer = arena.allocate(4096);
      buffer[Symbol.dispose]();
      await t.rejects(namespace.read(0, buffer), { name: 'DisposedError' });
      arena[Symbol.dispose]();
    }),
  );

  await t.test('an error status', t =>
    withNvme(nvmeA.address, async controller => {
      const error = await controller
        .admin({ opcode: AdminOpcode.DeleteIoSubmissionQueue, cdw10: 77 })
        .catch(e => e);
      t.ok(error instanceof NvmeError);
      t.match(error, { sct: 1, sc: 1, dnr: true, message: /Invalid Queue Identifier/ });
      const opcode = await controller.admin({ opcode: 0x7f }).catch(e => e);
      t.match(opcode, { sct: 0, sc: 1, message: /Invalid Command Opcode/ });
      t.equal((await controller.getLogPage(2, 512)).length, 512, 'and goes on working');
    }),
  );

  await t.test('asynchronous events', t =>
    withNvme(nvmeA.address, async controller => {
      const events: NvmeEvent[] = [];
      const seen = (count: number): Promise<void> =>
        new Promise((resolve, reject) => {
          const timer = setTimeout(() => reject(new Error('no event')), 10_000);
          listening = controller.onEvent(event => {
            events.push(event);
            if (events.length < count) return;
            clearTimeout(timer);
            resolve();
          });
        });
      let listening: Disposable | undefined;
      const healthy = await controller.getFeature(FeatureId.TemperatureThreshold);
      for (let round = 1; round <= 6; round++) {
        // More rounds than requests: each is issued again after an event.
        const event = seen(round);
        await controller.setFeature(FeatureId.AsynchronousEventConfiguration, 0x1f);
        await controller.setFeature(FeatureId.TemperatureThreshold, 0x0100); // far below what it is
        await event;
        listening?.[Symbol.dispose]();
        await controller.setFeature(FeatureId.TemperatureThreshold, healthy & 0xffff);
      }
      t.match(events[0], { type: EventType.Health, info: 1, logPage: 2 });
      t.equal(events[0]?.log?.length, 512, 'with the SMART log');
    }),
  );

  await t.test('an abort signal', t =>
    withNvme(
      nvmeB.address,
      async controller => {
        const namespace = controller.namespace(1);
        await t.rejects(namespace.read(0, new Uint8Array(512), { signal: AbortSignal.abort() }), {
          name: 'AbortError',
        });
        await throttle(2);
        try {
          const abort = new AbortController();
          const started = performance.now();
          const reads = Array.from({ length: 100 }, (_, index) =>
            namespace.read(index, new Uint8Array(512), { signal: abort.signal }),
          );
          setTimeout(() => abort.abort(), 300);
          const results = await Promise.allSettled(reads);
          const rejected = results.filter(result => result.status === 'rejected');
          t.ok(rejected.length > 0, `${rejected.length} of 100 were aborted`);
          t.ok(
            rejected.every(result => result.reason.name === 'AbortError'),
            'each with the reason of the signal',
          );
          t.comment(`${Math.round(performance.now() - started)} ms, ${controller.resets} resets`);
        } finally {
          await throttle(0);
        }
        await namespace.write(0, pattern(512, 5));
        t.strictSame(
          Buffer.from(await namespace.readBlocks(0, 1)),
          Buffer.from(pattern(512, 5)),
          'works afterwards',
        );
      },
      { abortTimeout: 500 },
    ),
  );

  await t.test('a deadline: abort, then reset', t =>
    withNvme(
      nvmeB.address,
      async controller => {
        const namespace = controller.namespace(1);
        await namespace.write(0, pattern(4096, 7));
        await throttle(1);
        let released: Promise<unknown> = Promise.resolve();
        try {
          // Uses up what the throttle lets through at once.
          await Promise.all(
            [0, 1, 2].map(lba =>
              namespace.read(lba, new Uint8Array(512), { timeout: 20_000 }).catch(() => 0),
            ),
          );
          const late = namespace.read(3, new Uint8Array(512), { timeout: 100 });
          const victim = namespace.read(4, new Uint8Array(512), { timeout: 60_000 });
          released = sleep(2_000).then(() => throttle(0));
          const error = await late.catch((reason: unknown) => reason);
          if (error instanceof DeviceError) t.equal(error.code, 'TIMEOUT');
          else t.comment('the read came back in time after all');
          t.strictSame(
            Buffer.from(await victim),
            Buffer.from(pattern(4096, 7).subarray(4 * 512, 5 * 512)),
            'another command survived',
          );
          t.comment(`${controller.resets} resets`);
        } finally {
          await released;
        }
        await namespace.write(0, pattern(512, 8));
        t.strictSame(Buffer.from(await namespace.readBlocks(0, 1)), Buffer.from(pattern(512, 8)));
      },
      { abortTimeout: 300 },
    ),
  );

  await t.test('a controller that fails in the middle of I/O recovers', t =>
    withNvme(nvmeA.address, async (controller, device) => {
      const namespace = controller.namespace(1);
      const data = pattern(2 ** 20, 11);
      const writes = Array.from({ length: 16 }, (_, index) => namespace.write(index * 2048, data));
      // Without bus mastering it can no longer fetch commands, and says so in CSTS.CFS.
      device.config.busMaster = false;
      await Promise.all(writes);
      t.ok(controller.resets >= 1, `${controller.resets} resets`);
      for (let index = 0; index < 16; index++) {
        if (Buffer.compare(await namespace.readBlocks(index * 2048, 2048), data) !== 0)
          t.fail(`write ${index} is wrong`);
      }
      await controller.reset();
      t.equal(Buffer.compare(await namespace.readBlocks(0, 2048), data), 0, 'and after a reset on request');
    }),
  );

  await t.test('after closing', async t => {
    const { controller, namespace } = await withNvme(nvmeA.address, async controller => ({
      controller,
      namespace: controller.namespace(1),
    }));
    await t.rejects(namespace.readBlocks(0, 1), DisposedError);
    await t.rejects(controller.admin({ opcode: 0 }), DisposedError);
    await t.rejects(controller.reset(), DisposedError);
    await controller.close();
  });

  await nothingLeaked(t, before);
});
