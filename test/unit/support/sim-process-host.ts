/** The kernel under the processes of a machine that a test makes by hand. @module */
import { EINVAL } from '../../../bindings/uapi/errno.js';
import type { PhysicalMemory } from '../../../src/sim/machine/physical-memory.js';
import { NextKernel } from '../../../src/sim/next-kernel.js';
import type { Directory } from '../../../src/sim/process/file-tree.js';
import type { ProcessHost } from '../../../src/sim/process/process.js';
import { SocketNamespace } from '../../../src/sim/process/socket-namespace.js';

export function processHost(physical: PhysicalMemory, files: Directory): ProcessHost {
  const [sockets, nextKernel] = [new SocketNamespace(files), new NextKernel(files)];
  return { physical, files, sockets, nextKernel, reboot: () => -EINVAL, ended() {} };
}
