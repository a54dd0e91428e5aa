// The command as a process: exit codes, and what goes to which stream.
import { spawnSync } from 'node:child_process';
import { openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { nodeCommand } from '../support/node-command.js';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const missing = '0000:ff:1f.7';

const iommufd = (...args: string[]) =>
  spawnSync(...nodeCommand(main, ...args), { encoding: 'utf8', input: '' });

t.test('help and version', async t => {
  for (const args of [['--help'], ['devices', '--help'], ['nvme', 'read', '--help']]) {
    const { status, stdout, stderr } = iommufd(...args);
    t.equal(status, 0);
    t.match(stdout, /^Usage: iommufd/);
    t.equal(stderr, '');
  }
  const plain = iommufd('--version');
  t.equal(plain.status, 0);
  t.match(plain.stdout, /^\d+\.\d+\.\d+\S*\n$/);
  t.strictSame(JSON.parse(iommufd('--version', '--json').stdout), { version: plain.stdout.trim() });
});

t.test('wrong usage', async t => {
  const wrong: readonly [string[], RegExp][] = [
    [[], /^iommufd: no command given\. See "iommufd --help"\n$/],
    [['frobnicate'], /^iommufd: there is no command "frobnicate"\. See "iommufd --help"\n$/],
    [['devices', '--frob'], /^iommufd: unknown option '--frob'\. See "iommufd devices --help"\n$/],
    [['nvme', 'zz', 'identify'], /^iommufd: "zz" is not a PCI address .*\. See "iommufd nvme --help"\n$/],
    [['nvme', missing, 'format'], /^iommufd: there is no command "nvme format"/],
  ];
  for (const [args, message] of wrong) {
    const { status, stdout, stderr } = iommufd(...args);
    t.equal(status, 2, args.join(' '));
    t.match(stderr, message);
    t.equal(stdout, '');
  }
});

t.test('a device that does not exist', async t => {
  for (const args of [['identify'], ['read', '--blocks', '1'], ['write', '--yes']]) {
    const { status, stdout, stderr } = iommufd('nvme', missing, ...args);
    t.equal(status, 1, args.join(' '));
    t.match(stderr, /^iommufd: .*There is no PCI device at this address.*\n$/);
    t.equal(stderr.split('\n').length, 2, 'one line');
    t.equal(stdout, '');
  }
});

t.test('an input that does not exist', async t => {
  const { status, stderr } = iommufd('nvme', missing, 'write', '--yes', '--input', '/does/not/exist');
  t.equal(status, 1);
  t.match(stderr, /^iommufd: ENOENT.*\/does\/not\/exist/);
});

t.test('stack traces on demand', async t => {
  const env = { ...process.env, IOMMUFD_DEBUG: '1' };
  const { stderr } = spawnSync(...nodeCommand(main, 'frobnicate'), { encoding: 'utf8', env });
  t.match(stderr, /^iommufd: there is no command/);
  t.match(stderr, /\n {4}at /);
});

t.test('devices', async t => {
  const all = iommufd('devices', '--all', '--json');
  t.equal(all.status, 0);
  t.ok(Array.isArray(JSON.parse(all.stdout)));
  const shown = iommufd('devices', '--json');
  t.equal(shown.status, 0);
  t.equal(shown.stderr, '');
  const devices = JSON.parse(shown.stdout) as { address: string; classCode: string }[];
  t.ok(devices.every(device => !device.classCode.startsWith('0x06')));
  const text = iommufd('devices');
  t.equal(text.status, 0);
  t.notOk(text.stdout.includes('\u001b'), 'no colours in a pipe');
  t.equal(text.stdout.trim().split('\n').length, devices.length === 0 ? 1 : devices.length + 1);
});

t.test('a full disk is reported', async t => {
  const { status, stderr } = spawnSync(...nodeCommand(main, '--help'), {
    encoding: 'utf8',
    stdio: ['ignore', openSync('/dev/full', 'w'), 'pipe'],
  });
  t.equal(status, 1);
  t.match(stderr, /^iommufd: ENOSPC/);
});

t.test('a reader that leaves is no error', async t => {
  const { stdout, stderr } = spawnSync(
    'sh',
    ['-c', '{ sleep 0.3; "$0" "$1" --help; echo "status $?" >&2; } | true', process.execPath, main],
    { encoding: 'utf8' },
  );
  t.equal(stdout, '');
  t.equal(stderr, 'status 0\n');
});
