/** `config` in sysfs: the configuration space that a function really has, to be read. @module */
import { EACCES } from '../../../bindings/uapi/errno.js';
import type { DeviceNode } from '../process/file-tree.js';
import { OpenFile } from '../process/open-file.js';
import { Capability, type SimulatedProcess } from '../process/process.js';
import { HEADER_SIZE } from './registers.js';
import type { PciSlot } from './slot.js';

const O_ACCMODE = 3;
const O_RDONLY = 0;

export function configNode(path: string, slot: PciSlot): DeviceNode {
  return {
    kind: 'device',
    open: (process, flags) => {
      // The kernel lets it be written, too, which nobody does here.
      if ((flags & O_ACCMODE) !== O_RDONLY) return -EACCES;
      return new ConfigFile(`${path}/config`, slot, process.capabilities.has(Capability.SysAdmin));
    },
  };
}

class ConfigFile extends OpenFile {
  override readonly name: string;
  readonly #slot: PciSlot;
  /** What can be read, in bytes. Some devices do not survive it when more is read than they have. */
  readonly #size: number;
  #position = 0;

  constructor(name: string, slot: PciSlot, whole: boolean) {
    super();
    this.name = name;
    this.#slot = slot;
    this.#size = whole ? slot.config.size : HEADER_SIZE;
  }

  override pread(_process: SimulatedProcess, buffer: Uint8Array, offset: number): number {
    const count = Math.max(0, Math.min(buffer.byteLength, this.#size - offset));
    for (let i = 0; i < count; i++) buffer[i] = this.#slot.readConfig(offset + i, 1);
    return count;
  }

  override read(process: SimulatedProcess, buffer: Uint8Array): number {
    const count = this.pread(process, buffer, this.#position);
    this.#position += count;
    return count;
  }

  protected override release(): void {}
}
