/** Repeatable randomness for the simulated host. @module */

export interface Random {
  readonly seed: number;
  /** An integer from 0 to `limit - 1`. */
  below(limit: number): number;
  /** True once in `oneIn` calls, on average. */
  chance(oneIn: number): boolean;
  shuffle<T>(values: T[]): T[];
}

/** xorshift32 (Marsaglia 2003). */
export function random(seed: number): Random {
  let state = seed >>> 0 || 1;
  const below = (limit: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % limit;
  };
  return {
    seed,
    below,
    chance: oneIn => below(oneIn) === 0,
    shuffle(values) {
      for (let i = values.length - 1; i > 0; i--) {
        const j = below(i + 1);
        [values[i], values[j]] = [values[j] as (typeof values)[0], values[i] as (typeof values)[0]];
      }
      return values;
    },
  };
}
