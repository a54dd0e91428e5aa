/** From a saved state to fresh objects of another kernel: replayed, compared with what was saved, then attached. @module */
import { constants } from 'node:fs';
import { defaultKernel } from '../../bindings/kernel.js';
import type { Syscalls } from '../../bindings/syscalls.js';
import { undo } from '../errors.js';
import { openFile } from '../ioctl.js';
import type { Hwpt } from '../iommufd/hwpt.js';
import type { Ioas } from '../iommufd/ioas.js';
import { Iommufd } from '../iommufd/iommufd.js';
import { MappingRows } from '../iommufd/mapping-rows.js';
import { DmaArena } from '../memory/dma-memory.js';
import { createSealedMemfd } from '../memory/memfd.js';
import { noteClaim } from '../open-device.js';
import { ascending } from '../order.js';
import { type Claim, claim } from '../pci/claim.js';
import type { SuspendedResets } from '../pci/reset-method.js';
import { bindDevice, Device } from '../vfio/device.js';
import { movedPages, physicalExtents } from './extents.js';
import { KeepAlive } from './keep-alive.js';
import { KeepAliveError, KeepAliveErrorCode } from './keepalive-error.js';
import { publish } from './keepalive-events.js';
import { checkCold, checkLanded } from './landing/check-landed.js';
import { arenaMapping, spaceKey } from './places.js';
import type { SavedMapping } from './state/mapping-table.js';
import type { SavedArena, SavedDevice, SavedIommufd, State } from './state/saved-state.js';

export interface RebuildOptions {
  kernel?: Syscalls;
  /**
   * The memfd of an arena, which is taken over. `undefined`: its memory is lost, and new memory takes its place. Where all
   * memory is lost nothing is left to be kept: devices may be with any driver then, and are reset as they are opened.
   *
   * @throws what it likes: nothing was touched then
   */
  memory: (arena: SavedArena) => number | undefined;
  /** Told now and then while mappings are made, and at the end: how many of how many there are. */
  onProgress?: (done: number, total: number) => void;
}

/** How many mappings are made between two reports of progress, at most. */
const PROGRESS = 4096;

/**
 * Rebuilds what a state tells of. In this order: memory is taken over; every device is looked at without opening it;
 * memory is mapped at the same IOVAs; devices are opened, without a reset; where memory lies physically is compared;
 * devices are attached. Bus mastering stays off until a driver is restored.
 *
 * @throws StateError; KeepAliveError (DIFFERENT) when memory is elsewhere than it was, or a device is legacy;
 * DeviceError: BUSY when another driver has a device, UNSUPPORTED when it is not the device that was saved or memory is not
 * what it was; KernelError. What was made is undone then; memory lives on in whoever else has it, such as a session.
 */
