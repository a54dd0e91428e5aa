// What is around a swap of address spaces: what may change between its steps, who may be in the way, and how it fails.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { Syscalls } from '../../bindings/syscalls.js';
import { EADDRINUSE, EBUSY, EIO, ENOMEM } from '../../bindings/uapi/errno.js';
import { IOMMU_DESTROY, IOMMU_HWPT_ALLOC_PASID } from '../../bindings/uapi/iommufd.js';
import { VFIO_DEVICE_ATTACH_IOMMUFD_PT } from '../../bindings/uapi/vfio.js';
import { iova } from '../../src/address.js';
import { NvmeController } from '../../src/drivers/nvme/index.js';
import {
  AddressSpaceSwap,
  allocateIova,
  Channel,
  compareSpaces,
  type Device,
  DeviceError,
  DeviceErrorCode,
  DmaArena,
  EphemeralMemory,
  freeIova,
  Hwpt,
  handOff,
  type Ioas,
  KeepAlive,
  type KeepableDriver,
  preserve,
} from '../../src/index.js';
import { memoryOf } from '../../src/memory/dma-memory.js';
import { type Fault, faulty } from '../../src/testing/faults.js';
import { OTHER, open, openBoth, works } from './support/swap-stage.js';

const still = /The old address space is attached still/;
const failed = { name: 'SwapError', code: 'FAILED', message: still };
const different = { name: 'SwapError', code: 'DIFFERENT', message: still };
const busy = (message: RegExp) => ({ name: 'SwapError', code: 'BUSY', message });
const PROFILES = ['vtd', 'vtd-first-stage', 'amd', 'noiommu'] as const;

for (const profile of PROFILES) {
  t.test(`there and back, ${profile}`, async t => {
    const { host, model, device, space } = await open(profile);
    const { iommufd } = space;
    space.hugePages = false;
    const arena = DmaArena.create(space, 16 * 4096);
    const readOnly = DmaArena.create(space, 8192, { writeable: false });
    const memory = EphemeralMemory.create(space, 8192);
    space.allowIovas([{ first: iova(0n), last: iova(0xfdff_ffffn) }]);
    const pinned = host.physical.pinnedPages;
    const swap = AddressSpaceSwap.prepare(space);
    const { spare } = swap;
    t.equal(host.physical.pinnedPages, pinned);
    t.equal(compareSpaces(space, spare!), undefined);
    t.equal(spare?.hugePages, false);
    t.strictSame(spare?.allowedIovas, space.allowedIovas);
    t.equal(device.attached, space, 'nothing has changed for the device');
    t.equal(device.space, space);
    works(t, model, arena, 'before');
    for (const [from, to] of [
      [space, spare],
      [spare, space],
      [space, spare],
    ] as [Ioas, Ioas][]) {
      await swap.switch();
      t.equal(swap.current, to);
      t.equal(swap.spare, from);
      t.equal(device.space, to);
      t.equal((device.attached as Hwpt).ioas, to);
      t.equal(to.translation, profile === 'noiommu' ? 'none' : 'iommu');
      t.equal(from.translation, undefined);
      t.strictSame([...memoryOf(to)], [arena, readOnly, memory]);
      t.strictSame([...memoryOf(from)], []);
      t.equal(arena.space, to);
      works(t, model, arena, 'after');
      if (profile !== 'noiommu' && profile !== 'vtd-first-stage')
        t.equal(
          model.port.write(readOnly.deviceAddress(0), Uint8Array.of(1)),
          false,
          'permissions came along',
        );
      t.equal(host.physical.pinnedPages, pinned);
    }
    swap.drop(profile === 'noiommu');
    t.equal(swap.spare, undefined);
    t.strictSame([...iommufd.ioases], [spare]);
    t.equal(space.alive, false);
    t.equal(host.physical.pinnedPages, pinned);
    works(t, model, arena, 'when it is dropped');
    swap.drop();
    swap[Symbol.dispose]();
    await t.rejects(swap.switch(), { name: 'RangeError', message: /was dropped/ });
    memory[Symbol.dispose]();
    readOnly[Symbol.dispose]();
    arena[Symbol.dispose]();
    t.equal(spare?.mappingCount, 0, 'what was moved is unmapped where it is');
    t.equal(host.physical.pinnedPages, 0);
    const later = DmaArena.create(device.space, 8192);
    works(t, model, later, 'new memory');
    using again = AddressSpaceSwap.prepare(device.space as Ioas);
    await again.switch();
    works(t, model, later, 'another swap');
    again.drop(true);
    device[Symbol.dispose]();
  });
}

