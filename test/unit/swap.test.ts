// Another address space under devices that work, on the simulated host.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { Syscalls } from '../../bindings/syscalls.js';
import { EACCES } from '../../bindings/uapi/errno.js';
import { NvmeController } from '../../src/drivers/nvme/index.js';
import { AddressSpaceSwap, DmaArena, type Ioas, KeepAlive, type KeepAliveEvent } from '../../src/index.js';
import { faulty } from '../../src/testing/faults.js';
import { Lanes } from '../../src/testing/lanes.js';
import { ADDRESS, eventsOf, open, openBoth, works } from './support/swap-stage.js';

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number;

for (const [profile, swaps] of [
  ['vtd', 300],
  ['amd', 100],
  ['noiommu', 100],
] as const) {
  t.test(`${swaps} swaps while the controller works, ${profile}`, async t => {
    const { host, model, device, space } = await open(profile);
    const kept = KeepAlive.of(device);
    const controller = await NvmeController.open(device);
    kept.add(controller);
    const lanes = Lanes.create(space, controller.namespace(1));
    const pinned = host.physical.pinnedPages;
    const running = lanes.start();
    // Every moment in which the controller could touch memory without a page table, it tries to.
    using _gap = host.iommu.onGap(() => {
      model.work();
      return 0;
    });
    const swap = AddressSpaceSwap.prepare(space);
    const spare = swap.spare as Ioas;
    t.equal(host.physical.pinnedPages, pinned, 'memory is pinned once');
    const times: number[] = [];
    let told = lanes.told;
    let idle = 0;
    const events = await eventsOf(async () => {
      for (let count = 0; count < swaps; count++) {
        const { milliseconds, paused, faults } = await swap.switch();
        times.push(milliseconds);
        if (!(paused >= milliseconds) || faults?.faults.length !== 0 || !faults.complete)
          t.fail('a bad report');
        if (device.space !== swap.current || lanes.arena.space !== swap.current)
          t.fail('memory is elsewhere');
        if (lanes.told === told) idle++;
        told = lanes.told;
      }
    });
    const swapped = events.filter(({ kind }) => kind === 'swapped');
    t.equal(swapped.length, swaps);
    t.match(swapped[0], { device: ADDRESS, faults: 0 });
    t.ok(idle < swaps / 10, `work went on between swaps, but for ${idle}`);
    t.equal(swap.current, space, 'where it began');
    t.equal(swap.spare, spare);
    lanes.stop();
    await running;
    t.comment(`${lanes.told} operations; ${median(times)} ms, at most ${Math.max(...times)} ms a swap`);
    t.equal(lanes.failure, undefined);
    t.equal(lanes.wrong, 0);
    t.equal(controller.resets, 0);
    t.equal(host.iommu.faultCount, 0);
    swap.drop(profile === 'noiommu');
    t.equal(host.physical.pinnedPages, pinned, 'as much is pinned as before');
    t.strictSame([...space.iommufd.ioases], [space]);
    await controller.close();
    kept[Symbol.dispose]();
    device[Symbol.dispose]();
  });
}

for (const profile of ['vtd', 'vtd-scalable', 'amd'] as const) {
  t.test(`DMA in the gap, ${profile}`, async t => {
    const { host, model, device, space } = await open(profile);
    device.config.busMaster = true;
    const arena = DmaArena.create(space, 8192);
    using swap = AddressSpaceSwap.prepare(space);
    using _gap = host.iommu.onGap(() => {
      t.equal(model.port.read(arena.iova, new Uint8Array(8)), false, 'there is no page table');
      t.equal(model.port.write(arena.iova + 4096n, new Uint8Array(8)), false);
      return 0;
    });
    const reports: unknown[] = [];
    const events = await eventsOf(async () => {
      reports.push(await swap.switch());
    });
    const faults = [
      { device: ADDRESS, address: arena.iova, write: false },
      { device: ADDRESS, address: arena.iova + 4096n, write: true },
    ];
    t.match(reports, [{ paused: 0, faults: { faults, complete: true } }]);
    t.match(events, [{ kind: 'swapped', device: ADDRESS, paused: 0, faults: 2 }]);
    const second = await swap.switch();
    t.equal(second.faults?.complete, false, 'the kernel has stopped to tell, and that is told');
    works(t, model, arena, 'afterwards');
    t.equal(host.iommu.faultCount, 4);
    device[Symbol.dispose]();
  });
}

