/** Queues in guest memory that hardware works on: the counterpart of `struct iommufd_hw_queue`. @module */
import { EFAULT, EINVAL, ENOMEM, EOPNOTSUPP, EOVERFLOW, ERANGE } from '../../../bindings/uapi/errno.js';
import { IOMMU_HW_QUEUE_ALLOC, IOMMU_HW_QUEUE_TYPE_DEFAULT } from '../../../bindings/uapi/iommufd.js';
import type { HardwareQueueCore } from '../iommu/domain.js';
import { PAGE } from '../machine/physical-memory.js';
import { IommufdAccess } from './access.js';
import { U64_MAX } from './intervals.js';
import { IommufdObject, ObjectType } from './objects.js';
import { AccessFlag } from './pages.js';
import { command } from './user-command.js';
import { getViommu, type ViommuObject } from './viommu.js';

const PAGE_BYTES = BigInt(PAGE);

/** The kernel makes a list of pages, 8 bytes for each, and no such list is longer than this. */
const MOST_PAGES = BigInt(Math.floor((2 ** 31 - 1) / 8));

export class HwQueueObject extends IommufdObject implements HardwareQueueCore {
  override readonly type = ObjectType.HwQueue;
  readonly iova: bigint;
  readonly length: bigint;
  readonly #viommu: ViommuObject;
  /** What keeps the memory where it is. */
  #access: IommufdAccess | undefined;
  #stop: (() => void) | undefined;

  constructor(viommu: ViommuObject, iova: bigint, length: bigint) {
    super();
    this.#viommu = viommu;
    this.iova = iova;
    this.length = length;
    viommu.users++;
  }

  dependOn(other: HardwareQueueCore): () => void {
    const queue = other as HwQueueObject;
    queue.users++;
    return () => queue.users--;
  }

  /** The whole pages that the queue is in. */
  get #pages(): { iova: bigint; length: bigint } {
    const offset = this.iova % PAGE_BYTES;
    const pages = (offset + this.length + PAGE_BYTES - 1n) / PAGE_BYTES;
    return { iova: this.iova - offset, length: pages * PAGE_BYTES };
  }

  /**
   * Pins the memory, which hardware finds by its physical address.
   *
   * @returns that, or minus EFAULT when it is not in one piece, or as {@link IommufdAccess.pinPages}
   */
  pin(): bigint | number {
    const { iova, length } = this.#pages;
    if (length > U64_MAX) return -ERANGE;
    if (length / PAGE_BYTES > MOST_PAGES) return -ENOMEM;
    const access = IommufdAccess.createInternal(this.#viommu.context);
    const attached = access.attachInternal(this.#viommu.parent.ioas);
    const frames = attached < 0 ? attached : access.pinPages(iova, length, AccessFlag.Read);
    if (typeof frames === 'number') {
      this.#viommu.context.destroyUser(access);
      return frames;
    }
    const [first = 0] = frames;
    if (frames.some((frame, index) => frame !== first + index)) {
      access.unpinPages(iova, length);
      this.#viommu.context.destroyUser(access);
      return -EFAULT;
    }
    this.#access = access;
    return BigInt(first) * PAGE_BYTES + (this.iova - iova);
  }

  /** Hands it to the driver. @returns 0, or minus the errno */
  start(index: number, address: bigint): number {
    const stop = this.#viommu.operations.hardwareQueues?.create(this, index, address) ?? -EOPNOTSUPP;
    if (typeof stop === 'number') return stop;
    this.#stop = stop;
    return 0;
  }

  override destroy(): void {
    this.#stop?.();
    if (this.#access !== undefined) {
      const { iova, length } = this.#pages;
      this.#access.unpinPages(iova, length);
      this.#viommu.context.destroyUser(this.#access);
    }
    this.#viommu.users--;
  }
}

export const allocateHwQueue = command(IOMMU_HW_QUEUE_ALLOC, request => {
  const { values, context } = request;
  const { nesting_parent_iova: iova, length } = values;
  if (values.flags !== 0 || values.type === IOMMU_HW_QUEUE_TYPE_DEFAULT) return -EOPNOTSUPP;
  if (length === 0n) return -EINVAL;
  if (iova + length - 1n > U64_MAX) return -EOVERFLOW;
  const viommu = getViommu(context, values.viommu_id);
  if (typeof viommu === 'number') return viommu;
  if (viommu.operations.hardwareQueues?.supports(values.type) !== true) return -EOPNOTSUPP;
  const queue = context.reserve(new HwQueueObject(viommu, iova, length));
  request.newObject = queue;
  const address = queue.pin();
  if (typeof address === 'number') return address;
  const result = queue.start(values.index, address);
  if (result < 0) return result;
  values.out_hw_queue_id = queue.id;
  return request.respond();
});
