/** From a manifest and its descriptors to the objects that a predecessor in the same kernel had. @module */
import { posix } from 'node:path';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { ENOENT } from '../../../bindings/uapi/errno.js';
import { KernelError, undo } from '../../errors.js';
import { hex } from '../../hex.js';
import { Hwpt } from '../../iommufd/hwpt.js';
import { Ioas } from '../../iommufd/ioas.js';
import { Iommufd } from '../../iommufd/iommufd.js';
import { MappingRows } from '../../iommufd/mapping-rows.js';
import { DmaArena } from '../../memory/dma-memory.js';
import { noteClaim } from '../../open-device.js';
import { Claim } from '../../pci/claim.js';
import { compareIdentity } from '../../pci/identity.js';
import { findVfioNode, type VfioNode } from '../../pci/vfio-node.js';
import { Device } from '../../vfio/device.js';
import type { InterruptKind } from '../../vfio/interrupts.js';
import { identityOf } from '../device-record.js';
import { movedPages, physicalExtents } from '../extents.js';
import { KeepAlive } from '../keep-alive.js';
import { KeepAliveError, KeepAliveErrorCode } from '../keepalive-error.js';
import type { SpacePlace } from '../layout.js';
import { arenaMapping, spaceKey } from '../places.js';
import type { SavedArena, SavedDevice, SavedIoas } from '../state/saved-state.js';
import { fileIdentity, pathOfDescriptor } from './file-identity.js';
import { descriptorName, type Manifest, readManifest, type SpareIds, statePath } from './manifest.js';

/** How many mappings are noted at a time. */
const PIECE = 4096;

function different(reason: string): never {
  throw new KeepAliveError(
    KeepAliveErrorCode.Different,
    [reason],
    'Nothing was touched; take it over from whoever has it, or start cold',
  );
}

/** The descriptors that came with a manifest: each is taken once, and what is left is closed. */
class Descriptors {
  readonly #kernel: Syscalls;
  readonly #left: Map<string, number>;

  constructor(kernel: Syscalls, descriptors: ReadonlyMap<string, number>) {
    this.#kernel = kernel;
    this.#left = new Map(descriptors);
  }

  take(name: string): number {
    this.require(name);
    const fd = this.#left.get(name) as number;
    this.#left.delete(name);
    return fd;
  }

