/**
 * A machine's PCI devices in a file tree held in memory, with what the kernel does when `driver_override`, `unbind`
 * and `drivers_probe` are written.
 *
 * @module
 */
import { posix } from 'node:path';
import type { SyscallResult } from '../../../bindings/syscalls.js';
import { EACCES, EINVAL, EISDIR, ELOOP, ENODEV, ENOENT, ENOTDIR } from '../../../bindings/uapi/errno.js';
import { DelegatingKernel } from './delegating-kernel.js';

type Directory = Map<string, Node>;
type Node =
  | { readonly kind: 'directory'; readonly entries: Directory }
  | { readonly kind: 'file'; text: string }
  | { readonly kind: 'link'; readonly target: string };

/** How VFIO offers a device that vfio-pci has. */
export type Offer = 'cdev' | 'noiommu-cdev' | 'group' | 'noiommu-group' | 'nothing';

export interface FakeDeviceOptions {
  /** Drivers that match it, the first of which takes it. */
  drivers?: readonly string[];
  /** The driver that has it at first; the first that matches, unless given. `null` for none. */
  bound?: string | null;
  /** What `driver_override` says at first. */
  override?: string;
  group?: number | undefined;
  offer?: Offer;
  /** Attributes beyond, or instead of, the usual ones; `undefined` leaves one out. */
  attributes?: Readonly<Record<string, string | undefined>>;
}

interface FakeDevice {
  readonly address: string;
  readonly path: string;
  readonly drivers: readonly string[];
  readonly offer: Offer;
  readonly number: number;
  override: string | undefined;
}

export class FakeSysfs extends DelegatingKernel {
  /** Every write, in order. */
  readonly writes: [path: string, text: string][] = [];
  /** What access to a path is refused with. */
  readonly denied: {
    readonly pattern: RegExp;
    readonly call: 'write' | 'access' | 'read';
    readonly errno: number;
  }[] = [];
  /** Drivers that give up a device they probe. */
  readonly refusing = new Set<string>();
  /** Called after each write. */
  onWrite: ((path: string) => void) | undefined;
  readonly #root: Directory = new Map();
  readonly #devices = new Map<string, FakeDevice>();

  constructor(drivers: readonly string[] = ['vfio-pci', 'nvme']) {
    super();
    this.directory('/sys/bus/pci/devices');
    this.file('/sys/bus/pci/drivers_probe', '');
    for (const driver of drivers) {
      this.file(`/sys/bus/pci/drivers/${driver}/bind`, '');
      this.file(`/sys/bus/pci/drivers/${driver}/unbind`, '');
      this.file(`/sys/bus/pci/drivers/${driver}/new_id`, '');
    }
    this.directory('/sys/kernel/iommu_groups');
    this.directory('/dev/vfio/devices');
    this.file('/proc/self/mountinfo', '22 1 0:21 / /proc rw - proc proc rw\n');
  }

  // The tree

  directory(path: string): Directory {
    let entries = this.#root;
    for (const name of path.split('/').filter(Boolean)) {
      let next = entries.get(name);
      if (!next) {
        next = { kind: 'directory', entries: new Map() };
        entries.set(name, next);
      }
      if (next.kind !== 'directory') throw new Error(`${path}: ${name} is no directory`);
      entries = next.entries;
    }
    return entries;
  }

  file(path: string, text: string): void {
    this.directory(posix.dirname(path)).set(posix.basename(path), { kind: 'file', text });
  }

  link(path: string, target: string): void {
    this.directory(posix.dirname(path)).set(posix.basename(path), { kind: 'link', target });
  }

  remove(path: string): void {
    this.directory(posix.dirname(path)).delete(posix.basename(path));
  }

  /** Follows links, the last one only when told. Gives the node and where it really is. */
  #resolve(path: string, follow: boolean, depth = 0): { node: Node; path: string } | SyscallResult {
    if (depth > 40) return -ELOOP;
    let node: Node = { kind: 'directory', entries: this.#root };
    let at = '/';
    const parts = path.split('/').filter(Boolean);
    for (const [index, name] of parts.entries()) {
      if (node.kind !== 'directory') return -ENOTDIR;
      const next = node.entries.get(name);
      if (!next) return -ENOENT;
      const rest = parts.slice(index + 1);
      if (next.kind === 'link' && (follow || rest.length > 0)) {
        return this.#resolve(posix.join(posix.resolve(at, next.target), ...rest), follow, depth + 1);
      }
      node = next;
      at = posix.join(at, name);
    }
    return { node, path: at };
  }

