// `npm run fuzz -- [target ...] [--count N] [--seed S]`: mutated input to everything that reads what it did not write.
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Random, random } from '../support/random.js';

/** Feeds one mutated input; throws when the code under test did anything but accept it or refuse it properly. */
export type FuzzTarget = (random: Random) => void;

interface Target {
  /** Makes the seed inputs once, and gives the function that runs one mutation. */
  readonly load: () => Promise<FuzzTarget>;
  /** Inputs unless told: a minute or two of them. */
  readonly count: number;
}

const targets: Readonly<Record<string, Target>> = {
  keepalive: { load: async () => (await import('./keepalive.js')).target(), count: 300_000 },
  pagetable: { load: async () => (await import('./pagetable.js')).target(), count: 1_000_000 },
  state: { load: async () => (await import('./state.js')).target(), count: 1_000_000 },
};

/** Of processor time, on average: more means that some input makes it crawl. */
const MICROSECONDS_EACH = 500;

const usage = `usage: npm run fuzz -- [target ...] [--count N] [--seed S]
targets: ${Object.keys(targets).join(', ')}; all of them unless told
--count  mutated inputs for each target; ${Object.entries(targets)
  .map(([name, { count }]) => `${name} ${count}`)
  .join(', ')} unless told
--seed   from an earlier run, to repeat it`;

/** Each target in a process of its own, side by side. */
async function runEach(names: readonly string[], options: readonly string[]): Promise<void> {
  const program = fileURLToPath(import.meta.url);
  const codes = await Promise.all(
    names.map(name => {
      const child = spawn(process.execPath, [program, name, ...options], { stdio: 'inherit' });
      return new Promise<number | null>((resolve, reject) => {
        child.once('error', reject);
        child.once('close', resolve);
      });
    }),
  );
  const failed = names.filter((_, index) => codes[index] !== 0);
  if (failed.length > 0) throw new Error(`failed: ${failed.join(', ')}`);
}

async function fuzz(name: string, wanted: number | undefined, seed: number): Promise<void> {
  const { load, count: usual } = targets[name] as Target;
  const count = wanted ?? usual;
  const target = await load();
  const start = Date.now();
  const begun = process.cpuUsage();
  const limit = 30_000_000 + count * MICROSECONDS_EACH;
  let shown = start;
  for (let index = 0; index < count; index++) {
    try {
      // Each input has a seed of its own, so that one alone can be repeated.
      target(random(Math.imul(seed + index, 0x9e3779b1) >>> 0 || 1));
    } catch (error) {
      const again = `npm run fuzz -- ${name} --count 1 --seed ${(seed + index) >>> 0}`;
      throw new Error(
        `${name}, input ${index}: ${error instanceof Error ? error.stack : error}\nAgain: ${again}`,
      );
    }
    if (index % 1000 === 0) {
      const now = Date.now();
      const { user, system } = process.cpuUsage(begun);
      if (user + system > limit)
        throw new Error(`${name}: only ${index} of ${count} inputs by the time limit`);
      if (now - shown > 5000) {
        shown = now;
        console.error(`${name}: ${index} of ${count}`);
      }
    }
  }
  const seconds = (Date.now() - start) / 1000;
  const memory = Math.round(process.memoryUsage.rss() / 2 ** 20);
  console.log(
    `${name}: ${count} inputs from seed ${seed} in ${seconds.toFixed(1)} s, ${memory} MiB resident`,
  );
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      count: { type: 'string' },
      seed: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(usage);
    return;
  }
  const wanted = values.count === undefined ? undefined : Number(values.count);
  const seed = Number(values.seed ?? randomInt(2 ** 32));
  if (
    (wanted !== undefined && (!Number.isInteger(wanted) || wanted < 1)) ||
    !Number.isInteger(seed) ||
    seed < 0 ||
    seed >= 2 ** 32
  ) {
    throw new Error(usage);
  }
  const unknown = positionals.filter(name => !Object.hasOwn(targets, name));
  if (unknown.length > 0) throw new Error(`no such target: ${unknown.join(', ')}\n${usage}`);
  const names = positionals.length > 0 ? positionals : Object.keys(targets);
  const [only, ...others] = names;
  if (only !== undefined && others.length === 0) await fuzz(only, wanted, seed);
  else await runEach(names, ['--seed', String(seed), ...(wanted ? ['--count', String(wanted)] : [])]);
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
