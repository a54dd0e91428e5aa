// Kernel-tier tests as tap subtests: the guest's TAP, live, and what the host knows of the VM's end.
import { availableParallelism, totalmem } from 'node:os';
import { PassThrough } from 'node:stream';
import type { Test } from 'tap';
import { runVm, type VmOptions, type VmResult } from './vm.js';

export type KernelTestOptions = Omit<VmOptions, 'command' | 'onStdout' | 'onStderr' | 'onConsole'> & {
  /** The guest program, relative to the checkout (`dist/test/kernel/nvme.test.js`); it prints TAP. */
  readonly file: string;
  readonly args?: readonly string[];
  /** The subtest's name; `file (profile)` unless told. */
  readonly name?: string;
  /** Runs after power-off, with disks and results still there. */
  readonly after?: (t: Test, vm: VmResult) => void | Promise<void>;
};

/**
 * How many machines to run at once (`t.jobs`): each has one processor, and up to 4 GiB. Those of tests that are not awaited
 * one by one run side by side.
 */
export const machinesAtOnce = Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / 2 ** 32)));

/** Runs one guest program in a VM of its own; fails on any failed test in it, panic, hang or bad exit. */
export const kernelTest = async (t: Test, options: KernelTestOptions): Promise<void> => {
  const { file, args = [], name = `${file} (${options.profile})`, after, ...vmOptions } = options;
  // A kernel may have to be built first, so the time limit is the VM's own.
  await t.test(name, { timeout: 0, buffered: t.jobs > 1 }, async t => {
    const tapStream = new PassThrough();
    const guest = t.stdin('guest', { tapStream, timeout: 0 });
    let vm: VmResult;
    try {
      vm = await runVm({
        ...vmOptions,
        command: ['node', file, ...args],
        onStdout: chunk => tapStream.write(chunk),
        onStderr: chunk => process.stderr.write(chunk),
      });
    } finally {
      tapStream.end();
      await guest;
    }
    try {
      if (vm.failure === undefined) t.pass('the program ended and the VM powered off');
      else t.fail(vm.failure, { console: vm.console.split('\n') });
      await after?.(t, vm);
    } finally {
      vm[Symbol.dispose]();
    }
  });
};
