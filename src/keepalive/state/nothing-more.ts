/** That all of a record is written. @module */

/** A field that is in a record and not written would be lost: a new one does not compile before it is dealt with. */
export function nothingMore(rest: Record<string, never>): void {
  const [field] = Object.keys(rest);
  if (field !== undefined) throw new TypeError(`there is no such field: ${field}`);
}
