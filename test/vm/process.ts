// Child processes that never outlive this one, with their output kept in a log.
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';

const groups = new Set<number>();

const killGroups = (): void => {
  for (const pid of groups) {
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // It ended by itself in the meantime.
    }
  }
  groups.clear();
};

let hooked = false;
const hook = (): void => {
  if (hooked) return;
  hooked = true;
  process.once('exit', killGroups);
  for (const [signal, number] of [
    ['SIGINT', 2],
    ['SIGTERM', 15],
    ['SIGHUP', 1],
  ] as const) {
    process.once(signal, () => process.exit(128 + number));
  }
};

/**
 * Ties a child that was spawned `detached` (so it leads a process group) to this process: the whole group
 * is killed when this process exits or is interrupted.
 */
export const adopt = (child: ChildProcess): void => {
  hook();
  const { pid } = child;
  if (pid === undefined) return;
  groups.add(pid);
  child.once('exit', () => groups.delete(pid));
};

export const kill = (child: ChildProcess): void => {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    child.kill('SIGKILL');
  }
};

export type RunOptions = {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Everything the command prints is appended here. */
  readonly log?: string;
  readonly onLine?: (line: string) => void;
};

export const tail = (text: string, lines: number): string =>
  text.trimEnd().split('\n').slice(-lines).join('\n');

const label = (command: string, args: readonly string[]): string => {
  const line = [command, ...args].join(' ');
  return line.length > 100 ? `${command} … ${args.at(-1)}` : line;
};

/** Runs a command to its end and returns its stdout; throws with the end of its output when it fails. */
export const run = (command: string, args: readonly string[], options: RunOptions = {}): Promise<string> =>
  new Promise((resolve, reject) => {
    const log = options.log === undefined ? undefined : openSync(options.log, 'a');
    if (log !== undefined) writeSync(log, `$ ${[command, ...args].join(' ')}\n`);
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...process.env, LC_ALL: 'C', ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    adopt(child);
    const stdout: Buffer[] = [];
    const both: Buffer[] = [];
    let partial = '';
    const take = (chunk: Buffer): void => {
      if (log !== undefined) writeSync(log, chunk);
      else both.push(chunk);
      if (options.onLine === undefined) return;
      const lines = (partial + chunk.toString('latin1')).split('\n');
      partial = lines.pop() ?? '';
      for (const line of lines) options.onLine(line);
    };
    child.stdout.on('data', (chunk: Buffer) => {
      stdout.push(chunk);
      take(chunk);
    });
    child.stderr.on('data', take);
    child.once('error', error => {
      if (log !== undefined) closeSync(log);
      reject(new Error(`cannot run ${command}: ${error.message}`));
    });
    child.once('close', (code, signal) => {
      if (log !== undefined) closeSync(log);
      if (code === 0) return resolve(Buffer.concat(stdout).toString());
      const output =
        options.log === undefined ? Buffer.concat(both).toString() : readFileSync(options.log, 'utf8');
      const where = options.log === undefined ? '' : `\nfull log: ${options.log}`;
      reject(
        new Error(`${label(command, args)}: ${signal ?? `exit code ${code}`}\n${tail(output, 30)}${where}`),
      );
    });
  });
