// Contexts that are kept alive: what can be, what cannot and why, what is captured of them, and what they take from then on.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import t from 'tap';
import { iova } from '../../src/address.js';
import { NvmeController } from '../../src/drivers/nvme/index.js';
import {
  claim,
  DmaArena,
  decodeState,
  EphemeralMemory,
  InterruptKind,
  type Ioas,
  Iommufd,
  KEEPALIVE_CHANNEL,
  KeepAlive,
  type KeepAliveEvent,
  type KeepableDriver,
  openDevice,
} from '../../src/index.js';
import { EduModel } from '../../src/sim/devices/edu.js';
import { NvmeModel } from '../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../src/sim/host.js';
import type { MachineProfile } from '../../src/sim/iommu/hardware.js';

const NVME = '0000:00:04.0';
const EDU = '0000:00:05.0';

async function open(profile: MachineProfile = 'vtd', address = EDU) {
  const host = new SimulatedHost({
    profile,
    devices: [
      { address: NVME, function: new NvmeModel() },
      { address: EDU, function: new EduModel() },
    ],
  });
  const kernel = host.process();
  const claimed = await claim(address, { kernel });
  const device = openDevice(claimed, { noiommu: profile === 'noiommu' });
  return { host, kernel, claimed, device, space: device.space as Ioas };
}

const cannot = (message: RegExp) => ({ name: 'KeepAliveError', code: 'CANNOT_BE_KEPT', message });

t.test('what cannot be kept, and why', async t => {
  const { device, space } = await open();
  const memory = EphemeralMemory.create(space, 4096);
  t.throws(() => KeepAlive.of(device), cannot(/ephemeral memory.*Use DmaArena/));
  memory[Symbol.dispose]();
  const arena = DmaArena.create(space, 8192);
  space.mapFile({ fd: arena.fd, length: 4096 }, iova(0x8000_0000n));
  t.throws(() => KeepAlive.of(device), cannot(/0x80000000 .* is of a descriptor/));
  space.unmap(iova(0x8000_0000n), 4096);
  space.mapFile({ fd: { fd: arena.fd }, length: 4096 }, iova(0x8000_0000n));
  t.throws(() => KeepAlive.of(device), cannot(/no arena of these contexts/));
  space.unmap(iova(0x8000_0000n), 4096);
  t.notOk(device.iommufd?.kept, 'nothing has changed');
  EphemeralMemory.create(space, 4096)[Symbol.dispose]();

  using kept = KeepAlive.of(device);
  t.ok(device.iommufd?.kept);
  t.throws(() => KeepAlive.of(device), cannot(/kept alive already/));
  t.throws(() => EphemeralMemory.create(space, 4096), { code: 'UNSUPPORTED', message: /kept alive/ });
  t.strictSame(kept.devices, [device]);
  t.equal(kept.device(EDU), device);
  t.throws(() => kept.device(NVME), { name: 'RangeError', message: /is not kept here; 0000:00:05.0 is/ });
  t.equal(kept.arena(arena.token), arena);
  t.equal(kept.arena(5n), undefined);
  // Found when it is captured, whoever mapped it.
  space.mapFile({ fd: arena.fd, length: 4096 }, iova(0x8000_0000n));
  t.throws(() => kept.capture(), cannot(/of a descriptor/));
});

t.test('the legacy interface cannot be kept', async t => {
  const { device } = await open('legacy');
  t.throws(() => KeepAlive.of(device), cannot(/legacy interface/));
});

t.test('arguments', async t => {
  const { device } = await open();
  t.throws(() => KeepAlive.of(), RangeError);
  t.throws(() => KeepAlive.of('0000:00:05.0' as never), TypeError);
  t.throws(() => KeepAlive.of(device, {} as never), TypeError);
  t.notOk(device.iommufd?.kept);
});

