// How much memory a restore takes, in a process of its own: `memory.js ours|objects retained|peak <file>`, where the file
// has the state. Prints bytes per mapping.
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { rebuild } from '../../../src/keepalive/rebuild.js';
import { decodeState } from '../../../src/keepalive/state/decode-state.js';
import { SimulatedHost } from '../../../src/sim/host.js';
import { instantKernel } from './kernels.js';
import { COUNT, newMemory } from './million.js';
import { replayObjects } from './objects.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const [how, what, file = ''] = process.argv.slice(2);
const kernel = instantKernel(new SimulatedHost().process());
const bytes = readFileSync(file);

/** What is in use, once nothing else is. */
function used(): number {
  // What is freed by a finaliser is free the second time.
  for (let i = 0; i < 3; i++) collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** The most that was resident, in bytes. What getrusage(2) says begins with what the parent had. */
function peak(): number {
  const found = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(found?.[1]) * 1024;
}

const fd = newMemory(kernel);
const before = what === 'peak' ? peak() : used();
let result: unknown = decodeState(bytes);
result =
  how === 'ours'
    ? await rebuild(result as ReturnType<typeof decodeState>, { kernel, memory: () => fd })
    : replayObjects(result as ReturnType<typeof decodeState>, kernel, fd);
const after = what === 'peak' ? peak() : used();
if (result === undefined) throw new Error('nothing was restored');
console.log((after - before) / COUNT);
