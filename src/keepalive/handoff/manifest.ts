/**
 * What a successor in the same kernel needs: the state and, in a node of it that no other reader understands, the ids that
 * objects have in the kernel; and the descriptors, each under a name that follows from the state.
 *
 *     manifest               iommufd,manifest-v1
 *                            kernel-id-paths kernel-ids: of IOASes, HWPTs and devices, by their place in the state
 *                            descriptors file-identities: which file each is, as far as the kernel tells
 *                            stored-as: where they are kept under other names
 *                            spares: of the other address spaces of swaps, <iommufd kernel-id 0> of each, and
 *                            <iommufd kernel-id kernel-id-of-hwpt> of each page table in it
 *                            store-file store-serial: where they are in a descriptor store
 *       device-<address>     address-space: <iommufd ioas> that it was opened with
 *                            previous-driver previous-override: where the device goes back to, if it was claimed
 *
 * @module
 */
import type { Syscalls } from '../../../bindings/syscalls.js';
import type { Ioas } from '../../iommufd/ioas.js';
import { claimOf } from '../../open-device.js';
import { type PciAddress, pciAddress } from '../../pci/address.js';
import type { KeepAlive } from '../keep-alive.js';
import { Layout, type SpacePlace } from '../layout.js';
import { decodeState } from '../state/decode-state.js';
import { encodeState } from '../state/encode-state.js';
import type { FdtNode } from '../state/fdt.js';
import { FdtValue } from '../state/fdt-value.js';
import { nodeName, type State } from '../state/saved-state.js';
import { StateError, StateErrorCode } from '../state/state-error.js';
import type { Owned, StoreNames, StorePlace } from '../store/store-place.js';
import { isSpare } from '../swap/spare.js';
import { fileIdentity } from './file-identity.js';

const NODE = 'manifest';
const COMPATIBLE = 'iommufd,manifest-v1';
const { string, strings, u32s } = FdtValue;

/** Names of descriptors. They have no colons, which the file-descriptor store of systemd does not take. */
export const descriptorName = {
  iommufd: (id: number): string => nodeName.iommufd(id),
  device: (address: PciAddress): string => nodeName.device(address),
  arena: (token: bigint): string => nodeName.arena(token),
  interrupt: (address: PciAddress, kind: number, vector: number): string =>
    `interrupt-${address.replaceAll(':', '-')}-${kind}-${vector}`,
  /** The manifest in a descriptor store, for a successor that goes on with it. */
  storeFile: 'store-file',
} as const;

/** Where things are in a state, for their ids in the kernel. */
export const statePath = {
  ioas: ({ iommufd, ioas }: SpacePlace): string => `${nodeName.iommufd(iommufd)}/${nodeName.ioas(ioas)}`,
  hwpt: (place: SpacePlace, id: number): string => `${statePath.ioas(place)}/hwpt-${id}`,
  device: (address: PciAddress): string => nodeName.device(address),
} as const;

/** How a device was opened and claimed. */
export interface ManifestDevice {
  readonly space: SpacePlace;
  readonly claimed: boolean;
  readonly previousDriver: string | undefined;
  readonly previousOverride: string | undefined;
}

/** The other address space of a swap, which the state does not have. */
export interface SpareIds {
  /** By its id in the state. */
  readonly iommufd: number;
  /** In the kernel. */
  readonly ioas: number;
  readonly hwpts: readonly number[];
}

export interface Manifest {
  readonly state: State;
  /** Ids in the kernel, by {@link statePath}. */
  readonly kernelIds: ReadonlyMap<string, number>;
  readonly devices: ReadonlyMap<PciAddress, ManifestDevice>;
  readonly spares: readonly SpareIds[];
  /** Which file each descriptor is, by its name: see `fileIdentity`; empty where the kernel did not tell. */
  readonly identities: ReadonlyMap<string, string>;
  /** Under which name each descriptor is kept, by its own; empty where it is its own. */
  readonly storedAs: ReadonlyMap<string, string>;
  readonly store: StorePlace | undefined;
}

/** A manifest, and the descriptors that go with it: still those of `kept`. */
export interface MadeManifest {
  readonly bytes: Uint8Array;
  readonly descriptors: ReadonlyMap<string, Owned>;
}

/** By the object whose the descriptor is: it stays the same for as long as that has it. */
const identities = new WeakMap<object, string>();

function identityOf(kernel: Syscalls, { fd, owner }: Owned): string {
  const known = identities.get(owner);
  if (known !== undefined) return known;
  const identity = fileIdentity(kernel, fd) ?? '';
  identities.set(owner, identity);
  return identity;
}

