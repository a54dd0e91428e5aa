/** An open text file: an attribute in sysfs, a file in procfs. @module */
import { EACCES } from '../../../bindings/uapi/errno.js';
import { readNode, type TextNode } from './file-tree.js';
import { OpenFile } from './open-file.js';
import type { SimulatedProcess } from './process.js';

const O_ACCMODE = 3;
const O_RDONLY = 0;
const O_WRONLY = 1;

/** What is read is made anew by every read; what is written is taken by every write, wherever it goes to. */
export class TextFile extends OpenFile {
  override readonly name: string;
  readonly #node: TextNode;
  #position = 0;

  private constructor(path: string, node: TextNode) {
    super();
    this.name = path;
    this.#node = node;
  }

  /** `open(2)`. @returns minus EACCES for what the file cannot do */
  static open(path: string, node: TextNode, flags: number): TextFile | number {
    const mode = flags & O_ACCMODE;
    if (mode !== O_WRONLY && node.read === undefined) return -EACCES;
    if (mode !== O_RDONLY && node.write === undefined) return -EACCES;
    return new TextFile(path, node);
  }

  override pread(process: SimulatedProcess, buffer: Uint8Array, offset: number): number {
    const text = readNode(process, this.#node);
    if (typeof text === 'number') return text;
    const bytes = new TextEncoder().encode(text).subarray(offset, offset + buffer.byteLength);
    buffer.set(bytes);
    return bytes.byteLength;
  }

  override pwrite(process: SimulatedProcess, buffer: Uint8Array, _offset: number): number {
    const result = this.#node.write?.(process, new TextDecoder().decode(buffer)) ?? -EACCES;
    return result < 0 ? result : buffer.byteLength;
  }

  override read(process: SimulatedProcess, buffer: Uint8Array): number {
    const count = this.pread(process, buffer, this.#position);
    if (count > 0) this.#position += count;
    return count;
  }

  override write(process: SimulatedProcess, buffer: Uint8Array): number {
    return this.pwrite(process, buffer, this.#position);
  }

  protected override release(): void {}
}
