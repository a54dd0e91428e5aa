// The initial root file system: a static busybox, our init and the modules that it loads.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import {
  characterDevice,
  directory,
  file,
  link,
  packCpio,
  program,
} from '../../src/keepalive/landing/cpio.js';
import type { Kernel } from './kernel.js';
import { cacheRoot, rigFile } from './project.js';
import { busybox } from './tools.js';

// Every busybox command that init uses.
const applets = [
  'cat',
  'chroot',
  'ifconfig',
  'insmod',
  'ln',
  'mkdir',
  'mkfifo',
  'mount',
  'poweroff',
  'sh',
  'sleep',
  'sync',
  'uname',
];

/** Modules, in the order in which init loads them. */
const modules = ['drivers/nvme/host/nvme-core.ko', 'drivers/nvme/host/nvme.ko'];

/** Builds the kernel's initrd unless it is cached, and returns its path. It is small and kept uncompressed. */
export const initrd = (kernel: Pick<Kernel, 'modules'>): string => {
  const loaded =
    kernel.modules === undefined ? [] : modules.map(path => join(kernel.modules as string, 'kernel', path));
  const archive = packCpio([
    ...['bin', 'dev', 'modules', 'proc', 'sys'].map(directory),
    // The kernel opens it as init's stdout before there is a /dev to look in.
    characterDevice('dev/console', 5, 1),
    program('bin/busybox', readFileSync(busybox())),
    ...applets.map(applet => link(`bin/${applet}`, 'busybox')),
    ...loaded.map(path => file(`modules/${basename(path)}`, readFileSync(path))),
    // Read line by line: the names do not tell the order.
    file('modules/ORDER', Buffer.from(loaded.map(path => `${basename(path)}\n`).join(''))),
    program('init', readFileSync(rigFile('init'))),
  ]);
  const hash = createHash('sha256').update(archive).digest('hex').slice(0, 16);
  const path = join(cacheRoot(), 'initrd', `${hash}.cpio`);
  if (!existsSync(path)) {
    mkdirSync(join(cacheRoot(), 'initrd'), { recursive: true });
    writeFileSync(`${path}.${process.pid}`, archive);
    renameSync(`${path}.${process.pid}`, path);
  }
  return path;
};
