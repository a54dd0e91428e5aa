/** What this process holds, as the kernel counts it: for tests that nothing is left behind. @module */
import { readdirSync, readFileSync } from 'node:fs';

/** Open file descriptors, the one that counts them included. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Memory mappings whose line in `/proc/self/maps` contains `name`. */
export function mappings(name: string): number {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter(line => line.includes(name)).length;
}
