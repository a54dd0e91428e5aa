// Results for people: one row per case, and a bar for each ratio.
import type { Colours } from '../../src/cli/colours.js';
import { table } from '../../src/cli/table.js';
import type { Result } from './measure.js';

const WIDTH = 24;

/** A bar on a logarithmic scale: its middle is a draw, each end a hundredfold. */
function bar(ratio: number): string {
  const half = WIDTH / 2;
  const length = Math.round((Math.min(Math.abs(Math.log10(ratio)), 2) / 2) * half);
  const left = ratio < 1 ? '▒'.repeat(length) : '';
  const right = ratio < 1 ? '' : '█'.repeat(length);
  return `${left.padStart(half)}│${right.padEnd(half)}`;
}

const number = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

export function report(results: readonly Result[], colours: Colours): string {
  const rows = [['suite', 'case', 'ours', 'peer', 'figure', 'ours is better by', '']];
  for (const { suite, case: name, unit, ours, peers, ratio } of results) {
    const first = [suite, name, `${number(ours)} ${unit}`];
    const entries = Object.entries(peers);
    if (entries.length === 0) rows.push([...first, '', '', '', '']);
    for (const [index, [peer, figure]] of entries.entries()) {
      const better = ratio[peer] as number;
      rows.push([
        ...(index === 0 ? first : ['', '', '']),
        peer,
        number(figure),
        bar(better),
        `${number(better)} ×`,
      ]);
    }
  }
  return table(rows, colours.bold);
}
