/** Where data that was read goes. @module */
import { type FileHandle, open } from 'node:fs/promises';
import { isFifo, openFifoToWrite } from './fifo.js';
import { print, writeTo } from './streams.js';

export interface Output extends AsyncDisposable {
  write(bytes: Uint8Array): Promise<void>;
}

/** @param name a file, which is created or replaced, or `-` for standard output */
export async function openOutput(name: string, signal: AbortSignal): Promise<Output> {
  if (name === '-') {
    return { write: bytes => print(bytes, signal), [Symbol.asyncDispose]: async () => undefined };
  }
  if (await isFifo(name)) {
    const fifo = await openFifoToWrite(name, signal);
    // Failures reach whoever writes; the event that repeats them would end the process.
    fifo.on('error', () => undefined);
    return {
      write: bytes => writeTo(fifo, bytes, signal),
      [Symbol.asyncDispose]: async () => void fifo.destroy(),
    };
  }
  const file = await open(name, 'w');
  return {
    write: bytes => writeAll(file, bytes, signal),
    [Symbol.asyncDispose]: () => file.close(),
  };
}

async function writeAll(file: FileHandle, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    signal.throwIfAborted();
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done);
    done += bytesWritten;
  }
}
