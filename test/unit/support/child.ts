/** Runs a program in a process of its own: for what ends one, or must not keep one alive. @module */
import { spawn } from 'node:child_process';
import { nodeCommand } from '../../support/node-command.js';

/** The module of the real system calls, for an import in a program. */
export const linuxModule = new URL('../../../bindings/linux.js', import.meta.url).href;

export interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs an ES module given as text. A program that does not end within `timeout` ms is killed. */
export function runScript(source: string, timeout = 5_000): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(...nodeCommand('--input-type=module', '--eval', source), {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout,
      killSignal: 'SIGKILL',
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}
