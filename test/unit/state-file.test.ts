// Saved states in files: replaced as a whole or not at all.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { decodeState } from '../../src/keepalive/state/decode-state.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import { readStateFile, writeStateFile } from '../../src/keepalive/state/state-file.js';
import { goldenStates } from '../support/golden-states.js';
import { plain } from '../support/random-state.js';
import { runScript } from './support/child.js';

const everything = goldenStates.everything as NonNullable<(typeof goldenStates)[string]>;
const bytes = encodeState(everything);

function directoryOf(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'iommufd-state-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

t.test('what was written is read', async t => {
  const directory = directoryOf(t);
  const path = join(directory, 'state');
  writeStateFile(path, bytes);
  t.strictSame(plain(decodeState(readStateFile(path))), plain(everything));
  t.equal(statSync(path).mode & 0o777, 0o600, 'and is not for others');
  writeStateFile(path, new Uint8Array(3));
  t.strictSame(readStateFile(path), new Uint8Array(3), 'and is replaced');
  t.strictSame(readdirSync(directory), ['state'], 'nothing is left beside it');
});

t.test('a symbolic link stays one', async t => {
  const directory = directoryOf(t);
  mkdirSync(join(directory, 'elsewhere'));
  const real = join(directory, 'elsewhere', 'state');
  const link = join(directory, 'link');
  writeFileSync(real, 'old');
  symlinkSync(join('elsewhere', 'state'), link);
  writeStateFile(link, bytes);
  t.equal(readlinkSync(link), join('elsewhere', 'state'));
  t.strictSame(new Uint8Array(readFileSync(real)), bytes);
});

t.test('what is not written', async t => {
  const directory = directoryOf(t);
  const fifo = join(directory, 'fifo');
  execFileSync('mkfifo', [fifo]);
  for (const path of [fifo, directory, '/dev/null']) {
    t.throws(() => writeStateFile(path, bytes), { name: 'RangeError', message: /no regular file/ }, path);
  }
  t.throws(() => writeStateFile(join(directory, 'missing', 'x'), bytes), { code: 'ENOENT' });
  const huge = Object.create(Uint8Array.prototype, { length: { value: 2 ** 30 + 1 } }) as Uint8Array;
  t.throws(() => writeStateFile(join(directory, 'x'), huge), { name: 'RangeError', message: /at most/ });
  t.throws(() => writeStateFile(join(directory, 'x'), 'text' as never), TypeError);
  t.strictSame(readdirSync(directory), ['fifo'], 'nothing is left');
});

t.test('what is not read', async t => {
  const directory = directoryOf(t);
  const fifo = join(directory, 'fifo');
  execFileSync('mkfifo', [fifo]);
  for (const path of [fifo, directory]) {
    t.throws(() => readStateFile(path), { name: 'StateError', code: 'DAMAGED', message: /no regular file/ });
  }
  const large = join(directory, 'large');
  writeFileSync(large, '');
  truncateSync(large, 2 ** 30 + 1);
  t.throws(() => readStateFile(large), { name: 'StateError', code: 'DAMAGED', message: /larger than/ });
  t.throws(() => readStateFile(join(directory, 'missing')), { code: 'ENOENT' });
});

t.test('when there is no room, the old state stays', async t => {
  const directory = directoryOf(t);
  const path = join(directory, 'state');
  writeStateFile(path, bytes);
  // A limit on the size of files is a full disk that needs no disk.
  const module = new URL('../../src/keepalive/state/state-file.js', import.meta.url).href;
  const script = `
    import { writeStateFile } from '${module}';
    process.on('SIGXFSZ', () => undefined);
    try { writeStateFile(${JSON.stringify(path)}, new Uint8Array(65536)); } catch (error) { console.log(error.code); }
  `;
  const { stdout, stderr } = spawnSync(
    'sh',
    ['-c', 'ulimit -f 8; exec "$0" --input-type=module -e "$1"', process.execPath, script],
    { encoding: 'utf8' },
  );
  t.equal(stdout, 'EFBIG\n', stderr);
  t.strictSame(readStateFile(path), bytes);
  t.strictSame(readdirSync(directory), ['state'], 'nothing is left beside it');
});

t.test('whoever dies while writing leaves the old state or the new one', async t => {
  const directory = directoryOf(t);
  const path = join(directory, 'state');
  const module = new URL('../../src/keepalive/state/state-file.js', import.meta.url).href;
  const sizes = [1000, 3_000_000];
  writeStateFile(path, new Uint8Array(sizes[0] as number).fill(1));
  let writes = 0;
  for (let run = 0; run < 8; run++) {
    const { signal, stdout } = await runScript(
      `
      import { writeSync } from 'node:fs';
      import { Worker } from 'node:worker_threads';
      import { writeStateFile } from '${module}';
      new Worker('setTimeout(() => process.kill(process.pid, "SIGKILL"), ${20 + run * 7})', { eval: true });
      for (let turn = 1; ; turn++) {
        writeStateFile(${JSON.stringify(path)}, new Uint8Array([${sizes}][turn & 1]).fill(1));
        writeSync(1, '.');
      }
      `,
      20_000,
    );
    t.equal(signal, 'SIGKILL');
    writes += stdout.length;
    const found = readStateFile(path);
    t.ok(sizes.includes(found.length), `${found.length} bytes`);
    t.ok(found.every(byte => byte === 1));
  }
  t.ok(writes > 8, `${writes} times written`);
});
