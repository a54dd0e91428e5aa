/** Memory in a sealed memfd: it has a size that nobody can change, and it outlives the process that made it. @module */
import type { Syscalls } from '../../bindings/syscalls.js';
import {
  F_ADD_SEALS,
  F_GET_SEALS,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
} from '../../bindings/uapi/fcntl.js';
import {
  MFD_ALLOW_SEALING,
  MFD_CLOEXEC,
  MFD_HUGE_1GB,
  MFD_HUGE_2MB,
  MFD_HUGETLB,
} from '../../bindings/uapi/memfd.js';
import { DeviceError, DeviceErrorCode } from '../errors.js';
import { check } from '../ioctl.js';

/** Page sizes of DMA memory, in bytes. */
export const PageSize = { Small: 4096, Huge2M: 2097152, Huge1G: 1073741824 } as const;
export type PageSize = (typeof PageSize)[keyof typeof PageSize];

/** Written as a product: the size field reaches bit 31, where shifts turn negative. */
const hugeFlags: Readonly<Record<PageSize, number>> = {
  [PageSize.Small]: 0,
  [PageSize.Huge2M]: MFD_HUGETLB + MFD_HUGE_2MB,
  [PageSize.Huge1G]: MFD_HUGETLB + MFD_HUGE_1GB,
};

/** Whoever maps it for DMA can rely on it: it cannot shrink, grow, or get other seals. */
const SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

/**
 * Makes a memfd of `size` bytes, sealed against shrinking, growing and further seals: what is mapped for DMA can
 * then never fall out of the file.
 *
 * @returns its descriptor
 * @throws KernelError: EINVAL when the machine has no such huge pages, ENOMEM
 */
export function createSealedMemfd(kernel: Syscalls, name: string, size: number, pageSize: PageSize): number {
  const flags = MFD_CLOEXEC + MFD_ALLOW_SEALING + hugeFlags[pageSize];
  const fd = check(kernel.memfdCreate(name, flags), 'memfd_create', { args: { name, pageSize } });
  try {
    check(kernel.ftruncate(fd, size), 'ftruncate', { args: { size } });
    check(kernel.fcntl(fd, F_ADD_SEALS, SEALS), 'fcntl', {
      args: { command: 'F_ADD_SEALS' },
    });
  } catch (error) {
    kernel.close(fd);
    throw error;
  }
  return fd;
}

/**
 * That a memfd of somebody else's is as {@link createSealedMemfd} makes them.
 *
 * @param size in bytes, exactly
 * @throws DeviceError (UNSUPPORTED) for another size or other seals; KernelError: EINVAL when it is no memfd
 */
export function checkSealedMemfd(kernel: Syscalls, fd: number, size: number): void {
  const refuse = (what: string): never => {
    throw new DeviceError(
      DeviceErrorCode.Unsupported,
      'memfd',
      what,
      'It is not the memory that was saved, or was changed since: start cold',
    );
  };
  const seals = check(kernel.fcntl(fd, F_GET_SEALS, 0), 'fcntl', { args: { command: 'F_GET_SEALS' } });
  if ((seals & SEALS) !== SEALS) refuse(`has seals 0x${seals.toString(16)}, not 0x${SEALS.toString(16)}`);
  const byte = new Uint8Array(1);
  const readable = (at: number): boolean =>
    check(kernel.pread(fd, byte, at), 'pread', { args: { offset: at } }) === 1;
  if (!readable(size - 1)) refuse(`is shorter than ${size} bytes`);
  if (readable(size)) refuse(`is longer than ${size} bytes`);
}
