/**
 * Which open file a descriptor refers to, as far as the kernel tells: so that descriptors that were mixed up on their way
 * from one process to another are noticed.
 *
 * @module
 */
import type { Syscalls } from '../../../bindings/syscalls.js';
import { ENOENT } from '../../../bindings/uapi/errno.js';
import { KernelError } from '../../errors.js';

/**
 * The same in every process for as long as the file is open, and another for every memfd, eventfd and device node. Open
 * files of one device node have it in common.
 *
 * @returns undefined where the kernel does not tell (before Linux 5.14, or without /proc)
 * @throws KernelError
 */
export function fileIdentity(kernel: Syscalls, fd: number): string | undefined {
  const path = `/proc/self/fdinfo/${fd}`;
  const text = kernel.readText(path);
  if (text === -ENOENT) return undefined;
  if (typeof text === 'number') throw new KernelError(-text, { syscall: 'read', path });
  const inode = /^ino:\s+(\d+)$/m.exec(text)?.[1];
  if (inode === undefined) return undefined;
  // All eventfds share an inode.
  const event = /^eventfd-id:\s+(\d+)$/m.exec(text)?.[1];
  return event === undefined ? `inode ${inode}` : `inode ${inode}, eventfd ${event}`;
}

/** What a descriptor was opened by, such as `/dev/vfio/devices/vfio0`. @throws KernelError */
export function pathOfDescriptor(kernel: Syscalls, fd: number): string {
  const path = `/proc/self/fd/${fd}`;
  const target = kernel.readLink(path);
  if (typeof target === 'number') throw new KernelError(-target, { syscall: 'readlink', path });
  return target;
}
