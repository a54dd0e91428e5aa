/** The descriptors that events are read from. @module */
import { OpenFile } from '../process/open-file.js';
import type { SimulatedProcess } from '../process/process.js';
import type { IommufdContext } from './context.js';
import type { IommufdObject } from './objects.js';

/** What the file asks of the queue that it belongs to. */
export interface EventSource extends IommufdObject {
  readonly context: IommufdContext;
  /** There is something to read. */
  readonly pending: boolean;
  /** As `read(2)`. */
  read(buffer: Uint8Array): number;
  /** As `write(2)`. */
  write?(buffer: Uint8Array): number;
}

export class EventFile extends OpenFile {
  override readonly name: string;
  readonly #source: EventSource;

  /** The queue lives as long as the file at least, and so does the context. */
  constructor(name: string, source: EventSource) {
    super();
    this.name = `anon_inode:${name}`;
    this.#source = source;
    source.users++;
    source.context.file.get();
  }

  override read(_process: SimulatedProcess, buffer: Uint8Array): number {
    return this.#source.read(buffer);
  }

  override write(process: SimulatedProcess, buffer: Uint8Array): number {
    return this.#source.write?.(buffer) ?? super.write(process, buffer);
  }

  override get readable(): boolean {
    return this.#source.pending;
  }

  /** Something has come. */
  notify(): void {
    this.wake();
  }

  protected override release(): void {
    this.#source.users--;
    this.#source.context.file.put();
  }
}
