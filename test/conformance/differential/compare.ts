/**
 * Compares the simulated host with a real kernel, or a kernel with itself, over random sequences of calls.
 *
 * `node compare.js --domain iommufd [--profile vtd] [--seed 1] [--count 2000] [--start 0] [--shrink 5] [--against kernel]`
 *
 * Exit code 1 when there is a difference.
 *
 * @module
 */
import { parseArgs } from 'node:util';
import { isMain } from '../../vm/project.js';
import { type Difference, difference, report } from './difference.js';
import { type DomainName, domains, sequence } from './domains.js';
import { kernelHashes, kernelTranscripts } from './on-kernel.js';
import { Simulator } from './on-simulator.js';
import { shrink } from './shrink.js';
import { hash } from './transcripts.js';

export interface ComparisonOptions {
  readonly domain: DomainName;
  readonly profile: string;
  readonly seed: number;
  readonly count: number;
  readonly start: number;
}

/** Transcripts of no more sequences than this are fetched. */
const MOST = 300;

/** Every difference between the simulator and the kernel, of the first few hundred sequences that have any. */
export async function compare({
  domain,
  profile,
  seed,
  count,
  start,
}: ComparisonOptions): Promise<Difference[]> {
  const simulator = new Simulator(profile);
  const kernel = await kernelHashes(domain, profile, seed, count, start);
  const suspects = Array.from({ length: count }, (_, i) => sequence(domain, seed, start + i)).filter(
    each => hash(simulator.run(each)) !== kernel.get(each.name),
  );
  if (suspects.length === 0) return [];
  console.log(`${suspects.length} of ${count} sequences differ`);
  const fetched = suspects.slice(0, MOST);
  const transcripts = await kernelTranscripts(domain, profile, fetched);
  return fetched.flatMap((each, i) => {
    const found = difference(each, transcripts[i] ?? [], new Simulator(profile).run(each));
    return found === undefined ? [] : [found];
  });
}

/** The shortest of each kind, those that are frequent first. */
function examples(differences: readonly Difference[]): { count: number; example: Difference }[] {
  const kinds = new Map<string, Difference[]>();
  for (const each of differences) kinds.set(each.signature, [...(kinds.get(each.signature) ?? []), each]);
  return [...kinds.values()]
    .map(list => ({
      count: list.length,
      example: list.reduce((shortest, each) => (each.at < shortest.at ? each : shortest)),
    }))
    .sort((a, b) => b.count - a.count);
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      domain: { type: 'string', default: 'iommufd' },
      profile: { type: 'string' },
      seed: { type: 'string', default: '1' },
      count: { type: 'string', default: '2000' },
      start: { type: 'string', default: '0' },
      shrink: { type: 'string', default: '0' },
      against: { type: 'string', default: 'simulator' },
    },
  });
  const domain = values.domain as DomainName;
  if (!(domain in domains)) throw new Error(`domains are ${Object.keys(domains).join(', ')}`);
  const { profile = domains[domain].profiles[0] } = values;
  const [seed, count, start] = [Number(values.seed), Number(values.count), Number(values.start)];
  if (values.against === 'kernel') {
    const one = await kernelHashes(domain, profile, seed, count, start);
    const two = await kernelHashes(domain, profile, seed, count, start);
    const differing = [...one].filter(([name, value]) => two.get(name) !== value).map(([name]) => name);
    console.log(
      `${one.size} sequences, ${differing.length} differ from one run to the next: ${differing.join(' ')}`,
    );
    return differing.length === 0 ? 0 : 1;
  }
  const differences = await compare({ domain, profile, seed, count, start });
  const kinds = examples(differences);
  for (const { count: times, example } of kinds)
    console.log(`${times} times ${example.signature} (${example.sequence.name})`);
  const wanted = kinds.slice(0, Number(values.shrink)).map(({ example }) => example);
  const shrunk = wanted.length === 0 ? [] : await shrink(domain, profile, wanted);
  for (const each of shrunk) console.log(`\n${report(each)}`);
  if (differences.length === 0) console.log(`${count} sequences of ${domain} on ${profile}: no difference`);
  return differences.length === 0 ? 0 : 1;
}

if (isMain(import.meta.url)) process.exitCode = await main();
