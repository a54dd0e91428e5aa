/**
 * Configuration space through sysfs: of any device, whoever has it, without opening it. Unlike what VFIO shows, nothing
 * in it is virtual.
 *
 * @module
 */
import type { Syscalls } from '../../bindings/syscalls.js';
import { EACCES, ENOENT } from '../../bindings/uapi/errno.js';
import { KernelError } from '../errors.js';
import { check } from '../ioctl.js';
import { CapabilityId, type ConfigReader, findCapability } from '../vfio/config-space.js';
import type { PciAddress } from './address.js';
import { devicePath } from './sysfs.js';

const O_RDONLY = 0;
/** Of a conventional PCI function, and of PCI Express. */
const CONVENTIONAL = 256;
const EXPRESS = 4096;

/** Id of the extended capability Device Serial Number (PCI Express Base Specification 6.0, 7.9.3). */
const SERIAL_NUMBER = 0x0003;
/** Offsets in capabilities, in bytes. */
const SERIAL_LOW = 4;
const SERIAL_HIGH = 8;
const POWER_CONTROL = 4;
/** Of the power management control and status register (7.5.2.2). */
const NO_SOFT_RESET = 1 << 3;

/** A copy of configuration space. */
export class ConfigSnapshot implements ConfigReader {
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get size(): number {
    return this.#view.byteLength;
  }

  read8(offset: number): number {
    return this.#view.getUint8(offset);
  }

  read16(offset: number): number {
    return this.#view.getUint16(offset, true);
  }

  read32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  /** Its Device Serial Number, where it has one. */
  get serial(): bigint | undefined {
    const found = findCapability(this, SERIAL_NUMBER, true);
    if (found === undefined || found.offset + SERIAL_HIGH + 4 > this.size) return undefined;
    const [low, high] = [SERIAL_LOW, SERIAL_HIGH].map(at => BigInt(this.read32(found.offset + at)));
    return ((high as bigint) << 32n) | (low as bigint);
  }

  /** Whether it forgets everything on its way from D3hot to D0. */
  get losesStateInD3(): boolean {
    const power = findCapability(this, CapabilityId.PowerManagement);
    return power !== undefined && (this.read16(power.offset + POWER_CONTROL) & NO_SOFT_RESET) === 0;
  }
}

/**
 * Reads all of a device's configuration space.
 *
 * @returns `undefined` when sysfs does not show it
 * @throws KernelError (EACCES) for anyone but root, who sees only the first 64 bytes; and when reading fails
 */
export function readConfigFile(kernel: Syscalls, address: PciAddress): ConfigSnapshot | undefined {
  const path = `${devicePath(address)}/config`;
  const fd = kernel.open(path, O_RDONLY);
  if (fd === -ENOENT) return undefined;
  check(fd, 'open', { path });
  try {
    const bytes = new Uint8Array(EXPRESS);
    let filled = 0;
    while (filled < EXPRESS) {
      const count = check(kernel.pread(fd, bytes.subarray(filled), filled), 'pread', { path });
      if (count === 0) break;
      filled += count;
    }
    if (filled < CONVENTIONAL) {
      const hint = `The kernel shows only ${filled} bytes of it to this user; run as root`;
      throw new KernelError(EACCES, { syscall: 'pread', path, hint });
    }
    return new ConfigSnapshot(bytes.subarray(0, filled));
  } finally {
    kernel.close(fd);
  }
}
