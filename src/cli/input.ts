/** Where data to be written comes from. @module */
import { fstatSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { addAbortSignal, type Readable } from 'node:stream';
import { isFifo, openFifoToRead } from './fifo.js';

const STDIN = 0;
const READ_AHEAD = 1 << 20;

export interface Input extends AsyncDisposable {
  /** In bytes; `undefined` when it cannot be known before it has been read. */
  readonly size: number | undefined;
  /** Fills `buffer`, less at the end only. @returns bytes; 0 at the end */
  fill(buffer: Uint8Array): Promise<number>;
}

/**
 * Opens a file, or standard input for `-`, which is not touched before the first {@link Input.fill}.
 *
 * @param signal ends a wait for data
 */
export async function openInput(name: string, signal: AbortSignal): Promise<Input> {
  if (name === '-') {
    return new StreamInput(remainingStdin(), () => process.stdin, signal);
  }
  if (await isFifo(name)) return new StreamInput(undefined, () => openFifoToRead(name), signal);
  const file = await open(name, 'r');
  try {
    const status = await file.stat();
    if (status.isDirectory()) throw new Error(`${name} is a directory`);
    return new StreamInput(
      status.isFile() ? status.size : undefined,
      () => file.createReadStream({ highWaterMark: READ_AHEAD }),
      signal,
      () => file.close(),
    );
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** What is left of standard input, when it is a file: a script may have read part of it. */
function remainingStdin(): number | undefined {
  const status = fstatSync(STDIN);
  if (!status.isFile()) return undefined;
  const position = /^pos:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${STDIN}`, 'utf8'))?.[1];
  return position === undefined ? undefined : Math.max(status.size - Number(position), 0);
}

class StreamInput implements Input {
  readonly size: number | undefined;
  readonly #open: () => Readable;
  readonly #signal: AbortSignal;
  readonly #close: () => Promise<void>;
  #stream: Readable | undefined;
  #pieces: AsyncIterator<Uint8Array> | undefined;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(
    size: number | undefined,
    open: () => Readable,
    signal: AbortSignal,
    close: () => Promise<void> = async () => undefined,
  ) {
    this.size = size;
    this.#open = open;
    this.#signal = signal;
    this.#close = close;
  }

  async fill(buffer: Uint8Array): Promise<number> {
    this.#stream ??= addAbortSignal(this.#signal, this.#open());
    this.#pieces ??= this.#stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
    let filled = 0;
    while (filled < buffer.length) {
      if (this.#rest.length === 0) {
        const next = await this.#pieces.next();
        if (next.done) break;
        this.#rest = next.value;
      }
      const taken = this.#rest.subarray(0, buffer.length - filled);
      buffer.set(taken, filled);
      filled += taken.length;
      this.#rest = this.#rest.subarray(taken.length);
    }
    return filled;
  }

  /** Also ends a {@link fill} that waits. */
  async [Symbol.asyncDispose](): Promise<void> {
    // The iterator has left by now, and with it whoever would hear of an error.
    this.#stream?.on('error', () => undefined);
    this.#stream?.destroy();
    await this.#close();
  }
}
