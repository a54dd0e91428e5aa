/** Memory in a sealed memfd: it has a size that nobody can change, and it outlives the process that made it. @module */
import type { Syscalls } from '../../bindings/syscalls.js';
import { F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK } from '../../bindings/uapi/fcntl.js';
import {
  MFD_ALLOW_SEALING,
  MFD_CLOEXEC,
  MFD_HUGE_1GB,
  MFD_HUGE_2MB,
  MFD_HUGETLB,
} from '../../bindings/uapi/memfd.js';
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
    check(kernel.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 'fcntl', {
      args: { command: 'F_ADD_SEALS' },
    });
  } catch (error) {
    kernel.close(fd);
    throw error;
  }
  return fd;
}
