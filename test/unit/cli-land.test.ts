// `iommufd land` as a process, on a simulated machine.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { InitrdImage } from '../../src/keepalive/landing/initrd-image.js';
import { filesToInstall, landingBody } from '../../src/keepalive/landing/script.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import type { SavedDevice } from '../../src/keepalive/state/saved-state.js';
import { readIdentity } from '../../src/pci/identity.js';
import { NvmeModel, SimulatedHost } from '../../src/testing/index.js';
import { nodeCommand } from '../support/node-command.js';
import { plainInitrd } from '../support/plain-initrd.js';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const simulate = fileURLToPath(new URL('../../src/testing/simulate.js', import.meta.url));
const ADDRESS = '0000:00:04.0';
const SCRIPT = '/etc/initramfs-tools/scripts/init-top/00-iommufd-land';
const LINE = 'quiet kho=on liveupdate=on vfio-pci.disable_idle_d3=1';

const run = (...args: string[]) => {
  const result = spawnSync(...nodeCommand('--import', simulate, main, 'land', ...args), { input: '' });
  return {
    code: result.status,
    stdout: result.stdout,
    text: String(result.stdout),
    stderr: String(result.stderr),
  };
};

/** The controller of the simulated machine, as a driver would save it. */
const device = (): SavedDevice => {
  using host = new SimulatedHost({ devices: [{ address: ADDRESS, function: new NvmeModel() }] });
  return { ...readIdentity(ADDRESS, host.process()), interface: 'cdev', translation: 'iommu' };
};
const identity = device();
const body = landingBody([identity]);

const directories = t.testdir({});
/** An empty directory. */
const scratch = (): string => mkdtempSync(join(directories, 'd'));

/** A file with a state of one device. */
const stateFile = (change: Partial<SavedDevice> = {}): string => {
  const path = join(scratch(), 'kept.state');
  const devices = [{ ...identity, ...change }];
  writeFileSync(path, encodeState({ arenas: [], iommufds: [], devices, sessions: [], drivers: [] }));
  return path;
};

t.test('the plan', async t => {
  const state = stateFile();
  const { code, text, stderr } = run(state);
  t.equal(code, 0, stderr);
  t.match(text, /^Kernel 7\.3\.4-simulated, vfio-pci as module$/m);
  t.match(text, /^0000:00:04\.0 +nvme \(module\) +script in the initrd$/m);
  t.match(text, /^Add to the command line: .*kho=on liveupdate=on$/m);
  t.equal(stderr, '');
  const json = run(state, '--json');
  t.equal(json.code, 0);
  t.match(JSON.parse(json.text), {
    release: '7.3.4-simulated',
    vfioPci: 'module',
    devices: [{ address: ADDRESS, natives: [{ module: 'nvme', builtIn: false }], method: 'script' }],
    needsScript: true,
    script: body,
    files: [],
    problems: [],
  });
});

t.test('what cannot be guaranteed', async t => {
  const root = scratch();
  for (const action of [
    [],
    ['--initramfs-tools', '--yes', '--root', root],
    ['--dracut', '--yes', '--root', root],
  ]) {
    const { code, text, stderr } = run(stateFile({ deviceId: 0x11 }), ...action);
    t.equal(code, 1);
    t.match(text, /^problem: 0000:00:04\.0: it is not the device that was saved: .*Start it cold$/m);
    t.match(stderr, /^iommufd: it cannot be guaranteed that the devices land/);
  }
  t.strictSame(readdirSync(root), [], 'nothing was written');
  const json = run(stateFile({ deviceId: 0x11 }), '--json');
  t.equal(json.code, 1);
  t.match(JSON.parse(json.text).problems, [{ device: ADDRESS, problem: /not the device/, remedy: /cold/ }]);
  const other = run(stateFile(), '--release', '9.9');
  t.equal(other.code, 1);
  t.match(other.text, /unknown which drivers of kernel 9\.9 would take it: \/lib\/modules\/9\.9 has no/);
  t.match(run(stateFile(), '--release', '../x'), { code: 1, stderr: /is not a kernel release/ });
  const bad = join(scratch(), 'bad.state');
  writeFileSync(bad, 'no state');
  t.match(run(bad), { code: 1, stderr: /bad\.state: saved state/ });
  t.match(run(`${bad}.missing`), { code: 1, stderr: /ENOENT/ });
});

