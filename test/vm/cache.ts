// Cache entries appear whole or not at all, and one process at a time makes them.
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { adopt, kill, run } from './process.js';
import { note } from './progress.js';
import { cacheRoot } from './project.js';

const scratchRoot = (): string => join(cacheRoot(), 'scratch');

/**
 * Holds `<cache>/lock` while `work` runs. The kernel drops the lock when the holder dies, however it dies,
 * so there is no stale lock to clean up.
 */
export const locked = async <T>(work: () => Promise<T>): Promise<T> => {
  mkdirSync(cacheRoot(), { recursive: true });
  const holder = spawn('flock', [join(cacheRoot(), 'lock'), 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: true,
  });
  adopt(holder);
  const waiting = setTimeout(() => note('  waiting for another run that is preparing the same cache'), 2000);
  try {
    await new Promise<void>((resolve, reject) => {
      holder.once('error', error =>
        reject(new Error(`cannot run flock (package util-linux): ${error.message}`)),
      );
      holder.once('exit', code => reject(new Error(`flock ended with exit code ${code}`)));
      holder.stdout.once('data', () => resolve());
    });
  } finally {
    clearTimeout(waiting);
  }
  try {
    // Under the lock nobody else is at work, so what lies here was left by an interrupted run.
    await remove(scratchRoot());
    return await work();
  } finally {
    kill(holder);
  }
};

/** Removes a tree, however large: `rm` takes seconds for a kernel source where Node takes half a minute. */
export const remove = async (path: string): Promise<void> => {
  await run('rm', ['-rf', '--', path]);
};

/** A directory on the cache's own file system, so that `publish` can rename out of it. */
export const scratch = (name: string): string => {
  const path = join(scratchRoot(), name);
  mkdirSync(path, { recursive: true });
  return path;
};

/** Moves a finished directory into its place in the cache. */
export const publish = (from: string, to: string): void => {
  mkdirSync(dirname(to), { recursive: true });
  rmSync(to, { recursive: true, force: true });
  renameSync(from, to);
};

export const entries = (path: string): string[] => {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
};
