/** Sequences on a real kernel, in a test VM. @module */
import { writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ProfileName, profileNames } from '../../vm/profiles.js';
import { projectRoot } from '../../vm/project.js';
import { guestRunDirectory } from '../../vm/topology.js';
import { runVm } from '../../vm/vm.js';
import { type Domain, type DomainName, domains } from './domains.js';
import type { Sequence } from './step.js';

const program = relative(projectRoot, fileURLToPath(new URL('transcripts.js', import.meta.url)));

async function run(domain: Domain, profile: string, args: string[], sequences?: string): Promise<string[]> {
  if (!profileNames.includes(profile as ProfileName)) throw new Error(`no profile is called ${profile}`);
  const chunks: Buffer[] = [];
  const said: Buffer[] = [];
  using result = await runVm({
    profile: profile as ProfileName,
    command: ['node', program, ...args],
    onStdout: chunk => chunks.push(chunk),
    onStderr: chunk => said.push(chunk),
    timeoutMs: 7_200_000,
    idleMs: 1_200_000,
    ...(domain.append !== undefined && { append: domain.append }),
    before: ({ results }) => {
      if (sequences !== undefined) writeFileSync(join(results, 'sequences'), sequences);
    },
  });
  if (result.failure !== undefined) {
    throw new Error([result.failure, Buffer.concat(said).toString('utf8'), result.console].join('\n'));
  }
  // A kernel that complained may have said anything afterwards.
  const complaint = /^.*(WARNING:|BUG:|Oops).*$/m.exec(result.console);
  if (complaint !== null) console.error(`the kernel said: ${complaint[0]}`);
  return Buffer.concat(chunks).toString('utf8').trimEnd().split('\n');
}

/** The hashes of transcripts, by the names of the sequences. */
export async function kernelHashes(
  name: DomainName,
  profile: string,
  seed: number,
  count: number,
  start: number,
): Promise<Map<string, string>> {
  const lines = await run(domains[name], profile, [name, seed, count, start].map(String));
  return new Map(
    lines
      .map(line => JSON.parse(line) as { name: string; hash: string })
      .map(({ name, hash }) => [name, hash]),
  );
}

/** The transcripts of sequences, in order. */
export async function kernelTranscripts(
  name: DomainName,
  profile: string,
  sequences: readonly Sequence[],
): Promise<string[][]> {
  const text = sequences.map(sequence => `${JSON.stringify(sequence)}\n`).join('');
  const lines = await run(domains[name], profile, [`${guestRunDirectory}/results/sequences`], text);
  return lines.map(line => (JSON.parse(line) as { lines: string[] }).lines);
}
