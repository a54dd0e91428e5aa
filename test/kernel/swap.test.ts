/**
 * Address spaces swapped under an NVMe controller that does verified I/O at queue depth 32, on the real kernel: with its
 * driver settled no DMA is lost; without, some may fault where the IOMMU has no table for a moment, and is counted. And
 * what fails leaves the old address space attached.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AddressSpaceSwap,
  claim,
  type Device,
  DmaArena,
  Hwpt,
  type Ioas,
  iova,
  KeepAlive,
  openDevice,
  type SwitchOptions,
  type SwitchReport,
} from 'iommufd';
import { NvmeController } from 'iommufd/nvme';
import t, { type Test } from 'tap';
import {
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
} from '../../bindings/uapi/iommufd.js';
import { transact } from '../../src/ioctl.js';
import { LANES, Lanes } from '../../src/testing/lanes.js';
import { percentile } from '../../src/testing/percentile.js';
import { random } from '../support/random.js';
import { nvmeA, resettable } from '../vm/topology.js';
import { KernelLog, type LoggedFaults } from './support/kernel-log.js';
import { nothingLeaked, snapshot } from './support/leaks.js';
import { isNoiommu, profile } from './support/profile.js';

const QUIESCED = 1000;
const UNQUIESCED = 200;
/** Swaps between two signs of life. */
const PROGRESS = 50;
/** How long a controller may take to go on, with a reset in between, in ms. */
const GOES_ON_MS = 60_000;
/** Where interrupts are written to: behind an IOMMU no memory can be mapped there for a device. */
const RESERVED = 0xfee0_0000n;
const PAGE = 4096;

const noFaults: LoggedFaults = { lines: 0, suppressed: 0 };
const still = /The old address space is attached still/;
const rng = random(Number(process.env.SEED) || undefined);

t.setTimeout(450_000);

interface Work {
  readonly device: Device;
  readonly controller: NvmeController;
  readonly lanes: Lanes;
}

const spaceOf = ({ attached }: Device): Ioas | undefined =>
  attached instanceof Hwpt ? attached.ioas : attached;

/** Waits until so many more operations have ended. */
async function goOn(t: Test, { lanes, controller }: Work, operations = 2 * LANES): Promise<void> {
  const goal = lanes.told + operations;
  const end = performance.now() + GOES_ON_MS;
  while (lanes.told < goal && lanes.working === LANES && performance.now() < end) await sleep(1);
  if (lanes.told < goal) {
    const { failure, working } = lanes;
    t.fail('I/O does not go on', { failure, working, resets: controller.resets });
  }
}

/** The swap, the device and the kernel agree on what is attached. */
function isAttached(t: Test, { device, lanes }: Work, space: Ioas, what: string): void {
  t.equal(spaceOf(device), space, `${what}: it is attached`);
  t.equal(device.space, space);
  t.equal(lanes.arena.space, space);
  const { attached } = device;
  // Of a page table that nothing is attached to, this would be the end.
  if (attached instanceof Hwpt)
    t.throws(() => attached[Symbol.dispose](), { code: 'EBUSY' }, 'in the kernel');
}

/** The kernel has it no more, nor its page tables, and no more memory is pinned than before. */
function drop(t: Test, swap: AddressSpaceSwap, pinned: number): void {
  const { current } = swap;
  const spare = swap.spare as Ioas;
  const ids = [spare.id, ...[...spare.hwpts].map(({ id }) => id)];
  swap.drop(isNoiommu);
  t.equal(swap.spare, undefined);
  t.equal(spare.alive, false);
  t.strictSame([...current.iommufd.ioases], [current], 'the other address space is gone');
  for (const id of ids)
    t.throws(() => current.iommufd.destroy(id), { code: 'ENOENT' }, `${id} in the kernel`);
  t.equal(snapshot().pinned, pinned, 'as much is pinned as before');
}

interface Count {
  readonly reports: readonly SwitchReport[];
  readonly wrong: number;
  readonly resets: number;
  readonly operations: number;
  readonly logged: LoggedFaults;
}

/** Swaps to and fro, with I/O before each. */
async function swapOften(
  t: Test,
  work: Work,
  swap: AddressSpaceSwap,
  count: number,
  options: SwitchOptions = {},
): Promise<Count> {
  const { lanes, controller, device } = work;
  const [wrong, resets, operations] = [lanes.wrong, controller.resets, lanes.told];
  const reports: SwitchReport[] = [];
  using log = new KernelLog();
  while (reports.length < count) {
    await goOn(t, work, 1 + rng.below(2 * LANES));
    const { current, spare } = swap;
    reports.push(await swap.switch(options));
    if (swap.current !== spare || swap.spare !== current || spaceOf(device) !== spare) {
      t.fail(`swap ${reports.length}: nothing was switched`);
    }
    if (reports.length % PROGRESS === 0) t.comment(`${reports.length} swaps, ${lanes.told} operations`);
  }
  await goOn(t, work);
  const times = (figure: 'milliseconds' | 'paused') => {
    const values = reports.map(report => report[figure]);
    const text = (percent: number): string => percentile(values, percent).toFixed(2);
    return `p50 ${text(50)}, p90 ${text(90)}, max ${text(100)} ms`;
  };
  t.comment(`switch: ${times('milliseconds')}; pause: ${times('paused')}`);
  return {
    reports,
    wrong: lanes.wrong - wrong,
    resets: controller.resets - resets,
    operations: lanes.told - operations,
    logged: log.faults(),
  };
}

