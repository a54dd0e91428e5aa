/** Writes a flattened device tree front to back, in the codec's memory. @module */
import { checkInteger, checkU64 } from '../../check.js';
import type { Codec } from './codec.js';
import { MAX_SIZE } from './fdt-tree.js';

const nodeName = /^[0-9A-Za-z,._+*#?@-]{1,255}$/;
const MAX_DEPTH = 64;

/** Physical memory that must not be used: an entry of the memory reservation block. */
export interface FdtReservation {
  readonly address: bigint;
  /** In bytes. */
  readonly size: bigint;
}

/** Nodes and properties in the order in which they are begun; the caller begins and ends them properly. */
export class FdtWriter {
  readonly #codec: Codec;
  readonly #blob: number;
  /** Names of properties, in order of first use, with their places. */
  readonly #strings = new Map<string, number>();
  #stringsSize = 0;
  #depth = 0;

  /** @param at where the blob goes: a multiple of 8 */
  constructor(codec: Codec, at: number, reservations: readonly FdtReservation[] = []) {
    this.#codec = codec;
    this.#blob = at;
    const { core } = codec;
    this.#done(core.codecFdtBegin(at));
    for (const { address, size } of reservations) {
      if (checkU64('reservation size', size) === 0n) throw new RangeError('a reservation must not be empty');
      this.#done(core.codecFdtReservation(checkU64('reservation address', address), size));
    }
    this.#done(core.codecFdtReservation(0n, 0n));
  }

  #done(success: number): number {
    if (!success) this.#codec.exhausted();
    return success >>> 0;
  }

  /** The place of a property's name among the strings. */
  string(name: string): number {
    let place = this.#strings.get(name);
    if (place === undefined) {
      if (typeof name !== 'string' || !nodeName.test(name)) {
        throw new RangeError(`${JSON.stringify(name)} cannot name a property`);
      }
      place = this.#stringsSize;
      this.#strings.set(name, place);
      this.#stringsSize += name.length + 1;
    }
    return place;
  }

  /** The root has an empty name, and no other has. */
  beginNode(name: string): void {
    if (typeof name !== 'string' || (this.#depth === 0 ? name !== '' : !nodeName.test(name))) {
      throw new RangeError(`${JSON.stringify(name)} cannot name a node`);
    }
    if (this.#depth === MAX_DEPTH) throw new RangeError(`nodes are nested more than ${MAX_DEPTH} deep`);
    this.#depth++;
    const { bytes, staging, core } = this.#codec;
    for (let index = 0; index < name.length; index++) bytes[staging + index] = name.charCodeAt(index);
    this.#done(core.codecFdtBeginNode(name.length));
  }

  endNode(): void {
    this.#depth--;
    this.#done(this.#codec.core.codecFdtEndNode());
  }

  /** @returns the address of the value in the codec's memory */
  property(name: string, value: Uint8Array): number {
    if (!(value instanceof Uint8Array)) {
      throw new TypeError(`the value of property ${name} must be a Uint8Array, got ${typeof value}`);
    }
    this.#codec.reserve(this.#codec.core.codecFdtCursor() + value.length + 16);
    const at = this.#done(this.#codec.core.codecFdtProperty(this.string(name), value.length));
    this.#codec.bytes.set(value, at);
    return at;
  }

  /** Begins a property that the core writes to. */
  beginProperty(name: string): void {
    this.#done(this.#codec.core.codecFdtBeginProperty(this.string(name)));
  }

  /** @returns the address of the value, and its length */
  endProperty(): { at: number; length: number } {
    const end = this.#codec.core.codecFdtCursor() >>> 0;
    const at = this.#codec.core.codecFdtEndProperty() >>> 0;
    return { at, length: end - at };
  }

  /** Overwrites four bytes of a value that was written. */
  patchU32(at: number, value: number): void {
    const { bytes } = this.#codec;
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(at, value);
  }

  /** Ends the tree; it then lies complete in the codec's memory. @returns its size in bytes */
  end(bootCpu = 0): number {
    checkInteger('bootCpu', bootCpu, 0, 0xffff_ffff);
    const { core } = this.#codec;
    const at = this.#done(core.codecFdtFinish(this.#stringsSize, bootCpu));
    const text = [...this.#strings.keys()].map(name => `${name}\0`).join('');
    const { bytes } = this.#codec;
    Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).write(text, at, 'latin1');
    const size = at + text.length - this.#blob;
    if (size > MAX_SIZE) throw new RangeError(`the tree is larger than ${MAX_SIZE} bytes`);
    return size;
  }

  /** Ends the tree, and copies it out. */
  finish(bootCpu = 0): Uint8Array {
    const size = this.end(bootCpu);
    return this.#codec.copy(this.#blob, size);
  }
}
