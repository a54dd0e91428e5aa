/**
 * Makes sequences shorter that show a difference. A machine takes seconds to boot and next to nothing for a sequence,
 * so all that may be left out is tried in one boot, for all differences together.
 *
 * @module
 */
import { type Difference, difference } from './difference.js';
import type { DomainName } from './domains.js';
import { kernelTranscripts } from './on-kernel.js';
import { Simulator } from './on-simulator.js';
import type { Sequence } from './step.js';

const ROUNDS = 6;

/** A sequence without some of its steps. */
function without(sequence: Sequence, leaveOut: ReadonlySet<number>): Sequence {
  return { ...sequence, steps: sequence.steps.filter((_, i) => !leaveOut.has(i)) };
}

/** Nothing behind the difference matters. */
function cut({ sequence, at, simulator }: Difference): Sequence {
  return simulator[0] === 'threw' ? sequence : { ...sequence, steps: sequence.steps.slice(0, at + 1) };
}

function candidates(sequence: Sequence): Set<number>[] {
  const count = sequence.steps.length;
  const sets: Set<number>[] = [];
  for (let size = Math.ceil(count / 2); ; size = Math.ceil(size / 2)) {
    for (let from = 0; from < count; from += size) {
      sets.push(new Set(Array.from({ length: Math.min(size, count - from) }, (_, i) => from + i)));
    }
    if (size <= 1) return sets;
  }
}

/** The shortest sequences found that still differ in the same way. */
export async function shrink(
  domain: DomainName,
  profile: string,
  differences: readonly Difference[],
): Promise<Difference[]> {
  let best = differences.map(each => ({ difference: each, done: false }));
  for (let round = 0; round < ROUNDS && best.some(({ done }) => !done); round++) {
    const tried = best.map(({ difference: each, done }) => {
      const sequence = cut(each);
      return done ? [] : candidates(sequence).map(set => ({ set, sequence: without(sequence, set) }));
    });
    const transcripts = await kernelTranscripts(
      domain,
      profile,
      tried.flat().map(({ sequence }) => sequence),
    );
    let next = 0;
    const again = (
      sequence: Sequence,
      kernel: readonly string[],
      signature: string,
    ): Difference | undefined => {
      const found = difference(sequence, kernel, new Simulator(profile).run(sequence));
      return found?.signature === signature ? found : undefined;
    };
    const joint: { index: number; sequence: Sequence }[] = [];
    best = best.map((state, index) => {
      const { signature } = state.difference;
      const found = (tried[index] ?? []).flatMap(({ set, sequence }) => {
        const kept = again(sequence, transcripts[next++] ?? [], signature);
        return kept === undefined ? [] : [{ set, kept }];
      });
      if (found.length === 0) return { ...state, done: true };
      found.sort((a, b) => b.set.size - a.set.size);
      // What can go one by one can often go together.
      const all = new Set(found.flatMap(({ set }) => [...set]));
      joint.push({ index, sequence: without(cut(state.difference), all) });
      return { difference: (found[0] as (typeof found)[0]).kept, done: false };
    });
    if (joint.length === 0) break;
    const together = await kernelTranscripts(
      domain,
      profile,
      joint.map(({ sequence }) => sequence),
    );
    for (const [i, { index, sequence }] of joint.entries()) {
      const state = best[index] as (typeof best)[0];
      const kept = again(sequence, together[i] ?? [], state.difference.signature);
      if (kept !== undefined) best[index] = { difference: kept, done: false };
    }
  }
  return best.map(each => each.difference);
}
