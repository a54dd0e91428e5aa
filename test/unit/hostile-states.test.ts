// What comes back is not what was kept: each way of it is refused, on each way by which a state comes back, before the
// device is touched. This is where all of them can be seen; what reads a state has closer tests of its own.
import t, { type Test } from 'tap';
import { Journal } from '../../src/drivers/nvme/journal.js';
import { crc32 } from '../../src/keepalive/crc32.js';
import { descriptorName } from '../../src/keepalive/handoff/manifest.js';
import { decodeState } from '../../src/keepalive/state/decode-state.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import type { SavedArena, State } from '../../src/keepalive/state/saved-state.js';
import { type EditableNode, edit } from '../support/edit-state.js';
import { reseal } from '../support/flat-tree.js';
import { type PlainMapping, packExtents, packMappings } from '../support/packed-rows.js';
import { random } from '../support/random.js';
import { errorProblem } from './support/failure-sweep.js';
import {
  type Forgery,
  HandOffRoute,
  LiveUpdateRoute,
  memfdOf,
  OTHER,
  type Route,
  StoreRoute,
  TWINS,
} from './support/hostile-routes.js';
import { ADDRESS } from './support/keepalive-stage.js';

t.setTimeout(300_000);

const { u32, u64, u32s, u64s, string, strings } = FdtValue;
const PAGE = 4096;
const ENTRIES = 64;
const NONE = new Uint8Array(0);

const routes = {
  'hand-off': HandOffRoute.make,
  'descriptor store': StoreRoute.make,
  'live update': LiveUpdateRoute.make,
} as const;
type RouteName = keyof typeof routes;
type Profile = 'vtd' | 'noiommu';

/** What an error must be; `message` says where and why. */
interface Refusal {
  readonly name: string;
  readonly code?: string;
  readonly message: RegExp;
}

interface Hostility extends Forgery {
  readonly what: string;
  /** Alike on every way, or where it is refused otherwise; where it is none, it makes no sense there. */
  readonly refusal: Refusal | Partial<Record<RouteName, Refusal>>;
  readonly profile?: Profile;
}

const state = (code: string, message: RegExp): Refusal => ({ name: 'StateError', code, message });
const different = (message: RegExp): Refusal => ({ name: 'KeepAliveError', code: 'DIFFERENT', message });
const unsupported = (message: RegExp): Refusal => ({ name: 'DeviceError', code: 'UNSUPPORTED', message });

// Where things are in a state

const device = (root: EditableNode): EditableNode => root.child('device-');
const driver = (root: EditableNode): EditableNode => root.child('driver-').child('state');
const queue = (root: EditableNode, id = 1): EditableNode => driver(root).child(`queue-${id}`);
const ioas = (root: EditableNode): EditableNode => root.child('iommufd-0').child('ioas-0');
const manifest = (root: EditableNode): EditableNode => root.child('manifest');

const named = ({ arenas }: State, name: string): SavedArena => arenas.find(arena => arena.name === name)!;
const nodeOf = (root: EditableNode, { token }: SavedArena): EditableNode =>
  root.child(descriptorName.arena(token));
const fileOf = ({ token }: SavedArena): string => descriptorName.arena(token);

type Change = (root: EditableNode, sound: State) => void;

/** Of the state. Whatever it is for, the checksums are right. */
const forged = (
  what: string,
  change: Change,
  refusal: Hostility['refusal'],
  more: Partial<Hostility> = {},
): Hostility => ({
  what,
  state: bytes => edit(bytes, root => change(root, decodeState(bytes))),
  refusal,
  ...more,
});

/** Of the mappings. */
function remap(
  root: EditableNode,
  sound: State,
  change: (row: PlainMapping, token: bigint) => PlainMapping | undefined,
): void {
  const { mappings } = sound.iommufds[0]!.ioases[0]!;
  const rows = [...mappings].flatMap(({ iova, length, arena, offset }) => {
    const index = mappings.arenas.indexOf(arena);
    const row = {
      iova: iova as bigint,
      length: BigInt(length),
      offset: BigInt(offset),
      arena: index,
      access: 3,
    };
    return change(row, arena) ?? [];
  });
  rows.sort((a, b) => (a.iova < b.iova ? -1 : 1));
  ioas(root).setPacked('mapping', [...packMappings(rows)], rows.length);
}

/** The arena that is mapped last. */
function lastArena(sound: State): SavedArena {
  const { mappings } = sound.iommufds[0]!.ioases[0]!;
  return sound.arenas.find(({ token }) => token === mappings.get(mappings.length - 1).arena)!;
}

