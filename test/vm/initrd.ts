// The initial root file system: a static busybox and our init.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { characterDevice, cpio, directory, link, program } from './cpio.js';
import { cacheRoot, rigFile } from './project.js';
import { busybox } from './tools.js';

// Every busybox command that init uses.
const applets = [
  'cat',
  'chroot',
  'ifconfig',
  'ln',
  'mkdir',
  'mkfifo',
  'mount',
  'poweroff',
  'sh',
  'sleep',
  'sync',
];

/** Builds the initrd unless it is cached, and returns its path. It is small and kept uncompressed. */
export const initrd = (): string => {
  const archive = cpio([
    ...['bin', 'dev', 'proc', 'sys'].map(directory),
    // The kernel opens it as init's stdout before there is a /dev to look in.
    characterDevice('dev/console', 5, 1),
    program('bin/busybox', readFileSync(busybox())),
    ...applets.map(applet => link(`bin/${applet}`, 'busybox')),
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
