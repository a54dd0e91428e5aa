// A program in one file does what it does in several.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { bundle } from '../support/bundle.js';
import { nodeCommand } from '../support/node-command.js';

t.test('modules, run once, with live bindings', async t => {
  const directory = t.testdir({
    'package.json': '{"type":"module"}',
    'main.js': `
      import { basename } from 'node:path';
      import * as counter from './lib/counter.js';
      import { where } from './lib/counter.js';
      export { later } from './lib/later.js';
      counter.count();
      counter.count();
      console.log(counter.total, basename(where), basename(import.meta.url), process.argv[2]);
    `,
    lib: {
      'counter.js': `
        import { later } from './later.js';
        export let total = 0;
        export const count = () => { total += later(1); };
        export const where = import.meta.url;
        console.log('counter');
        //# sourceMappingURL=counter.js.map
      `,
      'later.js': `
        import { total } from './counter.js';
        import { createRequire } from 'node:module';
        const { posix } = createRequire(import.meta.url)('node:path');
        console.log('later', posix.sep);
        export function later(value) { return total + value; }
      `,
    },
  });
  const run = (program: string): string =>
    execFileSync(...nodeCommand(program, 'argument'), { encoding: 'utf8' });
  const main = join(directory, 'main.js');
  const expected = 'later /\ncounter\n3 counter.js main.js argument\n';
  t.equal(run(main), expected);
  const text = bundle(main);
  // The modules themselves are gone.
  t.equal(run(join(t.testdir({ 'bundle.cjs': text }), 'bundle.cjs')), expected);
});

t.test('a second copy of the library', async t => {
  const main = join(t.testdir({ 'main.js': "import { claim } from 'iommufd';\nclaim();\n" }), 'main.js');
  t.throws(() => bundle(main), { message: /imports iommufd, a second copy/ });
});
