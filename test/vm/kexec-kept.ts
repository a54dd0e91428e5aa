// What the host checks after test/kernel/kexec-keep.test.ts: QEMU's trace, and what is on the disks.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { KexecReport } from '../kernel/kexec-keep.test.js';
import { type Activity, readRegisterTrace, type Section } from './register-trace.js';
import type { VmResult } from './vm.js';

const KERNELS = 4;

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);

/** From the bring-up to the end, through three kexecs, nobody has asked the kept controller for anything but I/O. */
export const checkKept = async (t: Test, vm: VmResult): Promise<void> => {
  const reports = Array.from(
    { length: KERNELS },
    (_, index) =>
      JSON.parse(readFileSync(join(vm.results, `kernel-${index + 1}.json`), 'utf8')) as KexecReport,
  );
  const [first] = reports as [KexecReport];
  t.equal(vm.boots, KERNELS);
  for (const { registers } of reports)
    t.strictSame(registers, first.registers, 'registers are where they were');
  const { a, b } = first.registers;
  const sections = await readRegisterTrace(vm.trace ?? '', [{ ...a, ioEntries: first.queueEntries }, b]);
  t.strictSame(
    sections.map(({ mark }) => mark),
    ['power-on', 'brought-up', 'end'],
  );
  const [before, between, after] = sections as [Section, Section, Section];
  const [kept, others] = between.controllers as [Activity, Activity];
  t.ok((before.controllers[0]?.configuration.length ?? 0) >= 2, 'the trace has what brought it up');
  t.ok((before.controllers[0]?.adminCommands ?? 0) > 8);
  t.ok((after.controllers[0]?.configuration.length ?? 0) >= 2, 'and what shut it down');

  t.equal(kept.adminCommands, 0, 'admin commands');
  t.strictSame(kept.configuration, [], 'writes to its configuration');
  t.strictSame(kept.otherRegisters, [], 'writes to registers that are no doorbells');
  t.equal(between.functionResets, 0, 'resets of a function');
  t.ok(
    others.configuration.length >= 2 * (KERNELS - 1),
    'every kernel has shut the other one down, or brought it up',
  );
  t.equal(between.adminCommandsExecuted, others.adminCommands, 'all admin commands were of the other one');

  const told = reports.at(-1)?.told ?? 0;
  const asked = told + sum(reports.map(({ otherCommands }) => otherCommands));
  t.ok(told > 1000, `${told} operations of the lanes`);
  t.equal(kept.ioCommands, asked, 'as many I/O commands as were asked for: none lost, none repeated');
  t.comment(
    `kexecs 3, I/O commands ${kept.ioCommands}, admin commands 0 (the other one: ${others.adminCommands}), ` +
      `bytes verified ${sum(reports.map(({ bytesVerified }) => bytesVerified))}, ` +
      `pages moved ${sum(reports.map(({ pagesMoved }) => pagesMoved))} of ${sum(reports.map(({ pages }) => pages))}`,
  );
};
