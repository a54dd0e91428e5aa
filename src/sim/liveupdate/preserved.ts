/** What crosses a kexec: sessions and their files, as one kernel leaves them to the next. @module */

/** A memfd between two kernels. */
export interface PreservedMemory {
  /** In bytes. */
  readonly size: number;
  /** What was in it when the old kernel ended. */
  readonly content: Uint8Array;
  /** The frame of each of its pages, which nothing else gets. */
  readonly frames: readonly number[];
  /** F_SEAL_*. */
  readonly seals: number;
  /** Where the next read or write begins, in bytes. */
  readonly position: number;
}

export interface PreservedFile {
  readonly token: bigint;
  readonly memory: PreservedMemory;
}

export interface PreservedSession {
  /** Without the terminating NUL. */
  readonly name: string;
  /** In the order in which they were preserved. */
  readonly files: readonly PreservedFile[];
}

/** What one kernel leaves to the next. */
export interface Preserved {
  /** In the order in which they were created. */
  readonly sessions: readonly PreservedSession[];
}

/** Every frame that holds something preserved. */
export function preservedFrames(preserved: Preserved): Set<number> {
  return new Set(preserved.sessions.flatMap(session => session.files.flatMap(file => file.memory.frames)));
}
