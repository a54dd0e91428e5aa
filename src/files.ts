/** Reads files of any length through the system-call boundary. @module */
import type { Syscalls } from '../bindings/syscalls.js';
import { ENOENT, ENOTDIR } from '../bindings/uapi/errno.js';
import { check } from './ioctl.js';

const O_RDONLY = 0;
const CHUNK = 1 << 20;

/** What is in a file, or `undefined` when there is none. @throws KernelError */
export function readFile(kernel: Syscalls, path: string): Buffer | undefined {
  const fd = kernel.open(path, O_RDONLY);
  if (fd === -ENOENT || fd === -ENOTDIR) return undefined;
  check(fd, 'open', { path });
  const chunks: Uint8Array[] = [];
  try {
    for (;;) {
      const chunk = new Uint8Array(CHUNK);
      const count = check(kernel.read(fd, chunk), 'read', { path });
      if (count === 0) return Buffer.concat(chunks);
      chunks.push(chunk.subarray(0, count));
    }
  } finally {
    kernel.close(fd);
  }
}
