/** Marks in QEMU's trace, which lists the commands that its monitor was given: see test/vm/register-trace.ts. @module */
import { monitor } from '../../vm/monitor.js';
import { MARK } from '../../vm/register-trace.js';

/** What was done before stands before the mark, what is done after it behind. @param name of letters, digits and dashes */
export async function mark(name: string): Promise<void> {
  // A question about a command that there is not: it has no effect.
  await monitor('human-monitor-command', { 'command-line': `help ${MARK}${name}` });
}
