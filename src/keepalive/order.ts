/** The order that records and their fields are kept in: ascending by a key. @module */
export function by<T, K extends string | number | bigint>(keyOf: (item: T) => K): (a: T, b: T) => number {
  return (a, b) => {
    const [first, second] = [keyOf(a), keyOf(b)];
    return first < second ? -1 : first > second ? 1 : 0;
  };
}