/** @throws as `KeepAlive.capture` */
export function makeManifest(kept: KeepAlive, store?: StoreNames): MadeManifest {
  const state = kept.capture();
  const layout = new Layout(kept.iommufds);
  const ids = new Map<string, number>();
  const descriptors = new Map<string, Owned>();
  const own = (name: string, owner: object, fd: number): void => void descriptors.set(name, { fd, owner });
  for (const [id, iommufd] of kept.iommufds.entries()) own(descriptorName.iommufd(id), iommufd, iommufd.fd);
  for (const [ioas, place] of layout.spaces) {
    ids.set(statePath.ioas(place), ioas.id);
    for (const hwpt of ioas.hwpts) ids.set(statePath.hwpt(place, layout.hwpt(hwpt)), hwpt.id);
  }
  for (const arena of kept.arenas) own(descriptorName.arena(arena.token), arena, arena.fd);
  const children = kept.devices.map((device): FdtNode => {
    const address = pciAddress(device.name);
    ids.set(statePath.device(address), device.id);
    own(descriptorName.device(address), device, device.fd);
    for (const kind of device.interrupts.enabled) {
      for (const vector of device.interrupts.vectors(kind)) {
        own(descriptorName.interrupt(address, kind, vector.index), vector, vector.eventfd);
      }
    }
    const { iommufd, ioas } = layout.place(device.space as Ioas);
    const claim = claimOf(device);
    return {
      name: nodeName.device(address),
      properties: new Map([
        ['address-space', u32s([iommufd, ioas])],
        ...(claim ? [['claimed', new Uint8Array(0)] as const] : []),
        ...(claim?.previousDriver === undefined
          ? []
          : [['previous-driver', string(claim.previousDriver)] as const]),
        ...(claim?.previousOverride === undefined
          ? []
          : [['previous-override', string(claim.previousOverride)] as const]),
      ]),
      children: [],
    };
  });
  const node: FdtNode = {
    name: NODE,
    properties: new Map([
      ['compatible', string(COMPATIBLE)],
      ['kernel-id-paths', strings([...ids.keys()])],
      ['kernel-ids', u32s([...ids.values()])],
      ['descriptors', strings([...descriptors.keys()])],
      ['spares', u32s(sparesOf(kept))],
      ['file-identities', strings([...descriptors.values()].map(owned => identityOf(kept.kernel, owned)))],
      ...(store ? storeProperties(store, descriptors) : []),
    ]),
    children,
  };
  const nodes = [...(state.kept?.nodes ?? []), node];
  const properties = state.kept?.properties ?? new Map<string, Uint8Array>();
  return { bytes: encodeState({ ...state, kept: { properties, nodes } }), descriptors };
}

function sparesOf({ iommufds }: KeepAlive): number[] {
  return iommufds.flatMap((iommufd, context) =>
    [...iommufd.ioases]
      .filter(isSpare)
      .flatMap(({ id, hwpts }) =>
        [0, ...[...hwpts].map(hwpt => hwpt.id)].flatMap(hwpt => [context, id, hwpt]),
      ),
  );
}

function readSpares(rows: readonly number[], { iommufds }: State): SpareIds[] {
  const spares = new Map<string, { iommufd: number; ioas: number; hwpts: number[] }>();
  for (let at = 0; at < rows.length; at += 3) {
    const [iommufd, ioas, hwpt] = rows.slice(at, at + 3);
    if (iommufd === undefined || !ioas || hwpt === undefined) return refuse('spares', 'it is malformed');
    if (!iommufds.some(({ id }) => id === iommufd)) refuse('spares', `there is no iommufd ${iommufd}`);
    const spare = spares.get(`${iommufd}/${ioas}`) ?? { iommufd, ioas, hwpts: [] };
    spares.set(`${iommufd}/${ioas}`, spare);
    if (hwpt !== 0) spare.hwpts.push(hwpt);
  }
  return [...spares.values()];
}

function storeProperties(
  { storedAs, place }: StoreNames,
  descriptors: Map<string, Owned>,
): [string, Uint8Array][] {
  const properties: [string, Uint8Array][] = [
    ['stored-as', strings([...descriptors].map(([name, owned]) => storedAs(name, owned)))],
  ];
  if (place === undefined) return properties;
  descriptors.set(descriptorName.storeFile, place.file);
  return [...properties, ['store-file', string(place.fileName)], ['store-serial', u32s([place.serial])]];
}

function refuse(property: string, reason: string, node = NODE): never {
  throw new StateError(StateErrorCode.Invalid, { path: `/${node}`, property }, reason);
}

function unique(property: string, values: readonly string[]): void {
  const seen = new Set<string>();
  for (const value of values) {
    if (seen.has(value)) refuse(property, `${JSON.stringify(value)} is there twice`);
    seen.add(value);
  }
}

