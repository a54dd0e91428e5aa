// The rig's own tests: what a guest does wrong must not pass, whichever way it goes wrong.
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import t from 'tap';
import { ensureKernels } from './kernel.js';
import { kernelTest } from './kernel-tier.js';
import { profileNames } from './profiles.js';
import { projectRoot } from './project.js';

type Ended = { readonly code: number | null; readonly stdout: string; readonly stderr: string };

const start = (file: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess =>
  spawn(process.execPath, [join(projectRoot, 'dist/test/vm', file), ...args], {
    cwd: projectRoot,
    stdio: ['ignore', 'pipe', 'pipe'],
    // Without tap's own loaders and settings: the program is to run as a user runs it.
    env: { ...process.env, NODE_OPTIONS: '', TAP: '', TAP_CHILD_ID: '', ...env },
  });

const ended = (child: ChildProcess): Promise<Ended> => {
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
    });
  }
  return new Promise(resolve => child.once('close', code => resolve({ code, ...output })));
};

const host = (ending: string): Promise<Ended> => ended(start('fixture/host.js', [ending]));
const vm = (...args: string[]): Promise<Ended> => ended(start('vm.js', args));

const alive = (pid: number): boolean => existsSync(`/proc/${pid}`);

const childrenOf = (parent: number): number[] =>
  readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .filter(name => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === parent;
      } catch {
        return false;
      }
    })
    .map(Number);

const until = async (condition: () => boolean): Promise<boolean> => {
  for (const end = Date.now() + 10_000; Date.now() < end; await setTimeout(50)) if (condition()) return true;
  return false;
};

// Here, rather than in the first test's time.
await ensureKernels();

await kernelTest(t, {
  profile: 'noiommu',
  file: 'dist/test/vm/fixture/guest.js',
  args: ['pass'],
  name: 'a guest program that passes',
  env: { QUOTED: `it's "quoted" $HOME \\ and\nin two lines`, HOST_NODE: process.version },
  diskBytes: 16 << 20,
  after: (t, vm) => {
    t.equal(vm.exitCode, 0);
    t.equal(vm.boots, 1);
    t.equal(readFileSync(join(vm.results, 'note'), 'utf8'), 'from the guest');
    const written = readFileSync(vm.disks.a1).subarray(8192, 12288);
    t.ok(
      written.equals(Buffer.alloc(4096, 'written by the guest. ')),
      'what the guest wrote is in the image',
    );
    t.ok(
      readFileSync(vm.disks.a2).every(byte => byte === 0),
      'the other image is untouched',
    );
  },
});

for (const profile of profileNames) {
  const name = `the machine ${profile}`;
  await kernelTest(t, { profile, file: 'dist/test/vm/fixture/guest.js', args: ['machine'], name });
}

await kernelTest(t, {
  profile: 'vtd',
  file: 'dist/test/vm/fixture/guest.js',
  args: ['hotplug'],
  name: 'a guest program that plugs and unplugs a device',
});

await t.test('a guest program that exits 3 fails', async t => {
  const { code, stdout } = await host('exit');
  t.equal(code, 1);
  t.match(stdout, 'not ok 2 - the program ended with exit code 3');
});

await t.test('a guest kernel that panics fails, with its last words', async t => {
  const { code, stdout } = await host('panic');
  t.equal(code, 1);
  t.match(stdout, 'ok 1 - before the panic');
  t.match(stdout, /not ok 2 - Kernel panic - not syncing: sysrq triggered crash/);
  t.match(stdout, /console:\n(.*\n)+? +.*sysrq: Trigger a crash/, 'the console is in the diagnostics');
});

await t.test('a guest program that hangs fails', async t => {
  const { code, stdout } = await host('hang');
  t.equal(code, 1);
  t.match(stdout, 'not ok 2 - no end within 15 s');
});

await t.test('a VM that powers off in the middle fails', async t => {
  const { code, stdout } = await host('cut');
  t.equal(code, 1);
  t.match(stdout, 'not ok 2 - the VM powered off before the program ended (no closing line)');
});

await t.test('TAP without a plan fails, whatever the exit code', async t => {
  const { code, stdout } = await host('unplanned');
  t.equal(code, 1);
  t.match(stdout, 'ok 2 - the program ended and the VM powered off');
});

await t.test("vm.js hands on the program's streams and exit code", async t => {
  const script =
    'for (let i = 0; i < 300; i++) {' +
    ' process.stdout.write(String(i).padEnd(4096, "."));' +
    ' require("fs").writeFileSync("/dev/kmsg", "<0>a loud kernel, line " + i);' +
    '} console.error("to stderr"); process.exitCode = 7';
  const { code, stdout, stderr } = await vm('--profile', 'noiommu', '--', 'node', '-e', script);
  const expected = Array.from({ length: 300 }, (_, i) => String(i).padEnd(4096, '.')).join('');
  const hash = (text: string): string => createHash('sha256').update(text).digest('hex');
  t.equal(code, 7);
  t.equal(hash(stdout), hash(expected), 'stdout is complete and free of kernel messages');
  t.match(stderr, 'to stderr\n');
  t.match(stderr, 'a loud kernel, line 299', 'a failure shows the console');
});

await t.test('vm.js ends a silent guest', async t => {
  const { code, stderr } = await vm('--idle', '5', '--', 'sleep', '1000');
  t.equal(code, 124);
  t.match(stderr, 'vm: no output for 5 s');
});

await t.test('vm.js explains wrong arguments', async t => {
  const { code, stderr } = await vm('--profile', 'sparc', '--', 'true');
  t.equal(code, 2);
  t.match(stderr, '--profile is one of vtd, vtd-scalable, vtd-first-stage, amd, noiommu, legacy');
});

for (const signal of ['SIGTERM', 'SIGINT', 'SIGKILL'] as const) {
  await t.test(`no QEMU is left behind by ${signal}`, async t => {
    // A SIGKILL leaves the VM's directory behind; let it be where tap cleans up.
    const env = { TMPDIR: t.testdir() };
    const child = start('vm.js', ['--', 'sh', '-c', 'echo up; exec sleep 1000'], env);
    const { pid } = child;
    if (pid === undefined) throw new Error('vm.js did not start');
    await new Promise(resolve => child.stdout?.once('data', resolve));
    const qemus = childrenOf(pid);
    t.equal(qemus.length, 1);
    child.kill(signal);
    t.ok(await until(() => !alive(pid) && !qemus.some(alive)), 'both are gone');
  });
}
