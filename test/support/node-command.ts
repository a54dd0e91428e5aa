/** Node.js as users start it. @module */

/**
 * A command for `spawn`: Node.js without what the test runner gives to every process in `NODE_OPTIONS`, which takes longer
 * to load than most programs.
 */
export function nodeCommand(...args: readonly string[]): [command: string, args: string[]] {
  return ['env', ['-u', 'NODE_OPTIONS', process.execPath, ...args]];
}