export async function rebuild(state: State, options: RebuildOptions): Promise<KeepAlive> {
  const { kernel = defaultKernel(), memory } = options;
  const made: (() => void)[] = [];
  try {
    // Before anything is opened: whether it can be right at all.
    const arenaMappings = new Map(
      state.arenas.map(arena => [arena.token, arenaMapping(arena, state.iommufds)]),
    );
    for (const { address, interface: kind } of state.devices) {
      if (kind === 'legacy')
        different(`${address} was open through the legacy interface, of which nothing is kept`);
    }
    const files = new Map<bigint, number>();
    made.push(() => {
      for (const fd of files.values()) kernel.close(fd);
    });
    for (const arena of state.arenas) {
      const fd = memory(arena);
      if (fd !== undefined) files.set(arena.token, fd);
    }
    const lost = new Set(state.arenas.map(({ token }) => token).filter(token => !files.has(token)));
    const cold = lost.size > 0 && files.size === 0;
    const resets: SuspendedResets[] = [];
    for (const device of state.devices) {
      if (cold) {
        checkCold(device, kernel);
        continue;
      }
      const suspended = checkLanded(device, kernel);
      made.push(() => suspended.cancel());
      resets.push(suspended);
    }
    const claims: Claim[] = [];
    for (const { address } of state.devices) {
      const claimed = await claim(address, { kernel });
      made.push(() => claimed.release());
      claims.push(claimed);
    }
    const spaces = new Map<string, Ioas>();
    const iommufds = state.iommufds.map(saved => {
      const iommufd = Iommufd.open(kernel);
      made.push(() => iommufd[Symbol.dispose]());
      makeSpaces(iommufd, saved, spaces);
      return iommufd;
    });
    const arenas = new Map<bigint, DmaArena>();
    for (const saved of state.arenas) {
      const { place, mapping } = arenaMappings.get(saved.token) as ReturnType<typeof arenaMapping>;
      const fd = files.get(saved.token);
      files.delete(saved.token);
      const arena = makeArena(kernel, saved, spaces.get(spaceKey(place)) as Ioas, mapping, fd);
      made.push(() => arena[Symbol.dispose]());
      arenas.set(saved.token, arena);
    }
    const mappings = replay(state, spaces, arenas, options.onProgress);
    const devices: { device: Device; target: Ioas | Hwpt | undefined }[] = [];
    const hwpts = new Map<string, Hwpt>();
    for (const [index, saved] of state.devices.entries()) {
      const device = open(kernel, saved, claims[index] as Claim, state, spaces, iommufds);
      made.push(() => device[Symbol.dispose]());
      for (const { id, ioases } of state.iommufds) {
        for (const ioas of ioases)
          makeHwpts(device, ioas, spaces.get(`${id}/${ioas.id}`) as Ioas, hwpts, `${id}/${ioas.id}`);
      }
      devices.push({ device, target: targetOf(saved, spaces, hwpts) });
    }
    for (const { device, target } of devices) if (target) compareMemory(device, target, state, arenas, lost);
    for (const { device, target } of devices) if (target) device.attach(target);
    // It was opening them that would have reset them.
    for (const suspended of resets) suspended.restore();
    const lostArenas = [...arenas.values()].filter(({ token }) => lost.has(token));
    const kept = KeepAlive.taken(iommufds, state, lostArenas);
    publish({ kind: 'rebuilt', devices: kept.devices.map(({ name }) => name), mappings });
    return kept;
  } catch (error) {
    undo(error, made.reverse());
  }
}

function different(reason: string): never {
  throw new KeepAliveError(
    KeepAliveErrorCode.Different,
    [reason],
    'Start cold: reset the device, map memory anew',
  );
}

function makeSpaces(iommufd: Iommufd, saved: SavedIommufd, spaces: Map<string, Ioas>): void {
  if (saved.rlimitMode !== undefined) iommufd.rlimitMode = saved.rlimitMode;
  for (const { id, allowed, hugePages } of saved.ioases) {
    const ioas = iommufd.allocIoas();
    if (hugePages === false) ioas.hugePages = false;
    if (allowed.length > 0) ioas.allowIovas(allowed);
    spaces.set(`${saved.id}/${id}`, ioas);
  }
}

function makeArena(
  kernel: Syscalls,
  saved: SavedArena,
  space: Ioas,
  mapping: Required<SavedMapping>,
  memory: number | undefined,
): DmaArena {
  const { token, size, pageSize, name } = saved;
  const { iova, readable, writeable } = mapping;
  const fd = memory ?? createSealedMemfd(kernel, name, size, pageSize);
  return DmaArena.adopt(space, fd, {
    ...{ token, size, pageSize, name, iova, readable, writeable },
    mapped: false,
  });
}

/** Maps what arenas have not mapped themselves. @returns how many mappings there are in all */
function replay(
  { iommufds, arenas: saved }: State,
  spaces: ReadonlyMap<string, Ioas>,
  arenas: ReadonlyMap<bigint, DmaArena>,
  onProgress: RebuildOptions['onProgress'],
): number {
  const total = iommufds.flatMap(({ ioases }) => ioases).reduce((sum, ioas) => sum + ioas.mappings.length, 0);
  const places = saved.map(arena => arenaMapping(arena, iommufds));
  const rows = new MappingRows(PROGRESS);
  let done = 0;
  for (const { id, ioases } of iommufds) {
    for (const { id: ioas, mappings } of ioases) {
      const space = spaces.get(spaceKey({ iommufd: id, ioas })) as Ioas;
      const files = mappings.arenas.map(token => arenas.get(token) as DmaArena);
      const own = places.filter(({ place }) => place.iommufd === id && place.ioas === ioas);
      const stops = own.map(({ row }) => row).sort(ascending);
      let start = 0;
      for (const stop of [...stops, mappings.length]) {
        while (start < stop) {
          mappings.readRows(start, rows, stop);
          space.mapFiles(rows, files);
          start += rows.length;
          done += rows.length;
          onProgress?.(done, total);
        }
        // The arena's own.
        if (start < mappings.length) done++;
        start++;
      }
    }
  }
  onProgress?.(total, total);
  return total;
}

