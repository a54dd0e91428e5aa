/**
 * The "newc" cpio format, which the kernel unpacks as an initial root file system
 * (Documentation/driver-api/early-userspace/buffer-format.rst).
 *
 * @module
 */
import { LandingImageError } from './image-error.js';

/** A file to be packed. */
export interface CpioItem {
  /** Relative to the root, without a slash in front. */
  readonly path: string;
  /** File type and permission bits as in `st_mode`. */
  readonly mode: number;
  /** File contents, or a symbolic link's target. */
  readonly data?: Uint8Array;
  readonly device?: { readonly major: number; readonly minor: number };
}

/** A file that was packed. */
export interface CpioEntry {
  readonly path: string;
  readonly mode: number;
  readonly data: Uint8Array;
}

/** File types in `st_mode`. */
export const FileType = {
  Mask: 0o170000,
  Directory: 0o040000,
  Regular: 0o100000,
  Link: 0o120000,
  CharacterDevice: 0o020000,
} as const;

export const directory = (path: string): CpioItem => ({ path, mode: FileType.Directory | 0o755 });
export const file = (path: string, data: Uint8Array): CpioItem => ({
  path,
  mode: FileType.Regular | 0o644,
  data,
});
export const program = (path: string, data: Uint8Array): CpioItem => ({
  path,
  mode: FileType.Regular | 0o755,
  data,
});
export const link = (path: string, target: string): CpioItem => ({
  path,
  mode: FileType.Link | 0o777,
  data: Buffer.from(target),
});
export const characterDevice = (path: string, major: number, minor: number): CpioItem => ({
  path,
  mode: FileType.CharacterDevice | 0o600,
  device: { major, minor },
});

const MAGIC = '070701';
/** With checksums, which the kernel ignores. */
const MAGIC_CHECKSUM = '070702';
const FIELDS = 13;
const HEADER = MAGIC.length + 8 * FIELDS;
const TRAILER = 'TRAILER!!!';
/** Headers and contents begin at multiples of this. */
export const CPIO_ALIGNMENT = 4;

const padding = (length: number): number => -length & (CPIO_ALIGNMENT - 1);
const padded = (parts: readonly Uint8Array[]): Buffer => {
  const joined = Buffer.concat(parts);
  return Buffer.concat([joined, Buffer.alloc(padding(joined.length))]);
};

const record = (item: CpioItem, inode: number): Buffer => {
  const data = item.data ?? new Uint8Array();
  const name = Buffer.from(`${item.path}\0`);
  // ino, mode, uid, gid, nlink, mtime, size, device of the file (2), device it is (2), name length, checksum
  const fields = [inode, item.mode, 0, 0, 1, 0, data.length, 0, 0];
  fields.push(item.device?.major ?? 0, item.device?.minor ?? 0, name.length, 0);
  const header = `${MAGIC}${fields.map(value => value.toString(16).padStart(8, '0')).join('')}`;
  return Buffer.concat([padded([Buffer.from(header), name]), padded([data])]);
};

/** Packs the items, directories before what they contain. */
export const packCpio = (items: readonly CpioItem[]): Buffer =>
  Buffer.concat([
    ...items.map((item, index) => record(item, index + 1)),
    record({ path: TRAILER, mode: 0 }, 0),
  ]);

interface Header {
  readonly inode: string;
  readonly mode: number;
  readonly links: number;
  readonly size: number;
  readonly nameLength: number;
}

function parseHeader(bytes: Uint8Array, at: number): Header {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset + at, Math.min(HEADER, bytes.length - at)).toString(
    'latin1',
  );
  if (!text.startsWith(MAGIC) && !text.startsWith(MAGIC_CHECKSUM)) {
    throw new LandingImageError(`there is no cpio header of the kind newc at byte ${at}`);
  }
  if (!/^[0-9a-fA-F]{110}$/.test(text))
    throw new LandingImageError(`the cpio header at byte ${at} is damaged`);
  const field = (index: number): string =>
    text.slice(MAGIC.length + 8 * index, MAGIC.length + 8 * (index + 1));
  const number = (index: number): number => Number.parseInt(field(index), 16);
  return {
    // The number of the file and of the device that it was on.
    inode: [0, 7, 8].map(field).join(':'),
    mode: number(1),
    links: number(4),
    size: number(6),
    nameLength: number(11),
  };
}

/** What an archive has at the end of its last record. */
export interface CpioArchive {
  /** In order; of hard links, each has the contents. */
  readonly entries: readonly CpioEntry[];
  /** Where the archive ends, in bytes. */
  readonly end: number;
}

/**
 * Unpacks the archive that begins at `start`.
 *
 * @throws LandingImageError when it is not one, or cut off
 */
export function unpackCpio(bytes: Uint8Array, start: number): CpioArchive {
  const entries: { path: string; mode: number; contents: { data: Uint8Array } }[] = [];
  const hardLinks = new Map<string, { data: Uint8Array }>();
  for (let at = start; ; ) {
    const { inode, mode, links, size, nameLength } = parseHeader(bytes, at);
    const nameEnd = at + HEADER + nameLength;
    const dataStart = nameEnd + padding(nameEnd - start);
    const dataEnd = dataStart + size;
    if (nameLength === 0 || dataEnd > bytes.length)
      throw new LandingImageError('the cpio archive is cut off');
    const path = Buffer.from(bytes.subarray(at + HEADER, nameEnd - 1)).toString('utf8');
    if (path === TRAILER) return { entries: entries.map(flat), end: dataEnd };
    const data = bytes.subarray(dataStart, dataEnd);
    let contents = { data };
    if (links > 1 && (mode & FileType.Mask) === FileType.Regular) {
      contents = hardLinks.get(inode) ?? contents;
      // One of them has it, and not always the first.
      if (data.length > 0) contents.data = data;
      hardLinks.set(inode, contents);
    }
    entries.push({ path, mode, contents });
    at = dataEnd + padding(dataEnd - start);
  }
}

const flat = (entry: { path: string; mode: number; contents: { data: Uint8Array } }): CpioEntry => ({
  path: entry.path,
  mode: entry.mode,
  data: entry.contents.data,
});
