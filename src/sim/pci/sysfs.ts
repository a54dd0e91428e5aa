/** The part of `/sys` that shows the PCI bus: devices, drivers, IOMMU groups. @module */
import { posix } from 'node:path';
import { EINVAL } from '../../../bindings/uapi/errno.js';
import { constant, type Directory, link, type TextNode } from '../process/file-tree.js';
import { configNode } from './config-file.js';
import { barFlags } from './config-space.js';
import type { RootPort } from './root-port.js';
import type { PciSlot } from './slot.js';

/** include/linux/ioport.h */
const RESOURCE = { io: 0x100, memory: 0x200, prefetch: 0x2000, alignedToSize: 0x4_0000, is64Bit: 0x10_0000 };
/** BARs, expansion ROM, and what virtual functions have. */
const RESOURCE_LINES = 13;
/** The major number of `/dev/vfio/devices/*`, which the kernel chooses. */
const VFIO_MAJOR = 249;

/** As kstrtoul reads numbers. */
const IS_ONE = /^\+?(?:0x)?0*1\n?$/i;

const ROOT_BUS = '/sys/devices/pci0000:00';
const BUS = '/sys/bus/pci';
const MODULES = '/sys/module';
const GROUPS = '/sys/kernel/iommu_groups';

/** What the attributes of a device that can be written do. */
export interface DeviceControls {
  readonly driverOverride: TextNode;
}

/** An attribute that can be written; nothing comes of a write of no bytes. */
export function attribute(write: (text: string) => number, read?: () => string): TextNode {
  return {
    kind: 'text',
    ...(read !== undefined && { read }),
    write: (_process, text) => (text === '' ? 0 : write(text)),
  };
}

function hex(value: number, digits: number): string {
  return `0x${value.toString(16).padStart(digits, '0')}`;
}

function resourceLine(start: bigint, end: bigint, flags: number): string {
  return [start, end, BigInt(flags)].map(value => `0x${value.toString(16).padStart(16, '0')}`).join(' ');
}

function resources(slot: PciSlot): string {
  const lines = Array.from({ length: RESOURCE_LINES }, () => resourceLine(0n, 0n, 0));
  for (const bar of slot.device.bars) {
    const start = slot.barAddresses.get(bar.index) ?? 0n;
    const low = barFlags(bar);
    const flags =
      bar.kind === 'io'
        ? RESOURCE.io
        : RESOURCE.memory + (bar.is64Bit ? RESOURCE.is64Bit : 0) + (bar.prefetchable ? RESOURCE.prefetch : 0);
    lines[bar.index] = resourceLine(
      start,
      start + BigInt(bar.size) - 1n,
      flags + low + RESOURCE.alignedToSize,
    );
  }
  return lines.join('\n');
}

/** What modprobe finds a driver by. */
function modalias({ device: { identity } }: PciSlot): string {
  const digits = (value: number, count: number): string =>
    value.toString(16).toUpperCase().padStart(count, '0');
  const { vendorId, deviceId, subsystemVendorId, subsystemDeviceId, classCode } = identity;
  const [base, subclass, programming] = [classCode >> 16, (classCode >> 8) & 0xff, classCode & 0xff];
  return [
    `pci:v${digits(vendorId, 8)}d${digits(deviceId, 8)}`,
    `sv${digits(subsystemVendorId, 8)}sd${digits(subsystemDeviceId, 8)}`,
    `bc${digits(base, 2)}sc${digits(subclass, 2)}i${digits(programming, 2)}`,
  ].join('');
}

/** The path of a device's directory. */
export function devicePath(address: string, port: RootPort | undefined): string {
  return port === undefined ? `${ROOT_BUS}/${address}` : `${ROOT_BUS}/${port.address}/${address}`;
}

/** Where the IOMMU itself is: that of AMD is a PCI device. */
function iommuPath(driver: string): string {
  return driver === 'amd' ? `${ROOT_BUS}/0000:00:01.0/iommu/ivhd0` : '/sys/devices/virtual/iommu/dmar0';
}

export class PciSysfs {
  readonly #root: Directory;

  constructor(root: Directory) {
    this.#root = root;
    for (const path of [`${BUS}/devices`, `${BUS}/drivers`, ROOT_BUS, GROUPS]) root.directory(path);
  }

