/**
 * What the next kernel needs so that the devices of a saved state land in VFIO's hands and only there, whichever drivers
 * it has, and so that no other device is affected.
 *
 * - A driver that is a module takes nothing before it is loaded: a script in the initial root file system tells the
 *   device, and no other, that only vfio-pci may have it (`driver_override`).
 * - A driver that is built in takes its devices before there is any user space. Only the command line comes before it:
 *   `initcall_blacklist` keeps the driver from starting, and `vfio-pci.ids` gives its device to vfio-pci. Both are about
 *   kinds of devices, so that this is refused where another device would be affected.
 *
 * @module
 */
import { defaultKernel } from '../../../bindings/kernel.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { ENOENT } from '../../../bindings/uapi/errno.js';
import { KernelError } from '../../errors.js';
import type { PciAddress } from '../../pci/address.js';
import { readConfigFile } from '../../pci/config-file.js';
import { listPciDevices, type PciDevice } from '../../pci/devices.js';
import { type DriverModule, driverModule } from '../../pci/driver-module.js';
import { compareIdentity, type PciIdentity, readIdentity } from '../../pci/identity.js';
import { modaliasOf } from '../../pci/modalias.js';
import { devicePath, readLinkName } from '../../pci/sysfs.js';
import type { State } from '../state/saved-state.js';
import { type DriverPlace, type LandingTarget, NextKernel } from './next-kernel.js';
import type { LandingProblem } from './problem.js';
import { landingBody } from './script.js';

const VFIO_PCI = 'vfio-pci';

const SAY_WHICH =
  'say which kernel comes next and where it is installed (target; "iommufd land": --release and --root)';

/** How a device is kept for vfio-pci. */
export const LandingMethod = {
  /** By the script in the initial root file system. */
  Script: 'script',
  /** By the kernel command line alone. */
  CommandLine: 'command-line',
} as const;
export type LandingMethod = (typeof LandingMethod)[keyof typeof LandingMethod];

/** A device that is to land with VFIO. */
export interface PlannedDevice {
  readonly address: PciAddress;
  /** What it must be. */
  readonly identity: PciIdentity;
  /** Drivers that would take it. */
  readonly natives: readonly DriverModule[];
  readonly method: LandingMethod;
}

/** What the next kernel needs. */
export interface LandingPlan {
  /** The next kernel, as `uname -r` will say. */
  readonly release: string;
  readonly vfioPci: DriverPlace;
  readonly devices: readonly PlannedDevice[];
  /** What its command line must have. */
  readonly commandLine: readonly string[];
  /** What its initial root file system must run before it loads modules. */
  readonly script: string;
  /** Without the script, devices would not land. */
  readonly needsScript: boolean;
  /** Why it cannot be guaranteed; none when it can, given the command line and the script. */
  readonly problems: readonly LandingProblem[];
}

export interface PlanOptions {
  kernel?: Syscalls;
  /** The kernel that comes next; the running one once more unless told. */
  target?: LandingTarget;
}

/** Always needed: without them there is no live update, however the kernel was configured. */
const LIVE_UPDATE = ['kho=on', 'liveupdate=on'];
/** Without it vfio-pci takes no device that has no IOMMU. */
const NOIOMMU = 'vfio.enable_unsafe_noiommu_mode=1';
const NO_IDLE_D3 = 'disable_idle_d3';

/**
 * Plans the landing of every device of a state. Looks at this machine, opens no device and changes nothing.
 *
 * @throws RangeError for a release or a device that cannot be; KernelError for anyone but root, or when sysfs cannot be
 * read
 */
export function planLanding(state: State<unknown>, options: PlanOptions = {}): LandingPlan {
  const kernel = options.kernel ?? defaultKernel();
  return new Planner(kernel, new NextKernel(kernel, options.target), state).plan();
}

/** `1b36:0010:1af4:1100`, as `vfio-pci.ids` has them. */
export function idsOf(device: PciIdentity | PciDevice): string {
  const { vendorId, deviceId, subsystemVendorId, subsystemDeviceId } = device;
  return [vendorId, deviceId, subsystemVendorId, subsystemDeviceId]
    .map(id => id.toString(16).padStart(4, '0'))
    .join(':');
}

