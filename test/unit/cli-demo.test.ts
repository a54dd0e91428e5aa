/** `npm start`: the demonstration on the simulated host, as a program. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { DemoReport } from '../../src/cli/demo/complaints.js';
import { drawSpace } from '../../src/cli/space-picture.js';
import { nodeCommand } from '../support/node-command.js';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const demo = (args: readonly string[], node: readonly string[] = []) =>
  spawnSync(...nodeCommand(...node, main, 'demo', ...args), { encoding: 'utf8' });

t.test('for people', async t => {
  const { status, stdout, stderr } = demo([]);
  t.equal(status, 0);
  t.equal(stderr, '');
  for (const text of ['claim', 'controller', 'verified I/O', 'identical', 'stopped by the IOMMU', '╳']) {
    t.ok(stdout.includes(text), text);
  }
  t.match(stdout, /nothing stops it/);
  const steps = new Map(
    [...stdout.matchAll(/^ {2}(.{1,13}?) {2,}(.*)$/gm)].map(([, name = '', text = '']) => [name, text]),
  );
  t.match(
    steps.get('hand-offs'),
    /^20 from process to process: kept-running; each time 32 commands in flight ended/,
  );
  t.match(
    steps.get('kills'),
    /^5, .*: kept-running; each time \d+ commands in flight ended at the successor$/,
  );
  t.match(steps.get('gap'), /^nothing ends for \d+\.\d ms \(median\), \d+\.\d ms at most$/);
  for (const kernel of [2, 3, 4]) {
    t.match(
      steps.get(`kernel ${kernel}`),
      /^kept-running; [1-9].*iB of the kernel before read back: identical; \d+ pages, 0 moved$/,
    );
  }
  const seen = [...stdout.matchAll(/device saw {4}(.*)/g)].map(([, text]) => text);
  t.equal(seen.length, 4);
  for (const text of seen) {
    t.match(text, /^\d{3,} I\/O commands, 0 lost and 0 repeated; .* 0 admin commands, 0 resets$/);
  }
  const strips = [...stdout.matchAll(/^ {4}kernel \d {2}(\[.*\])$/gm)].map(([, strip]) => strip);
  t.equal(strips.length, 4);
  t.match(strips[0], '█');
  t.equal(new Set(strips).size, 1, 'DMA memory is where it was');
  t.ok(
    stdout.split('\n').every(line => !line.endsWith(' ')),
    'no line ends in spaces',
  );
});

t.test('for programs', async t => {
  const { status, stdout } = demo(['--json']);
  t.equal(status, 0);
  const report = JSON.parse(stdout) as DemoReport;
  t.match(report, { host: 'simulated', kernel: '7.3', passed: true });
  t.match(report.modes[0], { mode: 'vtd', bytesWrong: 0, leaked: [], wildWrite: { stopped: true } });
  t.match(report.modes[1], { mode: 'noiommu', bytesWrong: 0, leaked: [], wildWrite: { stopped: false } });
  for (const mode of report.modes) {
    t.equal(mode.bytesVerified, mode.bytesWritten);
    t.ok(mode.ios > 500, `${mode.ios} commands`);
  }
  t.strictSame(
    report.modes.map(mode => mode.faultsCaught),
    [1, 0],
  );
  const none = { lost: 0, repeated: 0, resets: 0, adminCommands: 0, bytesWrong: 0, leaked: [] };
  const { handoff, crash, liveupdate } = report;
  t.match(handoff, { count: 20, outcome: 'kept-running', inherited: 20 * 32, ...none });
  t.match(crash, { count: 5, outcome: 'kept-running', ...none });
  for (const { gapMs, ios, inherited } of [handoff, crash]) {
    t.ok(gapMs.p50 > 0 && gapMs.max >= gapMs.p50, `${gapMs.p50} ms, ${gapMs.max} ms at most`);
    t.ok(inherited > 0 && ios > inherited, `${ios} commands, ${inherited} of them inherited`);
  }
  t.match(liveupdate, { kexecs: 6, outcome: 'kept-running', adminCommands: 0, pagesMoved: 0 });
  t.match(liveupdate.modes, [
    { mode: 'vtd', kexecs: 3, ...none },
    { mode: 'noiommu', kexecs: 3, ...none },
  ]);
  t.ok(liveupdate.bytesVerified > 2 ** 20, `${liveupdate.bytesVerified} bytes`);
});

t.test('a controller that is reset while the next kernel starts', async t => {
  const host = new URL('../../src/sim/host.js', import.meta.url);
  const spoil = `
    import { SimulatedHost } from ${JSON.stringify(host.href)};
    import { Stage } from ${JSON.stringify(new URL('../../src/cli/demo/stage.js', import.meta.url).href)};
    let model;
    const { get } = Object.getOwnPropertyDescriptor(Stage.prototype, 'seen');
    Object.defineProperty(Stage.prototype, 'seen', { get() { model = this.model; return get.call(this); } });
    const { reboot } = SimulatedHost.prototype;
    SimulatedHost.prototype.reboot = function () {
      const rebooted = reboot.call(this);
      model.reset();
      return rebooted;
    };`;
  const { status, stdout, stderr } = demo(
    ['--json'],
    ['--import', `data:text/javascript,${encodeURIComponent(spoil)}`],
  );
  t.equal(status, 1);
  t.match(JSON.parse(stdout), { passed: false, liveupdate: { outcome: 're-initialised' } });
  for (const text of [
    'after a live update: re-initialised',
    /\d+ admin commands in live updates/,
    /\d+ resets in live updates, noiommu/,
    'not kept running, since it is not ready',
  ]) {
    t.match(stderr, text);
  }
});

t.test('interrupted in the middle of it', async t => {
  const child = spawn(...nodeCommand(main, 'demo'), { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stderr.on('data', chunk => {
    stderr += chunk;
  });
  child.stdout.on('data', chunk => {
    const before = stdout;
    stdout += chunk;
    if (stdout.includes('Hand-off') && !before.includes('Hand-off')) child.kill('SIGINT');
  });
  const [code] = (await once(child, 'close')) as [number];
  t.equal(code, 130);
  t.equal(stderr, 'iommufd: interrupted by SIGINT\n');
  t.notMatch(stdout, /Live update/);
});

t.test('a picture of an address space', async t => {
  const picture = {
    first: 0n,
    last: 0xfffn,
    pieces: [
      { first: 0n, length: 0x400n, label: 'one' },
      { first: 0x800n, length: 0x400n, label: 'two' },
      { first: 0xb00n, length: 0x300n, label: 'three' },
    ],
    reserved: [{ first: 0xf00n, length: 0x100n, label: 'kept' }],
    marks: [{ at: 0x600n, label: 'here' }],
  };
  t.strictSame(drawSpace(picture, 20), [
    '0x0000 … 0x0fff, 4 KiB; one cell is 256 B',
    '[aaaa··╳·bbb█cc·▒]',
    'a  one    from 0x0000  1 KiB  in one piece',
    'b  two    from 0x0800  1 KiB  in one piece',
    'c  three  from 0x0b00  768 B  in one piece',
    '▒  kept   from 0x0f00  256 B',
    '╳  here   at 0x0600',
  ]);
  const small = { ...picture, last: 0xf_ffffn, reserved: [], marks: [] };
  t.match(drawSpace(small, 20)[2], 'drawn larger');
  t.equal(drawSpace({ first: 0n, last: 0xfffn, pieces: [] }, 20)[1], '[················]', 'nothing');
});