function open(
  kernel: Syscalls,
  saved: SavedDevice,
  claimed: Claim,
  state: State,
  spaces: ReadonlyMap<string, Ioas>,
  iommufds: readonly Iommufd[],
): Device {
  const { address, addressSpace, translation } = saved;
  const { node } = claimed;
  if (node.kind !== 'cdev') different(`${address} is offered through its group only`);
  if (node.noiommu !== (translation === 'none')) {
    different(
      `${address} had ${translation === 'none' ? 'no' : 'an'} IOMMU in front of it, and now has ${node.noiommu ? 'none' : 'one'}`,
    );
  }
  // A device that was not attached anywhere is bound to the first context.
  const place = addressSpace ?? firstSpace(state, address);
  const space = spaces.get(spaceKey(place)) as Ioas;
  const iommufd = iommufds.find(each => each === space.iommufd) as Iommufd;
  const fd = openFile(kernel, node.path, constants.O_RDWR);
  let id: number;
  try {
    id = bindDevice(kernel, fd, iommufd, address);
  } catch (error) {
    kernel.close(fd);
    throw error;
  }
  const device = new Device({
    ...{ kernel, fd, name: address, noiommu: node.noiommu, space },
    binding: { iommufd, id },
    owned: [claimed.use()],
  });
  noteClaim(device, claimed);
  return device;
}

function firstSpace({ iommufds }: State, address: string): { iommufd: number; ioas: number } {
  for (const { id, ioases } of iommufds) for (const ioas of ioases) return { iommufd: id, ioas: ioas.id };
  return different(`there is no address space for ${address}`);
}

function makeHwpts(
  device: Device,
  saved: SavedIommufd['ioases'][number],
  ioas: Ioas,
  hwpts: Map<string, Hwpt>,
  key: string,
): void {
  for (const { id, flags, device: address } of saved.hwpts ?? []) {
    if (address === device.name) hwpts.set(`${key}/${id}`, device.allocHwpt(ioas, flags));
  }
}

function targetOf(
  { addressSpace }: SavedDevice,
  spaces: ReadonlyMap<string, Ioas>,
  hwpts: ReadonlyMap<string, Hwpt>,
): Ioas | Hwpt | undefined {
  if (addressSpace === undefined) return undefined;
  const key = spaceKey(addressSpace);
  return addressSpace.hwpt === undefined ? spaces.get(key) : hwpts.get(`${key}/${addressSpace.hwpt}`);
}

/** Without IOMMU the device uses physical addresses: they must be what they were, before it is attached. */
function compareMemory(
  device: Device,
  target: Ioas | Hwpt,
  state: State,
  arenas: ReadonlyMap<bigint, DmaArena>,
  lost: ReadonlySet<bigint>,
): void {
  if (!device.noiommu) return;
  const ioas = 'ioas' in target ? target.ioas : target;
  // A page table for the moment, where none was made on purpose: it pins the memory, so that it has addresses.
  using _pins = 'ioas' in target ? undefined : device.allocHwpt(ioas);
  for (const { token, name, extents, size } of state.arenas) {
    const arena = arenas.get(token) as DmaArena;
    if (arena.space !== ioas || lost.has(token)) continue;
    if (extents === undefined) different(`arena ${name}: the state does not say where its memory lies`);
    const moved = movedPages(extents, physicalExtents(ioas, arena.iova, size));
    if (moved) different(`arena ${name}: ${moved.text}`);
  }
}