t.test('wrong arguments', async t => {
  const { device, space, host } = await open('vtd');
  t.throws(() => AddressSpaceSwap.prepare(device as never), TypeError);
  t.throws(() => AddressSpaceSwap.prepare(space.iommufd.allocIoas()), {
    name: 'RangeError',
    message: /no device is attached/,
  });
  const stranger = await open('vtd');
  using swap = AddressSpaceSwap.prepare(space);
  await t.rejects(swap.switch({ timeout: -1 }), RangeError);
  await t.rejects(swap.switch({ timeout: 'soon' as never }), TypeError);
  await t.rejects(swap.switch({ quiesce: [{ device: stranger.device } as KeepableDriver] }), {
    name: 'RangeError',
    message: /is not attached to the address space/,
  });
  t.equal(host.iommu.faultCount, 0);
  device.detach();
  await t.rejects(swap.switch(), { name: 'RangeError', message: /no device is attached .* any more/ });
  device[Symbol.dispose]();
  stranger.device[Symbol.dispose]();
});

t.test('what comes and goes between the steps', async t => {
  const { host, model, device, space } = await open('vtd');
  const one = DmaArena.create(space, 8192);
  const two = DmaArena.create(space, 8192);
  using swap = AddressSpaceSwap.prepare(space);
  const three = DmaArena.create(space, 8192);
  one[Symbol.dispose]();
  // At the place of the one that is gone: other memory.
  const four = DmaArena.create(space, 8192, { iova: one.iova });
  space.allowIovas([{ first: iova(0n), last: iova(0xfff_ffffn) }]);
  const pinned = host.physical.pinnedPages;
  await swap.switch();
  for (const arena of [two, three, four]) works(t, model, arena, 'all that there is now');
  t.equal(swap.current.mappingCount, 3);
  t.equal(swap.current.allowedIovas.length, 1);
  t.equal(host.physical.pinnedPages, pinned - 2, 'what went is not pinned any longer');
  two[Symbol.dispose]();
  t.equal(swap.spare?.mapping(two.iova) !== undefined, true, 'the other one has it still');
  const five = DmaArena.create(device.space, 8192);
  await swap.switch();
  t.equal(swap.current, space);
  t.equal(space.mapping(two.iova)?.file, five, 'its place is taken');
  for (const arena of [three, four, five]) works(t, model, arena, 'when it is back');
  device[Symbol.dispose]();
});

t.test('changes to the other address space are refused', async t => {
  const { model, device, space } = await open('vtd');
  const arena = DmaArena.create(space, 16 * 4096);
  for (const change of [
    (spare: Ioas) => spare.unmap(arena.iova, arena.size),
    (spare: Ioas) => spare.mapFile({ fd: arena, length: 4096 }, iova(0x8000_0000n)),
    (spare: Ioas) => {
      spare.unmap(arena.iova, arena.size);
      spare.copy(space, arena.iova, arena.size, arena.iova, { writeable: false });
    },
    (spare: Ioas) => spare.allowIovas([{ first: iova(0n), last: iova(0xfdff_ffffn) }]),
  ]) {
    {
      using swap = AddressSpaceSwap.prepare(space);
      change(swap.spare as Ioas);
      await t.rejects(swap.switch(), different);
      t.equal(device.attached, space);
      t.equal(arena.space, space);
      works(t, model, arena, 'it goes on');
    }
    t.strictSame([...space.hwpts], [], 'nothing is left');
  }
  device[Symbol.dispose]();
});