t.test('what is captured', async t => {
  const { device, space } = await open();
  const arena = DmaArena.create(space, 16384, { name: 'queues', iova: iova(0x10_0000n) });
  space.mapFile({ fd: arena, offset: 4096, length: 8192 }, iova(0x40_0000n), { writeable: false });
  space.allowIovas([{ first: iova(0x10_0000n), last: iova(0xff_ffffn) }]);
  const hwpt = device.allocHwpt(space);
  device.attach(hwpt);
  device.interrupts.enable(InterruptKind.Msi);
  using kept = KeepAlive.of(device);
  const other = kept.iommufds[0]!.allocIoas();
  other.copy(space, iova(0x10_0000n), 16384, iova(0x20_0000n));
  const state = decodeState(kept.serialise());
  t.match(state.arenas, [
    {
      token: arena.token,
      size: 16384,
      pageSize: 4096,
      name: 'queues',
      place: { iommufd: 0, ioas: 0, iova: 0x10_0000n },
    },
  ]);
  t.equal(state.arenas[0]?.extents, undefined, 'where it is physically is of no interest behind an IOMMU');
  t.match(state.devices, [
    {
      address: EDU,
      vendorId: 0x1234,
      deviceId: 0x11e8,
      interface: 'cdev',
      translation: 'iommu',
      addressSpace: { iommufd: 0, ioas: 0, hwpt: 0 },
      interrupts: [{ kind: InterruptKind.Msi, count: 1 }],
    },
  ]);
  const [ioas, second] = state.iommufds[0]!.ioases;
  t.match(ioas?.hwpts, [{ id: 0, flags: 0, device: EDU }]);
  t.strictSame(ioas?.allowed, [{ first: 0x10_0000n, last: 0xff_ffffn }]);
  t.match(
    [...ioas!.mappings],
    [
      { iova: 0x10_0000n, length: 16384, arena: arena.token, offset: 0, writeable: true },
      { iova: 0x40_0000n, length: 8192, arena: arena.token, offset: 4096, writeable: false },
    ],
  );
  t.match([...second!.mappings], [{ iova: 0x20_0000n, length: 16384, arena: arena.token, offset: 0 }]);
  device.interrupts.disable(InterruptKind.Msi);
  t.equal(kept.capture().devices[0]?.interrupts, undefined);
});

t.test('without IOMMU it is captured where memory lies', async t => {
  const { device, space } = await open('noiommu');
  const arena = DmaArena.create(space, 16384);
  using kept = KeepAlive.of(device);
  const { extents } = kept.capture().arenas[0]!;
  t.equal(
    [...extents!].reduce((sum, { length }) => sum + length, 0),
    16384,
  );
  t.equal(extents!.get(0).address, arena.deviceAddress(0));
});

t.test('drivers', async t => {
  const { host, claimed, device } = await open('vtd', NVME);
  const events: KeepAliveEvent[] = [];
  const listen = (event: unknown): void => void events.push(event as KeepAliveEvent);
  subscribe(KEEPALIVE_CHANNEL, listen);
  const kept = KeepAlive.of(device);
  const controller = await NvmeController.open(device);
  const added = kept.add(controller);
  t.throws(() => kept.add(controller), { name: 'RangeError', message: /has a driver already/ });
  t.match(kept.capture().drivers, [{ device: NVME, compatible: 'nvme-v1' }]);
  kept.freeze();
  kept.freeze();
  t.ok(kept.frozen);
  const read = controller.namespace(1).readBlocks(0, 1);
  t.equal(
    await Promise.race([read.then(() => 'read'), new Promise(resolve => setTimeout(resolve, 20, 'waits'))]),
    'waits',
  );
  kept.thaw();
  t.equal((await read).length, 512);
  t.strictSame(await kept.settle(1000), []);
  kept.thaw();
  added[Symbol.dispose]();
  t.strictSame(kept.capture().drivers, []);
  unsubscribe(KEEPALIVE_CHANNEL, listen);
  t.strictSame(
    events.map(({ kind }) => kind),
    ['kept', 'frozen', 'thawed', 'frozen', 'thawed'],
  );
  await controller.close();
  kept[Symbol.dispose]();
  t.notOk(device.iommufd?.kept);
  t.throws(() => kept.capture(), { code: 'NOT_OURS' });
  device[Symbol.dispose]();
  claimed.release();
  t.strictSame(host.leftovers(), []);
});