class Planner {
  readonly #kernel: Syscalls;
  readonly #next: NextKernel;
  readonly #identities: readonly PciIdentity[];
  /** Devices of this machine that are not in the state. */
  readonly #others: readonly PciDevice[];
  readonly #noiommu: boolean;
  readonly #present: ReadonlyMap<PciAddress, PciDevice>;
  readonly #problems: LandingProblem[] = [];
  readonly #blacklist = new Set<string>();
  readonly #ids = new Set<string>();

  constructor(kernel: Syscalls, next: NextKernel, state: State<unknown>) {
    this.#kernel = kernel;
    this.#next = next;
    this.#identities = state.devices;
    this.#noiommu = state.devices.some(({ translation }) => translation === 'none');
    const kept = new Set(state.devices.map(({ address }) => address));
    const devices = listPciDevices(kernel);
    this.#present = new Map(devices.map(device => [device.address, device]));
    this.#others = devices.filter(({ address }) => !kept.has(address));
  }

  plan(): LandingPlan {
    const vfioPci = this.#next.vfioPci();
    if (vfioPci === 'absent') {
      this.#refuse(
        undefined,
        `kernel ${this.#next.release} has no vfio-pci, as far as ${this.#next.tables} tells`,
        `Configure it with CONFIG_VFIO_PCI, or ${SAY_WHICH}`,
      );
    }
    const losing = this.#identities.filter(({ address }) => this.#check(address));
    const devices = this.#identities.map(identity => this.#device(identity, vfioPci));
    // The script sees to it that a device keeps its power, whatever the platform would do with one that sleeps.
    const powerless = devices.filter(({ method }) => method === LandingMethod.CommandLine);
    const losers = new Set([...losing, ...powerless].map(({ address }) => address));
    return {
      release: this.#next.release,
      vfioPci,
      devices,
      commandLine: [
        ...(this.#blacklist.size > 0 ? [`initcall_blacklist=${[...this.#blacklist].join(',')}`] : []),
        ...(this.#ids.size > 0 ? [`${VFIO_PCI}.ids=${[...this.#ids].join(',')}`] : []),
        ...(losers.size > 0 ? [this.#noIdleD3(losers)] : []),
        ...(this.#noiommu ? [NOIOMMU] : []),
        ...LIVE_UPDATE,
      ],
      script: landingBody(this.#identities),
      needsScript: devices.some(({ method }) => method === LandingMethod.Script),
      problems: this.#problems,
    };
  }

  #refuse(device: PciAddress | undefined, problem: string, remedy: string): void {
    this.#problems.push({ ...(device !== undefined && { device }), problem, remedy });
  }

  /** Looks at the device as it is now. @returns whether it may lose its state while nobody has it open */
  #check(address: PciAddress): boolean {
    const expected = this.#identities.find(each => each.address === address) as PciIdentity;
    let found: PciIdentity;
    try {
      found = readIdentity(address, this.#kernel);
    } catch (error) {
      if (!(error instanceof KernelError) || error.errno !== ENOENT) throw error;
      this.#refuse(address, 'there is no such device in this machine', 'Plan on the machine that it is in');
      return true;
    }
    const differences = compareIdentity(expected, found);
    if (differences.length > 0) {
      const list = differences.map(each => `${each.property} is ${each.found}, not ${each.expected}`);
      this.#refuse(address, `it is not the device that was saved: ${list.join(', ')}`, 'Start it cold');
    }
    this.#checkPlace(address);
    return readConfigFile(this.#kernel, address)?.losesStateInD3 ?? true;
  }

  /** A device that only appears when some driver has started appears after the script, and to whoever is faster. */
  #checkPlace(address: PciAddress): void {
    if (readLinkName(this.#kernel, address, 'physfn') !== undefined) {
      this.#refuse(
        address,
        'it is a virtual function, which is there only once the driver of its physical function has made it',
        'Do not keep virtual functions over a kexec',
      );
    }
    const path = this.#kernel.readLink(devicePath(address));
    if (typeof path !== 'string' || /\/devices\/pci[0-9a-f]+:[0-9a-f]+\/(?!.*\/pci[0-9a-f]+:)/.test(path))
      return;
    this.#refuse(
      address,
      'its bus is there only once a driver has started (a host bridge such as Intel VMD)',
      'Do not keep devices on such a bus over a kexec',
    );
  }

  #noIdleD3(losers: Iterable<PciAddress>): string {
    if (this.#next.lacksVfioParameter(NO_IDLE_D3)) {
      for (const address of losers) {
        this.#refuse(
          address,
          `it may lose its state asleep, and vfio-pci of kernel ${this.#next.release} puts devices to sleep that nobody has open`,
          `Use a kernel of which vfio-pci has the parameter ${NO_IDLE_D3}`,
        );
      }
    }
    return `${VFIO_PCI}.${NO_IDLE_D3}=1`;
  }

  #device(identity: PciIdentity, vfioPci: DriverPlace): PlannedDevice {
    const natives = this.#nativesOf(identity);
    const builtIn = natives.filter(native => native.builtIn);
    for (const { module } of builtIn) this.#keepFromStarting(identity.address, module);
    if (builtIn.length > 0) this.#giveByIds(identity);
    // Modules come after the script. Nothing comes before a vfio-pci that is built in and told what to take.
    const byCommandLine = builtIn.length > 0 && vfioPci === 'built-in';
    return {
      address: identity.address,
      identity,
      natives,
      method: byCommandLine ? LandingMethod.CommandLine : LandingMethod.Script,
    };
  }

