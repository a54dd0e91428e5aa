// A QEMU that emulates first-stage translation (`intel-iommu,x-flts`), for machines whose own is too old: that of a
// newer Debian, unpacked into the cache with every library it needs, and run with its own dynamic loader.
import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { entries, locked, publish, remove, scratch } from './cache.js';
import { debian, field } from './debian.js';
import { run } from './process.js';
import { step } from './progress.js';
import { cacheRoot } from './project.js';
import { ensureTools, type QemuProgram, qemu } from './tools.js';

const suite = 'trixie';
const packageName = 'qemu-system-x86';
const libraries = 'usr/lib/x86_64-linux-gnu';
const executable = 'usr/bin/qemu-system-x86_64';
/** What is kept of the packages: the program, the libraries and modules, the firmware. */
const kept = [libraries, executable, 'usr/share/qemu', 'usr/share/seabios'] as const;

const root = (): string => join(cacheRoot(), 'qemu');

const programIn = (tree: string): QemuProgram => ({
  command: [
    join(tree, libraries, 'ld-linux-x86-64.so.2'),
    '--library-path',
    join(tree, libraries),
    join(tree, executable),
    ...['-L', join(tree, 'usr/share/qemu'), '-L', join(tree, 'usr/share/seabios')],
  ],
  env: { QEMU_MODULE_DIR: join(tree, libraries, 'qemu') },
});

/** Whether its Intel IOMMU has first-stage translation. */
const capable = async ({ command: [program = '', ...args], env }: QemuProgram): Promise<boolean> =>
  (await run(program, [...args, '-device', 'intel-iommu,help'], { env })).includes('x-flts=');

const cached = (): QemuProgram | undefined => {
  const [newest] = entries(root()).sort((a, b) => b.localeCompare(a, 'en', { numeric: true }));
  return newest === undefined ? undefined : programIn(join(root(), newest));
};

const download = async (): Promise<QemuProgram> => {
  const archive = await debian(suite);
  const version = field(await archive.query('show', '--no-all-versions', packageName), 'Version');
  // Nothing counts as installed, so this is everything it needs; apt checks each file against the signed lists.
  await archive.get(
    `download ${packageName} ${version} and its libraries (38 MB)`,
    ...['-o', `Dir::Cache::Archives=${archive.downloads}`],
    ...['install', '--yes', '--no-install-recommends', '--download-only', packageName],
  );
  const all = scratch('qemu-packages');
  const tree = scratch('qemu');
  await step(`unpack ${packageName}`, async () => {
    for (const file of entries(archive.downloads).filter(name => name.endsWith('.deb'))) {
      const script = 'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2"';
      const deb = join(archive.downloads, file);
      await run('bash', ['-o', 'pipefail', '-c', script, 'bash', deb, all]);
    }
  });
  for (const path of kept) {
    await run('mkdir', ['-p', join(tree, path, '..')]);
    renameSync(join(all, path), join(tree, path));
  }
  const program = programIn(tree);
  if (!(await capable(program))) throw new Error(`QEMU ${version} of Debian ${suite} has no x-flts either`);
  const place = join(root(), version.replaceAll(/[^\w.+~-]/g, '_'));
  publish(tree, place);
  await remove(all);
  await remove(scratch('apt'));
  return programIn(place);
};

/** The machine's own QEMU where it has first-stage translation, and one from the cache elsewhere. */
export const firstStageQemu = async (): Promise<QemuProgram> => {
  await ensureTools();
  const own = qemu();
  if (await capable(own)) return own;
  return cached() ?? (await locked(async () => cached() ?? (await download())));
};
