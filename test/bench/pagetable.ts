import type { BenchCase } from './measure.js';

export function cases(): BenchCase[] {
  return [];
}
