/** Devices with an address space to be swapped, on the simulated host. @module */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { Test } from 'tap';
import type { Syscalls } from '../../../bindings/syscalls.js';
import {
  claim,
  type Device,
  type DmaArena,
  type Ioas,
  type Iommufd,
  KEEPALIVE_CHANNEL,
  type KeepAliveEvent,
  openDevice,
} from '../../../src/index.js';
import { NvmeModel, NvmeNamespaceModel } from '../../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../../src/sim/host.js';
import type { MachineProfile } from '../../../src/sim/iommu/hardware.js';

export const ADDRESS = '0000:00:04.0';
export const OTHER = '0000:00:05.0';

export interface OneDevice {
  readonly host: SimulatedHost;
  readonly model: NvmeModel;
  readonly device: Device;
  readonly space: Ioas;
}

/** A device that may do DMA. @param wrap what it has in place of the kernel */
export async function open(
  profile: MachineProfile,
  wrap = (kernel: Syscalls): Syscalls => kernel,
): Promise<OneDevice> {
  const namespaces = [new NvmeNamespaceModel({ id: 1, blockSize: 512, size: 8 * 2 ** 20 })];
  const model = new NvmeModel({ serial: 'a', namespaces });
  const host = new SimulatedHost({ profile, devices: [{ address: ADDRESS, function: model }] });
  const claimed = await claim(ADDRESS, { kernel: wrap(host.process()) });
  const device = openDevice(claimed, { noiommu: profile === 'noiommu' });
  device.config.busMaster = true;
  return { host, model, device, space: device.space as Ioas };
}

export interface TwoDevices {
  readonly host: SimulatedHost;
  readonly models: readonly [NvmeModel, NvmeModel];
  readonly first: Device;
  readonly second: Device;
  /** Of both. */
  readonly space: Ioas;
  readonly iommufd: Iommufd;
}

/**
 * Two devices with one address space.
 *
 * @param group that they are both in
 * @param wrap what they have in place of the kernel
 */
export async function openBoth(
  profile: MachineProfile,
  group?: string,
  wrap = (kernel: Syscalls): Syscalls => kernel,
): Promise<TwoDevices> {
  const models = [new NvmeModel({ serial: 'a' }), new NvmeModel({ serial: 'b' })] as const;
  const devices = [ADDRESS, OTHER].map((address, index) => ({
    address,
    function: models[index] as NvmeModel,
    ...(group !== undefined && { group }),
  }));
  const host = new SimulatedHost({ profile, devices });
  const kernel = wrap(host.process());
  // All devices of a group must be with vfio-pci before one can be opened.
  const claims = [await claim(ADDRESS, { kernel }), await claim(OTHER, { kernel })] as const;
  const noiommu = profile === 'noiommu';
  const first = openDevice(claims[0], { noiommu });
  const space = first.space as Ioas;
  const second = openDevice(claims[1], { noiommu, space });
  for (const device of [first, second]) device.config.busMaster = true;
  return { host, models, first, second, space, iommufd: space.iommufd };
}

/** The device finds what this process wrote, and the other way around. */
export function works(t: Test, model: NvmeModel, arena: DmaArena, what: string): void {
  const bytes = new Uint8Array(arena.buffer);
  const address = arena.deviceAddress(4096);
  bytes[4096] = (bytes[4096] as number) + 1;
  const found = new Uint8Array(1);
  t.ok(model.port.read(address, found) && found[0] === bytes[4096], `${what}: the device reads`);
  t.ok(model.port.write(address + 1n, Uint8Array.of(0x5a)) && bytes[4097] === 0x5a, `${what}: it writes`);
  bytes[4097] = 0;
}

/** What is published while `body` runs. */
export async function eventsOf(body: () => Promise<void>): Promise<KeepAliveEvent[]> {
  const events: KeepAliveEvent[] = [];
  const note = (event: unknown): void => void events.push(event as KeepAliveEvent);
  subscribe(KEEPALIVE_CHANNEL, note);
  try {
    await body();
  } finally {
    unsubscribe(KEEPALIVE_CHANNEL, note);
  }
  return events;
}