/** Another size, of which everything in the state speaks. */
function resize(root: EditableNode, sound: State, bytes: number): void {
  const arena = lastArena(sound);
  nodeOf(root, arena).set('size', u64(arena.size + bytes));
  remap(root, sound, (row, token) =>
    token === arena.token ? { ...row, length: row.length + BigInt(bytes) } : row,
  );
}

/** The one arena is where the other was, in all that the state says but its physical pages. */
function exchange(root: EditableNode, sound: State): void {
  const [one, other] = TWINS.map(name => named(sound, name)) as [SavedArena, SavedArena];
  const places = [one, other].map(arena => nodeOf(root, arena).get('place-iova')) as [Uint8Array, Uint8Array];
  nodeOf(root, one).set('place-iova', places[1]);
  nodeOf(root, other).set('place-iova', places[0]);
  const { arenas } = sound.iommufds[0]!.ioases[0]!.mappings;
  const indexes = [one, other].map(({ token }) => arenas.indexOf(token)) as [number, number];
  remap(root, sound, row => {
    const at = indexes.indexOf(row.arena);
    return at < 0 ? row : { ...row, arena: indexes[1 - at] as number };
  });
}

/** Of the physical pages of the queues. */
const relocated = (
  what: string,
  change: (
    rows: { offset: bigint; address: bigint; length: bigint }[],
  ) => { offset: bigint; address: bigint; length: bigint }[],
  refusal: Hostility['refusal'],
): Hostility =>
  forged(
    what,
    (root, sound) => {
      const arena = named(sound, 'nvme-io');
      const rows = [...arena.extents!].map(({ offset, address, length }) => ({
        offset: BigInt(offset),
        address: address as bigint,
        length: BigInt(length),
      }));
      const changed = change(rows);
      nodeOf(root, arena).setPacked('extent', [...packExtents(changed)], changed.length);
    },
    refusal,
    { profile: 'noiommu' },
  );

/** Every mention of the device is of another address. */
function moveTo(address: string): Pick<Forgery, 'state' | 'files'> {
  const spellings = [ADDRESS, ADDRESS.replaceAll(':', '-')];
  const move = (text: string): string =>
    text.replaceAll(spellings[0]!, address).replaceAll(spellings[1]!, address.replaceAll(':', '-'));
  return {
    state: bytes => {
      const moved = new Uint8Array(Buffer.from(move(Buffer.from(bytes).toString('latin1')), 'latin1'));
      reseal(moved);
      return moved;
    },
    files: files => {
      for (const [name, fd] of [...files]) {
        files.delete(name);
        files.set(move(name), fd);
      }
    },
  };
}

/** Of the manifest, which there is in the same kernel alone. */
const inManifest = (
  what: string,
  change: Change,
  refusal: Refusal,
  more: Partial<Hostility> = {},
): Hostility => forged(what, change, { 'hand-off': refusal, 'descriptor store': refusal }, more);

function setId(root: EditableNode, path: string, id: number): void {
  const at = FdtValue.readStrings(manifest(root).get('kernel-id-paths'))!.indexOf(path);
  manifest(root).set('kernel-ids', u32s(FdtValue.readU32s(manifest(root).get('kernel-ids'))!.with(at, id)));
}

/** The manifest before the last is in the other half. */
const LAST_HALF = 0;
const inFile = (what: string, file: NonNullable<Forgery['file']>, refusal: Refusal): Hostility => ({
  what,
  file,
  refusal: { 'descriptor store': refusal },
});

/** Of the driver's record. */
const recorded = (what: string, change: Change, refusal: Refusal): Hostility =>
  forged(what, change, refusal, { onlyDriver: true });

/** Of what the driver keeps with every command, in the memory of the queue for I/O. */
const journalled = (
  what: string,
  change: (journal: Journal, words: Uint32Array) => void,
  message: RegExp,
): Hostility => ({
  what,
  memory: {
    'nvme-io': (bytes, { drivers }) => {
      const record = drivers[0]!.children.find(({ name }) => name === 'queue-1')!;
      const at = Number(FdtValue.readU64(record.properties.get('journal')!));
      const journal = bytes.subarray(at, at + Journal.size(ENTRIES - 1));
      change(
        new Journal(journal as Uint8Array<ArrayBuffer>),
        new Uint32Array(journal.buffer, journal.byteOffset, journal.length / 4),
      );
    },
  },
  refusal: state('DAMAGED', message),
  onlyDriver: true,
});