  /** Puts a link into the directory `at`, by the way that the kernel's links take. */
  #link(at: string, name: string, target: string): void {
    this.#root.directory(at).set(name, link(posix.relative(at, target)));
  }

  addDevice(slot: PciSlot, controls: DeviceControls): void {
    const path = devicePath(slot.address, slot.port);
    const directory = this.#root.directory(path);
    const { identity } = slot.device;
    const attributes: Readonly<Record<string, string>> = {
      vendor: hex(identity.vendorId, 4),
      device: hex(identity.deviceId, 4),
      subsystem_vendor: hex(identity.subsystemVendorId, 4),
      subsystem_device: hex(identity.subsystemDeviceId, 4),
      class: hex(identity.classCode, 6),
      revision: hex(identity.revision, 2),
      resource: resources(slot),
      modalias: modalias(slot),
    };
    for (const [name, text] of Object.entries(attributes)) directory.set(name, constant(text));
    if (!slot.iommu.noiommu) this.#link(path, 'iommu', iommuPath(slot.iommu.driver));
    directory.set('driver_override', controls.driverOverride);
    directory.set('config', configNode(path, slot));
    // They are there for a function that can be reset, and stay when its methods are taken away.
    if (slot.resetMethods.supported.length > 0) {
      directory
        .set(
          'reset_method',
          attribute(
            text => slot.resetMethods.store(text),
            () => slot.resetMethods.show(),
          ),
        )
        .set(
          'reset',
          attribute(text => (IS_ONE.test(text) ? slot.reset() : -EINVAL)),
        );
    }
    this.#link(path, 'subsystem', BUS);
    this.#link(`${BUS}/devices`, slot.address, path);
    if (!slot.iommu.noiommu) this.setGroup(slot, slot.iommu.group.id, undefined);
  }

  addPort(port: RootPort): void {
    const path = devicePath(port.address, undefined);
    const directory = this.#root.directory(path);
    const lines = Array.from({ length: RESOURCE_LINES + 4 }, () => resourceLine(0n, 0n, 0));
    const flags = RESOURCE.memory + RESOURCE.alignedToSize;
    lines[0] = resourceLine(port.barAddress, port.barAddress + 0xfffn, flags);
    const attributes: Readonly<Record<string, string>> = {
      vendor: '0x1b36',
      device: '0x000c',
      subsystem_vendor: '0x1b36',
      subsystem_device: '0x0000',
      class: '0x060400',
      revision: '0x00',
      resource: lines.join('\n'),
      driver_override: '(null)',
      secondary_bus_number: String(port.bus),
      subordinate_bus_number: String(port.bus),
    };
    for (const [name, text] of Object.entries(attributes)) directory.set(name, constant(text));
    this.#link(path, 'subsystem', BUS);
    this.#link(`${BUS}/devices`, port.address, path);
    this.#root.directory(`${BUS}/drivers/pcieport`);
    this.#link(path, 'driver', `${BUS}/drivers/pcieport`);
    this.#link(`${BUS}/drivers/pcieport`, port.address, path);
    if (port.iommu !== undefined && !port.iommu.noiommu) {
      this.#setGroup(port.address, path, port.iommu.group.id, undefined);
    }
  }

  removeDevice(slot: PciSlot): void {
    const path = devicePath(slot.address, slot.port);
    if (!slot.iommu.noiommu) this.clearGroup(slot, slot.iommu.group.id);
    this.#root.directory(`${BUS}/devices`).delete(slot.address);
    this.#root.directory(posix.dirname(path)).delete(slot.address);
  }

  /** @param module the module that it comes with, loaded by now; undefined for one that is part of the kernel */
  addDriver(
    name: string,
    module: string | undefined,
    controls: { readonly bind: TextNode; readonly unbind: TextNode },
  ): void {
    const path = `${BUS}/drivers/${name}`;
    this.#root.directory(path).set('bind', controls.bind).set('unbind', controls.unbind);
    if (module === undefined) return;
    this.#root.directory(`${MODULES}/${module}`).set('initstate', constant('live'));
    this.#link(path, 'module', `${MODULES}/${module}`);
    this.#link(`${MODULES}/${module}/drivers`, `pci:${name}`, path);
  }

  setProbe(probe: TextNode): void {
    this.#root.directory(BUS).set('drivers_probe', probe);
  }

  setParameter(module: string, name: string, parameter: TextNode): void {
    this.#root.directory(`${MODULES}/${module}/parameters`).set(name, parameter);
  }

  bound(slot: PciSlot, driver: string): void {
    const path = devicePath(slot.address, slot.port);
    this.#link(path, 'driver', `${BUS}/drivers/${driver}`);
    this.#link(`${BUS}/drivers/${driver}`, slot.address, path);
  }

  unbound(slot: PciSlot, driver: string): void {
    this.#root.directory(devicePath(slot.address, slot.port)).delete('driver');
    this.#root.directory(`${BUS}/drivers/${driver}`).delete(slot.address);
  }

  /** @param name of the group, which only those have that stand for the absence of an IOMMU */
  setGroup(slot: PciSlot, group: number, name: string | undefined): void {
    this.#setGroup(slot.address, devicePath(slot.address, slot.port), group, name);
  }

  #setGroup(address: string, path: string, group: number, name: string | undefined): void {
    const directory = `${GROUPS}/${group}`;
    this.#link(path, 'iommu_group', directory);
    this.#link(`${directory}/devices`, address, path);
    if (name !== undefined) this.#root.directory(directory).set('name', constant(name));
  }

  clearGroup(slot: PciSlot, group: number): void {
    this.#root.directory(devicePath(slot.address, slot.port)).delete('iommu_group');
    const devices = this.#root.directory(`${GROUPS}/${group}/devices`);
    devices.delete(slot.address);
    if (devices.names().length === 0) this.#root.directory(GROUPS).delete(String(group));
  }

  /**
   * Shows how vfio-pci offers the device.
   *
   * @param cdev it has a file of its own
   */
  setVfio(slot: PciSlot, name: string, index: number, cdev: boolean): void {
    const directory = this.#root.directory(`${devicePath(slot.address, slot.port)}/vfio-dev/${name}`);
    if (cdev) directory.set('dev', constant(`${VFIO_MAJOR}:${index}`));
  }

  clearVfio(slot: PciSlot): void {
    this.#root.directory(devicePath(slot.address, slot.port)).delete('vfio-dev');
  }
}
