/**
 * Device-tree source text of a tree: for people, and for dtc, which makes the same tree of it but for the number of the
 * boot processor, which source text does not have. In which way a value is written says nothing of what it means: as
 * dtc does it, as text where it can be text, as cells where it can be cells, and otherwise as bytes.
 *
 * @module
 */
import { hex } from '../../hex.js';
import type { Fdt, FdtNode } from './fdt.js';

const CELL = 4;
/** On a line; a value of no more stays on the line of its name. */
const LINE_CELLS = 8;
const LINE_BYTES = 24;

/** Whether it is one or more strings, none empty, of printable ASCII. */
function isText(value: Buffer): boolean {
  let length = 0;
  for (const byte of value) {
    if (byte === 0 ? length === 0 : byte < 0x20 || byte > 0x7e) return false;
    length = byte === 0 ? 0 : length + 1;
  }
  return length === 0;
}

function* list(
  [open, close]: string,
  value: Buffer,
  unit: number,
  perLine: number,
  indent: string,
  show: (at: number) => string,
): Generator<string> {
  const inLines = value.length > unit * perLine;
  yield open as string;
  for (let start = 0; start < value.length; start += unit * perLine) {
    const end = Math.min(start + unit * perLine, value.length);
    const line: string[] = [];
    for (let at = start; at < end; at += unit) line.push(show(at));
    yield `${inLines ? `\n${indent}\t` : ''}${line.join(' ')}`;
  }
  yield `${inLines ? `\n${indent}` : ''}${close}`;
}

function* valueText(value: Buffer, indent: string): Generator<string> {
  if (isText(value)) {
    const strings = value.toString('latin1').slice(0, -1).split('\0');
    yield strings.map(each => `"${each.replace(/["\\]/g, '\\$&')}"`).join(', ');
  } else if (value.length % CELL === 0) {
    yield* list('<>', value, CELL, LINE_CELLS, indent, at => hex(value.readUInt32BE(at)));
  } else {
    yield* list('[]', value, 1, LINE_BYTES, indent, at => value.toString('hex', at, at + 1));
  }
}

function* nodeText({ name, properties, children }: FdtNode, indent: string): Generator<string> {
  const inner = `${indent}\t`;
  yield `${indent}${name || '/'} {\n`;
  for (const [property, value] of properties) {
    yield `${inner}${property}`;
    if (value.length > 0) {
      yield ' = ';
      yield* valueText(Buffer.from(value.buffer, value.byteOffset, value.length), inner);
    }
    yield ';\n';
  }
  for (const child of children) {
    yield '\n';
    yield* nodeText(child, inner);
  }
  yield `${indent}};\n`;
}

/** Writes a tree, such as `readFdt` returns, as source text, line by line or less. */
export function* fdtSource({ root, reservations }: Fdt): Generator<string> {
  yield '/dts-v1/;\n';
  for (const { address, size } of reservations) yield `/memreserve/ ${hex(address)} ${hex(size)};\n`;
  yield '\n';
  yield* nodeText(root, '');
}