t.test('comparing', async t => {
  const { device, space } = await open('noiommu');
  const { iommufd } = space;
  const arena = DmaArena.create(space, 16 * 4096);
  const other = iommufd.allocIoas();
  const second = DmaArena.create(other, 16 * 4096, { iova: arena.iova });
  t.match(compareSpaces(space, other), { reason: 'file differs', a: { file: arena }, b: { file: second } });
  other.unmap(second.iova, second.size);
  t.match(compareSpaces(space, other), { a: { iova: arena.iova }, b: undefined, reason: /only one/ });
  t.match(compareSpaces(other, space), { a: undefined, b: { iova: arena.iova } });
  other.copy(space, arena.iova, arena.size, arena.iova);
  t.throws(() => compareSpaces(space, other), { code: 'EOPNOTSUPP' }, 'it has no physical addresses');
  using _table = device.allocHwpt(other);
  t.equal(compareSpaces(space, other), undefined);
  for (const [at, reason] of [
    [0x9000_0000n, 'only one has this mapping'],
    [0x7000_0000n, 'only one has this mapping'],
  ] as const) {
    other.mapFile({ fd: arena, length: 4096 }, iova(at));
    t.match(compareSpaces(space, other), { a: undefined, b: { iova: at }, reason });
    t.match(compareSpaces(other, space), { a: { iova: at }, b: undefined, reason }, 'the lowest');
  }
  other.unmapAll();
  other.mapFile({ fd: arena, length: 4096 }, arena.iova);
  t.match(compareSpaces(space, other), { reason: 'length differs' });
  other.unmapAll();
  other.mapFile({ fd: arena, length: arena.size - 4096, offset: 4096 }, arena.iova);
  space.unmapAll();
  space.mapFile({ fd: arena, length: arena.size - 4096 }, arena.iova);
  t.match(compareSpaces(space, other), { reason: 'offset differs' });
  other.unmapAll();
  other.mapFile({ fd: arena, length: arena.size - 4096 }, arena.iova, { readable: false });
  t.match(compareSpaces(space, other), { reason: 'readable differs' });
  other.unmapAll();
  other.mapFile({ fd: arena, length: arena.size - 4096 }, arena.iova, { writeable: false });
  t.match(compareSpaces(space, other), { reason: 'writeable differs' });
  // The same in the books, and elsewhere in memory: as the kernel would say if pages had moved.
  const fd = { fd: arena.fd };
  const stand = { fd: second.fd };
  for (const [ioas, file] of [
    [space, fd],
    [other, stand],
  ] as const) {
    ioas.unmapAll();
    ioas.mapFile({ fd: file, length: arena.size }, arena.iova);
    ioas.mappingBook.add({ ...ioas.mapping(arena.iova)!, file: fd });
  }
  t.match(compareSpaces(space, other), { reason: /^the page at offset 0 was at 0x\w+ and is at 0x\w+$/ });
  device[Symbol.dispose]();
});

t.test('without IOMMU the old pins stay', async t => {
  const { host, model, device, space } = await open('noiommu');
  const arena = DmaArena.create(space, 8192);
  const passing = DmaArena.create(space, 8192);
  const pinned = host.physical.pinnedPages;
  const address = passing.deviceAddress(0);
  const swap = AddressSpaceSwap.prepare(space);
  await swap.switch();
  t.equal(arena.deviceAddress(0), arena.deviceAddress(4096) - 4096n);
  // Unmapped in the new one; the device may still write to it, and nobody else may get it.
  passing[Symbol.dispose]();
  t.equal(host.physical.pinnedPages, pinned);
  t.ok(model.port.write(address, Uint8Array.of(1)));
  t.throws(() => swap.drop(), busy(/0000:00:04.0 may still use physical addresses.*drop\(true\)/));
  await t.rejects(swap.switch(), busy(/which went, may still be used by 0000:00:04.0.*drop\(true\)/));
  t.equal(swap.spare, space);
  swap[Symbol.dispose]();
  t.equal(swap.spare, space, 'nor is it dropped in passing');
  t.equal(host.physical.pinnedPages, pinned);
  works(t, model, arena, 'it goes on');
  swap.drop(true);
  t.equal(host.physical.pinnedPages, pinned - 2);
  t.equal(space.alive, false);
  const next = AddressSpaceSwap.prepare(device.space as Ioas);
  await next.switch();
  await next.switch();
  t.throws(() => next.drop(), busy(/may still use/), 'going back makes no difference');
  device[Symbol.dispose]();
  next.drop();
  t.equal(next.spare, undefined, 'a device that is closed uses nothing');
  arena[Symbol.dispose]();
  t.equal(host.physical.pinnedPages, 0);
});

