/** The descriptor of a session of /dev/liveupdate, and its requests. @module */
import { EINVAL, ENOTTY } from '../../../bindings/uapi/errno.js';
import {
  LIVEUPDATE_SESSION_FINISH,
  LIVEUPDATE_SESSION_GET_NAME,
  LIVEUPDATE_SESSION_PRESERVE_FD,
  LIVEUPDATE_SESSION_RETRIEVE_FD,
  liveupdate_session_finish,
  liveupdate_session_get_name,
  liveupdate_session_preserve_fd,
  liveupdate_session_retrieve_fd,
} from '../../../bindings/uapi/liveupdate.js';
import type { Request } from '../../../bindings/uapi/request.js';
import { OpenFile } from '../process/open-file.js';
import type { SimulatedProcess } from '../process/process.js';
import { UserArgument, viewOf } from '../process/user-argument.js';
import { copyStruct, readSize } from '../process/user-struct.js';
import type { IncomingSession } from './incoming-session.js';
import { copyName } from './name.js';
import type { OutgoingSession } from './outgoing-session.js';

export type Session = OutgoingSession | IncomingSession;

/** The kind of session that a request is for; absent: any. */
const requests: readonly { request: Request; kind?: Session['kind'] }[] = [
  { request: LIVEUPDATE_SESSION_PRESERVE_FD, kind: 'outgoing' },
  { request: LIVEUPDATE_SESSION_RETRIEVE_FD, kind: 'incoming' },
  { request: LIVEUPDATE_SESSION_FINISH, kind: 'incoming' },
  { request: LIVEUPDATE_SESSION_GET_NAME },
];
const FIRST = LIVEUPDATE_SESSION_PRESERVE_FD.number & 0xff;

export class SessionFile extends OpenFile {
  override readonly name: string;
  readonly #session: Session;
  readonly #closed: () => void;

  /** @param closed called when the last descriptor of it is gone */
  constructor(session: Session, closed: () => void) {
    super();
    this.name = `anon_inode:[luo_session] ${session.name}`;
    this.#session = session;
    this.#closed = closed;
  }

  override ioctl(process: SimulatedProcess, number: number, argument: Uint8Array | number): number {
    const entry = requests[(number & 0xff) - FIRST];
    if (entry === undefined) return -EINVAL;
    const user = new UserArgument(process, argument);
    const size = readSize(user);
    if (size < 0) return size;
    const { request, kind } = entry;
    if (request.number !== number) return -ENOTTY;
    if (kind !== undefined && kind !== this.#session.kind) return -EINVAL;
    if (size < request.minimumSize) return -EINVAL;
    const bytes = copyStruct(user, request.minimumSize, size);
    if (typeof bytes === 'number') return bytes;
    const view = viewOf(bytes);
    const outcome = this.#execute(process, request, view);
    if (typeof outcome === 'number') return outcome || user.write(0, bytes);
    return give(process, outcome, fd => {
      liveupdate_session_retrieve_fd.set(view, 'fd', fd);
      return user.write(0, bytes);
    });
  }

  /** @returns 0, a file for the caller, or minus the errno */
  #execute(process: SimulatedProcess, request: Request, view: DataView): OpenFile | number {
    const session = this.#session;
    if (request === LIVEUPDATE_SESSION_GET_NAME) {
      if (liveupdate_session_get_name.get(view, 'reserved') !== 0) return -EINVAL;
      const { offset, size } = liveupdate_session_get_name.fields.name;
      copyName(session.name, new Uint8Array(view.buffer, view.byteOffset + offset, size));
      return 0;
    }
    if (session.kind === 'outgoing') {
      const { token, fd } = liveupdate_session_preserve_fd.decode(view);
      return session.preserve(token, process.file(fd));
    }
    if (request === LIVEUPDATE_SESSION_FINISH) {
      if (liveupdate_session_finish.get(view, 'reserved') !== 0) return -EINVAL;
      session.finish();
      return 0;
    }
    return session.retrieve(liveupdate_session_retrieve_fd.get(view, 'token'));
  }

  protected override release(): void {
    this.#closed();
  }
}

/**
 * Gives the process a descriptor of `file`, whose reference it takes over.
 *
 * @param respond tells the process which; minus the errno takes the descriptor away again
 */
export function give(process: SimulatedProcess, file: OpenFile, respond: (fd: number) => number): number {
  const fd = process.install(file);
  if (fd < 0) return fd;
  const responded = respond(fd);
  if (responded < 0) process.close(fd);
  return responded;
}
