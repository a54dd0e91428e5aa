/**
 * Asks an NVMe controller everything that software can tell from outside, and writes the answers down as text. Run on
 * two controllers it shows in what they differ: QEMU's (test/kernel/nvme-model.test.ts) and the simulated one
 * (test/unit/sim-nvme-qemu.test.ts) are held to the same list of answers.
 *
 * It drives the registers and queues by itself, since much of what it does no driver would do.
 *
 * @module
 */
import { events, opcodes, queues } from './admin.js';
import { completions } from './completions.js';
import { type Answers, Probe } from './probe.js';
import type { ProbedController } from './raw-queue.js';
import { registers, starting } from './registers.js';
import { features, identify, logs } from './structures.js';
import { transfers } from './transfers.js';

export { type Answers, PROBE_MEMORY } from './probe.js';
export type { ProbedController } from './raw-queue.js';

/** Asks everything. Writes to blocks 100 to 70000 of namespace 1 and block 10 of namespace 2. */
export async function probeController(controller: ProbedController): Promise<Answers> {
  const probe = new Probe(controller);
  for (const part of [
    registers,
    starting,
    identify,
    logs,
    features,
    opcodes,
    queues,
    transfers,
    events,
    completions,
  ]) {
    await part(probe);
  }
  return probe.answers;
}