t.test('what is not switched can be let go', async t => {
  const { host, model, device, space } = await open('vtd');
  const arena = DmaArena.create(space, 8192);
  const tables = (): number => [...space.iommufd.ioases].reduce((sum, { hwpts }) => sum + hwpts.size, 0);
  {
    using _swap = AddressSpaceSwap.prepare(space);
    t.equal(tables(), 2, 'one in each');
  }
  t.equal(tables(), 0);
  t.strictSame([...space.iommufd.ioases], [space]);
  works(t, model, arena, 'the old one');
  const swap = AddressSpaceSwap.prepare(space);
  for (const table of swap.spare?.hwpts ?? []) table[Symbol.dispose]();
  await swap.switch();
  works(t, model, arena, 'its table was made anew');
  await swap.switch();
  for (const table of swap.spare?.hwpts ?? []) table[Symbol.dispose]();
  swap.spare?.[Symbol.dispose]();
  await t.rejects(swap.switch(), { name: 'RangeError', message: /was dropped/ });
  works(t, model, arena, 'the old one');
  swap.drop();
  t.equal(swap.spare, undefined);
  device[Symbol.dispose]();
  const last = await open('vtd');
  const open1 = AddressSpaceSwap.prepare(last.space);
  await open1.switch();
  last.device[Symbol.dispose]();
  open1.drop();
  t.strictSame(
    host.leftovers().filter(left => !left.includes('memfd') && !left.includes('mapped')),
    ['0000:00:04.0 is with vfio-pci'],
  );
});

for (const group of [undefined, 'both']) {
  t.test(`several devices${group === undefined ? '' : ' of one group'}`, async t => {
    const { host, models, first, second, space } = await openBoth('vtd', group);
    const arena = DmaArena.create(space, 8192);
    const swap = AddressSpaceSwap.prepare(space);
    t.equal(swap.spare?.hwpts.size, group === undefined ? 2 : 1, 'page tables');
    for (let count = 0; count < 3; count++) {
      await swap.switch();
      for (const device of [first, second]) {
        t.equal((device.attached as Hwpt).ioas, swap.current);
        t.equal(device.space, swap.current);
      }
      for (const model of models) works(t, model, arena, `each, ${count}`);
    }
    if (group !== undefined) t.equal(first.attached, second.attached);
    t.equal(host.iommu.faultCount, 0);
    second[Symbol.dispose]();
    await swap.switch();
    works(t, models[0], arena, 'the one that is left');
    swap.drop();
    works(t, models[0], arena, 'the one that is left');
    first[Symbol.dispose]();
  });
}

t.test('devices that share a page table, and what kind it is', async t => {
  const { models, first, second, space } = await openBoth('vtd');
  const arena = DmaArena.create(space, 8192);
  const table = second.allocHwpt(space, IOMMU_HWPT_ALLOC_PASID);
  first.attach(table);
  second.attach(table);
  using swap = AddressSpaceSwap.prepare(space);
  t.match([...(swap.spare?.hwpts ?? [])], [{ flags: IOMMU_HWPT_ALLOC_PASID, device: OTHER }]);
  await swap.switch();
  t.equal(first.attached, second.attached);
  for (const model of models) works(t, model, arena, 'shared');
  await swap.switch();
  t.equal(first.attached, table);
  t.equal(second.attached, table);
  first[Symbol.dispose]();
  second[Symbol.dispose]();
});

t.test('devices that come and go', async t => {
  const { models, first, second, space, iommufd } = await openBoth('vtd');
  const arena = DmaArena.create(space, 8192);
  second.detach();
  const swap = AddressSpaceSwap.prepare(space);
  second.attach(space);
  await swap.switch();
  for (const model of models) works(t, model, arena, 'one that came later');
  second.detach();
  await swap.switch();
  t.equal(second.attached, undefined);
  t.equal(second.space, swap.current, 'where it would be attached again');
  second.attach(second.space as Ioas);
  works(t, models[1], arena, 'again');
  // Elsewhere, with memory of its own.
  const own = iommufd.allocIoas();
  second.attach(own);
  second.moveTo(own);
  await swap.switch();
  t.equal(second.attached, own);
  t.equal(second.space, own);
  swap.drop();
  first[Symbol.dispose]();
  second[Symbol.dispose]();
});