const faultsOf = (reports: readonly SwitchReport[]): number =>
  reports.reduce((sum, { faults }) => sum + (faults?.faults.length ?? Number.NaN), 0);

async function quiesced(t: Test, work: Work): Promise<void> {
  const { device, lanes } = work;
  const space = device.space as Ioas;
  const { pinned } = snapshot();
  const address = lanes.arena.deviceAddress(0);
  const swap = AddressSpaceSwap.prepare(space);
  t.equal(snapshot().pinned, pinned, 'memory is pinned once');
  const count = await swapOften(t, work, swap, QUIESCED);
  t.comment(`${count.operations} operations`);
  t.equal(count.wrong, 0, 'all data was read back as it was written');
  t.equal(faultsOf(count.reports), 0, 'no fault is reported');
  t.ok(
    count.reports.every(({ faults }) => faults?.complete),
    'nor may there have been any',
  );
  t.strictSame(count.logged, noFaults, 'nor is there one in the kernel log');
  t.equal(count.resets, 0, 'no reset');
  t.ok(
    count.reports.every(({ paused, milliseconds }) => paused > milliseconds),
    'the driver was settled each time',
  );
  t.equal(lanes.arena.deviceAddress(0), address, 'memory is where it was for the device');
  t.equal(swap.current, space, 'where it began');
  isAttached(t, work, space, 'at the end');
  if (isNoiommu) {
    t.throws(() => swap.drop(), { name: 'SwapError', code: 'BUSY', message: /drop\(true\)/ });
    t.equal(swap.spare?.alive, true);
    t.equal(snapshot().pinned, pinned);
  }
  drop(t, swap, pinned);
  await goOn(t, work);
}

/** Memory that goes from the new address space stays pinned by the old one: the device may have its address. */
async function oldPins(t: Test, work: Work): Promise<void> {
  const { device } = work;
  const { pinned } = snapshot();
  const passing = DmaArena.create(device.space, 16 * PAGE);
  const withPassing = snapshot().pinned;
  t.equal(withPassing - pinned, (16 * PAGE) / 1024);
  const swap = AddressSpaceSwap.prepare(device.space as Ioas);
  const old = swap.current;
  await swap.switch();
  passing[Symbol.dispose]();
  t.equal(snapshot().pinned, withPassing, 'it is pinned still');
  const busy = { name: 'SwapError', code: 'BUSY', message: /drop\(true\)/ };
  t.throws(() => swap.drop(), busy, 'which nobody may end before the driver has said so');
  await t.rejects(swap.switch(), busy);
  swap[Symbol.dispose]();
  t.equal(swap.spare, old);
  t.equal(snapshot().pinned, withPassing);
  await goOn(t, work);
  drop(t, swap, pinned);
  await goOn(t, work);
}

