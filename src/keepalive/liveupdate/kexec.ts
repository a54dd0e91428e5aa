/**
 * Starts another kernel from this one.
 *
 * Only `kexec_file_load(2)` hands over what is preserved; the older `kexec_load(2)` loses it.
 *
 * @module
 */
import { constants } from 'node:fs';
import { defaultKernel } from '../../../bindings/kernel.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import {
  KEXEC_FILE_NO_INITRAMFS,
  KEXEC_FILE_UNLOAD,
  LINUX_REBOOT_CMD_KEXEC,
} from '../../../bindings/uapi/kexec.js';
import { check, openFile } from '../../ioctl.js';

export interface LoadKernelOptions {
  /** The path of the kernel's image, such as `/boot/vmlinuz-7.3.0`. */
  image: string;
  /** The path of its initrd; none by default. */
  initrd?: string;
  /** All of its command line: nothing is taken over from the running kernel. See {@link runningCommandLine}. */
  commandLine: string;
  kernel?: Syscalls;
}

function checkText(title: string, value: string): void {
  if (typeof value !== 'string') throw new TypeError(`${title} must be a string, got ${typeof value}`);
  if (value.includes('\0')) throw new RangeError(`${title} must not contain NUL`);
}

/**
 * Loads a kernel for {@link kexec}, in place of one that was loaded. What is preserved before or after it gets all the
 * same.
 *
 * @throws KernelError: EPERM without CAP_SYS_BOOT or where loading is locked, ENOEXEC for a file that is no kernel to
 * start this way, EADDRNOTAVAIL when it does not fit the memory kept for this, EINVAL for a command line that is too
 * long, EBUSY, ENOMEM, and errors of opening the files.
 */
export function loadKernel(options: LoadKernelOptions): void {
  const { image, initrd, commandLine, kernel = defaultKernel() } = options;
  checkText('image', image);
  if (initrd !== undefined) checkText('initrd', initrd);
  checkText('commandLine', commandLine);
  const files: number[] = [];
  const open = (path: string): number => {
    const fd = openFile(kernel, path, constants.O_RDONLY);
    files.push(fd);
    return fd;
  };
  try {
    const imageFile = open(image);
    const initrdFile = initrd === undefined ? -1 : open(initrd);
    const flags = initrd === undefined ? KEXEC_FILE_NO_INITRAMFS : 0;
    check(kernel.kexecFileLoad(imageFile, initrdFile, commandLine, flags), 'kexec_file_load', {
      args: { image, ...(initrd !== undefined && { initrd }), commandLine },
    });
  } finally {
    for (const fd of files) kernel.close(fd);
  }
}

/** Forgets the kernel that was loaded; fine when there is none. @throws KernelError: EPERM, EBUSY */
export function unloadKernel(kernel: Syscalls = defaultKernel()): void {
  check(kernel.kexecFileLoad(-1, -1, '', KEXEC_FILE_UNLOAD), 'kexec_file_load', {
    args: { flags: 'KEXEC_FILE_UNLOAD' },
  });
}

/**
 * Starts the kernel that was loaded, at once: no service is stopped, no file system is synced or unmounted, no process
 * is ended, and what is preserved is as it is at this moment.
 *
 * @throws KernelError when this kernel goes on: EINVAL when none was loaded, EPERM without CAP_SYS_BOOT, EBUSY, and what
 * the last step of preserving fails with. What was preserved is still preserved.
 */
export function kexec(kernel: Syscalls = defaultKernel()): never {
  check(kernel.reboot(LINUX_REBOOT_CMD_KEXEC), 'reboot', { args: { command: 'LINUX_REBOOT_CMD_KEXEC' } });
  throw new Error('a kernel that was left cannot be returned to');
}
