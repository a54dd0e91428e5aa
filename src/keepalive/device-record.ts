/** What a state says of an open device. @module */
import { Ioas } from '../iommufd/ioas.js';
import { readIdentity } from '../pci/identity.js';
import type { Device } from '../vfio/device.js';
import type { Layout } from './layout.js';
import type { SavedDevice } from './state/saved-state.js';

type Identity = Omit<SavedDevice, 'addressSpace' | 'resetMethods' | 'interrupts' | 'kept'>;

/** It stays the same for as long as a device is open, and costs many reads to find out. */
const identities = new WeakMap<Device, Identity>();

/** What it is, and what it has. @throws KernelError */
export function identityOf(device: Device): Identity {
  const known = identities.get(device);
  if (known) return known;
  const identity: Identity = {
    ...readIdentity(device.name, device.kernel),
    interface: 'cdev',
    translation: device.noiommu ? 'none' : 'iommu',
    capabilities: device.config.capabilities(),
  };
  identities.set(device, identity);
  return identity;
}

/** @param resetMethods as sysfs had it before keepalive emptied it */
export function deviceRecord(device: Device, layout: Layout, resetMethods: string | undefined): SavedDevice {
  const { attached, interrupts } = device;
  const enabled = interrupts.enabled.map(kind => ({ kind, count: interrupts.vectors(kind).length }));
  const ioas = attached instanceof Ioas ? attached : attached?.ioas;
  const place = ioas && layout.place(ioas);
  const hwpt = attached === undefined || attached instanceof Ioas ? undefined : layout.hwpt(attached);
  return {
    ...identityOf(device),
    ...(place && { addressSpace: { ...place, ...(hwpt !== undefined && { hwpt }) } }),
    ...(resetMethods !== undefined && { resetMethods }),
    ...(enabled.length > 0 && { interrupts: enabled }),
  };
}
