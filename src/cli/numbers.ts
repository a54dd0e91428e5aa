/** Reads the numbers that a user types. @module */

const BINARY = 1024;
const DECIMAL = 1000;
const prefixes = ['', 'k', 'm', 'g', 't', 'p'];

/**
 * A count: decimal, or hexadecimal after `0x`.
 *
 * @throws RangeError, which names `title`
 */
export function parseCount(title: string, text: string, minimum = 0): number {
  const value = /^(\d+|0x[0-9a-f]+)$/i.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value) || value < minimum) {
    const least = minimum > 0 ? ` of at least ${minimum}` : '';
    throw new RangeError(`${title} must be a whole number${least} such as 8 or 0x1000, got "${text}"`);
  }
  return value;
}

/**
 * A number of bytes: a count, or one with a unit. As in dd, `K` and `KiB` are 1024 and `kB` is 1000; case does not
 * matter.
 *
 * @throws RangeError, which names `title`
 */
export function parseSize(title: string, text: string): number {
  const match = /^(\d+)\s*([kmgtp]?)(ib|b)?$/i.exec(text);
  let value = Number.NaN;
  if (match) {
    const [, digits = '', prefix = '', suffix = ''] = match;
    const power = prefixes.indexOf(prefix.toLowerCase());
    const base = suffix.toLowerCase() === 'b' ? DECIMAL : BINARY;
    // "5iB" has no meaning.
    if (power > 0 || suffix.toLowerCase() !== 'ib') value = Number(digits) * base ** power;
  } else if (/^0x[0-9a-f]+$/i.test(text)) {
    value = Number(text);
  }
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new RangeError(`${title} must be a size such as 4096, 0x1000, 4KiB or 1MiB, got "${text}"`);
  }
  return value;
}

const milliseconds: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, min: 60_000 };
/** Beyond this, timers fire at once. */
const LONGEST = 2 ** 31 - 1;

/**
 * A duration in ms: seconds, or with a unit `ms`, `s` or `m`.
 *
 * @throws RangeError, which names `title`
 */
export function parseDuration(title: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|min)?$/.exec(text);
  const value = match ? Math.round(Number(match[1]) * (milliseconds[match[2] ?? 's'] as number)) : Number.NaN;
  if (!(value >= 1 && value <= LONGEST)) {
    throw new RangeError(`${title} must be a time such as 10, 500ms or 2m, got "${text}"`);
  }
  return value;
}