  #denied(path: string, call: 'write' | 'access' | 'read'): SyscallResult {
    const found = this.denied.find(entry => entry.call === call && entry.pattern.test(path));
    return found ? -found.errno : 0;
  }

  override readText(path: string): string | SyscallResult {
    this.calls.push('readText');
    const refused = this.#denied(path, 'read');
    if (refused) return refused;
    const found = this.#resolve(path, true);
    if (typeof found === 'number') return found;
    return found.node.kind === 'file' ? found.node.text : -EISDIR;
  }

  /** Files below /sys and /proc come from the tree, a byte for each character; all others are those of this machine. */
  protected override openFile(path: string, flags: number): SyscallResult {
    if (!/^\/(?:sys|proc)\//.test(path)) return super.openFile(path, flags);
    const refused = this.#denied(path, 'read');
    if (refused) return refused;
    const found = this.#resolve(path, true);
    if (typeof found === 'number') return found;
    if (found.node.kind !== 'file') return -EISDIR;
    const fd = this.real.memfdCreate('sysfs', 0);
    if (fd < 0) throw new Error(`no memfd for ${path}`);
    const bytes = Buffer.from(found.node.text, 'latin1');
    if (bytes.length > 0) this.real.pwrite(fd, bytes, 0);
    return fd;
  }

  override readDirectory(path: string): string[] | SyscallResult {
    this.calls.push('readDirectory');
    const refused = this.#denied(path, 'read');
    if (refused) return refused;
    const found = this.#resolve(path, true);
    if (typeof found === 'number') return found;
    return found.node.kind === 'directory' ? [...found.node.entries.keys()].sort() : -ENOTDIR;
  }

  override readLink(path: string): string | SyscallResult {
    this.calls.push('readLink');
    const refused = this.#denied(path, 'read');
    if (refused) return refused;
    const found = this.#resolve(path, false);
    if (typeof found === 'number') return found;
    return found.node.kind === 'link' ? found.node.target : -EINVAL;
  }

  override access(path: string, mode: number): SyscallResult {
    this.calls.push('access');
    const found = this.#resolve(path, true);
    if (typeof found === 'number') return found;
    return mode === 0 ? 0 : this.#denied(path, 'access');
  }

  override writeText(path: string, text: string): SyscallResult {
    this.calls.push('writeText');
    const refused = this.#denied(path, 'write');
    if (refused) return refused;
    const found = this.#resolve(path, true);
    if (typeof found === 'number') return found;
    if (found.node.kind !== 'file') return -EISDIR;
    this.writes.push([path, text]);
    const result = this.#store(found.path, found.node, text);
    this.onWrite?.(path);
    return result < 0 ? result : text.length;
  }

  // The kernel's reactions

  #store(path: string, file: { text: string }, text: string): SyscallResult {
    const name = posix.basename(path);
    const line = text.split('\n')[0] as string;
    if (path === '/sys/bus/pci/drivers_probe') {
      const device = this.#devices.get(line);
      if (!device) return -ENODEV;
      this.#probe(device);
      return 0;
    }
    if (name === 'unbind') {
      const device = this.#devices.get(line);
      if (!device || this.driverOf(line) !== posix.basename(posix.dirname(path))) return -ENODEV;
      this.#unbind(device);
      return 0;
    }
    if (name === 'driver_override') {
      // driver_set_override(): up to the first line end; nothing takes the override away.
      const device = this.#devices.get(posix.basename(posix.dirname(path)));
      if (!device) return -ENODEV;
      device.override = line === '' ? undefined : line;
      file.text = `${device.override ?? '(null)'}\n`;
      return 0;
    }
    if (['bind', 'new_id'].includes(name)) return -EACCES;
    file.text = text;
    return 0;
  }

  #probe(device: FakeDevice): void {
    if (this.driverOf(device.address) !== undefined) return;
    const candidates = device.override === undefined ? device.drivers : [device.override];
    const driver = candidates.find(
      name =>
        typeof this.#resolve(`/sys/bus/pci/drivers/${name}`, true) !== 'number' && !this.refusing.has(name),
    );
    if (driver !== undefined) this.#bind(device, driver);
  }

  #bind(device: FakeDevice, driver: string): void {
    this.link(`${device.path}/driver`, `../../../bus/pci/drivers/${driver}`);
    this.link(
      `/sys/bus/pci/drivers/${driver}/${device.address}`,
      `../../../../devices/pci0000:00/${device.address}`,
    );
    if (driver === 'vfio-pci') this.offer(device.address);
  }

  #unbind(device: FakeDevice): void {
    const driver = this.driverOf(device.address) as string;
    this.remove(`${device.path}/driver`);
    this.remove(`/sys/bus/pci/drivers/${driver}/${device.address}`);
    if (driver === 'vfio-pci') this.#retract(device);
  }

  /** Makes the files of VFIO appear, as they do when vfio-pci has taken a device. */
  offer(address: string, offer = (this.#devices.get(address) as FakeDevice).offer): void {
    const device = this.#devices.get(address) as FakeDevice;
    const group = this.groupOf(address);
    const name = `${offer.startsWith('noiommu') ? 'noiommu-' : ''}vfio${device.number}`;
    switch (offer) {
      case 'cdev':
      case 'noiommu-cdev':
        this.file(`${device.path}/vfio-dev/${name}/dev`, `511:${device.number}\n`);
        this.file(`/dev/vfio/devices/${name}`, '');
        return;
      case 'group':
      case 'noiommu-group':
        // A kernel without character devices has the directory, but no device number in it.
        this.directory(`${device.path}/vfio-dev/${name}`);
        this.file(`/dev/vfio/${offer === 'group' ? '' : 'noiommu-'}${group}`, '');
        if (offer === 'noiommu-group') this.file(`/sys/kernel/iommu_groups/${group}/name`, 'vfio-noiommu\n');
        return;
      case 'nothing':
    }
  }

  #retract(device: FakeDevice): void {
    this.remove(`${device.path}/vfio-dev`);
    const group = this.groupOf(device.address);
    for (const name of [
      `devices/vfio${device.number}`,
      `devices/noiommu-vfio${device.number}`,
      group,
      `noiommu-${group}`,
    ]) {
      this.remove(`/dev/vfio/${name}`);
    }
  }

  // Devices

  /** Adds a device; gives its directory. */
  device(address: string, options: FakeDeviceOptions = {}): string {
    const path = `/sys/devices/pci0000:00/${address}`;
    const drivers = options.drivers ?? ['nvme'];
    const number = this.#devices.size;
    const device = {
      address,
      path,
      drivers,
      offer: options.offer ?? 'cdev',
      number,
      override: options.override,
    };
    this.#devices.set(address, device);
    this.link(`/sys/bus/pci/devices/${address}`, `../../../devices/pci0000:00/${address}`);
    const attributes: Record<string, string | undefined> = {
      vendor: '0x1b36',
      device: '0x0010',
      subsystem_vendor: '0x1af4',
      subsystem_device: '0x1100',
      class: '0x010802',
      revision: '0x02',
      numa_node: '-1',
      resource: '0x0000000000000000 0x0000000000000000 0x0000000000000000',
      driver_override: options.override ?? '(null)',
      ...options.attributes,
    };
    this.directory(path);
    for (const [name, text] of Object.entries(attributes)) {
      if (text !== undefined) this.file(`${path}/${name}`, `${text}\n`);
    }
    if (options.group !== undefined) {
      this.link(`${path}/iommu_group`, `../../../kernel/iommu_groups/${options.group}`);
      this.link(
        `/sys/kernel/iommu_groups/${options.group}/devices/${address}`,
        `../../../../devices/pci0000:00/${address}`,
      );
      this.file(`/sys/kernel/iommu_groups/${options.group}/type`, 'DMA\n');
    }
    const bound = options.bound === undefined ? drivers[0] : options.bound;
    if (bound) this.#bind(device, bound);
    return path;
  }

  /** Removes a device from the machine. */
  leave(address: string): void {
    const driver = this.driverOf(address);
    if (driver !== undefined) this.remove(`/sys/bus/pci/drivers/${driver}/${address}`);
    this.remove(`/sys/bus/pci/devices/${address}`);
    this.remove(`/sys/devices/pci0000:00/${address}`);
    this.#devices.delete(address);
  }

  /** The driver that has a device. */
  driverOf(address: string): string | undefined {
    const target = this.#link(`/sys/bus/pci/devices/${address}/driver`);
    return target === undefined ? undefined : posix.basename(target);
  }

  groupOf(address: string): string | undefined {
    const target = this.#link(`/sys/bus/pci/devices/${address}/iommu_group`);
    return target === undefined ? undefined : posix.basename(target);
  }

  #link(path: string): string | undefined {
    const found = this.#resolve(path, false);
    return typeof found === 'number' || found.node.kind !== 'link' ? undefined : found.node.target;
  }

  /** What a claim must leave behind as it found it. */
  state(address: string): { driver: string | undefined; override: string | undefined } {
    return { driver: this.driverOf(address), override: this.#devices.get(address)?.override };
  }
}
