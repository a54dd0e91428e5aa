// Debian's newest kernel source, fetched with apt's own machinery (so its proxies, mirrors and signature
// checks apply) but with lists and caches of our own: the machine's apt configuration is never changed.
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
import { entries, scratch } from './cache.js';
import { run } from './process.js';
import { step } from './progress.js';
import { cacheRoot } from './project.js';

const suite = 'trixie-backports';
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** The first kernel with noiommu cdevs and live update; what the rig tests does not exist before it. */
const oldest = [7, 3] as const;

export type KernelSource = {
  /** `linux-source-7.3` */
  readonly package: string;
  /** `7.3.4-1~bpo13+1` */
  readonly version: string;
  readonly deb: string;
};

export class ArchiveUnreachable extends Error {
  override readonly name = 'ArchiveUnreachable';
}

const unique = <T>(items: readonly T[]): T[] => [...new Set(items)];

/** Addresses of Debian's main archive as the machine's own apt sources give them, in their order. */
const mirrors = async (): Promise<string[]> => {
  const format = ['REPO_URI', 'ORIGIN', 'LABEL', 'COMPONENT', 'RELEASE']
    .map(field => `$(${field})`)
    .join('\t');
  const output = await run('apt-get', ['indextargets', '--format', format, 'Identifier: Packages']).catch(
    (error: Error) => {
      throw new ArchiveUnreachable(`apt-get cannot list this machine's sources: ${error.message}`);
    },
  );
  const rows = output
    .split('\n')
    .filter(line => line !== '')
    .map(line => {
      const [uri = '', origin = '', label = '', component = '', release = ''] = line.split('\t');
      return { uri, origin, label, component, release };
    })
    .filter(row => row.component === 'main' && !row.uri.startsWith('cdrom:'));
  const known = rows.filter(row => row.origin === 'Debian' && !row.label.includes('Security'));
  if (known.length > 0) return unique(known.map(row => row.uri));
  // Origin and Label come with the lists. Before the first `apt-get update` only the names of the releases
  // are known; security and third-party archives name theirs differently.
  const releases = /^(bookworm|trixie|forky|sid|stable|oldstable|testing|unstable)(-updates|-backports)?$/;
  return unique(rows.filter(row => row.origin === '' && releases.test(row.release)).map(row => row.uri));
};

const aptOptions = (directory: string): string[] => {
  const options: Record<string, string> = {
    'Dir::State': join(directory, 'state'),
    'Dir::State::Lists': join(directory, 'state/lists'),
    'Dir::State::status': join(directory, 'state/status'),
    'Dir::Cache': join(directory, 'cache'),
    'Dir::Etc::SourceList': join(directory, 'suite.sources'),
    'Dir::Etc::SourceParts': '/dev/null',
    'Dir::Etc::Preferences': '/dev/null',
    'Dir::Etc::PreferencesParts': '/dev/null',
    // Run by root, apt would drop to its own user, who cannot write below a private home directory.
    ...(process.getuid?.() === 0 ? { 'APT::Sandbox::User': 'root' } : {}),
    'APT::Architecture': 'amd64',
    'APT::Architectures': 'amd64',
    'Acquire::Languages': 'none',
    'Acquire::Retries': '3',
  };
  return Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
};

const field = (record: string, name: string): string => {
  const line = record.split('\n').find(candidate => candidate.startsWith(`${name}: `));
  if (line === undefined) throw new Error(`apt-cache show prints no ${name}:\n${record}`);
  return line.slice(name.length + 2).trim();
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
  if (!existsSync(keyring)) {
    throw new ArchiveUnreachable(`${keyring} is missing; install the package debian-archive-keyring`);
  }
  const uris = await mirrors();
  if (uris.length === 0) {
    throw new ArchiveUnreachable(
      "this machine's apt sources name no Debian archive (apt-get indextargets), so there is nowhere to get " +
        'the kernel source; add one, or set IOMMUFD_VM_KERNEL to a ready bzImage',
    );
  }
  const directory = scratch('apt');
  for (const path of ['state/lists/partial', 'cache/archives/partial', 'download']) {
    mkdirSync(join(directory, path), { recursive: true });
  }
  writeFileSync(join(directory, 'state/status'), '');
  writeFileSync(
    join(directory, 'suite.sources'),
    uris
      .map(uri => `Types: deb\nURIs: ${uri}\nSuites: ${suite}\nComponents: main\nSigned-By: ${keyring}\n`)
      .join('\n'),
  );
  const apt = aptOptions(directory);
  await step(`package lists of ${suite}`, report =>
    run('apt-get', [...apt, '-o', 'APT::Update::Error-Mode=any', 'update'], { onLine: report }),
  ).catch((error: Error) => {
    throw new ArchiveUnreachable(`the Debian archive cannot be read:\n${error.message}`);
  });
  const name = newestName((await run('apt-cache', [...apt, 'pkgnames', 'linux-source-'])).split('\n'));
  if (name === undefined) {
    throw new Error(`${suite} has no linux-source package of ${oldest.join('.')} or later`);
  }
  const record = await run('apt-cache', [...apt, 'show', '--no-all-versions', name]);
  const version = field(record, 'Version');
  const deb = join(downloads(), basename(field(record, 'Filename')));
  const source: KernelSource = { package: name, version, deb };
  if (!existsSync(deb)) {
    const megabytes = Math.round(Number(field(record, 'Size')) / 1e6);
    await step(`download ${name} ${version} (${megabytes} MB)`, report =>
      run('apt-get', [...apt, 'download', `${name}=${version}`], {
        cwd: join(directory, 'download'),
        onLine: report,
      }),
    ).catch((error: Error) => {
      throw new ArchiveUnreachable(error.message);
    });
    const [file] = entries(join(directory, 'download'));
    if (file === undefined) throw new Error(`apt-get download ${name} left no file`);
    const downloaded = join(directory, 'download', file);
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
