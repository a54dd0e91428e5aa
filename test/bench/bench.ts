// `npm run bench -- [suite ...] [--json]`: ours beside its peers, in one run.
import { parseArgs } from 'node:util';
import { colours } from '../../src/cli/colours.js';
import { type BenchCase, measure, type Result } from './measure.js';
import { report } from './report.js';

/** Loaded when asked for: a peer that is missing harms only its own suite. */
const suites: Readonly<Record<string, () => Promise<{ cases(): BenchCase[] | Promise<BenchCase[]> }>>> = {
  iova: () => import('./iova.js'),
  pagetable: () => import('./pagetable.js'),
  restore: () => import('./restore.js'),
  state: () => import('./state.js'),
};

const usage = `usage: npm run bench -- [suite ...] [--json]
suites: ${Object.keys(suites).join(', ')}; all of them unless told
--json  an array of {suite, case, unit, ours, peers, ratio}; a ratio above 1 says that ours is better`;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { json: { type: 'boolean', default: false }, help: { type: 'boolean', default: false } },
  });
  if (values.help) {
    console.log(usage);
    return;
  }
  const unknown = positionals.filter(name => !Object.hasOwn(suites, name));
  if (unknown.length > 0) throw new Error(`no such suite: ${unknown.join(', ')}\n${usage}`);
  const { stderr } = process;
  const note = (text: string): void => {
    if (stderr.isTTY) stderr.write(`\r\u001b[K${text}`);
  };
  const results: Result[] = [];
  for (const [suite, load] of Object.entries(suites)) {
    if (positionals.length > 0 && !positionals.includes(suite)) continue;
    note(`${suite}: setting up`);
    for (const benchCase of await (await load()).cases()) {
      results.push(
        await measure(suite, benchCase, (round, rounds, contender) => {
          note(
            `${suite}: ${benchCase.name}, ${round === 0 ? 'warm-up' : `round ${round} of ${rounds}`}, ${contender}`,
          );
        }),
      );
      if (!stderr.isTTY) stderr.write(`${suite}: ${benchCase.name}\n`);
    }
  }
  note('');
  console.log(values.json ? JSON.stringify(results, undefined, 2) : report(results, colours(process.stdout)));
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
