/**
 * Sequences in two halves with a kexec between them, all with the same one: on the kernel of a test VM, or on the
 * simulated host, and compared.
 *
 * `node kexec.js [SEED] [COUNT]` compares. Inside a test VM the same program is what runs there, once in each kernel.
 *
 * @module
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { linux } from '../../../bindings/linux.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { SimulatedHost } from '../../../src/sim/host.js';
import { isMain, projectRoot } from '../../vm/project.js';
import { guestEnv } from '../../vm/topology.js';
import { runVm } from '../../vm/vm.js';
import { kexec } from '../support/kexec.js';
import { type Difference, difference, report } from './difference.js';
import { afterKexec, beforeKexec } from './domains/kexec.js';
import { Interpreter } from './interpreter.js';
import { Pick } from './pick.js';
import { ioctl, latestFd, type Sequence, type Step } from './step.js';

type Half = 'before' | 'after';
type Transcripts = string[][];

function sequences(half: Half, seed: number, count: number): Sequence[] {
  const make: (g: Pick, index: number) => Step[] = half === 'before' ? beforeKexec : afterKexec;
  const all: Sequence[] = Array.from({ length: count }, (_, index) => ({
    domain: 'kexec',
    name: `${seed}:${index} ${half}`,
    steps: make(new Pick(half === 'before' ? seed : seed + 1_000_000, index), index),
  }));
  if (half === 'before') all.push({ domain: 'kexec', name: `${seed}:last`, steps: oneMore });
  return all;
}

/**
 * One more session, after all others. In Linux 7.3 a name that is taken (EEXIST) leaves an empty block behind when the
 * blocks of sessions are full, and the next kernel panics over it; this one fills it.
 */
const oneMore: readonly Step[] = [
  { call: 'open', path: '/dev/liveupdate', keep: 'device' },
  ioctl(latestFd('device'), 'LIVEUPDATE_IOCTL_CREATE_SESSION', {
    name: { bytes: Buffer.from('one more').toString('hex') },
  }),
  { call: 'close', on: latestFd('device') },
];

function run(kernel: Syscalls, half: Half, seed: number, count: number): Transcripts {
  const interpreter = new Interpreter(kernel);
  // Sessions cross a kexec only while they are open.
  return sequences(half, seed, count).map(each => interpreter.run(each, { keep: half === 'before' }));
}

function onSimulator(seed: number, count: number): Record<Half, Transcripts> {
  using host = new SimulatedHost({ profile: 'noiommu' });
  const before = run(host.process(), 'before', seed, count);
  host.kexec();
  return { before, after: run(host.process(), 'after', seed, count) };
}

async function onKernel(seed: number, count: number): Promise<Record<Half, Transcripts>> {
  const program = relative(projectRoot, fileURLToPath(import.meta.url));
  const said: Buffer[] = [];
  using vm = await runVm({
    profile: 'noiommu',
    command: ['node', program, String(seed), String(count)],
    append: 'liveupdate=on',
    onStderr: chunk => said.push(chunk),
  });
  if (vm.failure !== undefined) {
    throw new Error([vm.failure, Buffer.concat(said).toString('utf8'), vm.console].join('\n'));
  }
  const read = (half: Half): Transcripts => JSON.parse(readFileSync(join(vm.results, half), 'utf8'));
  return { before: read('before'), after: read('after') };
}

/** Every difference; one in the first half may be the cause of those in the second. */
export async function compareOverKexec(seed: number, count: number): Promise<Difference[]> {
  const kernel = await onKernel(seed, count);
  const simulator = onSimulator(seed, count);
  return (['before', 'after'] as const).flatMap(half =>
    sequences(half, seed, count).flatMap((each, i) => {
      const found = difference(each, kernel[half][i] ?? [], simulator[half][i] ?? []);
      return found === undefined ? [] : [found];
    }),
  );
}

async function main(seed: number, count: number): Promise<number> {
  const directory = process.env[guestEnv.results];
  if (directory !== undefined) {
    const half: Half = process.env[guestEnv.boot] === '1' ? 'before' : 'after';
    writeFileSync(join(directory, half), JSON.stringify(run(linux(), half, seed, count)));
    if (half === 'before') kexec();
    return 0;
  }
  const differences = await compareOverKexec(seed, count);
  for (const each of differences.slice(0, 5)) console.log(`${report(each)}\n`);
  console.log(`${count} sequences over a kexec: ${differences.length} differ`);
  return differences.length === 0 ? 0 : 1;
}

if (isMain(import.meta.url)) {
  process.exitCode = await main(Number(process.argv[2] ?? 1), Number(process.argv[3] ?? 200));
}
