/** Writes results for programs. @module */

/**
 * One JSON document. What is 64 bits wide on the device (blocks, sizes in bytes) is a `bigint` here and becomes a
 * decimal string, whatever its value: numbers in JSON are good to 53 bits only.
 */
export function toJson(value: unknown): string {
  const text = JSON.stringify(value, (_key, each) => (typeof each === 'bigint' ? String(each) : each), 2);
  return `${text}\n`;
}
