/** Repeatable randomness: every test prints its seed. @module */

export interface Random {
  readonly seed: number;
  /** An integer from 0 to `limit - 1`. */
  below(limit: number): number;
  /** Fills memory with noise, fast: tens of MiB under emulation. */
  fill(bytes: Uint8Array): void;
  shuffle<T>(values: T[]): T[];
}

/** xorshift32 (Marsaglia 2003). */
export function random(seed = (Date.now() ^ (process.pid << 16)) >>> 0 || 1): Random {
  let state = seed;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
  const below = (limit: number): number => next() % limit;
  return {
    seed,
    below,
    fill(bytes) {
      const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
      for (let i = 0; i < words.length; i++) words[i] = next();
    },
    shuffle(values) {
      for (let i = values.length - 1; i > 0; i--) {
        const j = below(i + 1);
        [values[i], values[j]] = [values[j] as (typeof values)[0], values[i] as (typeof values)[0]];
      }
      return values;
    },
  };
}
