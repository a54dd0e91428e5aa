// What the README shows, run as it is printed: the core by itself, drivers on a simulated machine.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { nodeCommand } from '../support/node-command.js';

const root = new URL('../../..', import.meta.url);

/** Runs the block of the README that has `word` in it. */
function run(word: string, node: readonly string[] = [], args: readonly string[] = []): string {
  const readme = readFileSync(new URL('README.md', root), 'utf8');
  const source = [...readme.matchAll(/```js\n([\s\S]*?)```/g)].find(([, code]) => code?.includes(word));
  // In the package's own directory, so that its name resolves to itself.
  const { status, stdout, stderr } = spawnSync(
    ...nodeCommand(...node, '--input-type=module', '--eval', source?.[1] ?? '', '--', ...args),
    { cwd: fileURLToPath(root), encoding: 'utf8' },
  );
  t.equal(stderr, '');
  t.equal(status, 0);
  return stdout;
}

t.test('addresses, page tables, states', async t => {
  const stdout = run('IovaSpace');
  t.match(stdout, /address: 5368713780n/, 'translated');
  t.match(stdout, /entrySize: 2097152n/, 'by one large entry');
  t.match(stdout, /iova: 2097152n,\n {2}length: 2097152,\n {2}arena: 1n/, 'and read back');
});

t.test('a test of a driver', async t => {
  const stdout = run('new Lies');
  t.match(stdout, /^1 fine\n2 fine\n3 TIMEOUT\n\[\] \[/);
});

t.test('the driver, on a simulated machine', async t => {
  // Evaluated, a program has no path of its own among its arguments.
  const stdout = run('0x460001', ['--import', 'iommufd/simulate'], ['', '0000:00:04.0']);
  t.equal(stdout, 'QEMU NVMe Ctrl\n');
});

t.test('a hand-off, on a simulated machine', async t => {
  t.equal(run('ChannelListener'), 'kept-running 7\n');
});
