// Debian's newest kernel source.
import { createHash } from 'node:crypto';
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { entries } from './cache.js';
import { debian, field } from './debian.js';
import { cacheRoot } from './project.js';

const suite = 'trixie-backports';
/** The first kernel with noiommu cdevs and live update; what the rig tests does not exist before it. */
const oldest = [7, 3] as const;

export type KernelSource = {
  /** `linux-source-7.3` */
  readonly package: string;
  /** `7.3.4-1~bpo13+1` */
  readonly version: string;
  readonly deb: string;
};

const sha256 = async (path: string): Promise<string> => {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
};

const newestName = (names: readonly string[]): string | undefined => {
  const versions = names.flatMap(name => {
    const match = /^linux-source-(\d+)\.(\d+)$/.exec(name);
    return match === null ? [] : [{ name, major: Number(match[1]), minor: Number(match[2]) }];
  });
  return versions
    .filter(({ major, minor }) => major > oldest[0] || (major === oldest[0] && minor >= oldest[1]))
    .sort((a, b) => b.major - a.major || b.minor - a.minor)[0]?.name;
};

const downloads = (): string => join(cacheRoot(), 'sources');

/** A downloaded source package that is still there, the newest first. */
export const downloadedSource = (): KernelSource | undefined => {
  const path = join(downloads(), 'source.json');
  if (!existsSync(path)) return undefined;
  const source = JSON.parse(readFileSync(path, 'utf8')) as KernelSource;
  return existsSync(source.deb) ? source : undefined;
};

/** Finds the newest kernel source in the archive and downloads it unless it is already here. */
export const fetchSource = async (): Promise<KernelSource> => {
  const archive = await debian(suite);
  const name = newestName((await archive.query('pkgnames', 'linux-source-')).split('\n'));
  if (name === undefined) {
    throw new Error(`${suite} has no linux-source package of ${oldest.join('.')} or later`);
  }
  const record = await archive.query('show', '--no-all-versions', name);
  const version = field(record, 'Version');
  const deb = join(downloads(), basename(field(record, 'Filename')));
  const source: KernelSource = { package: name, version, deb };
  if (!existsSync(deb)) {
    const megabytes = Math.round(Number(field(record, 'Size')) / 1e6);
    await archive.get(`download ${name} ${version} (${megabytes} MB)`, 'download', `${name}=${version}`);
    const [file] = entries(archive.downloads).filter(entry => entry.endsWith('.deb'));
    if (file === undefined) throw new Error(`apt-get download ${name} left no file`);
    const downloaded = join(archive.downloads, file);
    if ((await sha256(downloaded)) !== field(record, 'SHA256')) {
      throw new Error(`${downloaded}: wrong checksum; try again`);
    }
    // Older sources are of no use once a newer one is here.
    rmSync(downloads(), { recursive: true, force: true });
    mkdirSync(downloads(), { recursive: true });
    renameSync(downloaded, deb);
  }
  writeFileSync(join(downloads(), 'source.json'), `${JSON.stringify(source, undefined, 2)}\n`);
  return source;
};
