/** Verified I/O on a namespace: what was written is read back and compared, many commands at a time. @module */
import { createHash } from 'node:crypto';
import type { Namespace } from '../../drivers/nvme/index.js';
import { random } from '../../sim/random.js';

export interface WorkloadResult {
  /** Reads and writes that were asked for; long ones take several commands. */
  readonly transfers: number;
  readonly bytesWritten: number;
  /** Read back and found to be what was written. */
  readonly bytesVerified: number;
  /** Read back and found to be something else. */
  readonly bytesWrong: number;
  /** Of everything written, in order of address. */
  readonly sha256: string;
}

const QUEUE_DEPTH = 32;
const LARGEST = 2 ** 20;

interface Extent {
  readonly lba: number;
  readonly bytes: Uint8Array;
}

/** Extents of mixed sizes, one after the other, with noise in them. */
function plan(blockSize: number, total: number, seed: number): Extent[] {
  const rng = random(seed);
  const noise = new Uint8Array(total);
  const words = new Uint32Array(noise.buffer);
  for (let i = 0; i < words.length; i++) words[i] = rng.below(2 ** 32);
  const extents: Extent[] = [];
  for (let at = 0; at < total; ) {
    // As many small ones as large ones: the exponent is what is uniform.
    const most = Math.min(LARGEST, total - at) / blockSize;
    const blocks = Math.min(1 + rng.below(2 ** rng.below(1 + Math.ceil(Math.log2(most)))), most);
    extents.push({ lba: at / blockSize, bytes: noise.subarray(at, at + blocks * blockSize) });
    at += blocks * blockSize;
  }
  return rng.shuffle(extents);
}

/** Works on all items, so many at a time. */
export async function atDepth<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  const run = async (): Promise<void> => {
    while (next < items.length) await work(items[next++] as T);
  };
  await Promise.all(Array.from({ length: QUEUE_DEPTH }, run));
}

/**
 * Writes `total` bytes from block 0 on, in random order, flushes, and reads them back in another order.
 *
 * @param total a multiple of the block size, and of 4
 */
export async function verifiedIo(
  namespace: Namespace,
  total: number,
  options: { seed: number; signal?: AbortSignal; onProgress?: (bytesDone: number) => void },
): Promise<WorkloadResult> {
  const { seed, signal, onProgress } = options;
  const extents = plan(namespace.blockSize, total, seed);
  let done = 0;
  const progress = (bytes: number): void => {
    done += bytes;
    onProgress?.(done);
  };
  await atDepth(extents, async ({ lba, bytes }) => {
    await namespace.write(lba, bytes, { signal });
    progress(bytes.length);
  });
  await namespace.flush();
  let bytesVerified = 0;
  await atDepth(random(seed + 1).shuffle([...extents]), async ({ lba, bytes }) => {
    const back = await namespace.read(lba, new Uint8Array(bytes.length), { signal });
    if (Buffer.compare(back, bytes) === 0) bytesVerified += bytes.length;
    progress(bytes.length);
  });
  const sha256 = createHash('sha256');
  for (const { bytes } of [...extents].sort((a, b) => a.lba - b.lba)) sha256.update(bytes);
  return {
    transfers: 2 * extents.length,
    bytesWritten: total,
    bytesVerified,
    bytesWrong: total - bytesVerified,
    sha256: sha256.digest('hex'),
  };
}
