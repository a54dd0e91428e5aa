// `iommufd state` with a million mappings that cannot be joined: within a few seconds, and not a line for each.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Iova } from '../../src/address.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import { MappingTable } from '../../src/keepalive/state/mapping-table.js';
import { PageSize } from '../../src/memory/memfd.js';
import { nodeCommand } from '../support/node-command.js';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'iommufd-cli-state-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
t.setTimeout(120_000);

/** @param shift of where each mapping begins in its arena, in bytes */
function write(name: string, shift: number): string {
  const mappings = new MappingTable(1_000_000);
  for (let index = 0; index < 1_000_000; index++) {
    const offset = ((index * 7) % 500_000) * 4096 + shift;
    mappings.push({ iova: (BigInt(index) * 8192n) as Iova, length: 4096, arena: 1n, offset });
  }
  const path = join(directory, name);
  writeFileSync(
    path,
    encodeState({
      arenas: [{ token: 1n, size: 2 ** 32, pageSize: PageSize.Small, name: 'large' }],
      iommufds: [{ id: 0, ioases: [{ id: 0, allowed: [], mappings }] }],
      devices: [],
      sessions: [],
      drivers: [],
    }),
  );
  return path;
}

const a = write('a.state', 0);
const b = write('b.state', 4096);
const output = join(directory, 'out');
const runs: readonly [string[], status: number, RegExp][] = [
  [['show', a], 0, /mapped +3\.81 GiB in 1000000 mappings\n(.*\n)* {2}a {2}large .* in 1000000 pieces\n/],
  [['verify', a], 0, /mappings +1000000: /],
  [['diff', a, b], 1, /mappings differ in 1000000 ranges\n(.*\n)* {4}and 999984 more ranges\n$/],
  [['export', a, '-f', 'json', '-o', output], 0, /^wrote /],
  [['export', a, '-f', 'dts', '-o', output], 0, /^wrote /],
];
for (const [args, status, message] of runs) {
  const start = performance.now();
  const run = spawnSync(...nodeCommand(main, 'state', ...args), { encoding: 'utf8' });
  const seconds = (performance.now() - start) / 1000;
  t.equal(run.status, status, args.join(' '));
  t.match(run.stdout, message);
  t.ok(run.stdout.split('\n').length < 100, 'not a line for each');
  t.ok(seconds < 20, `${seconds.toFixed(1)} s`);
}
