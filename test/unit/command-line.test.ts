// The kernel's command line: what it says of live update, and which one is refused for the next kernel.
import { readFileSync } from 'node:fs';
import t from 'tap';
import type { SyscallResult } from '../../bindings/syscalls.js';
import { EACCES, ENOENT } from '../../bindings/uapi/errno.js';
import { KernelError } from '../../src/errors.js';
import {
  kernelSwitch,
  liveUpdateSupport,
  requireLiveUpdate,
  runningCommandLine,
} from '../../src/keepalive/liveupdate/command-line.js';
import { DelegatingKernel } from './support/delegating-kernel.js';

/** A kernel that was booted with a command line. */
class Booted extends DelegatingKernel {
  readonly #commandLine: string | SyscallResult;
  readonly #device: boolean;

  constructor(commandLine: string | SyscallResult, device: boolean) {
    super();
    this.#commandLine = commandLine;
    this.#device = device;
  }

  override readText(path: string): string | SyscallResult {
    return path === '/proc/cmdline' ? this.#commandLine : super.readText(path);
  }

  override access(path: string, mode: number): SyscallResult {
    if (path !== '/dev/liveupdate') return super.access(path, mode);
    return this.#device ? 0 : -ENOENT;
  }
}

t.test('the running kernel', t => {
  t.equal(runningCommandLine(), readFileSync('/proc/cmdline', 'utf8').trimEnd());
  t.equal(runningCommandLine(new Booted('console=ttyS0 quiet\n', false)), 'console=ttyS0 quiet');
  t.throws(
    () => runningCommandLine(new Booted(-EACCES, false)),
    new KernelError(EACCES, { syscall: 'read', path: '/proc/cmdline' }),
  );
  t.end();
});

t.test('switches', t => {
  const truths: readonly (readonly [string, boolean | undefined])[] = [
    ['', undefined],
    ['liveupdate=on', true],
    ['quiet liveupdate=1 splash', true],
    ['liveupdate=y', true],
    ['liveupdate=ON', true],
    ['liveupdate=true', true],
    ['liveupdate=enable', true],
    ['liveupdate=off', false],
    ['liveupdate=0', false],
    ['liveupdate=No', false],
    ['liveupdate=false', false],
    ['liveupdate=disable', false],
    ['liveupdate', undefined],
    ['liveupdate=', undefined],
    ['liveupdate=o', undefined],
    ['liveupdate=2', undefined],
    ['xliveupdate=on', undefined],
    ['liveupdatex=on', undefined],
    ['liveupdate=on liveupdate=off', false],
    ['liveupdate=off\tliveupdate=on', true],
    ['liveupdate=on liveupdate=maybe', true],
    ['"liveupdate=on"', true],
    ['liveupdate="on"', true],
    ['dyndbg="file a.c +p liveupdate=on"', undefined],
    ['dyndbg="file a.c +p" liveupdate=on', true],
    ['dyndbg="never closed liveupdate=on', undefined],
    ['liveupdate=on -- liveupdate=off', true],
    ['-- liveupdate=on', undefined],
    ['--x liveupdate=on', true],
  ];
  for (const [line, expected] of truths)
    t.equal(kernelSwitch(line, 'liveupdate'), expected, JSON.stringify(line));
  t.end();
});

t.test('whether a kernel can', t => {
  t.same(liveUpdateSupport(new Booted('', true)), { available: true, reason: undefined });
  const reasons: readonly (readonly [string, RegExp])[] = [
    ['quiet', /booted without liveupdate=on$/],
    ['liveupdate=off', /booted without liveupdate=on$/],
    ['liveupdate=on kho=off', /booted with kho=off/],
    ['kho=on liveupdate=on', /Linux 7.3 or later/],
  ];
  for (const [line, reason] of reasons) {
    const support = liveUpdateSupport(new Booted(line, false));
    t.equal(support.available, false);
    t.match(support.reason, reason, line);
  }
  t.throws(() => liveUpdateSupport(new Booted(-EACCES, false)), { code: 'EACCES' });
  t.end();
});

t.test('the next kernel must have it, too', t => {
  for (const [next, running] of [
    ['liveupdate=on', 'liveupdate=on'],
    ['liveupdate=on', ''],
    ['kho=on liveupdate=on', 'kho=on liveupdate=on'],
    ['kho=1 liveupdate=1', 'quiet'],
  ] as const) {
    t.doesNotThrow(() => requireLiveUpdate(next, running), next);
  }
  for (const [next, running, message] of [
    ['', '', /without liveupdate=on/],
    ['kho=on', 'kho=on liveupdate=on', /without liveupdate=on/],
    ['liveupdate=off', 'liveupdate=on', /without liveupdate=on/],
    ['liveupdate=on kho=off', 'liveupdate=on', /with kho=off/],
    ['liveupdate=on kho=on kho=0', 'liveupdate=on', /with kho=off/],
    ['liveupdate=on', 'kho=on liveupdate=on', /lacks kho=on/],
  ] as const) {
    t.throws(() => requireLiveUpdate(next, running), { name: 'RangeError', message }, next);
  }
  t.throws(() => requireLiveUpdate(undefined as unknown as string, ''), TypeError);
  t.end();
});