  /** What drivers would take the device in the next kernel. */
  #nativesOf(identity: PciIdentity): DriverModule[] {
    const listed = this.#next.driversOf(modaliasOf(identity));
    const seen = this.#next.isRunning ? this.#driversSeen(identity) : [];
    if (listed === undefined && seen.length === 0) {
      this.#refuse(
        identity.address,
        `it is unknown which drivers of kernel ${this.#next.release} would take it: ` +
          `${this.#next.tables} has no modules.alias and modules.builtin.modinfo`,
        `If that is not the one, ${SAY_WHICH}`,
      );
    }
    return [...new Map([...seen, ...(listed ?? [])].map(native => [native.module, native])).values()];
  }

  /** The drivers that devices of just this kind have now. */
  #driversSeen(identity: PciIdentity): DriverModule[] {
    const modalias = modaliasOf(identity);
    return [...this.#present.values()]
      .filter(device => device.driver !== undefined && device.driver !== VFIO_PCI)
      .filter(device => modaliasOf(device) === modalias)
      .map(device => driverModule(this.#kernel, device.driver as string));
  }

  /** Keeps a built-in driver from starting, where nothing else needs it. */
  #keepFromStarting(address: PciAddress, module: string): void {
    const needy = this.#others.filter(other => this.#isFor(module, other)).map(other => other.address);
    if (needy.length > 0) {
      this.#refuse(
        address,
        `the driver ${module} is built into kernel ${this.#next.release} and would take it before anything can ` +
          `tell it not to, and it cannot be kept from starting, which would take it from ${needy.join(', ')}`,
        `Use a kernel that has ${module} as a module`,
      );
      return;
    }
    if (this.#next.lacksSymbols) {
      this.#refuse(
        address,
        `the driver ${module} is built into kernel ${this.#next.release}, which has no CONFIG_KALLSYMS, without which ` +
          'initcall_blacklist has no effect',
        `Use a kernel that has ${module} as a module`,
      );
      return;
    }
    const initcalls = this.#next.initcallsOf(module);
    if (initcalls.length === 0) {
      this.#refuse(
        address,
        `the driver ${module} is built into kernel ${this.#next.release}, and it is not known for certain which ` +
          'function starts it, for initcall_blacklist to name',
        `Use a kernel that has ${module} as a module, or put its System.map into ${this.#next.tables}`,
      );
    }
    for (const initcall of initcalls) this.#blacklist.add(initcall);
  }

  #isFor(module: string, device: PciDevice): boolean {
    if (this.#next.driversOf(modaliasOf(device))?.some(driver => driver.module === module)) return true;
    return device.driver !== undefined && driverModule(this.#kernel, device.driver).module === module;
  }

  #giveByIds(identity: PciIdentity): void {
    const ids = idsOf(identity);
    const alike = this.#others.filter(other => idsOf(other) === ids).map(other => other.address);
    if (alike.length > 0) {
      this.#refuse(
        identity.address,
        `vfio-pci can be told at boot to take it only by its ids ${ids}, and would take ${alike.join(', ')}, too`,
        'Use a kernel that has its driver as a module',
      );
      return;
    }
    this.#ids.add(ids);
  }
}
