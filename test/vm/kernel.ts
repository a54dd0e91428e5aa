// The test kernels: from the cache, or built once.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { entries, locked, publish, remove, scratch } from './cache.js';
import { ArchiveUnreachable } from './debian.js';
import { build, unpack } from './kernel-build.js';
import { type Flavour, flavours, format, requested } from './kernel-config.js';
import { downloadedSource, fetchSource, type KernelSource } from './kernel-source.js';
import { note } from './progress.js';
import { cacheRoot } from './project.js';
import { ensureTools } from './tools.js';

export type Kernel = {
  readonly bzImage: string;
  /** Its `lib/modules/<release>`; undefined where everything is built in. */
  readonly modules: string | undefined;
  /** The uapi headers of the same source (a directory to give to `-I`). */
  readonly headers: string | undefined;
};

/** Part of the cache key: raise it when the same source and configuration should give another result. */
const recipe = 2;

type Entry = { readonly flavour: Flavour; readonly configuration: string; readonly version: string };

const digest = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 16);

const configurationHash = (flavour: Flavour): string => digest(`${recipe}\n${format(requested(flavour))}`);

const kernelsRoot = (): string => join(cacheRoot(), 'kernels');

const entryPath = (entry: Entry): string =>
  join(
    kernelsRoot(),
    `${entry.flavour}-${digest(`${entry.version}\n${entry.configuration}\n${entry.flavour}`)}`,
  );

const readEntries = (): Entry[] =>
  entries(kernelsRoot()).flatMap(name => {
    const path = join(kernelsRoot(), name, 'entry.json');
    return existsSync(path) ? [JSON.parse(readFileSync(path, 'utf8')) as Entry] : [];
  });

/** The newest cached kernel of a flavour with today's configuration. */
const cached = (flavour: Flavour): Entry | undefined => {
  const configuration = configurationHash(flavour);
  return readEntries()
    .filter(entry => entry.flavour === flavour && entry.configuration === configuration)
    .sort((a, b) => b.version.localeCompare(a.version, 'en', { numeric: true }))[0];
};

const modulesBeside = (bzImage: string): string | undefined => {
  const directory = join(dirname(bzImage), 'lib/modules');
  const [release] = entries(directory);
  return release === undefined ? undefined : join(directory, release);
};

const given = (flavour: Flavour): Kernel | undefined => {
  const name = flavour === 'legacy' ? 'IOMMUFD_VM_KERNEL_LEGACY' : 'IOMMUFD_VM_KERNEL';
  const bzImage = process.env[name];
  if (bzImage === undefined || bzImage === '') return undefined;
  if (!existsSync(bzImage)) throw new Error(`${name} names ${bzImage}, which does not exist`);
  const headers = process.env.IOMMUFD_VM_HEADERS;
  return {
    bzImage: resolve(bzImage),
    modules: modulesBeside(resolve(bzImage)),
    headers: headers === undefined || headers === '' ? undefined : resolve(headers),
  };
};

const find = (flavour: Flavour): Kernel | undefined => {
  const fromEnvironment = given(flavour);
  if (fromEnvironment !== undefined) return fromEnvironment;
  const entry = cached(flavour);
  if (entry === undefined) return undefined;
  const path = entryPath(entry);
  const bzImage = join(path, 'bzImage');
  return { bzImage, modules: modulesBeside(bzImage), headers: join(path, 'include') };
};

const source = async (): Promise<KernelSource> => {
  try {
    return await fetchSource();
  } catch (error) {
    const older = downloadedSource();
    if (!(error instanceof ArchiveUnreachable)) throw error;
    if (older === undefined) {
      throw new Error(`${error.message}\nor set IOMMUFD_VM_KERNEL to a ready bzImage`, { cause: error });
    }
    note(
      `  ${error.message.split('\n')[0]}\n  going on with the downloaded ${older.package} ${older.version}`,
    );
    return older;
  }
};

const buildAll = async (wanted: readonly Flavour[]): Promise<void> => {
  await ensureTools({ build: true });
  const from = await source();
  const missing = wanted.filter(
    flavour =>
      !existsSync(entryPath({ flavour, configuration: configurationHash(flavour), version: from.version })),
  );
  if (missing.length === 0) return;
  mkdirSync(join(cacheRoot(), 'logs'), { recursive: true });
  const log = join(cacheRoot(), 'logs', 'kernel-build.log');
  writeFileSync(log, '');
  try {
    const tree = await unpack(from, log);
    for (const flavour of missing) {
      const entry: Entry = { flavour, configuration: configurationHash(flavour), version: from.version };
      const output = scratch(flavour);
      await build(tree, flavour, output);
      writeFileSync(join(output, 'entry.json'), `${JSON.stringify(entry, undefined, 2)}\n`);
      publish(output, entryPath(entry));
    }
  } finally {
    await remove(scratch('tree'));
    await remove(scratch('apt'));
  }
};

/**
 * Makes sure the kernels are there. A cached one is used without asking the archive for a newer source,
 * so that this costs nothing and works offline; `update` asks.
 */
export const ensureKernels = async (
  wanted: readonly Flavour[] = flavours,
  options: { readonly update?: boolean } = {},
): Promise<void> => {
  const needed = (): Flavour[] =>
    wanted.filter(flavour =>
      options.update === true ? given(flavour) === undefined : find(flavour) === undefined,
    );
  if (needed().length === 0) return;
  await locked(async () => {
    const missing = needed();
    if (missing.length > 0) await buildAll(missing);
  });
};

/** A kernel of the flavour, prepared first if need be. */
export const kernel = async (flavour: Flavour): Promise<Kernel> => {
  await ensureKernels([flavour]);
  const result = find(flavour);
  if (result === undefined) throw new Error(`the ${flavour} kernel was built and is not in ${kernelsRoot()}`);
  return result;
};
