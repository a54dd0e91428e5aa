/** Moves a stream of any length through bounded memory. @module */

/** Fills a buffer as far as there is data. @returns bytes; 0 at the end */
export type Fill = (buffer: Uint8Array) => Promise<number>;
/** Uses the bytes, which are overwritten once it is done. */
export type Drain = (bytes: Uint8Array) => Promise<void>;

/**
 * Two buffers in turn: while one is emptied, the other is filled. When either side fails it does not wait for the
 * filling, which may wait for a person at a keyboard; but what was filled before is emptied.
 */
export async function pump(size: number, fill: Fill, drain: Drain): Promise<void> {
  const buffers: readonly [Uint8Array, Uint8Array] = [new Uint8Array(size), new Uint8Array(size)];
  let draining = Promise.resolve();
  try {
    for (let turn: 0 | 1 = 0; ; turn = turn === 0 ? 1 : 0) {
      const buffer = buffers[turn];
      const [length] = await Promise.all([fill(buffer), draining]);
      if (length === 0) return;
      draining = drain(buffer.subarray(0, length));
      // It is looked at in the next turn, which may be later than it fails.
      draining.catch(() => undefined);
    }
  } finally {
    await Promise.allSettled([draining]);
  }
}
