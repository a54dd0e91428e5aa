/** After a kexec: what the kernel before preserved is taken up again. @module */
import { defaultKernel } from '../../../bindings/kernel.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { check } from '../../ioctl.js';
import type { KeepAlive } from '../keep-alive.js';
import { type RebuildOptions, rebuild } from '../rebuild.js';
import { decodeState } from '../state/decode-state.js';
import type { State } from '../state/saved-state.js';
import { StateError, StateErrorCode } from '../state/state-error.js';
import type { IncomingSession } from './live-update.js';
import { STATE_TOKEN } from './preserve.js';

export interface ResumeOptions extends Pick<RebuildOptions, 'onProgress'> {
  kernel?: Syscalls;
}

/**
 * Rebuilds what was preserved in a session: the same memory at the same IOVAs, under fresh objects.
 *
 * The session must not be finished before the drivers are restored: until then it is what keeps the memory of whatever
 * could not be rebuilt. After an error it is as it was, and this can be tried again.
 *
 * @throws StateError when the state is not there, damaged or of another session; and as {@link rebuild}
 */
export async function resume(session: IncomingSession, options: ResumeOptions = {}): Promise<KeepAlive> {
  const { kernel = defaultKernel(), onProgress } = options;
  const state = preservedState(session, kernel);
  return rebuild(state, {
    kernel,
    memory: ({ token }) => session.retrieve(token),
    ...(onProgress && { onProgress }),
  });
}

/** The state in a session. @throws StateError; KernelError */
export function preservedState(session: IncomingSession, kernel: Syscalls = defaultKernel()): State {
  const fd = session.retrieve(STATE_TOKEN);
  let state: State;
  try {
    state = decodeState(readToEnd(kernel, fd));
  } finally {
    kernel.close(fd);
  }
  if (state.sessions.some(({ name }) => name === session.name)) return state;
  throw new StateError(
    StateErrorCode.Invalid,
    { path: '/' },
    `it is of ${state.sessions.map(({ name }) => JSON.stringify(name)).join(', ') || 'no session'}, not of ${JSON.stringify(session.name)}`,
  );
}

const CHUNK = 2 ** 20;

function readToEnd(kernel: Syscalls, fd: number): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let done = 0; ; ) {
    const part = new Uint8Array(CHUNK);
    const count = check(kernel.pread(fd, part, done), 'pread', { path: 'memfd' });
    if (count === 0) return Buffer.concat(parts);
    parts.push(part.subarray(0, count));
    done += count;
  }
}
