/** Replaces the running kernel by another start of itself. @module */
import { linux } from '../../../bindings/linux.js';
import { LINUX_REBOOT_CMD_KEXEC } from '../../../bindings/uapi/kexec.js';
import { guestEnv } from '../../vm/topology.js';
import { holds } from './expect.js';

const O_RDONLY = 0;

/** In a test VM, with the command line that the kernel has now. Nothing is closed, nobody is asked. */
export function kexec(): never {
  const kernel = linux();
  const open = (variable: string): number => {
    const path = process.env[variable];
    holds(path !== undefined, `${variable} is set`);
    const fd = kernel.open(path, O_RDONLY);
    holds(fd >= 0, () => `${path}: errno ${-fd}`);
    return fd;
  };
  const commandLine = kernel.readText('/proc/cmdline');
  holds(typeof commandLine === 'string', '/proc/cmdline can be read');
  const image = open(guestEnv.bzImage);
  const initrd = open(guestEnv.initrd);
  const loaded = kernel.kexecFileLoad(image, initrd, commandLine.trim(), 0);
  holds(loaded === 0, () => `kexec_file_load: errno ${-loaded}`);
  kernel.close(image);
  kernel.close(initrd);
  throw new Error(`reboot: errno ${-kernel.reboot(LINUX_REBOOT_CMD_KEXEC)}`);
}