t.test('IOVAs that are taken', async t => {
  const { device, space } = await open('vtd');
  const arena = DmaArena.create(space, 8192);
  const [mapped, reserved] = [allocateIova(space, 4096), allocateIova(space, 4096)];
  space.mapFile({ fd: arena, length: 4096 }, mapped);
  using swap = AddressSpaceSwap.prepare(space);
  const late = allocateIova(space, 4096);
  await swap.switch();
  const { current } = swap;
  const fresh = allocateIova(current, 4096);
  t.notOk([mapped, reserved, late, arena.iova].includes(fresh), 'stay taken');
  current.mapFile({ fd: arena, length: 4096 }, fresh);
  t.equal(freeIova(current, reserved), 4096, 'and are given back to the one that is current');
  t.equal(freeIova(current, late), 4096);
  await swap.switch();
  t.equal(allocateIova(space, 4096), reserved);
  space.unmap(mapped, 4096);
  t.equal(freeIova(space, mapped), 4096);
  t.throws(() => freeIova(space, mapped), RangeError);
  t.equal(space.unmap(fresh, 4096), 4096n);
  device[Symbol.dispose]();
});

const attach = VFIO_DEVICE_ATTACH_IOMMUFD_PT;

t.test('a device that is being reset', async t => {
  // The first attach is that of opening it.
  const resets = (count: number) => (kernel: Syscalls) => {
    const script: Fault[] = Array.from({ length: count }, (_, index) => ({
      request: attach,
      nth: 2 + index,
      errno: EBUSY,
    }));
    return faulty(kernel, script);
  };
  {
    const { model, device, space } = await open('vtd', resets(3));
    const arena = DmaArena.create(space, 8192);
    using swap = AddressSpaceSwap.prepare(space);
    await swap.switch();
    works(t, model, arena, 'it was tried again');
    device[Symbol.dispose]();
  }
  const { model, device, space } = await open('vtd', resets(10_000));
  const controller = await NvmeController.open(device);
  using swap = AddressSpaceSwap.prepare(space);
  const started = performance.now();
  const refused = t.rejects(
    swap.switch({ quiesce: [controller], timeout: 60 }),
    // On a machine that is slow its commands are not through when the time is.
    busy(/still (being reset|in flight) after 60 ms.*attached still/),
  );
  // Drivers go on between the attempts.
  await controller.namespace(1).readBlocks(0, 1);
  await refused;
  t.ok(performance.now() - started >= 40);
  t.equal(device.attached, space);
  t.equal(swap.current, space);
  await controller.namespace(1).readBlocks(0, 1);
  works(t, model, DmaArena.create(space, 8192), 'the old one');
  await controller.close();
  device[Symbol.dispose]();
});

for (const errno of [EADDRINUSE, EIO, 'in the gap'] as const) {
  for (const kind of ["the kernel's", 'its own'] as const) {
    t.test(`an attach that fails (${errno}), with a page table that is ${kind}`, async t => {
      // Those of opening, and of their own tables, come first; then it is the second device whose attach fails.
      const nth = kind === 'its own' ? 6 : 4;
      const wrap = (kernel: Syscalls): Syscalls =>
        errno === 'in the gap' ? kernel : faulty(kernel, [{ request: attach, nth, errno }]);
      const { host, models, first, second, space } = await openBoth('vtd', undefined, wrap);
      const arena = DmaArena.create(space, 8192);
      if (kind === 'its own') for (const device of [first, second]) device.attach(device.allocHwpt(space));
      using swap = AddressSpaceSwap.prepare(space);
      let left = errno === 'in the gap' ? 1 : 0;
      // The kernel has it as attached still, but it is cut off.
      using _gap = host.iommu.onGap(device => (device === OTHER && left-- > 0 ? -ENOMEM : 0));
      await t.rejects(swap.switch(), {
        ...failed,
        message:
          /of 0000:00:04.0, 0000:00:05.0 was not switched: VFIO_DEVICE_ATTACH_IOMMUFD_PT .*: E\w+.*attached still/,
      });
      t.equal(swap.current, space);
      for (const device of [first, second]) {
        t.equal(device.space, space);
        t.equal(device.attached instanceof Hwpt ? device.attached.ioas : device.attached, space);
      }
      t.strictSame([...memoryOf(space)], [arena]);
      for (const model of models) works(t, model, arena, 'with the old one');
      for (let count = 0; count < 3; count++) {
        await swap.switch();
        for (const model of models) works(t, model, arena, 'at last');
      }
      swap.drop();
      for (const model of models) works(t, model, arena, 'to the end');
      first[Symbol.dispose]();
      second[Symbol.dispose]();
      arena[Symbol.dispose]();
      t.equal(host.physical.pinnedPages, 0);
    });
  }
}

