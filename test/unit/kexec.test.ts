// Loading a kernel and starting it: what is passed on, what is refused, and that no file stays open.
import { mkdtempSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { SyscallResult } from '../../bindings/syscalls.js';
import {
  EADDRNOTAVAIL,
  EBUSY,
  EFBIG,
  EINVAL,
  EKEYREJECTED,
  ENOEXEC,
  ENOMEM,
  ENOSYS,
  EPERM,
} from '../../bindings/uapi/errno.js';
import { KernelError } from '../../src/errors.js';
import { runningCommandLine } from '../../src/keepalive/liveupdate/command-line.js';
import { kexec, loadKernel, unloadKernel } from '../../src/keepalive/liveupdate/kexec.js';
import { LiveUpdate } from '../../src/keepalive/liveupdate/live-update.js';
import { allFailures, Capability, ProcessEnded, SimulatedHost } from '../../src/testing/index.js';
import { DelegatingKernel } from './support/delegating-kernel.js';
import { openDescriptors } from './support/holdings.js';

const directory = mkdtempSync(join(tmpdir(), 'kexec-test-'));
t.teardown(() => rmSync(directory, { recursive: true }));
const image = join(directory, 'vmlinuz');
const initrd = join(directory, 'initrd');
writeFileSync(image, 'a kernel');
writeFileSync(initrd, 'an initrd');

/** Notes what it is told to load and start, and answers what it is told to. */
class Loader extends DelegatingKernel {
  readonly loads: unknown[] = [];
  readonly reboots: number[] = [];
  answerWith: SyscallResult = 0;

  override kexecFileLoad(kernel: number, initrd: number, commandLine: string, flags: number): SyscallResult {
    const name = (fd: number): string | number => (fd < 0 ? fd : readlinkSync(`/proc/self/fd/${fd}`));
    this.loads.push([name(kernel), name(initrd), commandLine, flags]);
    return this.answerWith;
  }

  override reboot(command: number): SyscallResult {
    this.reboots.push(command);
    return this.answerWith;
  }
}

t.test('loading', t => {
  const kernel = new Loader();
  const before = openDescriptors();
  loadKernel({ kernel, image, initrd, commandLine: 'quiet liveupdate=on' });
  loadKernel({ kernel, image, commandLine: '' });
  unloadKernel(kernel);
  t.same(kernel.loads, [
    [image, initrd, 'quiet liveupdate=on', 0],
    [image, -1, '', 4],
    [-1, -1, '', 1],
  ]);
  t.equal(openDescriptors(), before);
  t.end();
});

t.test('arguments', t => {
  const kernel = new Loader();
  const good = { kernel, image, initrd, commandLine: 'quiet' };
  for (const key of ['image', 'initrd', 'commandLine'] as const) {
    t.throws(() => loadKernel({ ...good, [key]: 7 }), { name: 'TypeError', message: new RegExp(key) });
    t.throws(() => loadKernel({ ...good, [key]: 'a\0b' }), { name: 'RangeError', message: new RegExp(key) });
  }
  t.throws(() => loadKernel({ kernel, image } as unknown as typeof good), TypeError);
  t.same(kernel.calls, [], 'before any system call');
  t.end();
});

t.test('files that cannot be opened', t => {
  const kernel = new Loader();
  const before = openDescriptors();
  const none = join(directory, 'none');
  t.throws(() => loadKernel({ kernel, image: none, commandLine: '' }), { code: 'ENOENT', path: none });
  t.throws(() => loadKernel({ kernel, image, initrd: none, commandLine: '' }), {
    code: 'ENOENT',
    path: none,
  });
  t.same(kernel.loads, []);
  t.equal(openDescriptors(), before);
  t.end();
});

t.test('what the kernel refuses', t => {
  const kernel = new Loader();
  const before = openDescriptors();
  const loadHints: readonly (readonly [number, RegExp])[] = [
    [EPERM, /CAP_SYS_BOOT/],
    [ENOEXEC, /relocatable/],
    [EADDRNOTAVAIL, /kho_scratch=/],
    [ENOMEM, /memory/],
    [EBUSY, /try again/],
    [EINVAL, /command line/],
    [EFBIG, /too large/],
    [ENOSYS, /CONFIG_KEXEC_FILE/],
    [EKEYREJECTED, /signature/],
  ];
  for (const [errno, hint] of loadHints) {
    kernel.answerWith = -errno;
    t.throws(() => loadKernel({ kernel, image, initrd, commandLine: 'quiet' }), {
      errno,
      syscall: 'kexec_file_load',
      message: hint,
    });
  }
  kernel.answerWith = -ENOEXEC;
  t.throws(() => loadKernel({ kernel, image, initrd, commandLine: 'quiet' }), {
    message: `kexec_file_load (image="${image}", initrd="${initrd}", commandLine="quiet"): ENOEXEC. `,
  });
  kernel.answerWith = -EPERM;
  t.throws(() => unloadKernel(kernel), { code: 'EPERM', message: /KEXEC_FILE_UNLOAD/ });
  t.equal(openDescriptors(), before);

  const rebootHints: readonly (readonly [number, RegExp])[] = [
    [EINVAL, /loadKernel/],
    [EPERM, /CAP_SYS_BOOT/],
    [EBUSY, /try again/],
  ];
  for (const [errno, hint] of rebootHints) {
    kernel.answerWith = -errno;
    t.throws(() => kexec(kernel), { errno, syscall: 'reboot', message: hint });
  }
  t.same(kernel.reboots, Array(3).fill(0x4558_4543));
  kernel.answerWith = 0;
  t.throws(() => kexec(kernel), { message: /cannot be returned to/ });
  t.end();
});

const simulated = { image: '/boot/vmlinuz', initrd: '/boot/initrd.img' };
const machine = (): SimulatedHost => new SimulatedHost({ profile: 'noiommu', memory: { size: 2 ** 26 } });

t.test('a simulated machine', t => {
  using host = machine();
  const kernel = host.process();
  const commandLine = `${runningCommandLine(kernel)} note="the second kernel"`;
  t.throws(() => kexec(kernel), { code: 'EINVAL', hint: /loadKernel/ });
  t.throws(() => loadKernel({ kernel, ...simulated, image: '/dev/iommu', commandLine }), { code: 'EINVAL' });
  t.throws(() => loadKernel({ kernel, ...simulated, image: simulated.initrd, commandLine }), {
    code: 'ENOEXEC',
  });
  t.throws(() => loadKernel({ kernel, ...simulated, commandLine: 'x'.repeat(4000) }), { code: 'EINVAL' });
  loadKernel({ kernel, ...simulated, commandLine: 'not this one' });
  unloadKernel(kernel);
  t.throws(() => kexec(kernel), { code: 'EINVAL' });
  loadKernel({ kernel, ...simulated, commandLine: 'nor this one' });
  loadKernel({ kernel, ...simulated, commandLine });
  t.same(host.leftovers(), []);

  const user = host.process({ capabilities: [Capability.SysRawio] });
  t.throws(() => loadKernel({ kernel: user, ...simulated, commandLine }), { code: 'EPERM' });
  t.throws(() => unloadKernel(user), { code: 'EPERM' });
  t.throws(() => kexec(user), { code: 'EPERM' });

  const liveUpdate = LiveUpdate.open(kernel);
  liveUpdate.createSession('a');
  liveUpdate[Symbol.dispose]();
  t.throws(() => kexec(kernel), ProcessEnded, 'nobody comes back from it');
  const next = host.process();
  t.equal(runningCommandLine(next), commandLine);
  using again = LiveUpdate.open(next);
  again.retrieveSession('a').finish();
  t.end();
});

t.test('whichever call fails while a kernel is loaded: no file stays open', async t => {
  const runs = await allFailures(
    () => {
      const host = machine();
      return { kernel: host.process(), holdings: () => host.leftovers() };
    },
    kernel => {
      loadKernel({ kernel, ...simulated, commandLine: 'quiet' });
      unloadKernel(kernel);
    },
  );
  t.same(
    runs.map(({ injection, error, left }) => [injection.call, error instanceof KernelError, left]),
    [
      ['open', true, []],
      ['open', true, []],
      ['kexecFileLoad', true, []],
      // Nothing was written: there is nothing that closing could lose.
      ['close', false, []],
      ['close', false, []],
      ['kexecFileLoad', true, []],
    ],
  );
});