/** Changes a number in the header of the last manifest of a store, and its checksum with it. */
function setHeader(bytes: Uint8Array, at: number, value: bigint): void {
  const view = new DataView(bytes.buffer, LAST_HALF);
  view.setBigUint64(at, value, true);
  view.setUint32(16, crc32(bytes.subarray(LAST_HALF, LAST_HALF + 16)), true);
}

/** A file in the place of that of an arena. */
const replaced = (
  arena: string,
  make: (holder: Parameters<typeof memfdOf>[0], size: number) => number,
): Pick<Forgery, 'files'> => ({
  files: (files, holder, sound) => {
    const saved = named(sound, arena);
    if (files.has(fileOf(saved))) files.set(fileOf(saved), make(holder, saved.size));
  },
});
const swapFiles: Pick<Forgery, 'files'> = {
  files: (files, _, sound) => {
    const [one, other] = TWINS.map(name => fileOf(named(sound, name))) as [string, string];
    const fd = files.get(one)!;
    files.set(one, files.get(other)!).set(other, fd);
  },
};
const withoutIdentities = (bytes: Uint8Array): Uint8Array =>
  edit(bytes, root => {
    if (root.flat.children.some(({ name }) => name === 'manifest')) manifest(root).remove('file-identities');
  });

const anotherFile = different(/the descriptor arena-\w+ is of another file \(inode \d+\) than it was/);
const notTheDevice = (difference: string): Hostility['refusal'] => ({
  'hand-off': different(new RegExp(`${ADDRESS} is not the device that it was: ${difference}`)),
  'descriptor store': different(new RegExp(`${ADDRESS} is not the device that it was: ${difference}`)),
  'live update': unsupported(new RegExp(`${ADDRESS}: is not the device that was saved: ${difference}`)),
});
const exchangedPages = different(/arena \S+: the page at offset \d+ was at 0x\w+ and is at 0x/);
const ofAnotherQueue = state('DAMAGED', /queue-1, property journal.*of another queue, or of other memory/);

