/** `/dev/iommu`. @module */
import { EINVAL, ENOMEM, ENOTTY, ENXIO, EPERM } from '../../../bindings/uapi/errno.js';
import { IOMMUFD_CMD_BASE } from '../../../bindings/uapi/iommufd.js';
import { MAP_SHARED } from '../../../bindings/uapi/mman.js';
import { PAGE } from '../machine/physical-memory.js';
import { type Mappable, OpenFile } from '../process/open-file.js';
import type { SimulatedProcess } from '../process/process.js';
import { UserArgument } from '../process/user-argument.js';
import { readSize } from '../process/user-struct.js';
import { AccountMode } from './accounting.js';
import { commands } from './commands.js';
import { IommufdContext } from './context.js';
import { vfioRequest } from './vfio-compat.js';

/** The last request number, as its low byte, that goes by iommufd's rules: the one for tests. */
const LAST_COMMAND = 0xa0;
const PROT_EXEC = 4;

export class IommufdFile extends OpenFile {
  override readonly name: string;
  readonly context: IommufdContext;

  constructor(process: SimulatedProcess, name: string) {
    super();
    this.name = name;
    this.context = new IommufdContext(this, process.host);
  }

  override ioctl(process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    const user = new UserArgument(process, argument);
    const number = request & 0xff;
    if (number < IOMMUFD_CMD_BASE || number > LAST_COMMAND) {
      return vfioRequest(this.context, process, request, user);
    }
    const size = readSize(user);
    if (size < 0) return size;
    return commands.get(request)?.run(this.context, process, user, size) ?? -ENOTTY;
  }

  // There is nothing to read, which is not to say that there are no positions.
  override pread(): number {
    return -EINVAL;
  }

  override pwrite(): number {
    return -EINVAL;
  }

  override mmap(
    _process: SimulatedProcess,
    length: number,
    protection: number,
    flags: number,
    offset: number,
  ): Mappable | number {
    if (length % PAGE !== 0 || !(flags & MAP_SHARED)) return -EINVAL;
    if (protection & PROT_EXEC) return -EPERM;
    for (const each of this.context.mapOffsets) {
      if (each.offset !== offset || each.length !== length) continue;
      each.owner.users++;
      return { memory: each.memory.get(), offset: 0, unmapped: () => each.owner.users-- };
    }
    return -ENXIO;
  }

  protected override release(): void {
    this.context.destroy();
  }
}

/** Opens `/dev/iommu`. */
export function openIommufd(process: SimulatedProcess, _flags: number): IommufdFile | number {
  return process.shouldFail() ? -ENOMEM : new IommufdFile(process, '/dev/iommu');
}

/** Opens `/dev/vfio/vfio` of a kernel where iommufd stands in for VFIO's own container. */
export function openIommufdContainer(process: SimulatedProcess, _flags: number): IommufdFile {
  const file = new IommufdFile(process, '/dev/vfio/vfio');
  file.context.accountMode = AccountMode.Process;
  return file;
}
