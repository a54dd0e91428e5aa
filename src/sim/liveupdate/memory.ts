/** How a memfd is preserved, and made again (the "memfd-v2" handler). @module */
import { ENOMEM } from '../../../bindings/uapi/errno.js';
import { MemoryObject } from '../machine/memory-object.js';
import { PAGE, type PhysicalMemory } from '../machine/physical-memory.js';
import { MemFd } from '../process/memfd.js';
import type { PreservedMemory } from './preserved.js';

/** A memfd that stays as it is until the kexec: its size is fixed, every page is there and pinned. */
export class PreservedFileMemory {
  readonly file: MemFd;
  readonly #physical: PhysicalMemory;
  readonly #frames: readonly number[];
  /** Those that it had then: what is added later is lost. */
  readonly #seals: number;

  private constructor(physical: PhysicalMemory, file: MemFd, frames: readonly number[]) {
    this.#physical = physical;
    this.file = file;
    this.#frames = frames;
    this.#seals = file.seals;
  }

  /** Takes a reference to the file. @returns minus ENOMEM when there is no memory for its holes */
  static preserve(physical: PhysicalMemory, file: MemFd): PreservedFileMemory | number {
    const frames: number[] = [];
    for (let page = 0; page < file.memory.pages; page++) {
      const frame = file.memory.frame(page);
      if (frame === undefined) return -ENOMEM;
      frames.push(frame);
    }
    for (const frame of frames) physical.pin(frame);
    file.frozen = true;
    return new PreservedFileMemory(physical, file.get(), frames);
  }

  /** For the next kernel: content and position as they are now. */
  serialise(): PreservedMemory {
    const { memory, position } = this.file;
    const content = memory.bytes.slice();
    return { size: memory.size, content, frames: this.#frames, seals: this.#seals, position };
  }

  /** The live update does not come: the file is its owner's alone again. */
  unpreserve(): void {
    for (const frame of this.#frames) this.#physical.unpin(frame);
    this.file.frozen = false;
    this.file.put();
  }
}

/** The memory again, in the very frames where it was. */
export function restoreMemory(physical: PhysicalMemory, preserved: PreservedMemory): MemoryObject {
  const buffer = preserved.content.slice().buffer;
  const memory = new MemoryObject(physical, '', preserved.size, PAGE, buffer);
  for (const [page, frame] of preserved.frames.entries()) memory.restore(page, frame);
  return memory;
}

/** A file for memory that {@link restoreMemory} made: without its name, but with seals and position. */
export function restoreFile(memory: MemoryObject, { seals, position }: PreservedMemory): MemFd {
  const file = new MemFd('', memory, 0);
  file.addSeals(seals);
  file.position = position;
  return file;
}
