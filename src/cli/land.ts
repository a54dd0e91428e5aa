/** `iommufd land`: what makes devices land with VFIO in the next kernel, and whether it is there. @module */
import { readFileSync } from 'node:fs';
import { appendLanding } from '../keepalive/landing/initrd.js';
import { installLanding, landingFiles } from '../keepalive/landing/install.js';
import { type LandingPlan, planLanding } from '../keepalive/landing/plan.js';
import { describeProblem, type LandingProblem } from '../keepalive/landing/problem.js';
import type { ImageKind } from '../keepalive/landing/script.js';
import { type NextBoot, verifyLanding } from '../keepalive/landing/verify.js';
import type { LandCommand } from './arguments.js';
import { colours } from './colours.js';
import { canAsk, confirm } from './confirm.js';
import { Failed, UsageError } from './errors.js';
import { toJson } from './json.js';
import { openOutput } from './output.js';
import { readState } from './state/file.js';
import { note, print } from './streams.js';
import { table } from './table.js';

const makeImage: Readonly<Record<ImageKind, (release: string) => string>> = {
  'initramfs-tools': release => `update-initramfs -u -k ${release}`,
  dracut: release => `dracut --force --kver ${release}`,
};

/** @throws Failed when it cannot be guaranteed that devices land where they must */
export async function runLand(command: LandCommand, signal: AbortSignal): Promise<void> {
  const { release, root, action } = command;
  const plan = planLanding(await readState(command.file, signal), {
    target: { ...(release !== undefined && { release }), root },
  });
  const problems = action.kind === 'verify' ? verifyLanding(plan, bootOf(action)) : plan.problems;
  const files = action.kind === 'install' ? landingFiles(plan, action.make) : [];
  // Where standard output carries an image there is no room for the plan.
  const shown = !(action.kind === 'add' && action.output === '-');
  if (command.json) await print(toJson({ ...planJson(plan), files, problems: problems.map(problemJson) }));
  else if (shown) await print(planText(plan, problems));
  if (problems.length > 0) {
    if (!shown) for (const problem of problems) note(describeProblem(problem));
    throw new Failed('it cannot be guaranteed that the devices land with vfio-pci and no other driver');
  }
  switch (action.kind) {
    case 'install':
      return install(plan, action.make, command, signal);
    case 'add': {
      const image = appendLanding(readFileSync(action.input), plan);
      await using output = await openOutput(action.output, signal);
      return output.write(image);
    }
    default:
  }
}

/** What will be booted, with the image read. */
function bootOf({ initrd, commandLine }: { initrd?: string; commandLine: string }): NextBoot {
  return { commandLine, ...(initrd !== undefined && { initrd: readFileSync(initrd) }) };
}

async function install(
  plan: LandingPlan,
  make: ImageKind,
  { root, dryRun, yes, json }: LandCommand,
  signal: AbortSignal,
): Promise<void> {
  const paths = landingFiles(plan, make).map(({ path }) => path);
  const text = `${paths.join(', ')} below ${root}`;
  if (dryRun) {
    if (!json) note(`would write ${text}`);
    return;
  }
  if (!yes) {
    if (!canAsk()) throw new UsageError(`this writes ${text}. Pass --yes to do so`);
    if (!(await confirm(`iommufd: this writes ${text}.`, signal))) {
      throw new UsageError('not confirmed, nothing was written');
    }
  }
  installLanding(plan, make, root);
  note(`wrote ${text}; now make the image: ${makeImage[make](plan.release)}`);
}

function planText(plan: LandingPlan, problems: readonly LandingProblem[]): string {
  const { bold, red } = colours(process.stdout);
  const rows = plan.devices.map(({ address, natives, method }) => [
    address,
    natives.map(({ module, builtIn }) => `${module} (${builtIn ? 'built in' : 'module'})`).join(', ') ||
      'none',
    method === 'script' ? 'script in the initrd' : 'command line',
  ]);
  return [
    `${bold(`Kernel ${plan.release}`)}, vfio-pci ${plan.vfioPci === 'absent' ? 'absent' : `as ${plan.vfioPci}`}\n\n`,
    table([['DEVICE', 'DRIVERS THAT WOULD TAKE IT', 'KEPT FROM THEM BY'], ...rows], bold),
    `\nAdd to the command line: ${plan.commandLine.join(' ')}\n`,
    ...problems.map(problem => `${red('problem:')} ${describeProblem(problem)}\n`),
  ].join('');
}

const problemJson = ({ device, problem, remedy }: LandingProblem): unknown => ({
  device: device ?? null,
  problem,
  remedy,
});

function planJson(plan: LandingPlan): object {
  return {
    release: plan.release,
    vfioPci: plan.vfioPci,
    devices: plan.devices.map(({ address, natives, method }) => ({ address, natives, method })),
    commandLine: plan.commandLine,
    needsScript: plan.needsScript,
    script: plan.script,
  };
}
