/**
 * Runs sequences on the kernel of this machine, and prints what is seen of each in one line of JSON: its name, and a
 * hash of the transcript or the whole of it.
 *
 * `node transcripts.js DOMAIN SEED COUNT [START] [--full]`, or `node transcripts.js FILE`, for sequences in a file of
 * JSON lines; those are always printed in full.
 *
 * @module
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { linux } from '../../../bindings/linux.js';
import { isMain } from '../../vm/project.js';
import { claimDevices } from './devices.js';
import { type DomainName, needsDevices, sequence } from './domains.js';
import { Interpreter } from './interpreter.js';
import type { Sequence } from './step.js';

export function hash(lines: readonly string[]): string {
  return createHash('sha1').update(lines.join('\n')).digest('base64').slice(0, 16);
}

function* wanted(args: readonly string[]): Generator<Sequence> {
  const [domain = '', seed, count, start = '0'] = args;
  if (count === undefined) {
    for (const line of readFileSync(domain, 'utf8').split('\n')) if (line) yield JSON.parse(line) as Sequence;
    return;
  }
  for (let i = 0; i < Number(count); i++) {
    yield sequence(domain as DomainName, Number(seed), Number(start) + i);
  }
}

if (isMain(import.meta.url)) {
  const args = process.argv.slice(2).filter(arg => arg !== '--full');
  const full = process.argv.includes('--full') || args.length === 1;
  const kernel = linux();
  const interpreter = new Interpreter(kernel);
  let claimed = false;
  let out = '';
  for (const each of wanted(args)) {
    if (!claimed && needsDevices(each.domain)) {
      claimDevices(kernel);
      claimed = true;
    }
    const lines = interpreter.run(each);
    out += `${JSON.stringify(full ? { name: each.name, lines } : { name: each.name, hash: hash(lines) })}\n`;
    if (out.length > 65536) {
      process.stdout.write(out);
      out = '';
    }
  }
  process.stdout.write(out);
}