/** Every object has an id, and of those of one iommufd no two the same. */
function checkIds(
  { iommufds }: State,
  devices: ReadonlyMap<PciAddress, ManifestDevice>,
  paths: readonly string[],
  ids: readonly number[],
): void {
  const left = new Map(paths.map((path, index) => [path, ids[index] as number]));
  const take = (path: string, context: number, taken: Map<string, string>): void => {
    const id = left.get(path) ?? refuse('kernel-id-paths', `the id of ${path} is missing`);
    left.delete(path);
    const other = taken.get(`${context}/${id}`);
    if (id === 0 || other !== undefined)
      refuse('kernel-ids', `${path} has id ${id}${other === undefined ? '' : `, as ${other} has`}`);
    taken.set(`${context}/${id}`, path);
  };
  const taken = new Map<string, string>();
  for (const { id: iommufd, ioases } of iommufds) {
    for (const { id: ioas, hwpts = [] } of ioases) {
      const place = { iommufd, ioas };
      take(statePath.ioas(place), iommufd, taken);
      for (const { id } of hwpts) take(statePath.hwpt(place, id), iommufd, taken);
    }
  }
  for (const [address, { space }] of devices) take(statePath.device(address), space.iommufd, taken);
  const [stray] = left.keys();
  if (stray !== undefined) refuse('kernel-id-paths', `there is no ${stray}`);
}

/** @throws StateError when it is damaged, is a state and no manifest, or contradicts itself */
export function readManifest(bytes: Uint8Array): Manifest {
  const { kept, ...state } = decodeState(bytes);
  const found = kept?.nodes.find(({ name }) => name === NODE);
  const value = <T>(
    node: FdtNode,
    name: string,
    read: (bytes: Uint8Array) => T | undefined,
  ): T | undefined => {
    const property = node.properties.get(name);
    return property && (read(property) ?? refuse(name, 'it is malformed', node.name));
  };
  if (found === undefined || value(found, 'compatible', FdtValue.readString) !== COMPATIBLE) {
    throw new StateError(
      StateErrorCode.Unsupported,
      { path: `/${NODE}` },
      `it is a state and no manifest of type ${COMPATIBLE}`,
      'A successor in the same kernel needs what its predecessor offers or has stored; a state is for a restore',
    );
  }
  const paths = value(found, 'kernel-id-paths', FdtValue.readStrings) ?? [];
  const ids = value(found, 'kernel-ids', FdtValue.readU32s) ?? [];
  if (paths.length !== ids.length)
    refuse('kernel-ids', `there are ${paths.length} paths and ${ids.length} ids`);
  const names = value(found, 'descriptors', FdtValue.readStrings) ?? [];
  const identified = value(found, 'file-identities', FdtValue.readStrings) ?? [];
  const stored = value(found, 'stored-as', FdtValue.readStrings) ?? [];
  for (const [property, list] of [
    ['file-identities', identified],
    ['stored-as', stored],
  ] as const) {
    if (list.length > 0 && list.length !== names.length)
      refuse(property, `there are ${names.length} descriptors, and ${list.length} of these`);
  }
  unique('kernel-id-paths', paths);
  unique('descriptors', names);
  unique('stored-as', stored);
  const fileName = value(found, 'store-file', FdtValue.readString);
  const serial = value(found, 'store-serial', FdtValue.readU32) ?? 0;
  const used = [fileName ?? '', ...stored].map(name => Number(/\.(\d+)$/.exec(name)?.[1] ?? 0));
  if (fileName !== undefined && used.some(number => number > serial))
    refuse('store-serial', `it is ${serial}, and ${Math.max(...used)} is in use`);
  const devices = new Map<PciAddress, ManifestDevice>();
  const known = new Set(state.iommufds.flatMap(({ id, ioases }) => ioases.map(ioas => `${id}/${ioas.id}`)));
  for (const { address } of state.devices) {
    const node = found.children.find(({ name }) => name === nodeName.device(address));
    const [iommufd = -1, ioas = -1] = (node && value(node, 'address-space', FdtValue.readU32s)) ?? [];
    if (node === undefined || !known.has(`${iommufd}/${ioas}`)) {
      refuse(
        'address-space',
        'it does not say with which IOAS the device was opened',
        nodeName.device(address),
      );
    }
    devices.set(address, {
      space: { iommufd, ioas },
      claimed: node.properties.has('claimed'),
      previousDriver: value(node, 'previous-driver', FdtValue.readString),
      previousOverride: value(node, 'previous-override', FdtValue.readString),
    });
  }
  checkIds(state, devices, paths, ids);
  const nodes = (kept?.nodes ?? []).filter(node => node !== found);
  return {
    state: { ...state, kept: { properties: kept?.properties ?? new Map(), nodes } },
    kernelIds: new Map(paths.map((path, index) => [path, ids[index] as number])),
    devices,
    spares: readSpares(value(found, 'spares', FdtValue.readU32s) ?? [], state),
    identities: new Map(identified.map((identity, index) => [names[index] as string, identity])),
    storedAs: new Map(stored.map((alias, index) => [names[index] as string, alias])),
    store: fileName === undefined ? undefined : { fileName, serial },
  };
}
