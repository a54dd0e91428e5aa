/** Where two transcripts part. @module */
import type { Sequence, Step } from './step.js';

export interface Difference {
  readonly sequence: Sequence;
  /** The step at which they differ first. */
  readonly at: number;
  readonly kernel: readonly string[];
  readonly simulator: readonly string[];
  /** What differs, without numbers: the same for differences that are likely of one cause. */
  readonly signature: string;
}

export function requestOf(step: Step | undefined): string {
  return step === undefined ? '?' : step.call === 'ioctl' ? step.request : step.call;
}

function abstract(line: string | undefined): string {
  return (line ?? 'nothing').replace(/=\S+/g, '').replace(/\*[0-9a-f]+/g, '*');
}

/** The first difference, or undefined. */
export function difference(
  sequence: Sequence,
  kernel: readonly string[],
  simulator: readonly string[],
): Difference | undefined {
  const threw = simulator[0] === 'threw';
  const at = threw ? 0 : sequence.steps.findIndex((_, i) => kernel[i] !== simulator[i]);
  if (at < 0) return undefined;
  const signature = threw
    ? `threw: ${simulator[1]}`
    : `${requestOf(sequence.steps[at])}: kernel ${abstract(kernel[at])}, simulator ${abstract(simulator[at])}`;
  return { sequence, at, kernel, simulator, signature };
}

/** Both transcripts side by side, up to where they part. */
export function report({ sequence, at, kernel, simulator, signature }: Difference): string {
  const lines = [`${sequence.domain} ${sequence.name}: ${signature}`];
  const last = simulator[0] === 'threw' ? sequence.steps.length - 1 : at;
  for (let i = 0; i <= last; i++) {
    const step = JSON.stringify(sequence.steps[i]);
    if (i < at || simulator[0] === 'threw') lines.push(`   ${step}`, `     ${kernel[i]}`);
    else lines.push(`>> ${step}`, `     kernel    ${kernel[i]}`, `     simulator ${simulator[i]}`);
  }
  if (simulator[0] === 'threw') lines.push(...simulator.map(line => `     simulator ${line}`));
  return lines.join('\n');
}