t.test('a device that cannot be taken back', async t => {
  // Opening, opening; the first, the second, which fails; and the first on its way back.
  const script = [4, 5].map(nth => ({ request: attach, nth, errno: EIO }));
  const { models, first, second, space } = await openBoth('vtd', undefined, kernel => faulty(kernel, script));
  const arena = DmaArena.create(space, 8192);
  const swap = AddressSpaceSwap.prepare(space);
  await t.rejects(swap.switch(), {
    name: 'SwapError',
    code: 'FAILED',
    message: /EIO.*EIO.*0000:00:04.0 could not be taken back and is attached to the other .*switch\(\) again/,
  });
  t.equal(spaceOf(first), swap.spare);
  t.equal(spaceOf(second), space);
  t.equal(swap.current, space);
  for (const model of models) works(t, model, arena, 'each where it is');
  t.throws(() => swap.drop(), busy(/0000:00:04.0 is attached to the other address space/));
  await swap.switch();
  for (const device of [first, second]) t.equal(spaceOf(device), swap.current);
  for (const model of models) works(t, model, arena, 'together again');
  swap.drop();
  first[Symbol.dispose]();
  second[Symbol.dispose]();
});

t.test('dropping that fails', async t => {
  const destroy = (nth: number) => (kernel: Syscalls) =>
    faulty(kernel, [{ request: IOMMU_DESTROY, nth, errno: EIO }]);
  for (const nth of [1, 2]) {
    const { model, device, space, host } = await open('vtd', destroy(nth));
    const arena = DmaArena.create(space, 8192);
    const swap = AddressSpaceSwap.prepare(space);
    await swap.switch();
    t.throws(() => swap.drop(), {
      name: 'SwapError',
      code: 'FAILED',
      message: /was not dropped: IOMMU_DESTROY.*EIO.*is there still; try again/,
    });
    t.equal(swap.spare, space);
    await swap.switch();
    works(t, model, arena, 'back, with what is left of it');
    await swap.switch();
    swap.drop();
    t.equal(swap.spare, undefined);
    works(t, model, arena, 'without it');
    device[Symbol.dispose]();
    t.notOk(host.leftovers().some(left => left.includes('kmsg')));
  }
});

t.test('one thing at a time', async t => {
  const { host, model, device, space } = await open('vtd');
  const controller = await NvmeController.open(device);
  const kept = KeepAlive.of(device);
  kept.add(controller);
  const read = (): Promise<unknown> => controller.namespace(1).readBlocks(0, 1);
  await read();
  const swap = AddressSpaceSwap.prepare(space);
  model.throttle(20);
  await read();
  /** With a command in flight, so that drivers take a while to settle. */
  const slowly = async (meanwhile: () => unknown): Promise<unknown> => {
    const inFlight = read();
    await sleep(2);
    const switching = swap.switch().catch(error => error);
    await sleep(2);
    await meanwhile();
    await inFlight;
    return switching;
  };
  t.ok('faults' in ((await slowly(() => t.rejects(swap.switch(), busy(/switched already/)))) as object));
  await slowly(() => t.throws(() => swap.drop(), busy(/is being switched/)));
  await slowly(() =>
    t.throws(() => AddressSpaceSwap.prepare(space), busy(/an address-space swap is under way/)),
  );
  t.notOk([...space.iommufd.ioases].length > 2);

  const [ours, theirs] = Channel.pair(kept.kernel);
  const handingOff = async (): Promise<void> => {
    const going = t.rejects(handOff(kept, ours), {
      name: 'DeviceError',
      code: 'BUSY',
      message: /an address-space swap is under way, and a hand-off would get in its way/,
    });
    theirs.send('hello', new Map([['versions', Uint8Array.of(0, 0, 0, 1)]]));
    await going;
    using told = await theirs.receive(1000);
    t.equal(told.kind, 'aborted', 'the other side gets to know');
  };
  t.ok('faults' in ((await slowly(handingOff)) as object), 'no hand-off meanwhile');
  t.notOk(kept.frozen);
  const busyWithSwap = { name: 'DeviceError', code: 'BUSY', message: /a live update would get in its way/ };
  await slowly(() => t.rejects(preserve(kept, { session: 's' }), busyWithSwap));
  {
    const before = device.attached;
    using preserved = await preserve(kept, { session: 's' });
    t.ok(preserved.session);
    await t.rejects(swap.switch(), busy(/a live update is under way.*attached still/));
    t.throws(() => swap.drop(), busy(/a live update is under way/));
    t.equal(device.attached, before);
  }
  await read();

  // Frozen by somebody, before and while drivers settle: they stay so.
  kept.freeze();
  await t.rejects(swap.switch(), busy(/drivers are frozen.*attached still/));
  kept.thaw();
  const inFlight = read();
  let done = false;
  void inFlight.then(() => {
    done = true;
  });
  await sleep(2);
  const switching = t.rejects(swap.switch({ timeout: 100 }), busy(/still in flight|drivers are frozen/));
  await sleep(2);
  kept.freeze();
  await switching;
  await sleep(100);
  t.notOk(done, 'the driver was not let go on under the feet of whoever froze it');
  kept.thaw();
  await inFlight;
  await read();
  await swap.switch();
  await read();
  t.equal(controller.resets, 0);
  t.equal(host.iommu.faultCount, 0);
  swap.drop();
  kept[Symbol.dispose]();
  await controller.close();
  device[Symbol.dispose]();
});

