/** Device memory for tests. @module */
import { EBADF, EINVAL, ENODEV, EOPNOTSUPP } from '../../../../bindings/uapi/errno.js';
import {
  iommu_test_cmd_dmabuf_get,
  iommu_test_cmd_dmabuf_revoke,
} from '../../../../bindings/uapi/iommufd-test.js';
import { PAGE } from '../../machine/physical-memory.js';
import { DmaBufFile, type PhysicalRange } from '../dma-buf.js';
import type { TestCommand } from './test-command.js';

/** In bytes. */
const MAX_SIZE = 512 * PAGE;

/** Physical addresses beyond all memory of the machine, where nothing answers. */
let nextAddress = 1n << 45n;

class MockDmaBuf extends DmaBufFile {
  override readonly size: number;
  readonly #address: bigint;
  #revoked = false;

  constructor(size: number) {
    super();
    this.size = size;
    this.#address = nextAddress;
    nextAddress += BigInt(MAX_SIZE);
  }

  override physicalRange(): PhysicalRange | number {
    return this.#revoked ? -ENODEV : { address: this.#address, length: this.size };
  }

  /** Takes the memory away, or gives it back: whoever has it mapped loses it either way. */
  revoke(revoked: boolean): void {
    this.#revoked = revoked;
    this.revokeAll();
  }

  override mmap(): number {
    return -EINVAL;
  }

  protected override release(): void {}
}

export function getDmaBuf({ view, process }: TestCommand): number {
  const size = Math.ceil(iommu_test_cmd_dmabuf_get.get(view, 'length') / PAGE) * PAGE;
  if (size === 0 || size > MAX_SIZE) return -EINVAL;
  // Linux 7.3 does not say which descriptor it is: the lowest that was free, as ever.
  return Math.min(process.install(new MockDmaBuf(size)), 0);
}

export function revokeDmaBuf({ view, process }: TestCommand): number {
  const { dmabuf_fd: fd, revoked } = iommu_test_cmd_dmabuf_revoke.decode(view);
  const file = process.file(fd);
  if (file === undefined) return -EBADF;
  if (!(file instanceof DmaBufFile)) return -EINVAL;
  if (!(file instanceof MockDmaBuf)) return -EOPNOTSUPP;
  file.revoke(revoked !== 0);
  return 0;
}
