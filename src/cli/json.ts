/** Writes results for programs. @module */

/**
 * One JSON document. What is 64 bits wide on the device (blocks, sizes in bytes) is a `bigint` here and becomes a
 * decimal string, whatever its value: numbers in JSON are good to 53 bits only.
 */
export function toJson(value: unknown): string {
  return `${stringify(value, 2)}\n`;
}

/** What a terminal must not see of text that others wrote; JSON escapes the rest of it by itself. */
const UNPRINTABLE = /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

function stringify(value: unknown, indent?: number): string {
  const text = JSON.stringify(
    value,
    (_key, each) => (typeof each === 'bigint' ? String(each) : each),
    indent,
  );
  return text.replace(UNPRINTABLE, each => `\\u${each.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Rows of a table that may be too long for one string: each on a line of its own. For {@link jsonPieces} alone. */
export class JsonRows {
  readonly rows: Iterable<unknown>;

  constructor(rows: Iterable<unknown>) {
    this.rows = rows;
  }
}

const INDENT = '  ';
/** Of text to be written at a time, in characters. */
const PIECE = 1 << 16;

/** As {@link toJson}, piece by piece. */
export function* jsonPieces(value: unknown): Generator<string> {
  let text = '';
  for (const part of parts(value, '')) {
    text += part;
    if (text.length < PIECE) continue;
    yield text;
    text = '';
  }
  yield `${text}\n`;
}

function* parts(value: unknown, indent: string): Generator<string> {
  const inner = indent + INDENT;
  if (value instanceof JsonRows) {
    yield* enclosed('[', ']', value.rows, indent, row => [stringify(row)]);
  } else if (Array.isArray(value)) {
    yield* enclosed('[', ']', value, indent, each => parts(each, inner));
  } else if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).filter(([, each]) => each !== undefined);
    yield* enclosed('{', '}', entries, indent, function* ([name, each]) {
      yield `${stringify(name)}: `;
      yield* parts(each, inner);
    });
  } else yield stringify(value);
}

function* enclosed<T>(
  open: string,
  close: string,
  items: Iterable<T>,
  indent: string,
  write: (item: T) => Iterable<string>,
): Generator<string> {
  let separator = open;
  for (const item of items) {
    yield `${separator}\n${indent}${INDENT}`;
    yield* write(item);
    separator = ',';
  }
  yield separator === open ? `${open}${close}` : `\n${indent}${close}`;
}