t.test('one driver cannot settle: the others go on', async t => {
  const { first, second, space } = await openBoth('vtd');
  const kept = KeepAlive.of(first);
  const log: string[] = [];
  const driver = (device: Device, settle: () => Promise<boolean>): KeepableDriver => ({
    device,
    outcome: 'started',
    stoppedBecause: undefined,
    record: () => ({ compatible: 'test,driver-v1', properties: new Map(), children: [] }),
    freeze: () => void log.push(`${device.name} freezes`),
    thaw: () => void log.push(`${device.name} goes on`),
    settle,
    relinquish: () => undefined,
  });
  const slow = driver(first, async () => {
    await sleep(20);
    log.push(`${first.name} settles`);
    return true;
  });
  const bad = driver(second, () =>
    Promise.reject(new DeviceError(DeviceErrorCode.Busy, OTHER, 'is being closed')),
  );
  for (const each of [slow, bad]) kept.add(each);
  const swap = AddressSpaceSwap.prepare(space);
  await t.rejects(swap.switch(), busy(/is being closed.*attached still/));
  t.strictSame(
    log,
    [`${first.name} settles`, `${first.name} goes on`, `${second.name} goes on`],
    'in that order',
  );
  log.length = 0;
  await t.rejects(kept.settle(100), { name: 'DeviceError' });
  t.strictSame(
    log,
    [`${first.name} settles`, `${first.name} goes on`, `${second.name} goes on`],
    'nor with all',
  );
  t.notOk(kept.frozen);
  log.length = 0;
  // And where one cannot freeze, none is frozen.
  const stubborn = kept.drivers[1] as { freeze(): void };
  stubborn.freeze = () => {
    throw new DeviceError(DeviceErrorCode.Busy, OTHER, 'is being reset');
  };
  t.throws(() => kept.freeze(), { message: /is being reset/ });
  t.strictSame(log, [`${first.name} freezes`, `${first.name} goes on`]);
  t.notOk(kept.frozen);
  const [ours, theirs] = Channel.pair(kept.kernel);
  theirs.send('hello', new Map([['versions', Uint8Array.of(0, 0, 0, 1)]]));
  await t.rejects(handOff(kept, ours), { name: 'DeviceError', message: /is being reset/ });
  using told = await theirs.receive(1000);
  t.equal(told.kind, 'aborted');
  stubborn.freeze = () => undefined;
  first[Symbol.dispose]();
  second[Symbol.dispose]();
});

