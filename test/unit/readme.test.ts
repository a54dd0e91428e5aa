// What the README shows of the core, run as it is printed.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';

t.test('addresses, page tables, states', async t => {
  const root = new URL('../../../', import.meta.url);
  const readme = readFileSync(new URL('README.md', root), 'utf8');
  const source = [...readme.matchAll(/```js\n([\s\S]*?)```/g)].find(([, code]) =>
    code?.includes('IovaSpace'),
  );
  // In the package's own directory, so that its name resolves to itself.
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '--eval', source?.[1] ?? ''],
    { cwd: fileURLToPath(root), encoding: 'utf8' },
  );
  t.equal(stderr, '');
  t.equal(status, 0);
  t.match(stdout, /address: 5368713780n/, 'translated');
  t.match(stdout, /entrySize: 2097152n/, 'by one large entry');
  t.match(stdout, /iova: 2097152n,\n {2}length: 2097152,\n {2}arena: 1n/, 'and read back');
});
