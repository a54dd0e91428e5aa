/** Orders to sort by. @module */

/** Ascending by a key. */
export function by<T, K extends string | number | bigint>(keyOf: (item: T) => K): (a: T, b: T) => number {
  return (a, b) => ascending(keyOf(a), keyOf(b));
}

/** Ascending. */
export function ascending<K extends string | number | bigint>(a: K, b: K): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
