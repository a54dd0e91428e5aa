/** What is told when everything was released. @module */

/** @param back who has the devices again */
export function describeRelease(leaked: readonly string[], back: string): string {
  return leaked.length === 0
    ? `${back}; no descriptor, mapping or pinned page is left`
    : `left behind: ${leaked.join(', ')}`;
}
