/**
 * `/dev/liveupdate`: memory that outlives the kernel (the Live Update Orchestrator, with memfds alone).
 *
 * @module
 */
import { EBUSY, EEXIST, EINVAL, ENOENT, ENOTTY } from '../../../bindings/uapi/errno.js';
import {
  LIVEUPDATE_IOCTL_CREATE_SESSION,
  LIVEUPDATE_IOCTL_RETRIEVE_SESSION,
  liveupdate_ioctl_create_session,
} from '../../../bindings/uapi/liveupdate.js';
import type { PhysicalMemory } from '../machine/physical-memory.js';
import type { DeviceNode } from '../process/file-tree.js';
import type { MemFd } from '../process/memfd.js';
import { OpenFile } from '../process/open-file.js';
import type { SimulatedProcess } from '../process/process.js';
import { UserArgument, viewOf } from '../process/user-argument.js';
import { copyStruct, readSize } from '../process/user-struct.js';
import { IncomingSession } from './incoming-session.js';
import { nameOf } from './name.js';
import { OutgoingSession } from './outgoing-session.js';
import type { Preserved } from './preserved.js';
import { give, SessionFile } from './session-file.js';

/** Live update in one booted kernel. */
export class LiveUpdate {
  /** For `/dev/liveupdate`. EBUSY while somebody has it open. */
  readonly node: DeviceNode = {
    kind: 'device',
    open: () => {
      if (this.#opened) return -EBUSY;
      this.#opened = true;
      return new LiveUpdateFile(this, () => {
        this.#opened = false;
      });
    },
  };
  readonly #physical: PhysicalMemory;
  readonly #outgoing = new Map<string, OutgoingSession>();
  readonly #incoming = new Map<string, IncomingSession>();
  /** Files in any session. */
  readonly #taken = new Set<MemFd>();
  #opened = false;

  /**
   * @param physical the memory of the machine as this kernel has it: {@link PhysicalMemory.successor} of the last one's
   * @param preserved what {@link reboot} of the kernel before gave; its memory is in place from now on
   */
  constructor(physical: PhysicalMemory, preserved?: Preserved) {
    this.#physical = physical;
    for (const session of preserved?.sessions ?? []) {
      this.#incoming.set(session.name, new IncomingSession(session, physical, this.#taken));
    }
  }

  /**
   * What the next kernel gets: the sessions made here, as they are now. Sessions that came from the kernel before stay
   * behind, finished or not, and so does their memory unless it is in a new session.
   */
  reboot(): Preserved {
    return { sessions: Array.from(this.#outgoing.values(), session => session.serialise()) };
  }

  /** @internal @returns minus EINVAL for a bad name, EEXIST */
  create(name: string | undefined): SessionFile | number {
    if (name === undefined || name === '') return -EINVAL;
    if (this.#outgoing.has(name)) return -EEXIST;
    const session = new OutgoingSession(name, this.#physical, this.#taken);
    this.#outgoing.set(name, session);
    return new SessionFile(session, () => {
      session.close();
      this.#outgoing.delete(name);
    });
  }

  /** @internal @returns minus ENOENT, or EINVAL for a session that is open */
  retrieve(name: string | undefined): SessionFile | number {
    const session = name === undefined ? undefined : this.#incoming.get(name);
    if (session === undefined) return -ENOENT;
    if (session.retrieved) return -EINVAL;
    session.retrieved = true;
    return new SessionFile(session, () => {
      session.finish();
      this.#incoming.delete(session.name);
    });
  }
}

const requests = [LIVEUPDATE_IOCTL_CREATE_SESSION, LIVEUPDATE_IOCTL_RETRIEVE_SESSION];

class LiveUpdateFile extends OpenFile {
  override readonly name = '/dev/liveupdate';
  readonly #liveUpdate: LiveUpdate;
  readonly #closed: () => void;

  constructor(liveUpdate: LiveUpdate, closed: () => void) {
    super();
    this.#liveUpdate = liveUpdate;
    this.#closed = closed;
  }

  override ioctl(process: SimulatedProcess, number: number, argument: Uint8Array | number): number {
    const request = requests[number & 0xff];
    if (request === undefined) return -EINVAL;
    const user = new UserArgument(process, argument);
    const size = readSize(user);
    if (size < 0) return size;
    if (request.number !== number) return -ENOTTY;
    if (size < request.minimumSize) return -EINVAL;
    const bytes = copyStruct(user, request.minimumSize, size);
    if (typeof bytes === 'number') return bytes;
    // Both requests have the same layout.
    const layout = liveupdate_ioctl_create_session;
    const view = viewOf(bytes);
    const name = nameOf(layout.get(view, 'name'));
    const create = request === LIVEUPDATE_IOCTL_CREATE_SESSION;
    const file = create ? this.#liveUpdate.create(name) : this.#liveUpdate.retrieve(name);
    if (typeof file === 'number') return file;
    return give(process, file, fd => {
      layout.set(view, 'fd', fd);
      return user.write(0, bytes);
    });
  }

  // Unlike a session, it has positions.
  override pread(): number {
    return -EINVAL;
  }

  override pwrite(): number {
    return -EINVAL;
  }

  protected override release(): void {
    this.#closed();
  }
}
