// Peers written in C: built with the system's compiler when a benchmark runs.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Contender } from './measure.js';

let directory: string | undefined;

function buildDirectory(): string {
  if (directory === undefined) {
    const made = mkdtempSync(join(tmpdir(), 'iommufd-bench-'));
    process.on('exit', () => rmSync(made, { recursive: true, force: true }));
    directory = made;
  }
  return directory;
}

/**
 * Builds `test/bench/peers/<name>.c` with `cc -O3`.
 *
 * @param libraries such as `['fdt']`
 * @returns the program's path
 */
export function buildPeer(name: string, libraries: readonly string[] = []): string {
  // The sources are not compiled to dist/, they lie beside this file's own source.
  const source = fileURLToPath(new URL(`../../../test/bench/peers/${name}.c`, import.meta.url));
  const program = join(buildDirectory(), name);
  const flags = ['-O3', '-march=native', '-std=gnu17', '-Wall', '-Werror'];
  const args = [...flags, '-o', program, source, ...libraries.map(library => `-l${library}`)];
  const { error, status, stderr } = spawnSync('cc', args, { encoding: 'utf8' });
  if (error !== undefined || status !== 0) {
    const packages = ['gcc', 'libc6-dev', ...libraries.map(library => `lib${library}-dev`)];
    throw new Error(
      `cannot build ${name}.c: ${error?.message ?? stderr}\nThe peers in C need these Debian packages, or their like: ${packages.join(' ')}`,
    );
  }
  return program;
}

/** Runs a built peer; the figure is the number that it prints. */
export function nativePeer(program: string, args: readonly (string | number)[] = []): Contender {
  return () => Number(execFileSync(program, args.map(String), { encoding: 'utf8', maxBuffer: 2 ** 20 }));
}
