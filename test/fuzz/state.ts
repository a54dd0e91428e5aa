import type { FuzzTarget } from './fuzz.js';

export function target(): FuzzTarget {
  return () => {};
}
