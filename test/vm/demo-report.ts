// What the demonstration in a virtual machine has shown: by its own account, by QEMU's trace, and by the disk image.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type KeepReport, keepComplaints, none, worstOutcome } from '../../src/cli/demo/keep-report.js';
import { completeOptions } from '../../src/drivers/nvme/options.js';
import {
  type EndResult,
  HANDOFFS,
  type HandOffResult,
  KEXECS,
  resultFile,
  TURNS,
  type UpdateResult,
  updateMark,
} from '../kernel/demo/results.js';
import type { Leaving } from '../kernel/support/orders.js';
import { wrongBlocks } from '../support/lane-image.js';
import { type Activity, LANES_MARK, readRegisterTrace, type Section } from './register-trace.js';
import type { VmResult } from './vm.js';

/** A report, and what in it, or beside it, is not as it must be. */
export interface Judged {
  /** What `--json` prints. */
  readonly report: KeepReport;
  readonly complaints: readonly string[];
  /** I/O commands that QEMU saw, and that were asked for, in all. */
  readonly ioCommands: number;
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);

/** The flush by which the driver marks the end is a command, too. */
const MARKING = 1;

/** @throws Error when the machine has left less than a report needs */
export const judge = async (vm: VmResult): Promise<Judged> => {
  const result = <T>(name: string): T => JSON.parse(readFileSync(join(vm.results, name), 'utf8')) as T;
  const kernels = Array.from({ length: KEXECS }, (_, index) => index + 2);
  const handOff = result<HandOffResult>(resultFile.handOff);
  const updates = kernels.map(kernel => result<UpdateResult>(resultFile.update(kernel)));
  const left = result<Leaving>(resultFile.leaving(1));
  const end = result<EndResult>(resultFile.end);

  const { queueEntries } = completeOptions({});
  const sections = await readRegisterTrace(vm.trace ?? '', [{ ...end.registers, ioEntries: queueEntries }]);
  const marks = [LANES_MARK, ...kernels.map(kernel => updateMark(kernel - 1)), LANES_MARK];
  const found = sections.map(({ mark }) => mark).slice(1);
  if (found.join() !== marks.join()) {
    throw new Error(`QEMU's trace has the marks ${found.join(', ')}, not ${marks.join(', ')}`);
  }
  const [before, handing, ...rest] = sections as [Section, Section, ...Section[]];
  const after = rest.pop() as Section;
  const activity = ({ controllers: [controller] }: Section): Activity => controller as Activity;
  const all = [handing, ...rest].map(activity);

  const told = [
    sum(left.told),
    sum(end.told) - sum(left.told) + sum(updates.map(({ reads }) => reads)),
  ] as const;
  const seen = [
    activity(handing).ioCommands,
    sum(rest.map(activity).map(each => each.ioCommands)) - MARKING,
  ] as const;
  const report: KeepReport = {
    handoff: {
      count: handOff.count,
      lost: handOff.lost + Math.max(told[0] - seen[0], 0),
      repeated: handOff.toldTwice + Math.max(seen[0] - told[0], 0),
      resets: handOff.resets + left.resets + handing.functionResets + activity(handing).configuration.length,
      adminCommands: activity(handing).adminCommands,
      gapMs: handOff.gapMs,
    },
    liveupdate: {
      kexecs: vm.boots - 1,
      outcome: worstOutcome(updates.map(({ outcome }) => outcome)),
      adminCommands: sum(rest.map(activity).map(each => each.adminCommands)),
      bytesVerified: sum(updates.map(({ bytesVerified }) => bytesVerified)),
      pagesMoved: sum(updates.map(({ pagesMoved }) => pagesMoved)),
    },
  };
  const complaints = [
    ...keepComplaints(report, { handoffs: HANDOFFS, kexecs: KEXECS }),
    ...(handOff.outcomes.join() === 'kept-running' ? [] : [`hand-offs: ${handOff.outcomes.join(', ')}`]),
    ...updates.flatMap(({ reason }) =>
      reason === undefined ? [] : [`live update: not kept running, since ${reason}`],
    ),
    ...none(sum(rest.map(({ functionResets }) => functionResets)), 'resets of a function in live updates'),
    ...none(Math.abs(told[1] - seen[1]), 'commands were lost or repeated in live updates'),
    ...none(
      sum(all.map(each => each.otherRegisters.length + each.configuration.length)),
      'writes to registers',
    ),
    ...none(end.wrong, 'blocks read back as something else than was written'),
    ...none(
      wrongBlocks(vm.disks.a1, end.told, TURNS),
      'blocks of the disk image are not as they were written',
    ),
    // Otherwise it would be no news that there is nothing in between.
    ...(activity(before).adminCommands > 0 && activity(after).adminCommands > 0
      ? []
      : ["QEMU's trace shows no admin command at all"]),
  ];
  return { report, complaints, ioCommands: seen[0] + seen[1] };
};