  /** That each is the file that the predecessor had under its name, where both know. */
  check(identities: ReadonlyMap<string, string>): void {
    for (const [name, fd] of this.#left) {
      const expected = identities.get(name);
      if (!expected) continue;
      const found = fileIdentity(this.#kernel, fd) ?? expected;
      if (found !== expected)
        different(`the descriptor ${name} is of another file (${found}) than it was (${expected})`);
    }
  }

  /** That none is left but these: what nobody knows of would be closed, with what is mapped of it mapped still. */
  expectNoneBut(names: Iterable<string>): void {
    const left = new Map(this.#left);
    for (const name of names) left.delete(name);
    const [stray] = left.keys();
    if (stray !== undefined) different(`the descriptor ${stray} is of nothing in the state`);
  }

  require(name: string): void {
    if (!this.#left.has(name)) different(`the descriptor ${name} is missing`);
  }

  close(): void {
    for (const fd of this.#left.values()) this.#kernel.close(fd);
    this.#left.clear();
  }
}

/** What was built around the descriptors of a predecessor, who may still have them, too. */
export interface Adopted {
  readonly kept: KeepAlive;
  /**
   * Does everything that can go wrong before this process is the only owner. It is to be soon then: interrupts that wait
   * keep the event loop busy.
   *
   * @throws KernelError; {@link abandon} it then
   */
  prepare(): void;
  /** This process is the only owner: begins to receive interrupts, those signalled in the meantime, too. Cannot fail. */
  activate(): void;
  /** Lets go of everything without a trace: the predecessor goes on, or there is none. */
  abandon(error: Error): void;
}

/**
 * Builds the objects anew around descriptors that are open already. Neither a device nor what the kernel has changes, and
 * whoever had them before still has them: a second owner must not use the result yet.
 *
 * @param descriptors by the names of `makeManifest`; taken over, also when this throws
 * @throws StateError; KeepAliveError (DIFFERENT) when descriptors are missing or are not of what the state says; KernelError
 */
export function adoptManifest(
  kernel: Syscalls,
  bytes: Uint8Array,
  descriptors: ReadonlyMap<string, number>,
): Adopted {
  const files = new Descriptors(kernel, descriptors);
  const made: (() => void)[] = [];
  try {
    const manifest = readManifest(bytes);
    const { state } = manifest;
    files.check(manifest.identities);
    const spaces = new Map<string, Ioas>();
    const hwpts = new Map<string, Hwpt>();
    const iommufds = state.iommufds.map(({ id, ioases }) => {
      const iommufd = Iommufd.adopt(kernel, files.take(descriptorName.iommufd(id)));
      made.push(() => iommufd[Symbol.dispose]());
      for (const ioas of ioases)
        adoptIoas(iommufd, { iommufd: id, ioas: ioas.id }, ioas, manifest, spaces, hwpts);
      for (const spare of manifest.spares) if (spare.iommufd === id) adoptSpare(iommufd, spare);
      return iommufd;
    });
    const interrupts: (() => void)[] = [];
    const later: string[] = manifest.store ? [descriptorName.storeFile] : [];
    for (const saved of state.devices) {
      const device = adoptDevice(kernel, saved, manifest, files, spaces, hwpts);
      made.push(() => device.relinquish());
      for (const { kind, eventfds } of interruptsOf(saved, files)) {
        later.push(...eventfds);
        interrupts.push(() =>
          device.interrupts.adopt(
            kind,
            eventfds.map(name => files.take(name)),
          ),
        );
      }
    }
    const arenas = new Map<bigint, DmaArena>();
    for (const saved of state.arenas) {
      const arena = adoptArena(saved, files, spaces, state.iommufds);
      made.push(() => arena.relinquish());
      arenas.set(saved.token, arena);
    }
    files.expectNoneBut(later);
    for (const { id, ioases } of state.iommufds) {
      for (const ioas of ioases)
        noteMappings(spaces.get(spaceKey({ iommufd: id, ioas: ioas.id })) as Ioas, ioas, arenas);
    }
    const kept = KeepAlive.taken(iommufds, state);
    if (manifest.store) {
      const fd = files.take(descriptorName.storeFile);
      kept.inheritedStore = { ...manifest.store, fd, aliases: manifest.storedAs };
    }
    return {
      kept,
      prepare: () => {
        for (const adopt of interrupts) adopt();
      },
      activate: () => {
        for (const device of kept.devices) device.interrupts.begin();
        files.close();
      },
      abandon: error => {
        kept.relinquish(error);
        files.close();
      },
    };
  } catch (error) {
    undo(error, [...made.reverse(), () => files.close()]);
  }
}

function kernelId(manifest: Manifest, path: string): number {
  return manifest.kernelIds.get(path) ?? different(`the id of ${path} in the kernel is missing`);
}

function adoptIoas(
  iommufd: Iommufd,
  place: SpacePlace,
  saved: SavedIoas,
  manifest: Manifest,
  spaces: Map<string, Ioas>,
  hwpts: Map<string, Hwpt>,
): void {
  const ioas = new Ioas(iommufd, kernelId(manifest, statePath.ioas(place)));
  // The kernel says so when there is no such address space.
  ioas.iovaRanges();
  ioas.noteAllowedIovas(saved.allowed);
  spaces.set(spaceKey(place), ioas);
  for (const { id, flags, device } of saved.hwpts ?? []) {
    const path = statePath.hwpt(place, id);
    const hwpt = kernelId(manifest, path);
    if (!iommufd.hasPageTable(hwpt)) different(`there is no page table ${hwpt}, which ${path} was`);
    hwpts.set(path, new Hwpt(ioas, hwpt, flags, device));
  }
}

/** What of it is there: the predecessor may have ended while it did away with it. */
function adoptSpare(iommufd: Iommufd, { ioas: id, hwpts }: SpareIds): void {
  const spare = new Ioas(iommufd, id);
  spare.spare = true;
  try {
    spare.iovaRanges();
  } catch (error) {
    if (!(error instanceof KernelError && error.errno === ENOENT)) throw error;
    spare.relinquish();
    return;
  }
  for (const hwpt of hwpts) {
    // For whichever device it was made.
    if (iommufd.hasPageTable(hwpt)) new Hwpt(spare, hwpt, 0, '');
  }
}

function adoptDevice(
  kernel: Syscalls,
  saved: SavedDevice,
  manifest: Manifest,
  files: Descriptors,
  spaces: ReadonlyMap<string, Ioas>,
  hwpts: ReadonlyMap<string, Hwpt>,
): Device {
  const { address, addressSpace } = saved;
  const opened = manifest.devices.get(address);
  const space = opened && spaces.get(spaceKey(opened.space));
  if (opened === undefined || space === undefined)
    return different(`it is not said how ${address} was opened`);
  if (saved.interface === 'legacy')
    different(`${address} was open through the legacy interface, of which nothing is kept`);
  const id = kernelId(manifest, statePath.device(address));
  if (!space.iommufd.hasDevice(id)) different(`${address} has not the id ${id} in the kernel`);
  const node = findVfioNode(kernel, address);
  if (node === undefined) return different(`${address} is not with vfio-pci`);
  const attached =
    addressSpace &&
    (addressSpace.hwpt === undefined
      ? spaces.get(spaceKey(addressSpace))
      : hwpts.get(statePath.hwpt(addressSpace, addressSpace.hwpt)));
  const { claimed, previousDriver, previousOverride } = opened;
  const claim = claimed ? new Claim(kernel, address, node, previousDriver, previousOverride) : undefined;
  const device = new Device({
    kernel,
    fd: files.take(descriptorName.device(address)),
    name: address,
    noiommu: node.noiommu,
    space,
    binding: { iommufd: space.iommufd, id },
    attached,
    owned: claim ? [claim.use()] : [],
  });
  try {
    checkSameDevice(device, saved, node);
  } catch (error) {
    undo(error, [() => device.relinquish()]);
  }
  if (claim) noteClaim(device, claim);
  return device;
}

/** The names of the eventfds of each kind of interrupt. They must all be there, and are taken when they are needed. */
function interruptsOf(
  { address, interrupts = [] }: SavedDevice,
  files: Descriptors,
): { kind: InterruptKind; eventfds: string[] }[] {
  return interrupts.map(({ kind, count }) => {
    const eventfds = Array.from({ length: count }, (_, vector) =>
      descriptorName.interrupt(address, kind, vector),
    );
    for (const name of eventfds) files.require(name);
    return { kind, eventfds };
  });
}

/** The descriptor might be of any device, and the device be another than it was. */
function checkSameDevice(device: Device, saved: SavedDevice, node: VfioNode): void {
  const { kernel, fd, name } = device;
  if (node.kind !== 'cdev') different(`${name} has no character device any more: it is being removed`);
  const found = posix.basename(pathOfDescriptor(kernel, fd));
  const expected = posix.basename(node.path);
  if (found !== expected)
    different(`the descriptor of ${name} is of ${found}, and the device is ${expected}`);
  if (node.noiommu !== (saved.translation === 'none')) {
    different(
      `${name} has ${node.noiommu ? 'no' : 'an'} IOMMU in front of it, and had ${node.noiommu ? 'one' : 'none'}`,
    );
  }
  const differences = compareIdentity(saved, identityOf(device));
  if (differences.length === 0) return;
  const list = differences.map(({ property, expected, found }) => `${property} ${found}, not ${expected}`);
  different(`${name} is not the device that it was: ${list.join('; ')}`);
}

function adoptArena(
  saved: SavedArena,
  files: Descriptors,
  spaces: ReadonlyMap<string, Ioas>,
  iommufds: Manifest['state']['iommufds'],
): DmaArena {
  const { token, size, pageSize, name, extents } = saved;
  const { place, mapping } = arenaMapping(saved, iommufds);
  const space = spaces.get(spaceKey(place)) as Ioas;
  const { iova, readable, writeable } = mapping;
  if (!space.isMapped(iova, size)) different(`arena ${name} is not mapped at ${hex(iova)}`);
  const fd = files.take(descriptorName.arena(token));
  const arena = DmaArena.adopt(space, fd, {
    ...{ token, size, pageSize, name, iova, readable, writeable },
    mapped: true,
  });
  if (space.translation !== 'none') return arena;
  try {
    if (extents === undefined)
      return different(`arena ${name}: the state does not say where its memory lies`);
    const moved = movedPages(extents, physicalExtents(space, iova, size));
    if (moved) different(`arena ${name}: ${moved.text}`);
  } catch (error) {
    undo(error, [() => arena.relinquish()]);
  }
  return arena;
}

function noteMappings(ioas: Ioas, { mappings }: SavedIoas, arenas: ReadonlyMap<bigint, DmaArena>): void {
  const files = mappings.arenas.map(token => arenas.get(token) as DmaArena);
  const rows = new MappingRows(PIECE);
  for (let start = 0; start < mappings.length; start += rows.length) {
    mappings.readRows(start, rows);
    ioas.noteMappings(rows, files);
  }
}