t.test('installation', async t => {
  const root = scratch();
  const state = stateFile();
  for (const [make, command] of [
    ['initramfs-tools', 'update-initramfs -u -k 7.3.4-simulated'],
    ['dracut', 'dracut --force --kver 7.3.4-simulated'],
  ] as const) {
    const options = [state, `--${make}`, '--root', root];
    const asked = run(...options);
    t.match(asked, { code: 2, stderr: /this writes .* below .*Pass --yes to do so/ }, 'nobody can be asked');
    const dry = run(...options, '--dry-run');
    t.match(dry, { code: 0, stderr: /would write/ });
    const files = filesToInstall(make, body);
    for (const { path } of files) t.equal(existsSync(join(root, path)), false, path);
    const done = run(...options, '--yes');
    t.equal(done.code, 0, done.stderr);
    t.match(done.stderr, `now make the image: ${command}`);
    for (const { path, mode, text } of files) {
      t.equal(readFileSync(join(root, path), 'utf8'), text, path);
      t.equal(statSync(join(root, path)).mode & 0o777, mode);
    }
    t.equal(run(...options, '--yes').code, 0, 'once more');
  }
  t.strictSame(readdirSync(join(root, SCRIPT, '..')), ['00-iommufd-land'], 'and nothing else');
  const blocked = scratch();
  writeFileSync(join(blocked, 'etc'), 'a file');
  t.match(run(state, '--initramfs-tools', '--root', blocked, '--yes'), { code: 1, stderr: /EEXIST|ENOTDIR/ });
});

t.test('an image', async t => {
  const state = stateFile();
  const directory = scratch();
  const [input, output] = [join(directory, 'in'), join(directory, 'out')];
  writeFileSync(input, plainInitrd);
  const added = run(state, '--initrd', input, '--output', output);
  t.equal(added.code, 0, added.stderr);
  t.match(added.text, /^Kernel/);
  const made = readFileSync(output);
  t.match(new InitrdImage(made).text(SCRIPT.replace('/etc/initramfs-tools', '')), `land ${ADDRESS} `);
  const piped = run(state, '--initrd', input);
  t.equal(piped.code, 0);
  t.ok(piped.stdout.equals(made), 'standard output carries the image alone');

  const verify = (initrd: string, ...line: string[]) =>
    run(state, '--verify', '--initrd', initrd, '--command-line', ...line);
  t.match(verify(output, LINE), { code: 0, stderr: '' });
  t.match(verify(input, LINE), { code: 1, text: /problem: initrd: it has no landing script/ });
  t.match(verify(output, 'quiet'), {
    code: 1,
    text: /problem: the command line does not have liveupdate=on\. Add/,
  });
  t.match(run(state, '--verify', '--command-line', LINE), { code: 1, text: /there is no initrd/ });
  t.match(JSON.parse(run(state, '--verify', '--command-line', LINE, '--json').text).problems, [
    { device: null },
  ]);

  writeFileSync(input, 'no image');
  t.match(run(state, '--initrd', input, '--output', join(directory, 'none')), {
    code: 1,
    stderr: /initrd: there is neither/,
  });
  t.equal(existsSync(join(directory, 'none')), false);
  t.match(run(stateFile({ deviceId: 0x11 }), '--initrd', output), {
    code: 1,
    text: '',
    stderr: /not the device that was saved.*\niommufd: it cannot be guaranteed/,
  });
});

t.test('a state from standard input', async t => {
  const input = readFileSync(stateFile());
  const { status, stdout } = spawnSync(...nodeCommand('--import', simulate, main, 'land', '-'), {
    input,
  });
  t.equal(status, 0);
  t.match(String(stdout), /^Kernel/);
});
