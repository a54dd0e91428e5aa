/**
 * What is in an initrd image: archives one after the other, some of them compressed, of which later ones replace files of
 * earlier ones. Read as the kernel does (init/initramfs.c).
 *
 * @module
 */
import { posix } from 'node:path';
import { decompress } from './compression.js';
import { CPIO_ALIGNMENT, type CpioEntry, FileType, unpackCpio } from './cpio.js';
import { LandingImageError } from './image-error.js';

const ZERO = 0;
/** The first character of every cpio header. */
const ARCHIVE = '0'.charCodeAt(0);
const MAX_LINKS = 40;

/** Entries of the archives in `bytes`; between two there may be zeroes. */
function* entriesOf(bytes: Buffer, compressible: boolean): Generator<CpioEntry> {
  for (let at = 0; at < bytes.length; ) {
    const byte = bytes[at];
    if (byte === ZERO) {
      at++;
    } else if (byte === ARCHIVE && at % CPIO_ALIGNMENT === 0) {
      const { entries, end } = unpackCpio(bytes, at);
      yield* entries;
      at = end;
    } else if (compressible) {
      const { data, end } = decompress(bytes, at);
      yield* entriesOf(Buffer.from(data.buffer, data.byteOffset, data.byteLength), false);
      at = end;
    } else {
      throw new LandingImageError(`there is no archive at byte ${at} of a compressed part`);
    }
  }
}

/** The files of an initrd image. Paths are relative to its root. */
export class InitrdImage {
  readonly #files = new Map<string, CpioEntry>();

  /** @throws LandingImageError when it cannot be read */
  constructor(image: Uint8Array) {
    for (const entry of entriesOf(Buffer.from(image.buffer, image.byteOffset, image.byteLength), true)) {
      const path = posix.join('/', entry.path);
      if (path === '/') continue;
      // Through links of directories, which the kernel follows while it unpacks.
      this.#files.set(posix.join(this.resolve(posix.dirname(path)), posix.basename(path)), entry);
    }
  }

  /** The path that `path` leads to, with no symbolic link in it; what does not exist is kept as it is. */
  resolve(path: string): string {
    let links = 0;
    let rest = path.split('/').filter(part => part !== '');
    let at: string[] = [];
    while (rest.length > 0) {
      const name = rest.shift() as string;
      if (name === '.') continue;
      if (name === '..') {
        at.pop();
        continue;
      }
      const entry = this.#files.get([...at, name].join('/'));
      if (entry === undefined || (entry.mode & FileType.Mask) !== FileType.Link) {
        at.push(name);
        continue;
      }
      if (++links > MAX_LINKS) throw new LandingImageError(`symbolic links go round in circles at ${path}`);
      const target = Buffer.from(entry.data).toString('utf8');
      if (target.startsWith('/')) at = [];
      rest = [...target.split('/').filter(part => part !== ''), ...rest];
    }
    return at.join('/');
  }

  /** Whether there is something at `path`. */
  has(path: string): boolean {
    return this.#files.has(this.resolve(path));
  }

  /** The regular file at `path`. */
  file(path: string): CpioEntry | undefined {
    const entry = this.#files.get(this.resolve(path));
    return entry !== undefined && (entry.mode & FileType.Mask) === FileType.Regular ? entry : undefined;
  }

  /** The text of the regular file at `path`. */
  text(path: string): string | undefined {
    const entry = this.file(path);
    return entry === undefined ? undefined : Buffer.from(entry.data).toString('utf8');
  }

  /** Names in the directory at `path`, sorted. */
  names(path: string): string[] {
    const directory = `/${this.resolve(path)}`;
    return [...this.#files.keys()]
      .filter(each => posix.dirname(`/${each}`) === directory)
      .map(each => posix.basename(each))
      .sort();
  }
}
