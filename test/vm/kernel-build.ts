// From a Debian source package to bzImage, modules and uapi headers.
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { scratch } from './cache.js';
import { type Flavour, format, requested, unmet } from './kernel-config.js';
import type { KernelSource } from './kernel-source.js';
import { run } from './process.js';
import { step } from './progress.js';

export type Tree = { readonly path: string; readonly log: string };

// Nothing of the machine, its user or the day goes into the image: equal input gives equal kernels.
const env = {
  ARCH: 'x86_64',
  KBUILD_BUILD_USER: 'iommufd',
  KBUILD_BUILD_HOST: 'vm',
  KBUILD_BUILD_TIMESTAMP: '1970-01-01',
  KBUILD_BUILD_VERSION: '1',
  MAKEFLAGS: '',
};

export const unpack = async (source: KernelSource, log: string): Promise<Tree> => {
  const path = scratch('tree');
  const script =
    'set -e; dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$2.tar.xz" | tar -xJ --strip-components=1 -C "$3"';
  await step(`unpack ${source.package}`, () =>
    run('bash', ['-o', 'pipefail', '-c', script, 'bash', source.deb, source.package, path], { log }),
  );
  return { path, log };
};

const make = (tree: Tree, args: readonly string[], onLine?: (line: string) => void): Promise<string> =>
  run('make', [`-j${availableParallelism()}`, ...args], {
    cwd: tree.path,
    env,
    log: tree.log,
    ...(onLine === undefined ? {} : { onLine }),
  });

const configure = async (tree: Tree, flavour: Flavour): Promise<void> => {
  const asked = requested(flavour);
  const fragment = join(tree.path, 'requested.config');
  writeFileSync(fragment, format(asked));
  await make(tree, ['allnoconfig', `KCONFIG_ALLCONFIG=${fragment}`]);
  const failed = unmet(asked, readFileSync(join(tree.path, '.config'), 'utf8'));
  if (failed.length > 0) {
    throw new Error(
      `the ${flavour} kernel's configuration did not come out as asked (a missing dependency, or a symbol this ` +
        `version renamed); correct test/vm/kernel*.config:\n  ${failed.join('\n  ')}`,
    );
  }
};

/** Modules and what depmod says of them, as `lib/modules/<release>` has them where a kernel is installed. */
const installModules = async (tree: Tree, output: string): Promise<void> => {
  await make(tree, ['modules_install', `INSTALL_MOD_PATH=${output}`, 'DEPMOD=/sbin/depmod']);
  // A link to the tree, which will be gone.
  for (const release of readdirSync(join(output, 'lib/modules'))) {
    rmSync(join(output, 'lib/modules', release, 'build'), { force: true });
  }
};

/** Builds one flavour in the tree and leaves `bzImage`, `lib/modules/`, `config` and `include/` in `output`. */
export const build = async (tree: Tree, flavour: Flavour, output: string): Promise<void> => {
  mkdirSync(output, { recursive: true });
  await step(`configure ${flavour}`, () => configure(tree, flavour));
  let objects = 0;
  await step(`build ${flavour}`, report =>
    make(tree, ['bzImage', 'modules'], line => {
      if (/^ {2}(CC|AS|AR|LD) /.test(line)) report(`CC ${++objects} objects`);
    }),
  );
  await step('modules', () => installModules(tree, output));
  await step('uapi headers', () => make(tree, ['headers']));
  cpSync(join(tree.path, 'arch/x86/boot/bzImage'), join(output, 'bzImage'));
  cpSync(join(tree.path, '.config'), join(output, 'config'));
  cpSync(join(tree.path, 'usr/include'), join(output, 'include'), {
    recursive: true,
    filter: path => statSync(path).isDirectory() || path.endsWith('.h'),
  });
};
