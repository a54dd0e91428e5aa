// Debian's archive, read with apt's own machinery (so its proxies, mirrors and signature checks apply) but with
// lists and caches of our own: the machine's apt configuration is never changed.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { scratch } from './cache.js';
import { run } from './process.js';
import { step } from './progress.js';

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

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

export type Archive = {
  /** Runs apt-cache. */
  readonly query: (...args: string[]) => Promise<string>;
  /** Runs apt-get, in `downloads`, as a step of this name. */
  readonly get: (name: string, ...args: string[]) => Promise<void>;
  /** A scratch directory, empty at first. */
  readonly downloads: string;
};

/** The package lists of one suite, as they are now. Call it with the cache locked. */
export const debian = async (suite: string): Promise<Archive> => {
  if (!existsSync(keyring)) {
    throw new ArchiveUnreachable(`${keyring} is missing; install the package debian-archive-keyring`);
  }
  const uris = await mirrors();
  if (uris.length === 0) {
    throw new ArchiveUnreachable(
      "this machine's apt sources name no Debian archive (apt-get indextargets), so there is nowhere to get " +
        `packages of ${suite} from; add one`,
    );
  }
  const directory = scratch('apt');
  const downloads = join(directory, 'download');
  for (const path of ['state/lists/partial', 'cache/archives/partial', 'download/partial']) {
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
  return {
    query: (...args) => run('apt-cache', [...apt, ...args]),
    get: async (name, ...args) => {
      await step(name, report => run('apt-get', [...apt, ...args], { cwd: downloads, onLine: report })).catch(
        (error: Error) => {
          throw new ArchiveUnreachable(error.message);
        },
      );
    },
    downloads,
  };
};

/** A field of what `apt-cache show` prints. */
export const field = (record: string, name: string): string => {
  const line = record.split('\n').find(candidate => candidate.startsWith(`${name}: `));
  if (line === undefined) throw new Error(`apt-cache show prints no ${name}:\n${record}`);
  return line.slice(name.length + 2).trim();
};
