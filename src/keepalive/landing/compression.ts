/**
 * Compressed parts of an initrd image. The kernel goes on behind the end of such a part (lib/decompress_*.c), so that
 * the end must be found exactly; programs that decompress take all or complain.
 *
 * @module
 */
import { spawnSync } from 'node:child_process';
import { inflateRawSync } from 'node:zlib';
import { crc32 } from '../crc32.js';
import { LandingImageError } from './image-error.js';

/** What was in a compressed part. */
export interface Decompressed {
  readonly data: Uint8Array;
  /** Where the part ends, in bytes. */
  readonly end: number;
}

interface Method {
  readonly name: string;
  readonly magic: Uint8Array;
  decompress?(bytes: Buffer, start: number): Decompressed;
}

const MAX_OUTPUT = 2 ** 31;

const cutOff = (name: string): LandingImageError =>
  new LandingImageError(`the part compressed with ${name} is cut off or damaged`);

/** Runs `parse`, in which a read beyond the end means that something is cut off. */
function within<T>(name: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw error instanceof RangeError ? cutOff(name) : error;
  }
}

// gzip: RFC 1952

const GZIP_HEADER = 10;
const GZIP_TRAILER = 8;
const GzipFlag = { HeaderChecksum: 1 << 1, Extra: 1 << 2, Name: 1 << 3, Comment: 1 << 4 } as const;

function gzipDataStart(bytes: Buffer, start: number): number {
  const flags = bytes.readUInt8(start + 3);
  let at = start + GZIP_HEADER;
  if (flags & GzipFlag.Extra) at += 2 + bytes.readUInt16LE(at);
  for (const flag of [GzipFlag.Name, GzipFlag.Comment]) {
    if (!(flags & flag)) continue;
    const end = bytes.indexOf(0, at);
    if (end < 0) throw cutOff('gzip');
    at = end + 1;
  }
  return flags & GzipFlag.HeaderChecksum ? at + 2 : at;
}

function gunzip(bytes: Buffer, start: number): Decompressed {
  const dataStart = gzipDataStart(bytes, start);
  let inflated: { buffer: Buffer; engine: { bytesWritten: number } };
  try {
    inflated = inflateRawSync(bytes.subarray(dataStart), {
      info: true,
      maxOutputLength: MAX_OUTPUT,
    }) as unknown as typeof inflated;
  } catch {
    throw cutOff('gzip');
  }
  const { buffer: data, engine } = inflated;
  const trailer = dataStart + engine.bytesWritten;
  const sum = bytes.readUInt32LE(trailer);
  const length = bytes.readUInt32LE(trailer + 4);
  if (sum !== crc32(data) || length !== data.length % 2 ** 32) throw cutOff('gzip');
  return { data, end: trailer + GZIP_TRAILER };
}

// Others: where they end, and a program

function run(program: string, args: readonly string[], input: Uint8Array): Buffer {
  const { error, status, stdout } = spawnSync(program, args, { input, maxBuffer: MAX_OUTPUT });
  if ((error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') {
    throw new LandingImageError(`looking into it takes the program ${program}`, `Install ${program}`);
  }
  if (error !== undefined || status !== 0) throw cutOff(program);
  return stdout;
}

const ZstdBlock = { Rle: 1 } as const;

/** RFC 8878, 3.1.1. */
function zstdEnd(bytes: Buffer, start: number): number {
  const descriptor = bytes.readUInt8(start + 4);
  const singleSegment = (descriptor & 0x20) !== 0;
  const checksum = (descriptor & 0x04) !== 0;
  const dictionary = [0, 1, 2, 4][descriptor & 3] as number;
  const contentSize = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] as number;
  let at = start + 5 + (singleSegment ? 0 : 1) + dictionary + contentSize;
  for (let last = false; !last; ) {
    const block = bytes.readUIntLE(at, 3);
    last = (block & 1) !== 0;
    at += 3 + (((block >> 1) & 3) === ZstdBlock.Rle ? 1 : block >> 3);
  }
  return at + (checksum ? 4 : 0);
}

const LZ4_MAGIC = 0x184c_2102;

/** The "legacy" frame, the only one that the kernel knows: it has no end of its own but the end of the file or a 0. */
function lz4End(bytes: Buffer, start: number): number {
  let at = start;
  while (at + 4 <= bytes.length) {
    const size = bytes.readUInt32LE(at);
    if (size === 0) return at;
    at += size === LZ4_MAGIC ? 4 : 4 + size;
  }
  return bytes.length;
}

const XZ_FOOTER = 12;
const XZ_FOOTER_MAGIC = Buffer.from('YZ');

/** A footer is as good as certain when its checksum is right and it says the same as the header (.xz format, 2.1.2). */
function xzEnd(bytes: Buffer, start: number): number {
  const flags = bytes.subarray(start + 6, start + 8);
  for (let at = start; ; at++) {
    at = bytes.indexOf(XZ_FOOTER_MAGIC, at);
    if (at < 0) throw cutOff('xz');
    const footer = at + 2 - XZ_FOOTER;
    if ((footer - start) % 4 !== 0 || footer <= start) continue;
    const repeated = bytes.subarray(footer + 8, at);
    if (!repeated.equals(flags)) continue;
    if (bytes.readUInt32LE(footer) === crc32(bytes.subarray(footer + 4, at))) return at + 2;
  }
}

const external = (
  name: string,
  magic: readonly number[],
  endOf: (bytes: Buffer, start: number) => number,
): Method => ({
  name,
  magic: Uint8Array.from(magic),
  decompress: (bytes, start) => {
    const end = endOf(bytes, start);
    if (end > bytes.length) throw cutOff(name);
    return { data: run(name, ['-dc'], bytes.subarray(start, end)), end };
  },
});

/** lib/decompress.c */
const methods: readonly Method[] = [
  { name: 'gzip', magic: Uint8Array.of(0x1f, 0x8b), decompress: gunzip },
  external('zstd', [0x28, 0xb5, 0x2f, 0xfd], zstdEnd),
  external('xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], xzEnd),
  external('lz4', [0x02, 0x21, 0x4c, 0x18], lz4End),
  { name: 'bzip2', magic: Uint8Array.of(0x42, 0x5a) },
  { name: 'lzma', magic: Uint8Array.of(0x5d, 0x00) },
  { name: 'lzo', magic: Uint8Array.of(0x89, 0x4c) },
];

/**
 * Decompresses the part that begins at `start`.
 *
 * @throws LandingImageError when it is of no kind known here, is cut off, or takes a program that is not there
 */
export function decompress(bytes: Buffer, start: number): Decompressed {
  const method = methods.find(({ magic }) => bytes.subarray(start, start + magic.length).equals(magic));
  if (method === undefined) {
    throw new LandingImageError(`there is neither an archive nor a known compression at byte ${start}`);
  }
  if (method.decompress === undefined) {
    throw new LandingImageError(
      `it is compressed with ${method.name}, which cannot be looked into`,
      'Make it with gzip, zstd, xz or lz4',
    );
  }
  return within(method.name, () => (method.decompress as NonNullable<Method['decompress']>)(bytes, start));
}
