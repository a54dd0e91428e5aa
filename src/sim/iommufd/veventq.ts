/** Events of a virtual IOMMU: the counterpart of `struct iommufd_veventq`. @module */
import { EEXIST, EINVAL, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  IOMMU_VEVENTQ_TYPE_DEFAULT,
  iommufd_vevent_header,
} from '../../../bindings/uapi/iommufd.js';
import { viewOf } from '../process/user-argument.js';
import type { IommufdContext } from './context.js';
import { EventFile, type EventSource } from './event-file.js';
import { IommufdObject, ObjectType } from './objects.js';
import { command } from './user-command.js';
import { getViommu, type ViommuObject } from './viommu.js';

interface Event {
  readonly sequence: number;
  /** Undefined: the queue was full, and what came up to here is lost. */
  readonly data: Uint8Array | undefined;
}

const HEADER = iommufd_vevent_header.size;
/** More than any hardware has. */
const MAX_DEPTH = 2 ** 19;
const LAST_SEQUENCE = 2 ** 31 - 1;

export class VeventQueue extends IommufdObject implements EventSource {
  override readonly type = ObjectType.Veventq;
  readonly context: IommufdContext;
  readonly file: EventFile;
  readonly eventType: number;
  readonly #viommu: ViommuObject;
  readonly #depth: number;
  readonly #events: Event[] = [];
  /** Of {@link #events}, those with data. */
  #count = 0;
  #sequence = 0;

  constructor(viommu: ViommuObject, eventType: number, depth: number) {
    super();
    this.context = viommu.context;
    this.eventType = eventType;
    this.#viommu = viommu;
    this.#depth = depth;
    viommu.users++;
    viommu.eventQueues.push(this);
    this.file = new EventFile('[iommufd-viommu-event]', this);
  }

  /** An event; a full queue remembers only that it lost some. */
  report(event: Uint8Array): void {
    const lost = this.#count === this.#depth;
    // A record of lost events at the end counts for those after it too.
    const last = this.#events.at(-1);
    if (last !== undefined && last.data === undefined) this.#events.pop();
    this.#events.push({ sequence: this.#sequence, data: lost ? undefined : event.slice() });
    if (!lost) this.#count++;
    this.#sequence = this.#sequence === LAST_SEQUENCE ? 0 : this.#sequence + 1;
    this.file.notify();
  }

  get pending(): boolean {
    return this.#events.length > 0;
  }

  read(buffer: Uint8Array): number {
    if (buffer.byteLength < HEADER) return -EINVAL;
    let done = 0;
    for (let event = this.#events[0]; event !== undefined; event = this.#events[0]) {
      const { sequence, data } = event;
      const left = buffer.byteLength - done;
      if (left < HEADER) break;
      if (data !== undefined && left < HEADER + data.byteLength) return done === 0 ? -EINVAL : done;
      const flags = data === undefined ? IOMMU_VEVENTQ_FLAG_LOST_EVENTS : 0;
      iommufd_vevent_header.encode(viewOf(buffer), { flags, sequence }, done);
      done += HEADER;
      if (data !== undefined) {
        buffer.set(data, done);
        done += data.byteLength;
        this.#count--;
      }
      this.#events.shift();
    }
    return done;
  }

  override destroy(): void {
    const { eventQueues } = this.#viommu;
    eventQueues.splice(eventQueues.indexOf(this), 1);
    this.#viommu.users--;
  }
}

export const allocateVeventQueue = command(IOMMU_VEVENTQ_ALLOC, request => {
  const { values, context, process } = request;
  const { flags, type, veventq_depth: depth } = values;
  if (flags !== 0 || values.__reserved !== 0 || type === IOMMU_VEVENTQ_TYPE_DEFAULT) return -EOPNOTSUPP;
  if (depth === 0 || depth > MAX_DEPTH) return -EINVAL;
  const viommu = getViommu(context, values.viommu_id);
  if (typeof viommu === 'number') return viommu;
  if (viommu.eventQueues.some(each => each.eventType === type)) return -EEXIST;
  const queue = context.reserve(new VeventQueue(viommu, type, depth));
  request.newObject = queue;
  const fd = process.install(queue.file);
  if (fd < 0) return fd;
  values.out_veventq_id = queue.id;
  values.out_veventq_fd = fd;
  const result = request.respond();
  if (result < 0) process.close(fd);
  return result;
});