t.test('faults that are of no interest, and those that cannot be known', async t => {
  const { host, models, space } = await openBoth('vtd');
  const { port } = models[0];
  {
    using swap = AddressSpaceSwap.prepare(space);
    port.read(0x1234_0000n, new Uint8Array(1));
    t.strictSame((await swap.switch()).faults, { faults: [], complete: true }, 'one from before');
    t.equal(host.iommu.faultCount, 1);
  }
  const kernelOf =
    (fault: { call: 'open' | 'read' | 'readLink'; file: string | RegExp }) => (kernel: Syscalls) =>
      faulty(kernel, [{ ...fault, errno: EACCES, ...(fault.call === 'read' && { nth: 2 }) }]);
  for (const fault of [
    { call: 'open', file: '/dev/kmsg' },
    { call: 'readLink', file: /\/iommu$/ },
    { call: 'read', file: '/dev/kmsg' },
  ] as const) {
    const { host, device, space } = await open('vtd', kernelOf(fault));
    let events: KeepAliveEvent[] = [];
    {
      using swap = AddressSpaceSwap.prepare(space);
      events = await eventsOf(async () => {
        t.equal((await swap.switch()).faults, undefined, `${fault.call} of ${fault.file}`);
      });
    }
    t.match(events, [{ kind: 'swapped', faults: undefined }]);
    device[Symbol.dispose]();
    t.notOk(host.leftovers().some(left => left.includes('kmsg')));
  }
});

for (const profile of ['vtd', 'amd'] as const) {
  t.test(`drivers that are not settled, ${profile}`, async t => {
    const { host, model, device, space } = await open(profile);
    const kept = KeepAlive.of(device);
    const controller = await NvmeController.open(device);
    kept.add(controller);
    const lanes = Lanes.create(space, controller.namespace(1));
    const running = lanes.start();
    using _gap = host.iommu.onGap(() => {
      model.work();
      return 0;
    });
    const swap = AddressSpaceSwap.prepare(space);
    let swaps = 0;
    let faults = 0;
    while (controller.resets < 3 && swaps < 500) {
      const { resets } = controller;
      const report = await swap.switch({ quiesce: [] });
      t.equal(report.paused, 0);
      faults += report.faults?.faults.length ?? 0;
      swaps++;
      // A controller that cannot read its queue says so (CSTS.CFS), and is brought up again.
      const cannotGoOn = (): boolean =>
        (device.bar(0).read32(0x1c) & 2) !== 0 && controller.resets === resets;
      while (cannotGoOn()) await sleep(5);
      if (controller.resets > resets) await controller.namespace(1).flush();
    }
    lanes.stop();
    await running;
    t.comment(`${swaps} swaps, ${host.iommu.faultCount} faults, ${faults} told, ${controller.resets} resets`);
    t.ok(host.iommu.faultCount > 0);
    t.ok(faults > 0 && faults <= host.iommu.faultCount);
    t.equal(lanes.failure, undefined);
    t.equal(lanes.wrong, 0, 'no wrong data');
    t.equal(controller.resets, 3);
    t.ok((await swap.switch()).faults?.faults.length === 0, 'none with drivers settled');
    swap.drop();
    await controller.close();
    kept[Symbol.dispose]();
    device[Symbol.dispose]();
  });
}

t.test('which drivers are settled', async t => {
  const { host, model, device, space } = await open('vtd');
  const controller = await NvmeController.open(device);
  const namespace = controller.namespace(1);
  const swap = AddressSpaceSwap.prepare(space);
  model.throttle(1000);
  const reads = (): Promise<unknown> =>
    Promise.all(Array.from({ length: 8 }, (_, lba) => namespace.readBlocks(lba, 1)));
  const inFlight = reads();
  t.equal((await swap.switch()).paused, 0, 'none is known');
  t.ok((await swap.switch({ quiesce: [controller] })).paused > 0, 'one that is given');
  await inFlight;
  const kept = KeepAlive.of(device);
  t.equal((await swap.switch()).paused, 0, 'none is known still');
  kept.add(controller);
  const again = reads();
  t.ok((await swap.switch()).paused > 0, 'one that is kept');
  t.equal((await swap.switch({ quiesce: [] })).paused, 0, 'or none, if so wanted');
  await again;
  t.equal(controller.resets, 0);
  t.equal(host.iommu.faultCount, 0);
  kept[Symbol.dispose]();
  await controller.close();
  device[Symbol.dispose]();
});

t.test('a driver that does not settle', async t => {
  const { model, device, space } = await open('vtd');
  const controller = await NvmeController.open(device);
  const namespace = controller.namespace(1);
  const swap = AddressSpaceSwap.prepare(space);
  model.throttle(1);
  await namespace.readBlocks(0, 1);
  const late = namespace.readBlocks(1, 1);
  await sleep(5);
  const started = performance.now();
  await t.rejects(swap.switch({ quiesce: [controller], timeout: 50 }), {
    name: 'SwapError',
    code: 'BUSY',
    message:
      /commands of 0000:00:04.0 were still in flight after 50 ms\. The old .* attached still.* longer timeout/,
  });
  t.ok(performance.now() - started < 2000);
  t.equal(swap.current, space);
  t.equal(device.attached, space, 'as it was');
  model.throttle(0);
  await late;
  await namespace.readBlocks(2, 1);
  await swap.switch({ quiesce: [controller] });
  await namespace.readBlocks(3, 1);
  await controller.close();
  const closed = performance.now();
  await t.resolves(swap.switch({ quiesce: [controller] }), 'one that is closed has nothing in flight');
  t.ok(performance.now() - closed < 2000, 'and is not waited for');
  device[Symbol.dispose]();
});
