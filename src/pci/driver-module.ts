/** Where the running kernel has a driver from. @module */
import { posix } from 'node:path';
import type { Syscalls } from '../../bindings/syscalls.js';

/** A driver, by the module that it is in or would be in. */
export interface DriverModule {
  /** With `_` for `-`. */
  readonly module: string;
  readonly builtIn: boolean;
}

/** As the kernel writes names of modules. */
export const moduleName = (name: string): string => name.replaceAll('-', '_');

/** @param driver a PCI driver that is registered */
export function driverModule(kernel: Syscalls, driver: string): DriverModule {
  const target = kernel.readLink(`/sys/bus/pci/drivers/${driver}/module`);
  const module = moduleName(typeof target === 'string' ? posix.basename(target) : driver);
  // Only what was loaded has a state.
  return { module, builtIn: kernel.access(`/sys/module/${module}/initstate`, 0) !== 0 };
}
