/** What the command line of a simulated kernel says, as far as the simulation has it. @module */
import type { MachineProfile } from './iommu/hardware.js';
import type { DriverOptions } from './pci/bus.js';

/** A kernel that is told nothing special, on a machine of a profile. */
export function usualCommandLine(profile: MachineProfile): string {
  const parameters = ['console=ttyS0'];
  if (profile !== 'legacy') parameters.push('liveupdate=on');
  if (profile === 'noiommu') parameters.push('vfio.enable_unsafe_noiommu_mode=1');
  return parameters.join(' ');
}

/** A command line, and on it what the options say. */
export function withDrivers(commandLine: string, { vfioPciIds, blacklist }: DriverOptions): string {
  const parameters = [commandLine];
  if (vfioPciIds !== undefined) parameters.push(`vfio-pci.ids=${vfioPciIds.join(',')}`);
  if (blacklist !== undefined) parameters.push(`module_blacklist=${blacklist.map(moduleName).join(',')}`);
  return parameters.join(' ');
}

export interface KernelParameters extends Required<Pick<DriverOptions, 'vfioPciIds' | 'blacklist'>> {
  /** `liveupdate=on`: there is a `/dev/liveupdate`, and what the kernel before has preserved. */
  readonly liveUpdate: boolean;
  /** `vfio.enable_unsafe_noiommu_mode=1` */
  readonly unsafeNoiommu: boolean;
  /** `vfio_pci.disable_idle_d3=1` */
  readonly disableIdleD3: boolean;
}

/** The name of a driver's module. */
export function moduleName(driver: string): string {
  return driver.replaceAll('-', '_');
}

/** Drivers by what may keep them from coming: their module, and the function that it begins with. */
const byModule: Readonly<Record<string, string>> = { nvme: 'nvme', vfio_pci: 'vfio-pci' };
const byInitcall: Readonly<Record<string, string>> = { nvme_init: 'nvme', vfio_pci_init: 'vfio-pci' };

export function parseCommandLine(commandLine: string): KernelParameters {
  const values = new Map<string, string | undefined>();
  const initcalls: string[] = [];
  for (const word of words(commandLine)) {
    // What follows is for init.
    if (word === '--') break;
    const at = word.indexOf('=');
    // In names, either dash is as good as the other.
    const name = moduleName(at < 0 ? word : word.slice(0, at));
    const value = at < 0 ? undefined : word.slice(at + 1);
    // Initcalls add up; of everything else the last one holds.
    if (name === 'initcall_blacklist') initcalls.push(...list(value));
    else values.set(name, value);
  }
  const drivers = [
    ...list(values.get('module_blacklist')).map(each => byModule[each]),
    ...initcalls.map(each => byInitcall[each]),
  ];
  return {
    vfioPciIds: list(values.get('vfio_pci.ids')),
    blacklist: drivers.filter(driver => driver !== undefined),
    liveUpdate: isTrue(values.get('liveupdate')),
    unsafeNoiommu: isSet(values, 'vfio.enable_unsafe_noiommu_mode'),
    disableIdleD3: isSet(values, 'vfio_pci.disable_idle_d3'),
  };
}

/** Quotes keep spaces together, and are no part of the value. */
function words(commandLine: string): string[] {
  const found = commandLine.match(/(?:"[^"]*"?|[^\s"])+/g) ?? [];
  return found.map(word => word.replaceAll('"', ''));
}

function list(value: string | undefined): string[] {
  return (value ?? '').split(',').filter(each => each !== '');
}

/** kstrtobool */
function isTrue(value: string | undefined): boolean {
  return value !== undefined && /^(?:[1yt]|on)/i.test(value);
}

/** A parameter of a module counts as set when it has no value. */
function isSet(values: ReadonlyMap<string, string | undefined>, name: string): boolean {
  return values.has(name) && isTrue(values.get(name) ?? '1');
}