t.test('whoever writes it down sees all of it at once, or objects', async t => {
  const { host, models, first, second, space } = await openBoth('vtd');
  const arena = DmaArena.create(space, 8192);
  const kept = KeepAlive.of(first);
  const seen: string[] = [];
  let objections = 0;
  using _observing = kept.observe(() => {
    const spaces = [...space.iommufd.ioases];
    const places = [...kept.devices.map(spaceOf), ...kept.arenas.map(each => each.space as Ioas)];
    seen.push(`${spaces.length}: ${places.map(place => spaces.indexOf(place as Ioas)).join(' ')}`);
    const [context] = kept.capture().iommufds;
    if (context?.ioases.length !== 1) t.fail('a state tells of the other one, too');
    if (objections-- > 0) throw new Error('the store is full');
  });
  objections = 1;
  t.throws(() => AddressSpaceSwap.prepare(space), {
    ...failed,
    message: /the store is full.*attached still/,
  });
  t.strictSame(seen, ['2: 0 0 0', '1: 0 0 0'], 'made, and gone again');
  seen.length = 0;
  const swap = AddressSpaceSwap.prepare(space);
  await swap.switch();
  t.strictSame(seen, ['2: 0 0 0', '2: 0 0 0', '2: 1 1 1'], 'empty, filled, and under the devices');
  seen.length = 0;
  objections = 1;
  await t.rejects(swap.switch(), { ...failed, message: /the store is full.*attached still/ });
  t.strictSame(seen, ['2: 0 0 0', '2: 1 1 1'], 'done, and back');
  for (const device of [first, second]) t.equal(spaceOf(device), swap.current);
  t.equal(arena.space, swap.current);
  seen.length = 0;
  objections = 5;
  await t.rejects(swap.switch(), { ...failed, message: /store is full.*store is full/ });
  t.equal(seen.length, 2, 'and not for ever');
  objections = 0;
  await swap.switch();
  for (const model of models) works(t, model, arena, 'at last');
  seen.length = 0;
  swap.drop();
  t.strictSame(seen, ['1: 0 0 0']);
  t.equal(host.iommu.faultCount, 0);
  kept[Symbol.dispose]();
  first[Symbol.dispose]();
  second[Symbol.dispose]();
});

/** A kernel whose n-th call fails from a moment on. */
class Countdown {
  left = Number.POSITIVE_INFINITY;
  failed: string | undefined;
  readonly kernel: Syscalls;

  constructor(kernel: Syscalls) {
    this.kernel = new Proxy(kernel, {
      get: (target, name) => {
        const value = Reflect.get(target, name);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]): unknown => {
          if (name === 'view' || name === 'addressOf' || --this.left !== 0) return value.apply(target, args);
          this.failed = String(name);
          // The descriptor is gone even then.
          if (name === 'close') value.apply(target, args);
          return -EIO;
        };
      },
    });
  }
}

for (const profile of ['vtd', 'noiommu'] as const) {
  t.test(`every system call fails once, ${profile}`, async t => {
    let errors = 0;
    let nth = 1;
    for (; ; nth++) {
      let countdown!: Countdown;
      const { host, model, device, space } = await open(profile, kernel => {
        countdown = new Countdown(kernel);
        return countdown.kernel;
      });
      const arena = DmaArena.create(space, 8192);
      const pinned = host.physical.pinnedPages;
      let swap: AddressSpaceSwap | undefined;
      const life = async (): Promise<void> => {
        swap = AddressSpaceSwap.prepare(device.space as Ioas);
        await swap.switch();
        const late = DmaArena.create(device.space, 4096);
        await swap.switch();
        if (profile !== 'noiommu') late[Symbol.dispose]();
        await swap.switch();
        swap.drop(true);
      };
      // Only those of the swap.
      countdown.left = nth;
      try {
        await life();
      } catch (error) {
        errors++;
        const { name, message } = error as Error;
        const isSaid = name === 'SwapError' && /attached still|There still|is there still/.test(message);
        const isMemory = name === 'KernelError' && !message.includes('ATTACH');
        if (!isSaid && !isMemory) t.fail(`${nth}: ${name}: ${message}`);
      }
      countdown.left = Number.POSITIVE_INFINITY;
      const { failed } = countdown;
      t.equal(
        spaceOf(device),
        device.space,
        `${nth} (${failed ?? 'none'}): it is attached where its memory is`,
      );
      works(t, model, arena, `${nth}`);
      swap?.drop(true);
      await life();
      works(t, model, arena, `${nth}, another time`);
      for (const memory of [...memoryOf(device.space)]) memory[Symbol.dispose]();
      device[Symbol.dispose]();
      t.ok(host.physical.pinnedPages === 0 && pinned > 0);
      // What the very call was to give back may stay.
      const left = host.leftovers().filter(each => failed !== 'munmap' || !each.includes('bytes mapped'));
      t.strictSame(left, ['0000:00:04.0 is with vfio-pci'], `${nth} (${failed}): nothing is left`);
      if (failed === undefined) break;
    }
    t.comment(`${nth - 1} calls, of which ${errors} made it fail`);
    t.ok(errors > 10);
  });
}

function spaceOf({ attached }: Device): Ioas | undefined {
  return attached instanceof Hwpt ? attached.ioas : attached;
}
