/** Page faults of devices that user mode answers: the counterpart of `struct iommufd_fault`. @module */
import { EINVAL, EOPNOTSUPP, ESPIPE } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
  IOMMUFD_PAGE_RESP_INVALID,
  IOMMUFD_PAGE_RESP_SUCCESS,
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
} from '../../../bindings/uapi/iommufd.js';
import type { AttachHandle, PageFault } from '../iommu/domain.js';
import { NO_PASID } from '../iommu/group-attach.js';
import { viewOf } from '../process/user-argument.js';
import type { IommufdContext } from './context.js';
import { EventFile, type EventSource } from './event-file.js';
import { IommufdObject, ObjectType } from './objects.js';
import { command } from './user-command.js';

/** Faults that are answered together. */
interface FaultGroup {
  readonly handle: AttachHandle;
  readonly faults: readonly PageFault[];
  readonly respond: (code: number) => void;
}

const FAULT = iommu_hwpt_pgfault.size;
const RESPONSE = iommu_hwpt_page_response.size;

export class FaultQueue extends IommufdObject implements EventSource {
  override readonly type = ObjectType.Fault;
  readonly context: IommufdContext;
  readonly file: EventFile;
  /** Not read yet. */
  #waiting: FaultGroup[] = [];
  /** Read and not answered, by cookie. */
  readonly #unanswered = new Map<number, FaultGroup>();

  constructor(context: IommufdContext) {
    super();
    this.context = context;
    this.file = new EventFile('[iommufd-pgfault]', this);
  }

  /** Takes a group of faults that came by way of the attachment. */
  deliver(handle: AttachHandle, faults: readonly PageFault[], respond: (code: number) => void): number {
    this.#waiting.push({ handle, faults, respond });
    this.file.notify();
    return 0;
  }

  get pending(): boolean {
    return this.#waiting.length > 0;
  }

  read(buffer: Uint8Array): number {
    if (buffer.byteLength % FAULT !== 0) return -ESPIPE;
    let done = 0;
    for (let group = this.#waiting[0]; group !== undefined; group = this.#waiting[0]) {
      const size = group.faults.length * FAULT;
      // A group is read as a whole.
      if (size > buffer.byteLength - done) return done === 0 ? -EINVAL : done;
      this.#waiting.shift();
      const cookie = this.#keep(group);
      for (const fault of group.faults) {
        encode(viewOf(buffer), done, group.handle, fault, cookie);
        done += FAULT;
      }
    }
    return done;
  }

  /** @returns the lowest free cookie, which is the group's from now on */
  #keep(group: FaultGroup): number {
    let cookie = 1;
    while (this.#unanswered.has(cookie)) cookie++;
    this.#unanswered.set(cookie, group);
    return cookie;
  }

  write(buffer: Uint8Array): number {
    if (buffer.byteLength % RESPONSE !== 0) return -ESPIPE;
    for (let done = 0; done < buffer.byteLength; done += RESPONSE) {
      const { cookie, code } = iommu_hwpt_page_response.decode(viewOf(buffer), done);
      const known = code === IOMMUFD_PAGE_RESP_SUCCESS || code === IOMMUFD_PAGE_RESP_INVALID;
      const group = known ? this.#unanswered.get(cookie) : undefined;
      if (group === undefined) return done === 0 ? -EINVAL : done;
      this.#unanswered.delete(cookie);
      group.respond(code);
    }
    return buffer.byteLength;
  }

  /** Refuses what came by way of the attachment, which is no more; without one, everything. */
  answerAll(handle?: AttachHandle): void {
    const concerns = (group: FaultGroup): boolean => handle === undefined || group.handle === handle;
    const unread = this.#waiting.filter(concerns);
    this.#waiting = this.#waiting.filter(group => !concerns(group));
    for (const { respond } of unread) respond(IOMMUFD_PAGE_RESP_INVALID);
    for (const [cookie, group] of [...this.#unanswered].sort(([a], [b]) => a - b)) {
      if (!concerns(group)) continue;
      this.#unanswered.delete(cookie);
      group.respond(IOMMUFD_PAGE_RESP_INVALID);
    }
  }

  override destroy(): void {
    this.answerAll();
  }
}

function encode(view: DataView, at: number, handle: AttachHandle, fault: PageFault, cookie: number): void {
  const pasid = fault.pasid !== NO_PASID;
  const flags =
    (pasid ? IOMMU_PGFAULT_FLAGS_PASID_VALID : 0) | (fault.last ? IOMMU_PGFAULT_FLAGS_LAST_PAGE : 0);
  iommu_hwpt_pgfault.encode(
    view,
    {
      flags,
      dev_id: (handle.owner as IommufdObject).id,
      pasid: pasid ? fault.pasid : 0,
      grpid: fault.group,
      perm: fault.permissions,
      addr: fault.address,
      cookie,
    },
    at,
  );
}

export const allocateFaultQueue = command(IOMMU_FAULT_QUEUE_ALLOC, request => {
  const { values, context, process } = request;
  if (values.flags !== 0) return -EOPNOTSUPP;
  const queue = context.reserve(new FaultQueue(context));
  request.newObject = queue;
  const fd = process.install(queue.file);
  if (fd < 0) return fd;
  values.out_fault_id = queue.id;
  values.out_fault_fd = fd;
  const result = request.respond();
  if (result < 0) process.close(fd);
  return result;
});
