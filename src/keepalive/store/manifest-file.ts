/**
 * A manifest in a memfd that is rewritten while it is kept: in two halves, of which one is whole at every moment, whenever
 * the process that writes it ends.
 *
 *     +0                  half 0: u64 sequence, u64 length, u32 CRC-32 of these, u32 0, then as many bytes
 *     +size / 2           half 1
 *
 * The bytes of a half are written before its header, and the header says a higher sequence than the other's only then. It
 * is never torn, as it does not cross a page. The bytes have a checksum of their own.
 *
 * @module
 */
import type { Syscalls } from '../../../bindings/syscalls.js';
import { check } from '../../ioctl.js';
import { createSealedMemfd, PageSize } from '../../memory/memfd.js';
import { crc32 } from '../crc32.js';
import { type Manifest, readManifest } from '../handoff/manifest.js';
import { StateError, StateErrorCode } from '../state/state-error.js';

const HEADER = 24;
/** What of a header its checksum is of. */
const SUMMED = 16;
/** Of a half: much more than a few devices need. */
const SMALLEST = 65_536;

/** A manifest that was found, and where. */
export interface FoundManifest {
  readonly manifest: Manifest;
  readonly bytes: Uint8Array;
}

export class ManifestFile implements Disposable {
  readonly fd: number;
  readonly #kernel: Syscalls;
  readonly #half: number;
  #sequence: bigint;

  /** @param fd which is taken over */
  private constructor(kernel: Syscalls, fd: number, half: number, sequence: bigint) {
    this.#kernel = kernel;
    this.fd = fd;
    this.#half = half;
    this.#sequence = sequence;
  }

  /** One with room for twice `bytes`, and nothing in it. @param sequence that the next manifest must exceed */
  static create(kernel: Syscalls, bytes: number, sequence: bigint): ManifestFile {
    let half = SMALLEST;
    while (half < 2 * bytes + HEADER) half *= 2;
    const fd = createSealedMemfd(kernel, 'iommufd-manifest', 2 * half, PageSize.Small);
    return new ManifestFile(kernel, fd, half, sequence);
  }

  /** The highest sequence in it. */
  get sequence(): bigint {
    return this.#sequence;
  }

  hasRoomFor(bytes: number): boolean {
    return bytes <= this.#half - HEADER;
  }

  /** Puts `bytes` in the place of what was there. @throws KernelError; what was there is there still */
  write(bytes: Uint8Array): void {
    const sequence = this.#sequence + 1n;
    const at = Number(sequence % 2n) * this.#half;
    check(this.#kernel.pwrite(this.fd, bytes, at + HEADER), 'pwrite', { path: 'memfd' });
    const header = new Uint8Array(HEADER);
    const view = new DataView(header.buffer);
    view.setBigUint64(0, sequence, true);
    view.setBigUint64(8, BigInt(bytes.length), true);
    view.setUint32(SUMMED, crc32(header.subarray(0, SUMMED)), true);
    check(this.#kernel.pwrite(this.fd, header, at), 'pwrite', { path: 'memfd' });
    this.#sequence = sequence;
  }

  /** The file of a predecessor, to go on with. @throws StateError, KernelError */
  static adopt(kernel: Syscalls, fd: number): ManifestFile {
    return new ManifestFile(kernel, fd, sizeOf(kernel, fd) / 2, lastSequence(kernel, fd));
  }

  [Symbol.dispose](): void {
    check(this.#kernel.close(this.fd), 'close', { path: 'memfd' });
  }
}

function damaged(at: number, reason: string): never {
  throw new StateError(StateErrorCode.Damaged, { offset: at }, reason);
}

/**
 * The header of the manifest that was written last. While a half is written its header is that of what was there before,
 * which is older than the other half: so the last is whole, and where it is not, no older one may be taken for it.
 */
function lastHeader(
  kernel: Syscalls,
  fd: number,
): { at: number; sequence: bigint; length: number } | undefined {
  const half = sizeOf(kernel, fd) / 2;
  const headers = [0, half].map((at, index) => {
    const header = read(kernel, fd, at, HEADER);
    const view = new DataView(header.buffer);
    const sequence = view.getBigUint64(0, true);
    if (sequence > 0n && view.getUint32(SUMMED, true) !== crc32(header.subarray(0, SUMMED)))
      damaged(at, 'the header of a manifest has another checksum');
    if (sequence > 0n && Number(sequence % 2n) !== index)
      damaged(at, `manifest ${sequence} is in the wrong half`);
    return { at, sequence, length: view.getBigUint64(8, true) };
  });
  const [last, before] = headers.sort((a, b) => (a.sequence > b.sequence ? -1 : 1)) as [
    (typeof headers)[number],
    (typeof headers)[number],
  ];
  const { at, sequence, length } = last;
  if (sequence === 0n) return undefined;
  if (before.sequence > 0n && before.sequence !== sequence - 1n) {
    damaged(at, `manifest ${sequence} cannot have been written after manifest ${before.sequence}`);
  }
  if (length > BigInt(half - HEADER)) damaged(at, `a manifest of ${length} bytes has no room there`);
  return { at: at + HEADER, sequence, length: Number(length) };
}

/** Of the last manifest in a file; 0 when none ever was. @throws StateError, KernelError */
export function lastSequence(kernel: Syscalls, fd: number): bigint {
  return lastHeader(kernel, fd)?.sequence ?? 0n;
}

/**
 * The last manifest that was written to a file.
 *
 * @returns undefined when none ever was
 * @throws StateError when it cannot be read, KernelError
 */
export function findManifest(kernel: Syscalls, fd: number): FoundManifest | undefined {
  const header = lastHeader(kernel, fd);
  if (header === undefined) return undefined;
  const bytes = read(kernel, fd, header.at, header.length);
  return { manifest: readManifest(bytes), bytes };
}

function read(kernel: Syscalls, fd: number, at: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const count = check(kernel.pread(fd, bytes.subarray(done), at + done), 'pread', { path: 'memfd' });
    if (count === 0) damaged(at + done, 'the file ends there');
    done += count;
  }
  return bytes;
}

/** In bytes: a power of two, found by what can be read. */
function sizeOf(kernel: Syscalls, fd: number): number {
  const byte = new Uint8Array(1);
  for (let size = 2 * SMALLEST; ; size *= 2) {
    if (check(kernel.pread(fd, byte, size), 'pread', { path: 'memfd' }) === 0) return size;
  }
}
