// Where the checkout and the caches are.
import { existsSync, realpathSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const findRoot = (): string => {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'package.json'))) {
    const parent = dirname(directory);
    if (parent === directory) throw new Error(`no package.json above ${fileURLToPath(import.meta.url)}`);
    directory = parent;
  }
  return directory;
};

/** The checkout: the directory of package.json, wherever the compiled code lies below it. */
export const projectRoot: string = findRoot();

/** Source files of the rig that are not compiled (init, kernel configurations). */
export const rigFile = (name: string): string => join(projectRoot, 'test', 'vm', name);

/** `$XDG_CACHE_HOME/iommufd`, read at each call so that tests may point it elsewhere. */
export const cacheRoot = (): string => {
  // The XDG specification says to ignore a relative path here.
  const xdg = process.env.XDG_CACHE_HOME;
  return join(xdg !== undefined && isAbsolute(xdg) ? xdg : join(homedir(), '.cache'), 'iommufd');
};

/** Whether the module of this `import.meta.url` is the program (Node 20 has no `import.meta.main`). */
export const isMain = (url: string): boolean =>
  process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(url);
