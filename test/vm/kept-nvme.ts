// The host's view of a guest in which drivers of a running NVMe controller took turns: what QEMU saw of it, and what it
// wrote.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { bundle } from '../support/bundle.js';
import { wrongBlocks } from '../support/lane-image.js';
import { nvmeWindows } from './nvme-trace.js';
import { projectRoot } from './project.js';
import { keptDriver } from './topology.js';
import type { VmResult } from './vm.js';

/** What the guest says, in `kept-nvme.json` among its results. */
export interface KeptNvme {
  /** Operations that ended, by lane. */
  readonly told: readonly number[];
  /** Blocks that each lane wrote before it began again. */
  readonly turns: number;
}

/** Gives the guest its driver program in one file. */
export const bundleDriver = ({ results }: Pick<VmResult, 'results'>): void => {
  const program = bundle(join(projectRoot, 'dist/test/kernel/support/kept-driver.js'));
  writeFileSync(join(results, keptDriver), program);
};

/** Of the lanes: see `src/testing/lanes.ts`. */
const NAMESPACE = 1;

/** That the controller was never stopped, reset or configured, that it did what was told and nothing twice. */
export const checkKeptNvme = async (t: Test, vm: VmResult): Promise<void> => {
  const { told, turns } = JSON.parse(readFileSync(join(vm.results, 'kept-nvme.json'), 'utf8')) as KeptNvme;
  const [before, between, after, ...more] = nvmeWindows(readFileSync(vm.trace ?? '', 'utf8'));
  if (before === undefined || between === undefined || after === undefined || more.length > 0) {
    t.fail('the guest has not marked where the lanes begin and end');
    return;
  }
  // Otherwise it would be no news that there are none in between.
  for (const window of [before, after]) {
    t.ok(window.adminCommands.length > 0, 'the trace shows admin commands');
    t.ok(window.configuration.length > 0, 'and writes to registers');
    t.ok(window.pciConfiguration.length > 0, 'and to the configuration space');
    t.ok(window.resets.length > 0, 'and resets');
  }
  t.strictSame(between.adminCommands, [], 'no admin command');
  t.strictSame(between.configuration, [], 'no register was written but doorbells');
  t.strictSame(between.pciConfiguration, [], 'nothing was written to the configuration space');
  t.strictSame(between.resets, [], 'no reset');
  t.strictSame(between.complaints, [], 'the controller has nothing to complain of');
  const sum = told.reduce((sum, count) => sum + count, 0);
  t.equal(between.ioCommands.get(NAMESPACE), sum, `what was told was executed, once: ${sum} commands`);
  t.equal(between.ioCommands.size, 1, 'and nothing else');
  t.equal(wrongBlocks(vm.disks.a1, told, turns), 0, 'the disk image has all that was told to be written');
};