const hostilities: readonly Hostility[] = [
  // Another format
  forged(
    'a newer format',
    root => root.set('compatible', string('iommufd,state-v2')),
    state('UNSUPPORTED', /version 2/),
  ),
  forged(
    'a newer record',
    (root, sound) => nodeOf(root, lastArena(sound)).set('compatible', string('iommufd,arena-v3')),
    state('UNSUPPORTED', /\/arena-.*version 3/),
  ),
  forged(
    'a property that is required, and unknown',
    root =>
      device(root)
        .set('power', u32(3))
        .set('required', strings(['power'])),
    state('UNSUPPORTED', /\/device-.*property power is required/),
  ),
  forged(
    'a node that is required by its name, and unknown',
    root => {
      ioas(root).add('nested');
      ioas(root).set('required', strings(['nested']));
    },
    state('UNSUPPORTED', /ioas-0.*node nested is required/),
  ),
  forged(
    'a record that is required, and unknown',
    root => root.add('pasid-1', { compatible: string('iommufd,pasid-v1'), required: NONE }),
    state('UNSUPPORTED', /\/pasid-1.*is required/),
  ),
  inManifest(
    'a newer manifest',
    root => manifest(root).set('compatible', string('iommufd,manifest-v2')),
    state('UNSUPPORTED', /\/manifest.*no manifest of type iommufd,manifest-v1/),
  ),

  // Another device
  forged(
    'another vendor',
    root => device(root).set('vendor-id', u32(0x144d)),
    notTheDevice('vendorId 0x1b36, not 0x144d'),
  ),
  forged(
    'another device',
    root => device(root).set('device-id', u32(0x11)),
    notTheDevice('deviceId 0x10, not 0x11'),
  ),
  forged(
    'of another make',
    root => device(root).set('subsystem-vendor-id', u32(1)),
    notTheDevice('subsystemVendorId'),
  ),
  forged(
    'of another model',
    root => device(root).set('subsystem-device-id', u32(1)),
    notTheDevice('subsystemDeviceId'),
  ),
  forged(
    'of another class',
    root => device(root).set('class-code', u32(0x02_0000)),
    notTheDevice('classCode'),
  ),
  forged(
    'another serial number',
    root => device(root).set('serial', u64(41)),
    notTheDevice('serial .*, not 0x29'),
  ),
  forged(
    'a BAR of another size',
    root => device(root).set('bars', u32s([0, 3, 0, 0, 0x8000])),
    notTheDevice('bars 0: .*, not 0: 32768 bytes'),
  ),
  forged(
    'more BARs',
    root => device(root).set('bars', u32s([0, 3, 0, 0, 0x4000, 4, 2, 0, 0, 0x1000])),
    notTheDevice('bars'),
  ),
  forged(
    'a device behind an IOMMU where there is none, or the other way round',
    (root, { devices }) =>
      device(root).set('translation', string(devices[0]!.translation === 'none' ? 'iommu' : 'none')),
    different(/IOMMU in front of it/),
  ),
  forged(
    'a device that was open through the legacy interface',
    root => device(root).set('interface', string('legacy')),
    different(/0000:00:04.0 was open through the legacy interface/),
  ),
  {
    what: 'a device at the address of another',
    ...moveTo(OTHER),
    refusal: {
      'hand-off': different(/0000:00:05.0 is not with vfio-pci/),
      'descriptor store': different(/0000:00:05.0 is not with vfio-pci/),
      'live update': {
        name: 'DeviceError',
        code: 'BUSY',
        message: /0000:00:05.0: has landed with the driver nvme/,
      },
    },
  },
  {
    what: 'a device at an address where there is none',
    ...moveTo('0000:00:06.0'),
    refusal: {
      'hand-off': different(/0000:00:06.0 is not with vfio-pci/),
      'descriptor store': different(/0000:00:06.0 is not with vfio-pci/),
      'live update': { name: 'KernelError', code: 'ENOENT', message: /0000:00:06.0/ },
    },
  },
  forged(
    'two devices with one address',
    root => {
      const twice = root.add('device-0000-00-05.0');
      for (const [name, value] of device(root).flat.properties) twice.set(name, value);
    },
    state('INVALID', /must be named device-0000-00-04.0/),
  ),
  forged(
    'two drivers of one device',
    root => {
      const { flat } = root.child('driver-');
      root.flat.children.push({ ...flat, name: 'driver-0000-00-05.0' });
    },
    state('INVALID', /must be named driver-0000-00-04.0/),
  ),
  forged(
    'a driver of no device',
    root => root.child('driver-').rename('driver-0000-00-06.0').set('device', string('0000:00:06.0')),
    state('INVALID', /there is no device 0000:00:06.0/),
  ),
  forged(
    'a device without a driver',
    root => {
      root.flat.children.splice(root.flat.children.indexOf(root.child('driver-').flat), 1);
    },
    state('INVALID', /\/driver-0000-00-04.0.*there is no record of a driver/),
    { onlyDriver: true },
  ),
  forged(
    'resets of a kind that could not be written',
    root => device(root).set('reset-methods', string('flr\nbus')),
    state('INVALID', /reset-methods.*must be names/),
  ),
  forged('resets that the kernel does not have', root => device(root).set('reset-methods', string('acpi')), {
    'live update': { name: 'KernelError', code: 'EINVAL', message: /reset_method.*acpi/ },
  }),
  forged(
    'more interrupts than it can have',
    root => device(root).set('interrupts-enabled', u32s([2, 2049])),
    state('INVALID', /interrupts-enabled.*not 2049/),
  ),
  forged('more interrupts than there are', root => device(root).set('interrupts-enabled', u32s([2, 2048])), {
    'hand-off': different(/descriptor interrupt-0000-00-04.0-2-\d+ is missing/),
    'descriptor store': different(/descriptor interrupt-0000-00-04.0-2-\d+ is missing/),
  }),

  // Address spaces
  forged(
    'attached to no address space of the state',
    root => device(root).set('address-space', u32s([0, 9])),
    state('INVALID', /there is no IOAS 9 in an iommufd 0/),
  ),
  forged(
    'attached to no page table of the state',
    root => device(root).set('address-space-hwpt', u32(7)),
    state('INVALID', /there is no HWPT 7 in IOAS 0/),
  ),
  forged(
    'a page table for no device',
    root => {
      const [compatible, flags] = [string('iommufd,hwpt-v1'), u32(0)];
      ioas(root).add('hwpt-0', { compatible, id: u32(0), flags, device: string('0000:00:06.0') });
    },
    state('INVALID', /hwpt-0.*there is no device 0000:00:06.0/),
  ),
  forged(
    'a page table of a kind that is not kept',
    root => {
      const [compatible, flags] = [string('iommufd,hwpt-v1'), u32(1 << 10)];
      ioas(root).add('hwpt-0', { compatible, id: u32(0), flags, device: string(ADDRESS) });
    },
    state('INVALID', /hwpt-0, property flags/),
  ),
  forged(
    'allowed IOVAs that overlap',
    root => ioas(root).set('allowed-iovas', u64s([0, 0xffff_ffff, 0x1000, 0x1_ffff_ffffn])),
    state('INVALID', /allowed-iovas.*disjoint/),
  ),
  inManifest(
    'opened with no address space of the state',
    root =>
      manifest(root)
        .child('device-')
        .set('address-space', u32s([1, 0])),
    state('INVALID', /address-space.*with which IOAS the device was opened/),
  ),
  inManifest('an address space that the kernel does not have', root => setId(root, 'iommufd-0/ioas-0', 999), {
    name: 'KernelError',
    code: 'ENOENT',
    message: /IOMMU_IOAS_IOVA_RANGES \(ioas_id=999\)/,
  }),
  inManifest(
    'a device that the kernel does not have',
    root => setId(root, 'device-0000-00-04.0', 999),
    different(/0000:00:04.0 has not the id 999 in the kernel/),
  ),
  inManifest(
    'two things of one id',
    root => setId(root, 'device-0000-00-04.0', FdtValue.readU32s(manifest(root).get('kernel-ids'))![0]!),
    state('INVALID', /kernel-ids.*as .* has/),
  ),
  inManifest(
    'an id of what there is not',
    root => manifest(root).set('kernel-id-paths', strings(['iommufd-0/ioas-0', 'iommufd-0/ioas-1'])),
    state('INVALID', /kernel-id-paths/),
  ),

  // Memory
  forged(
    'an arena is missing',
    (root, sound) => {
      const { flat } = nodeOf(root, named(sound, 'nvme-io'));
      root.flat.children.splice(root.flat.children.indexOf(flat), 1);
    },
    state('INVALID', /mapping-arenas.*there is no arena with token/),
  ),
  forged(
    'an arena is missing, and whatever speaks of it',
    (root, sound) => {
      const arena = named(sound, 'nvme-io');
      const { mappings } = sound.iommufds[0]!.ioases[0]!;
      const gone = mappings.arenas.indexOf(arena.token);
      root.flat.children.splice(root.flat.children.indexOf(nodeOf(root, arena).flat), 1);
      ioas(root).set('mapping-arenas', u64s(mappings.arenas.filter(token => token !== arena.token)));
      remap(root, sound, row => {
        if (row.arena === gone) return undefined;
        return { ...row, arena: row.arena > gone ? row.arena - 1 : row.arena };
      });
    },
    {
      'hand-off': different(/the descriptor arena-\w+ is of nothing in the state/),
      'descriptor store': different(/the descriptor arena-\w+ is of nothing in the state/),
      'live update': state('INVALID', /property io-arena.*there is no arena with token/),
    },
  ),
  forged(
    'two arenas with one token',
    (root, sound) => {
      const [one, other] = TWINS.map(name => named(sound, name)) as [SavedArena, SavedArena];
      nodeOf(root, other).set('token', u64(one.token));
    },
    state('INVALID', /must be named arena-/),
  ),
  forged(
    'an arena of less than is mapped of it',
    (root, sound) => nodeOf(root, lastArena(sound)).set('size', u64(lastArena(sound).size - PAGE)),
    state('INVALID', /property mappings.*row \d+/),
    { profile: 'vtd' },
  ),
  forged(
    'a smaller arena',
    (root, sound) => resize(root, sound, -PAGE),
    unsupported(/memfd: is longer than \d+ bytes/),
    { profile: 'vtd' },
  ),
  forged('a larger arena', (root, sound) => resize(root, sound, PAGE), {
    'hand-off': different(/arena .* is not mapped at 0x/),
    'descriptor store': different(/arena .* is not mapped at 0x/),
    'live update': unsupported(/memfd: is shorter than \d+ bytes/),
  }),
  forged(
    'an arena of half a page',
    (root, sound) => nodeOf(root, lastArena(sound)).set('size', u64(2048)),
    state('INVALID', /property size.*multiple of the page size/),
  ),
  forged(
    'an arena of a page size that there is not',
    (root, sound) => nodeOf(root, lastArena(sound)).set('page-size', u64(65536)),
    state('INVALID', /65536 is not a page size/),
  ),
  {
    what: 'the memory of an arena is not there',
    files: (files, holder, sound) => {
      const name = fileOf(named(sound, 'nvme-io'));
      void holder;
      files.delete(name);
    },
    refusal: {
      'hand-off': different(/the descriptor arena-\w+ is missing/),
      'descriptor store': different(/the descriptor arena-\w+ is missing/),
      'live update': { name: 'KernelError', code: 'ENOENT', message: /LIVEUPDATE_SESSION_RETRIEVE_FD/ },
    },
  },
  {
    what: 'memory that anybody could resize',
    state: withoutIdentities,
    ...replaced('nvme-io', (holder, size) => memfdOf(holder, size, false)),
    refusal: unsupported(/memfd: has seals 0x0, not 0x7/),
  },
  {
    what: 'memory that is cut off',
    state: withoutIdentities,
    ...replaced('nvme-io', (holder, size) => memfdOf(holder, size - PAGE)),
    refusal: unsupported(/memfd: is shorter than \d+ bytes/),
  },
  {
    what: 'a file that is no memory',
    state: withoutIdentities,
    ...replaced('nvme-io', holder => holder.open('/dev/iommu', 2)),
    refusal: { name: 'KernelError', code: 'EINVAL', message: /fcntl \(.*F_GET_SEALS/ },
  },
  {
    what: 'another file of the same size',
    ...replaced('nvme-io', (holder, size) => memfdOf(holder, size)),
    refusal: { 'hand-off': anotherFile, 'descriptor store': anotherFile, 'live update': ofAnotherQueue },
    profile: 'vtd',
  },
  {
    what: 'another file of the same size, at other physical pages',
    ...replaced('nvme-io', (holder, size) => memfdOf(holder, size)),
    refusal: {
      'hand-off': anotherFile,
      'descriptor store': anotherFile,
      'live update': different(/arena nvme-io: the page at offset \d+ was at 0x\w+ and is at 0x/),
    },
    profile: 'noiommu',
  },
  {
    what: 'two files of the same size, exchanged',
    ...swapFiles,
    refusal: { 'hand-off': anotherFile, 'descriptor store': anotherFile, 'live update': ofAnotherQueue },
    profile: 'vtd',
  },
  {
    what: 'two files of the same size, exchanged, and nobody knows which is which',
    state: withoutIdentities,
    ...swapFiles,
    refusal: { 'hand-off': ofAnotherQueue, 'descriptor store': ofAnotherQueue },
  },
  forged(
    'two arenas exchanged',
    (root, sound) => {
      const [one, other] = TWINS.map(name => nodeOf(root, named(sound, name))) as [
        EditableNode,
        EditableNode,
      ];
      const iova = one.get('place-iova');
      one.set('place-iova', other.get('place-iova'));
      other.set('place-iova', iova);
    },
    state('INVALID', /property place.*no mapping of all of the arena begins there/),
  ),
  forged('two arenas exchanged, with their mappings', exchange, ofAnotherQueue, { profile: 'vtd' }),
  forged(
    'two arenas exchanged, with their mappings, and not their physical pages',
    exchange,
    // The next kernel maps them there, and the device sees them where they always were.
    { 'hand-off': exchangedPages, 'descriptor store': exchangedPages },
    { profile: 'noiommu' },
  ),

  // Mappings
  forged(
    'a mapping beyond its arena',
    (root, sound) =>
      remap(root, sound, (row, token) =>
        token === lastArena(sound).token ? { ...row, offset: row.offset + 4096n } : row,
      ),
    state('INVALID', /property mappings.*row \d+/),
  ),
  forged(
    'mappings that overlap',
    (root, sound) => {
      const { mappings } = sound.iommufds[0]!.ioases[0]!;
      const { iova } = mappings.get(0);
      // There is no other way to say it than to go round all addresses.
      remap(root, sound, (row, token) =>
        token === lastArena(sound).token ? { ...row, iova: 2n ** 64n + iova } : row,
      );
    },
    state('INVALID', /property mappings.*2\^64/),
  ),
  forged(
    'a mapping beyond the last address',
    (root, sound) =>
      remap(root, sound, (row, token) =>
        token === lastArena(sound).token ? { ...row, iova: 2n ** 64n - 4096n } : row,
      ),
    state('INVALID', /property mappings.*2\^64/),
  ),
  forged(
    'an arena at the last address',
    (root, sound) => nodeOf(root, lastArena(sound)).set('place-iova', u64(2n ** 64n - 4096n)),
    state('INVALID', /property place.*no mapping of all of the arena begins there/),
  ),
  forged(
    'an arena at half a page',
    (root, sound) => nodeOf(root, lastArena(sound)).set('place-iova', u64(2048)),
    state('INVALID', /property place-iova.*multiple of 4096/),
  ),
  forged(
    'more mappings than there are',
    root => ioas(root).set('mapping-count', u32(0xffff_ffff)),
    state('INVALID', /mapping-count.*cannot be 4294967295 rows/),
  ),

  // Physical pages
  relocated(
    'more pages than the arena has',
    rows => [...rows.slice(0, -1), { ...rows.at(-1)!, length: rows.at(-1)!.length + 4096n }],
    state('INVALID', /property extents/),
  ),
  relocated(
    'extents that overlap',
    rows => [rows[0]!, { ...rows[0]!, offset: 2n ** 64n }],
    state('INVALID', /property extents/),
  ),
  relocated(
    'a page beyond the last address',
    rows => [{ ...rows[0]!, address: 2n ** 64n - 4096n, length: 8192n }],
    state('INVALID', /property extents.*2\^64/),
  ),
  relocated(
    'pages that are elsewhere',
    rows => rows.map((row, index) => (index === 0 ? { ...row, address: row.address + 2n ** 30n } : row)),
    different(/arena nvme-io: the page at offset 0 was at 0x/),
  ),
  relocated(
    'the same page twice',
    rows => {
      const { address } = rows[0]!;
      const pages = rows.flatMap(row =>
        Array.from({ length: Number(row.length / 4096n) }, (_, page) => ({
          offset: row.offset + BigInt(page) * 4096n,
          address: row.address + BigInt(page) * 4096n,
          length: 4096n,
        })),
      );
      return pages.map((page, index) => (index === 1 ? { ...page, address } : page));
    },
    different(/arena nvme-io: the page at offset 4096 was at 0x/),
  ),
  relocated(
    'pages that are nowhere',
    rows => rows.slice(1),
    different(/arena nvme-io: the page at offset 0 was at nowhere/),
  ),
  forged(
    'no word of where pages are',
    (root, sound) => {
      const arena = nodeOf(root, named(sound, 'nvme-io'));
      for (const name of ['extents', 'extent-count', 'extent-crc32c']) arena.remove(name);
    },
    different(/arena nvme-io: the state does not say where its memory lies/),
    { profile: 'noiommu' },
  ),

  // Another time
  {
    what: 'a state of before an arena was made',
    state: (_, older) => older,
    refusal: {
      'hand-off': different(/the descriptor arena-\w+ is of nothing in the state/),
    },
  },
  inFile(
    'a manifest that is damaged, and a sound one before it',
    bytes => {
      bytes[LAST_HALF + 1000]! ^= 1;
    },
    state('DAMAGED', /checksum|byte/),
  ),
  inFile(
    'a manifest that looks newer than the last for one bit',
    bytes => {
      bytes[bytes.length / 2]! ^= 2;
    },
    state('DAMAGED', /the header of a manifest has another checksum/),
  ),
  inFile(
    'a manifest that is not the one after that before it',
    bytes => setHeader(bytes, 0, 88n),
    state('DAMAGED', /manifest 88 cannot have been written after manifest 1/),
  ),
  inFile(
    'a manifest in the place of the one before it',
    bytes => setHeader(bytes, 0, 3n),
    state('DAMAGED', /manifest 3 is in the wrong half/),
  ),
  inFile(
    'a manifest that is longer than there is room',
    bytes => setHeader(bytes, 8, 2n ** 40n),
    state('DAMAGED', /a manifest of 1099511627776 bytes has no room there/),
  ),
  forged('a session of another name', root => root.child('session-').set('label', string('theirs')), {
    'live update': state('INVALID', /it is of "theirs", not of "kept"/),
  }),
  inManifest(
    'a state, and no manifest',
    root => {
      root.flat.children.splice(root.flat.children.indexOf(manifest(root).flat), 1);
    },
    state('UNSUPPORTED', /it is a state and no manifest/),
  ),

  // The driver's record
  recorded(
    'a queue outside its arena',
    (root, sound) => queue(root).set('submission', u64(named(sound, 'nvme-io').size)),
    state('INVALID', /queue-1, property submission.*beyond the end of the arena/),
  ),
  recorded(
    'a queue far outside its arena',
    root => queue(root).set('completion', u64(2n ** 53n - 4096n)),
    state('INVALID', /queue-1, property completion/),
  ),
  recorded(
    'two queues at one place',
    root => queue(root).set('completion', queue(root).get('submission')),
    state('INVALID', /queue-1.*overlap with others/),
  ),
  ...[0, 1, 65537].map(entries =>
    recorded(
      `a queue of ${entries} entries`,
      root => queue(root).set('entries', u32(entries)),
      state('INVALID', /queue-1, property entries.*must be from 2 to/),
    ),
  ),
  recorded(
    'a queue for interrupts that there are not',
    root => queue(root).set('vector', u32(77)),
    state('INVALID', /queue-1, property vector/),
  ),
  recorded(
    'queues in another arena',
    (root, sound) => driver(root).set('io-arena', u64(named(sound, 'twin').token)),
    ofAnotherQueue,
  ),
  recorded(
    'queues in no arena',
    root => driver(root).set('io-arena', u64(5)),
    state('INVALID', /property io-arena.*there is no arena with token 5/),
  ),
  recorded(
    'the driver of something else',
    root => driver(root).set('compatible', string('edu-v1')),
    state('UNSUPPORTED', /must be a record nvme-v1, and is "edu-v1"/),
  ),
  journalled('a tail beyond the queue', journal => (journal.tail = 2 ** 31), /positions are less than/),
  journalled('a head beyond the queue', journal => (journal.head = 2 ** 31), /positions are less than/),
  journalled(
    'a head ahead of the tail',
    journal => (journal.head = (journal.header.tail + 1) % 2 ** 20),
    /outstanding/,
  ),
  journalled(
    'more commands than the queue has room for',
    journal => {
      const far = journal.header.head + ENTRIES + 1;
      journal.tail = far;
      journal.rung = far;
    },
    /more commands are outstanding than there are slots/,
  ),
  journalled(
    'a slot in a state that there is not',
    (_, words) => (words[63 * 32] = 3),
    /slot 62: it is in no state 3/,
  ),
  journalled(
    'the command of another slot',
    (_, words) => {
      words[63 * 32] = 1;
      words[63 * 32 + 16] = 2 | (17 << 16);
    },
    /slot 62: its command has an identifier of another slot/,
  ),
  journalled(
    'a command with memory that there is not',
    (_, words) => {
      words.fill(0, 63 * 32, 64 * 32);
      words[63 * 32] = 1;
      words[63 * 32 + 16] = 2 | (62 << 16);
      words[63 * 32 + 4] = 5;
    },
    /slot 62: there is no memory at 0 to 0 of an arena with token 5/,
  ),
];

/** What the bytes are after an accident. */
function accidents(seed: number): Hostility[] {
  const rng = random(seed);
  const refusal: Refusal = { name: 'StateError', message: /^saved state/ };
  return Array.from({ length: 60 }, (_, index) => {
    const at = rng.below(2 ** 31);
    const bit = 1 << rng.below(8);
    const flip = (bytes: Uint8Array): Uint8Array => {
      bytes[at % bytes.length]! ^= bit;
      return bytes;
    };
    const cut = (bytes: Uint8Array): Uint8Array => bytes.subarray(0, 1 + (at % (bytes.length - 1)));
    return index % 3 === 0
      ? { what: `cut off, ${at}`, state: cut, refusal }
      : { what: `bit ${bit} of byte ${at}`, state: flip, refusal };
  });
}

function refusalOn(route: RouteName, { refusal }: Hostility): Refusal | undefined {
  return 'name' in refusal ? (refusal as Refusal) : (refusal as Partial<Record<RouteName, Refusal>>)[route];
}

async function refuseAll(t: Test, route: RouteName, profile: Profile): Promise<void> {
  const rng = random(Number(process.env.SEED) || undefined);
  t.comment(`seed ${rng.seed}`);
  let way: Route = await routes[route](profile);
  let count = 0;
  for (const hostility of [...hostilities, ...accidents(rng.seed)]) {
    const { what } = hostility;
    const refusal = refusalOn(route, hostility);
    if (refusal === undefined || (hostility.profile ?? profile) !== profile) continue;
    count++;
    const error = await way.attempt(hostility);
    if (error === undefined) {
      t.fail(`${what}: it was accepted`);
      way = await routes[route](profile);
      continue;
    }
    t.match(error, refusal, what);
    const problems = [...(await way.problems()), errorProblem(error)].filter(
      problem => problem !== undefined,
    );
    t.strictSame(problems, [], `${what}: nothing has changed`);
  }
  t.comment(`${count} refused`);
  t.ok(count > 100);
  const driver = await way.finish();
  t.equal(
    driver.controller.outcome,
    route === 'hand-off' ? 'started' : 'kept-running',
    'what is sound goes on',
  );
  const { lanes, controller } = driver;
  const { told } = lanes;
  const running = lanes.start(controller.inherited);
  for (let turns = 0; lanes.told < told + 64 && turns < 5000; turns++) await way.stage.turn();
  lanes.stop();
  await running;
  t.strictSame([lanes.failure, lanes.wrong], [undefined, 0]);
  t.ok(lanes.told >= told + 64, `${lanes.told - told} operations`);
  t.strictSame(await way.end(driver), [], 'nothing is left but the device where it landed');
}

for (const route of Object.keys(routes) as RouteName[]) {
  for (const profile of ['vtd', 'noiommu'] as const) {
    t.test(`${route}, ${profile}`, t => refuseAll(t, route, profile));
  }
}
