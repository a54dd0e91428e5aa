// `npm run demo:kernel -- [--profile NAME] [--json]`: hand-off and live update on a real kernel, in a virtual machine.
import { parseArgs } from 'node:util';
import { colours } from '../../src/cli/colours.js';
import { formatSeconds, formatSize } from '../../src/cli/units.js';
import type { Message } from '../kernel/demo/results.js';
import { type Judged, judge } from './demo-report.js';
import type { ProfileName } from './profiles.js';
import { lanesTrace } from './register-trace.js';
import { runVm } from './vm.js';

const shown = {
  vtd: 'behind an IOMMU (Intel VT-d)',
  noiommu: 'without IOMMU',
} as const satisfies Partial<Record<ProfileName, string>>;
type Shown = keyof typeof shown;

const usage = `usage: npm run demo:kernel -- [--profile NAME] [--json]
--profile NAME  ${Object.keys(shown).join(' or ')}; ${Object.keys(shown)[0]} unless told
--json          print one JSON object`;

const LABEL_WIDTH = 14;
const { bold } = colours(process.stdout);
const { stdout, stderr } = process;

/** Lines on standard output as steps are done, and on a terminal what is being done. */
class Lines {
  readonly #quiet: boolean;

  constructor(quiet: boolean) {
    this.#quiet = quiet;
  }

  say(text: string): void {
    this.doing('');
    if (!this.#quiet) stdout.write(`${text}\n`);
  }

  step(name: string, text: string): void {
    this.say(`  ${name.padEnd(LABEL_WIDTH)}${text}`);
  }

  doing(text: string): void {
    if (stderr.isTTY) stderr.write(`\r\u001b[K${text === '' ? '' : `  ${text} …`}`);
  }
}

/** Calls `handle` for every message of the guest's. */
const messages = (handle: (message: Message) => void): ((chunk: Buffer) => void) => {
  let partial = '';
  return chunk => {
    const lines = (partial + chunk.toString()).split('\n');
    partial = lines.pop() ?? '';
    for (const line of lines) handle(JSON.parse(line) as Message);
  };
};

const run = async (profile: Shown, lines: Lines): Promise<Judged> => {
  lines.say(bold(`A virtual machine with two NVMe controllers, ${shown[profile]}`));
  lines.doing('booting');
  using vm = await runVm({
    profile,
    command: ['node', 'dist/test/kernel/demo/main.js'],
    append: 'liveupdate=on',
    trace: lanesTrace,
    onStdout: messages(message => {
      if ('doing' in message) lines.doing(message.doing);
      else lines.step(message.step, message.text);
    }),
    onStderr: chunk => stderr.write(chunk),
  });
  lines.doing('');
  if (vm.failure !== undefined) {
    throw new Error(`${vm.failure}; the last lines of the console:\n${vm.console}`);
  }
  // Awaited while its files are there.
  return await judge(vm);
};

const conclude = ({ report, complaints, ioCommands }: Judged, lines: Lines, seconds: number): void => {
  const { handoff, liveupdate } = report;
  const commands = `${ioCommands} I/O commands, ${handoff.lost} lost and ${handoff.repeated} repeated`;
  const others = `${handoff.adminCommands + liveupdate.adminCommands} admin commands, ${handoff.resets} resets`;
  lines.step('QEMU saw', `${commands}; since the bring-up ${others}`);
  lines.step(
    'read back',
    `${formatSize(liveupdate.bytesVerified)} in the kernels after, and the disk image from outside`,
  );
  const verdict = complaints.length === 0 ? 'Everything is as it must be' : 'Something is wrong';
  lines.say(`\n${bold(verdict)}, after ${formatSeconds(seconds)}`);
};

const main = async (): Promise<void> => {
  const { values } = parseArgs({
    options: {
      profile: { type: 'string', default: 'vtd' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(usage);
    return;
  }
  const { profile } = values;
  if (!Object.hasOwn(shown, profile)) throw new Error(`no such profile: ${profile}\n${usage}`);
  const lines = new Lines(values.json);
  const start = performance.now();
  const judged = await run(profile as Shown, lines);
  if (values.json) console.log(JSON.stringify(judged.report, undefined, 2));
  else conclude(judged, lines, (performance.now() - start) / 1000);
  if (judged.complaints.length > 0) throw new Error(judged.complaints.join('; '));
};

try {
  await main();
} catch (error) {
  stderr.write(`demo: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