async function failures(t: Test, work: Work): Promise<void> {
  const { device, controller, lanes } = work;
  const { pinned } = snapshot();
  const { wrong } = lanes;
  const { resets } = controller;
  const space = device.space as Ioas;

  await t.test('a spare that differs', async t => {
    const swap = AddressSpaceSwap.prepare(space);
    swap.spare?.mapFile({ fd: lanes.arena, length: PAGE }, iova(0x8000_0000n));
    const error = { name: 'SwapError', code: 'DIFFERENT', message: still };
    await t.rejects(swap.switch(), error);
    isAttached(t, work, space, 'afterwards');
    await goOn(t, work);
    drop(t, swap, pinned);
  });

  await t.test('no time to settle', async t => {
    const swap = AddressSpaceSwap.prepare(space);
    const error = { name: 'SwapError', code: 'BUSY', message: /in flight after 0 ms.*attached still/ };
    await t.rejects(swap.switch({ timeout: 0 }), error);
    isAttached(t, work, space, 'afterwards');
    await goOn(t, work);
    drop(t, swap, pinned);
  });

  const noIommu = isNoiommu && 'without IOMMU no IOVA is reserved';
  await t.test('a reserved IOVA is mapped', { skip: noIommu }, async t => {
    const swap = AddressSpaceSwap.prepare(space);
    const spare = swap.spare as Ioas;
    // By somebody who shares the context: this process does not know of it.
    transact(device.kernel, spare.iommufd.fd, IOMMU_IOAS_MAP_FILE, {
      flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
      ioas_id: spare.id,
      fd: lanes.arena.fd,
      length: BigInt(PAGE),
      iova: RESERVED,
    });
    const error = { name: 'SwapError', code: 'FAILED', message: /EADDRINUSE.*attached still/s };
    await t.rejects(swap.switch(), error);
    isAttached(t, work, space, 'afterwards');
    await goOn(t, work);
    spare.unmap(iova(RESERVED), PAGE);
    await swap.switch();
    isAttached(t, work, spare, 'once it is gone');
    await goOn(t, work);
    await swap.switch();
    await goOn(t, work);
    drop(t, swap, pinned);
  });

  // Whom the kernel keeps where it is has a translation cache of its own.
  const noAts = !profile.startsWith('vtd') && 'this machine has no device with ATS';
  await t.test('a device is being reset', { skip: noAts }, async t => {
    using claimed = await claim(resettable.address);
    using second = openDevice(claimed, { space });
    const swap = AddressSpaceSwap.prepare(space);
    let refused: Error | undefined;
    for (let count = 0; count < 5 && refused === undefined; count++) {
      const reset = spawn('sh', ['-c', `echo 1 > /sys/bus/pci/devices/${resettable.address}/reset`], {
        stdio: 'inherit',
      });
      const ended = once(reset, 'exit');
      while (reset.exitCode === null && refused === undefined) {
        await swap.switch({ timeout: 50 }).catch((error: Error) => {
          if (/being reset/.test(error.message)) refused = error;
        });
      }
      if (refused !== undefined) {
        for (const each of [device, second]) t.equal(spaceOf(each), swap.current, 'both are where they were');
        await goOn(t, work);
        const before = swap.current;
        await swap.switch();
        t.not(swap.current, before, 'with more time it is waited for');
      }
      t.strictSame(await ended, [0, null], 'the reset itself went well');
    }
    t.match(refused, {
      name: 'SwapError',
      code: 'BUSY',
      message: /still being reset after 50 ms.*attached still/,
    });
    await goOn(t, work);
    if (swap.current !== space) await swap.switch();
    for (const each of [device, second]) t.equal(spaceOf(each), space, 'both are back');
    drop(t, swap, pinned);
  });

  await goOn(t, work);
  t.equal(lanes.wrong, wrong, 'no wrong data');
  t.equal(controller.resets, resets, 'no reset');
}

async function unquiesced(t: Test, work: Work): Promise<void> {
  const swap = AddressSpaceSwap.prepare(work.device.space as Ioas);
  const count = await swapOften(t, work, swap, UNQUIESCED, { quiesce: [] });
  const { reports, wrong, resets, logged } = count;
  const reported = faultsOf(reports);
  const incomplete = reports.filter(({ faults }) => !faults?.complete).length;
  t.comment(
    `${count.operations} operations; faults: ${reported} reported, ${logged.lines} lines in the kernel log and ` +
      `${logged.suppressed} left out there; ${incomplete} reports may be incomplete; ${wrong} wrong blocks; ${resets} resets`,
  );
  t.ok(
    reports.every(({ paused }) => paused === 0),
    'no driver was settled',
  );
  t.ok(reported <= logged.lines, 'no more faults are reported than there were');
  if (!isNoiommu) return;
  // Nothing changes for the device there. Behind an IOMMU QEMU's controller goes on with whatever it got where it was stopped.
  t.strictSame({ reported, logged, wrong, resets }, { reported: 0, logged: noFaults, wrong: 0, resets: 0 });
}

t.test(`swaps under load, ${profile}`, async t => {
  t.comment(`seed ${rng.seed}`);
  const before = snapshot();
  {
    using claimed = await claim(nvmeA.address);
    using device = openDevice(claimed, { noiommu: isNoiommu });
    using kept = KeepAlive.of(device);
    await using controller = await NvmeController.open(device);
    kept.add(controller);
    const lanes = Lanes.create(device.space, controller.namespace(1), 64);
    using _arena = lanes.arena;
    const running = lanes.start();
    const work: Work = { device, controller, lanes };
    await goOn(t, work);
    await t.test(`${QUIESCED} swaps, quiesced`, t => quiesced(t, work));
    await t.test('failures', t => failures(t, work));
    if (isNoiommu) await t.test('the old pins stay', t => oldPins(t, work));
    await t.test(`${UNQUIESCED} swaps, not quiesced`, t => unquiesced(t, work));
    lanes.stop();
    await running;
    t.equal(lanes.failure, undefined, 'every lane goes on to the end');
  }
  await nothingLeaked(t, before);
});
