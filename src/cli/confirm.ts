/** Asks before something is lost. @module */
import { createInterface } from 'node:readline/promises';

/** Whether there is someone at a terminal who can be asked. */
export function canAsk(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true;
}

/** @param signal ends the wait */
export async function confirm(question: string, signal: AbortSignal): Promise<boolean> {
  // Not as a terminal: that would take Ctrl-C away from the signal handler.
  const lines = createInterface({ input: process.stdin, output: process.stderr, terminal: false });
  try {
    // Ctrl-D is an answer, too.
    const closed = new Promise<string>(resolve => lines.once('close', () => resolve('')));
    const answer = await Promise.race([
      lines.question(`${question} Type yes to go on: `, { signal }),
      closed,
    ]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    lines.close();
    process.stdin.destroy();
  }
}
