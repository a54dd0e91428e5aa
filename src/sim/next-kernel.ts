/** `kexec_file_load(2)`: the kernel that the next kexec starts (kernel/kexec_file.c). @module */
import { EBADF, EINVAL, ENOEXEC, EPERM } from '../../bindings/uapi/errno.js';
import { KEXEC_FILE_NO_INITRAMFS, KEXEC_FILE_UNLOAD } from '../../bindings/uapi/kexec.js';
import { constant, type Directory, link } from './process/file-tree.js';
import { MemFd } from './process/memfd.js';
import { Capability, type SimulatedProcess } from './process/process.js';
import { TextFile } from './process/text-file.js';

/** What a simulated kernel image begins with. */
const IMAGE = 'simulated Linux kernel';
/**
 * Those above, and some that change nothing here: for a crash (which a kernel without crash dumps takes as any other),
 * to say more in the log, not to use memory of the CMA, to use a device tree whatever the firmware says.
 */
const KNOWN_FLAGS = KEXEC_FILE_UNLOAD | KEXEC_FILE_NO_INITRAMFS | 0x3a;
/** What a kernel for x86 takes (COMMAND_LINE_SIZE), without room for a parameter that a crash would add; in bytes. */
const COMMAND_LINE_LIMIT = 2047 - 30;

export class NextKernel {
  #commandLine: string | undefined;

  /** @param root of the file tree: it gets images, and says in `/sys/kernel/kexec` whether one is loaded */
  constructor(root: Directory) {
    root.directory('boot').set('vmlinuz', constant(IMAGE)).set('initrd.img', constant('simulated initramfs'));
    const loaded = (): string => (this.#commandLine === undefined ? '0\n' : '1\n');
    root.directory('sys/kernel/kexec').set('loaded', { kind: 'text', read: loaded });
    root.directory('sys/kernel').set('kexec_loaded', link('kexec/loaded'));
  }

  /** The command line of the kernel that is loaded. */
  get commandLine(): string | undefined {
    return this.#commandLine;
  }

  /**
   * Loads a kernel in place of the one that is loaded; with an error that one stays.
   *
   * @returns 0, or minus the errno
   */
  load(
    process: SimulatedProcess,
    kernel: number,
    initrd: number,
    commandLine: string,
    flags: number,
  ): number {
    if (!process.capabilities.has(Capability.SysBoot)) return -EPERM;
    if (flags > 0xffff_ffff || flags & ~KNOWN_FLAGS) return -EINVAL;
    if (flags & KEXEC_FILE_UNLOAD) {
      this.#commandLine = undefined;
      return 0;
    }
    const image = firstBytes(process, kernel);
    if (typeof image === 'number') return image;
    if (image !== IMAGE) return -ENOEXEC;
    if (!(flags & KEXEC_FILE_NO_INITRAMFS)) {
      const found = firstBytes(process, initrd);
      if (typeof found === 'number') return found;
    }
    // The NUL at the end counts.
    if (Buffer.byteLength(commandLine) + 1 > COMMAND_LINE_LIMIT) return -EINVAL;
    this.#commandLine = commandLine;
    return 0;
  }
}

/** As many as an image must have. @returns minus EBADF; EINVAL for what is empty, or no file to be read as a whole */
function firstBytes(process: SimulatedProcess, fd: number): string | number {
  const file = process.file(fd);
  if (file === undefined) return -EBADF;
  if (!(file instanceof TextFile || file instanceof MemFd)) return -EINVAL;
  const bytes = new Uint8Array(IMAGE.length);
  const count = file.pread(process, bytes, 0);
  if (count <= 0) return count === 0 ? -EINVAL : count;
  return Buffer.from(bytes.buffer, 0, count).toString('latin1');
}
