/** Where a PCI device lives in sysfs, and how its attributes are read and written. @module */
import { posix } from 'node:path';
import type { Syscalls } from '../../bindings/syscalls.js';
import { ENOENT } from '../../bindings/uapi/errno.js';
import { KernelError } from '../errors.js';
import type { PciAddress } from './address.js';

export const PCI_DEVICES = '/sys/bus/pci/devices';

export function devicePath(address: PciAddress): string {
  return `${PCI_DEVICES}/${address}`;
}

/** @throws KernelError (ENOENT, with a hint) when there is no such device. */
export function requireDevice(kernel: Syscalls, address: PciAddress): void {
  const path = devicePath(address);
  const found = kernel.readLink(path);
  if (typeof found === 'number') throw new KernelError(-found, { syscall: 'readlink', path });
}

/** An attribute's text without the line end, or `undefined` when it does not exist. */
export function readAttribute(kernel: Syscalls, address: PciAddress, name: string): string | undefined {
  const path = `${devicePath(address)}/${name}`;
  const text = kernel.readText(path);
  if (typeof text === 'string') return text.trim();
  if (text === -ENOENT) return undefined;
  throw new KernelError(-text, { syscall: 'read', path });
}

/** The last part of a symbolic link's target, or `undefined` when there is no link. */
export function readLinkName(kernel: Syscalls, address: PciAddress, name: string): string | undefined {
  const path = `${devicePath(address)}/${name}`;
  const target = kernel.readLink(path);
  if (typeof target === 'string') return posix.basename(target);
  if (target === -ENOENT) return undefined;
  throw new KernelError(-target, { syscall: 'readlink', path });
}

/** Writes a sysfs file. */
export function writeSysfs(kernel: Syscalls, path: string, text: string, hint?: string): void {
  const result = kernel.writeText(path, text);
  if (result < 0) {
    throw new KernelError(-result, {
      syscall: 'write',
      path,
      args: { text: text.trim() },
      ...(hint !== undefined && { hint }),
    });
  }
}
