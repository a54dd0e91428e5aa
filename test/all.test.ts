/**
 * Every test that needs neither root nor a device, each program in a process of its own. They are plain Node.js programs: what
 * the test runner preloads into those that it starts itself takes longer than most of them run.
 */
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { nodeCommand } from './support/node-command.js';

/** Most take a second; machines are slow at times. */
const TIMEOUT_MS = 300_000;

t.setTimeout(0);
t.jobs = availableParallelism();
for (const room of ['conformance', 'simulated', 'unit']) {
  const directory = fileURLToPath(new URL(room, import.meta.url));
  for (const name of readdirSync(directory).filter(name => name.endsWith('.test.js'))) {
    void t.spawn(
      ...nodeCommand(`${directory}/${name}`),
      { buffered: true, timeout: TIMEOUT_MS },
      `${room}/${name}`,
    );
  }
}