t.test('interrupts that come while it is frozen wait', async t => {
  const { device } = await open();
  const kept = KeepAlive.of(device);
  const counts: number[] = [];
  const [vector] = device.interrupts.enable(InterruptKind.Msi);
  vector!.listen(count => counts.push(count));
  kept.freeze();
  device.interrupts.trigger(InterruptKind.Msi);
  device.interrupts.trigger(InterruptKind.Msi);
  await new Promise(resolve => setTimeout(resolve, 20));
  t.strictSame(counts, []);
  kept.thaw();
  await new Promise(resolve => setTimeout(resolve, 20));
  t.strictSame(counts, [2], 'none is lost');
  device.interrupts.disable(InterruptKind.Msi);
});

t.test('a driver that cannot be frozen', async t => {
  const { device } = await open();
  const kept = KeepAlive.of(device);
  let thawed = 0;
  const driver: KeepableDriver = {
    device,
    outcome: 'started',
    stoppedBecause: undefined,
    record: () => ({ compatible: 'edu-v1', properties: new Map(), children: [] }),
    freeze: () => {
      throw new Error('in the middle of something');
    },
    thaw: () => void thawed++,
    settle: () => Promise.reject(new Error('in the middle of something')),
    relinquish: () => undefined,
  };
  kept.add(driver);
  t.throws(() => kept.freeze(), { message: 'in the middle of something' });
  t.notOk(kept.frozen);
  await t.rejects(kept.settle(10), { message: 'in the middle of something' });
  t.notOk(kept.frozen);
  t.equal(thawed, 1, 'it never froze; but it may have begun to settle');
});

t.test('relinquished: nothing of it can be used, and nothing of it changed', async t => {
  const { host, device, kernel, space } = await open();
  const arena = DmaArena.create(space, 4096);
  const kept = KeepAlive.of(device);
  const copies = [device.fd, kept.iommufds[0]!.fd, arena.fd].map(fd => kernel.fcntl(fd, 1030, 0));
  const why = new Error('somebody has it');
  kept.relinquish(why);
  t.throws(() => kept.capture(), why);
  for (const use of [() => device.fd, () => arena.buffer, () => space.id, () => kept.iommufds[0]!.fd]) {
    t.throws(use, { code: 'DISPOSED' });
  }
  device[Symbol.dispose]();
  arena[Symbol.dispose]();
  kept[Symbol.dispose]();
  const left = host.leftovers();
  t.ok(left.includes('1 pinned pages'), 'it is mapped for the device still');
  t.ok(left.includes(`${EDU} is with vfio-pci`));
  for (const fd of copies) kernel.close(fd);
});

t.test('a context by itself', t => {
  const kernel = new SimulatedHost().process();
  using iommufd = Iommufd.open(kernel);
  using kept = KeepAlive.of(iommufd);
  const ioas = iommufd.allocIoas();
  const arena = DmaArena.create(ioas, 4096);
  t.match(kept.capture().iommufds, [{ id: 0, ioases: [{ id: 0 }] }]);
  arena[Symbol.dispose]();
  t.strictSame(kept.capture().arenas, []);
  t.end();
});

t.test('what is made while it cannot be written down is gone again', async t => {
  const { host, device, space } = await open();
  const { iommufd } = space;
  using kept = KeepAlive.of(device);
  const made: number[] = [];
  let objections = 0;
  using _observing = kept.observe(() => {
    made.push(iommufd.ioases.size + space.hwpts.size);
    if (objections-- > 0) throw new Error('the store is full');
  });
  const full = { message: 'the store is full' };
  for (const make of [() => iommufd.allocIoas(), () => device.allocHwpt(space)]) {
    made.length = 0;
    objections = 1;
    t.throws(make, full);
    t.strictSame(made, [2, 1], 'both are told of');
    t.strictSame([...iommufd.ioases], [space]);
    t.strictSame([...space.hwpts], []);
    objections = 2;
    t.throws(make, { errors: [full, full] }, 'nor does it matter whether its end can be');
    t.strictSame([...iommufd.ioases], [space]);
    const fresh = make();
    const { id } = fresh;
    fresh[Symbol.dispose]();
    // Ids are given out again from the lowest on: those before are free.
    const next = make();
    t.equal(next.id, id, 'nor is anything left in the kernel');
    next[Symbol.dispose]();
  }
  objections = 1;
  t.throws(() => DmaArena.create(space, 4096), full);
  t.equal(space.mappingCount, 0);
  t.equal(host.physical.pinnedPages, 0, 'the same of memory');
  device[Symbol.dispose]();
});
