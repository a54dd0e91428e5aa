/**
 * Who owns a group of devices, and what translates for it: all devices of a group change together, or none.
 *
 * @module
 */
import { EBUSY, EINVAL, EPERM } from '../../../bindings/uapi/errno.js';
import type { AttachHandle, Domain, IommuDevice, IommuGroup } from './domain.js';

/** The key of {@link IommuGroup.attached} for DMA without PASID. */
export const NO_PASID = -1;

/** That key for a PASID as requests have it, where 0 is none. */
export function pasidKey(pasid: number): number {
  return pasid === 0 ? NO_PASID : pasid;
}

function* reversed<T>(values: readonly T[]): Generator<T> {
  for (let i = values.length - 1; i >= 0; i--) yield values[i] as T;
}

/** Moves every device, in order; those moved go back when one refuses. @returns 0, or minus the errno */
function moveAll(
  devices: Iterable<IommuDevice>,
  move: (device: IommuDevice) => number,
  back: (device: IommuDevice) => void,
): number {
  const moved: IommuDevice[] = [];
  for (const device of devices) {
    const result = move(device);
    if (result < 0) {
      for (const each of reversed(moved)) back(each);
      return result;
    }
    moved.push(device);
  }
  return 0;
}

/** The domain of a group that nothing is attached to: all is refused once it has an owner. */
function coreDomain(device: IommuDevice, owned: boolean): Domain {
  return owned ? device.blocked : (device.defaultDomain ?? device.blocked);
}

function current(device: IommuDevice): Domain {
  return device.group.attached.get(NO_PASID) ?? coreDomain(device, device.group.owner !== undefined);
}

function setDomain(group: IommuGroup, domain: Domain): number {
  if (group.attached.get(NO_PASID) === domain) return 0;
  return moveAll(
    group.devices,
    device => device.attach(domain, current(device)),
    device => device.attach(current(device), domain),
  );
}

/** Takes all devices back to what they have when nothing is attached. Cannot fail. */
function setCoreDomain(group: IommuGroup, owned: boolean): void {
  for (const device of group.devices) device.attach(coreDomain(device, owned), current(device));
}

/**
 * The device's group is for `owner` alone from now on; several devices of a group may have the same owner
 * (iommu_device_claim_dma_owner).
 *
 * @returns 0, or minus EPERM when somebody else has it, EBUSY when the kernel uses it
 */
export function claimOwner(group: IommuGroup, owner: object): number {
  if (group.owner !== undefined && group.owner !== owner) return -EPERM;
  if (group.owner === undefined) {
    if (group.attached.size > 0) return -EBUSY;
    setCoreDomain(group, true);
    group.owner = owner;
  }
  group.ownerCount++;
  return 0;
}

/** Undoes one {@link claimOwner}. */
export function releaseOwner(group: IommuGroup): void {
  if (group.owner === undefined) throw new Error(`group ${group.id} has no owner`);
  if (--group.ownerCount > 0) return;
  if (group.attached.size > 0) throw new Error(`group ${group.id} is still attached`);
  setCoreDomain(group, false);
  group.owner = undefined;
}

/** Attaches a group that is attached to nothing. @returns 0, or minus EBUSY, or as the driver says */
export function attachGroup(group: IommuGroup, handle: AttachHandle): number {
  if (group.attached.has(NO_PASID)) return -EBUSY;
  return replaceGroup(group, handle);
}

/** Moves a group to another domain, without a moment in which it has none. @returns 0, or minus the errno */
export function replaceGroup(group: IommuGroup, handle: AttachHandle): number {
  const result = setDomain(group, handle.domain);
  if (result < 0) return result;
  group.attached.set(NO_PASID, handle.domain);
  group.handles.set(NO_PASID, handle);
  return 0;
}

export function detachGroup(group: IommuGroup): void {
  setCoreDomain(group, true);
  group.attached.delete(NO_PASID);
  group.handles.delete(NO_PASID);
}

function withPasids(group: IommuGroup): IommuDevice[] {
  return [...group.devices].filter(device => device.maxPasids > 0);
}

function setPasid(group: IommuGroup, pasid: number, domain: Domain, old: Domain | undefined): number {
  return moveAll(
    withPasids(group),
    device => device.attachPasid(domain, pasid, old),
    device => device.attachPasid(old ?? device.blocked, pasid, domain),
  );
}

/** Attaches one PASID of all devices (iommu_attach_device_pasid). @returns 0, or minus the errno */
export function attachPasid(group: IommuGroup, pasid: number, handle: AttachHandle): number {
  if (withPasids(group).some(device => pasid >= device.maxPasids)) return -EINVAL;
  if (group.attached.has(pasid)) return -EBUSY;
  const result = setPasid(group, pasid, handle.domain, undefined);
  if (result < 0) return result;
  group.attached.set(pasid, handle.domain);
  group.handles.set(pasid, handle);
  return 0;
}

/** Moves one PASID to another domain (iommu_replace_device_pasid). @returns 0, or minus the errno */
export function replacePasid(group: IommuGroup, pasid: number, handle: AttachHandle): number {
  const old = group.attached.get(pasid);
  if (old === undefined) return -EINVAL;
  const result = old === handle.domain ? 0 : setPasid(group, pasid, handle.domain, old);
  if (result < 0) return result;
  group.attached.set(pasid, handle.domain);
  group.handles.set(pasid, handle);
  return 0;
}

export function detachPasid(group: IommuGroup, pasid: number): void {
  const old = group.attached.get(pasid);
  for (const device of withPasids(group)) device.attachPasid(device.blocked, pasid, old);
  group.attached.delete(pasid);
  group.handles.delete(pasid);
}
