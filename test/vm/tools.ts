// The programs the rig needs from the distribution.
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { run } from './process.js';
import { note, step } from './progress.js';

/** The first match on PATH. */
export const which = (command: string): string | undefined => {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(directory, command);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this directory.
    }
  }
  return undefined;
};

type Tool = {
  readonly package: string;
  /** When this command is on PATH, whatever installed it will do and the package is not asked for. */
  readonly command?: string;
};

const toRun: readonly Tool[] = [
  { package: 'qemu-system-x86', command: 'qemu-system-x86_64' },
  { package: 'busybox-static' },
  { package: 'strace', command: 'strace' },
];

const toBuild: readonly Tool[] = [
  { package: 'gcc', command: 'gcc' },
  { package: 'libc6-dev' },
  { package: 'make', command: 'make' },
  { package: 'flex', command: 'flex' },
  { package: 'bison', command: 'bison' },
  { package: 'bc', command: 'bc' },
  { package: 'kmod' },
  { package: 'perl', command: 'perl' },
  { package: 'libelf-dev' },
  { package: 'libssl-dev' },
  { package: 'xz-utils', command: 'xz' },
  { package: 'lz4', command: 'lz4' },
];

/** To compare flattened device trees with those of others. */
const forTrees: readonly Tool[] = [
  { package: 'device-tree-compiler', command: 'dtc' },
  { package: 'libfdt-dev' },
  { package: 'gcc', command: 'gcc' },
  { package: 'libc6-dev' },
];

const installedPackages = async (names: readonly string[]): Promise<ReadonlySet<string>> => {
  if (names.length === 0) return new Set();
  // It exits 1 when it knows nothing of one of them, and still prints the others.
  const script = 'dpkg-query --show --showformat="$0" -- "$@" 2>/dev/null || true';
  const output = await run('sh', ['-c', script, `\${Package} \${db:Status-Status}\\n`, ...names]);
  return new Set(
    output
      .split('\n')
      .filter(line => line.endsWith(' installed'))
      .map(line => line.slice(0, line.indexOf(' '))),
  );
};

const missingOf = async (tools: readonly Tool[]): Promise<string[]> => {
  const wanted = tools.filter(tool => tool.command === undefined || which(tool.command) === undefined);
  const installed = await installedPackages(wanted.map(tool => tool.package));
  return wanted.map(tool => tool.package).filter(name => !installed.has(name));
};

const install = async (packages: readonly string[]): Promise<void> => {
  const command = `apt-get install --yes --no-install-recommends ${packages.join(' ')}`;
  if (which('apt-get') === undefined) {
    throw new Error(
      `these Debian packages, or their like, are needed and there is no apt-get here: ${packages.join(' ')}`,
    );
  }
  if (process.getuid?.() !== 0) {
    throw new Error(
      `packages are missing; install them and run this again:\n  sudo apt-get update && sudo ${command}`,
    );
  }
  const env = { DEBIAN_FRONTEND: 'noninteractive', NEEDRESTART_MODE: 'a' };
  note(`installing: ${packages.join(' ')}`);
  await step('apt-get update', report => run('apt-get', ['update'], { env, onLine: report }));
  await step('apt-get install', report =>
    run('apt-get', ['install', '--yes', '--no-install-recommends', ...packages], { env, onLine: report }),
  );
};

/** Makes sure the programs to run VMs and to compare device trees (and, with `build`, to build a kernel) are there. */
export const ensureTools = async (options: { readonly build?: boolean } = {}): Promise<void> => {
  const tools = options.build === true ? [...toRun, ...forTrees, ...toBuild] : [...toRun, ...forTrees];
  const missing = await missingOf([...new Map(tools.map(tool => [tool.package, tool])).values()]);
  if (missing.length > 0) await install(missing);
};

/** How to start a QEMU. */
export type QemuProgram = {
  /** The program, and arguments that come before all others. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
};

/** The machine's own QEMU. */
export const qemu = (): QemuProgram => {
  const path = which('qemu-system-x86_64');
  if (path === undefined) {
    throw new Error('there is no qemu-system-x86_64 on PATH; node dist/test/vm/prepare.js installs it');
  }
  return { command: [path], env: {} };
};

/** Its major version. */
export const qemuVersion = async ({
  command: [program = '', ...args],
  env,
}: QemuProgram): Promise<number> => {
  const output = await run(program, [...args, '--version'], { env });
  const version = /version (\d+)\./.exec(output)?.[1];
  if (version === undefined) throw new Error(`${program} --version says: ${output}`);
  return Number(version);
};

/** A statically linked busybox: the initrd has no libraries. */
export const busybox = (): string => {
  const path = ['/bin/busybox', '/usr/bin/busybox'].find(candidate => existsSync(candidate));
  if (path === undefined) {
    throw new Error('there is no static busybox; node dist/test/vm/prepare.js installs it');
  }
  return path;
};
