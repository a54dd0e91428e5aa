// One VM's directory: shared with the guest, and where its disks and logs are.
import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { projectRoot } from './project.js';
import { type DiskName, diskNames } from './topology.js';

export type RunDirectory = {
  readonly path: string;
  /** Shared with the guest, read-write. */
  readonly shared: string;
  readonly results: string;
  readonly disks: Readonly<Record<DiskName, string>>;
  readonly consoleLog: string;
  readonly traceLog: string;
  /** What init reads: shell variables. */
  readonly settings: (variables: Readonly<Record<string, string>>) => void;
  readonly remove: () => void;
};

const doomed = new Set<string>();
let hooked = false;

const quoted = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`;

/** A shell script that becomes `command`, whatever characters its words contain. */
const script = (command: readonly string[], env: Readonly<Record<string, string>>): string => {
  const exports = Object.entries(env).map(([name, value]) => `export ${name}=${quoted(value)}\n`);
  return `${exports.join('')}cd ${quoted(projectRoot)} || exit 127\nexec ${command.map(quoted).join(' ')}\n`;
};

export const createRunDirectory = (
  command: readonly string[],
  env: Readonly<Record<string, string>>,
  options: { readonly diskBytes: number },
): RunDirectory => {
  const path = mkdtempSync(join(tmpdir(), 'iommufd-vm-'));
  if (!hooked) {
    hooked = true;
    process.once('exit', () => {
      for (const directory of doomed) rmSync(directory, { recursive: true, force: true });
    });
  }
  doomed.add(path);
  const shared = join(path, 'shared');
  const results = join(shared, 'results');
  mkdirSync(results, { recursive: true });
  writeFileSync(join(shared, 'command'), script(command, env));
  const disk = (name: DiskName): string => {
    const file = join(path, `${name}.img`);
    const descriptor = openSync(file, 'w');
    ftruncateSync(descriptor, options.diskBytes);
    closeSync(descriptor);
    return file;
  };
  return {
    path,
    shared,
    results,
    disks: Object.fromEntries(diskNames.map(name => [name, disk(name)])) as Record<DiskName, string>,
    consoleLog: join(path, 'console.log'),
    traceLog: join(path, 'trace.log'),
    settings: variables => {
      const lines = Object.entries(variables).map(([name, value]) => `${name}=${quoted(value)}\n`);
      writeFileSync(join(shared, 'settings'), lines.join(''));
    },
    remove: () => {
      doomed.delete(path);
      rmSync(path, { recursive: true, force: true });
    },
  };
};

/** Leaves the directory in place when this process ends. */
export const keep = (directory: { readonly path: string }): void => {
  doomed.delete(directory.path);
};
