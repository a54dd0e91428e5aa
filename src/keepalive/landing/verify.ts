/** Whether what will be booted does what a landing plan asks for. @module */
import { defaultKernel } from '../../../bindings/kernel.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import {
  isOn,
  itemsOf,
  type Parameter,
  parseCommandLine,
  splitCommandLine,
  valuesOf,
} from './command-line.js';
import { checkImage, readImage } from './initrd.js';
import { idsOf, type LandingPlan } from './plan.js';
import { LandingError, type LandingProblem } from './problem.js';

/** What will be booted. */
export interface NextBoot {
  /** The initrd image, or its path; none when the kernel is booted without one. */
  readonly initrd?: string | Uint8Array;
  readonly commandLine: string;
}

const BLACKLIST = 'initcall_blacklist';
const VFIO_IDS = 'vfio_pci.ids';
/** `1b36:0010` */
const VENDOR_AND_DEVICE = 9;
const MODULE_LISTS = ['modules_load', 'rd.modules_load'];

/**
 * Why devices might not land where they must; nothing when it is certain that they do.
 *
 * @throws only what the plan cannot know of, such as running out of memory
 */
export function verifyLanding(
  plan: LandingPlan,
  boot: NextBoot,
  kernel: Syscalls = defaultKernel(),
): LandingProblem[] {
  const parameters = parseCommandLine(boot.commandLine);
  return [
    ...plan.problems,
    ...plan.commandLine.flatMap(wanted => checkParameter(parameters, wanted)),
    ...checkLoading(plan, parameters),
    ...checkRivals(plan, parameters),
    ...(plan.needsScript ? checkScript(plan, parameters, boot.initrd, kernel) : []),
  ];
}

/** @throws LandingError when it cannot be guaranteed that devices land where they must */
export function assertLanding(plan: LandingPlan, boot: NextBoot, kernel: Syscalls = defaultKernel()): void {
  const problems = verifyLanding(plan, boot, kernel);
  if (problems.length > 0) throw new LandingError(problems);
}

/**
 * The command line `current` with what the plan needs. Lists that are there already are added to; what contradicts the
 * plan stays and is found by {@link verifyLanding}.
 */
export function landingCommandLine(plan: LandingPlan, current: string): string {
  const { kernel, init } = splitCommandLine(current.trim());
  let line = kernel.trim();
  for (const wanted of plan.commandLine) {
    const parameters = parseCommandLine(line);
    if (checkParameter(parameters, wanted).length === 0) continue;
    const [{ name, value }] = parseCommandLine(wanted) as [Parameter];
    // Of several mentions, the last is the list.
    const before = name === VFIO_IDS ? (valuesOf(parameters, name).at(-1) ?? '') : '';
    line = `${line} ${before === '' ? wanted : `vfio-pci.ids=${before},${value}`}`.trimStart();
  }
  return init === '' ? line : `${line} ${init}`;
}

function checkParameter(parameters: readonly Parameter[], wanted: string): LandingProblem[] {
  const [{ name, value }] = parseCommandLine(wanted) as [Parameter];
  if (isGiven(parameters, name, value ?? '')) return [];
  const found = parameters.filter(each => each.name === name).map(({ text }) => text);
  const instead = found.length === 0 ? '' : `, but ${found.join(' ')}`;
  return [{ problem: `the command line does not have ${wanted}${instead}`, remedy: `Add ${wanted}` }];
}

function isGiven(parameters: readonly Parameter[], name: string, value: string): boolean {
  switch (name) {
    case BLACKLIST: {
      const listed = itemsOf(parameters, name);
      return value.split(',').every(item => listed.includes(item));
    }
    case VFIO_IDS: {
      // One text: a later mention replaces an earlier one.
      const listed = (valuesOf(parameters, name).at(-1) ?? '').toLowerCase().split(',');
      return value.split(',').every(item => listed.includes(item));
    }
    default:
      return isOn(parameters, name) === true;
  }
}

/** Modules that systemd is told to load, beside everything else and at no certain time. */
function checkLoading(plan: LandingPlan, parameters: readonly Parameter[]): LandingProblem[] {
  const natives = new Set(plan.devices.flatMap(({ natives }) => natives.map(({ module }) => module)));
  return MODULE_LISTS.flatMap(list => itemsOf(parameters, list))
    .filter(module => natives.has(module.replaceAll('-', '_')))
    .map(module => ({
      problem: `the command line makes systemd load ${module}, perhaps before the landing script runs`,
      remedy: 'Take it out: udev loads the drivers of the devices that there are',
    }));
}

/** Other drivers that are told to take devices by their ids, such as pci-stub. */
function checkRivals(plan: LandingPlan, parameters: readonly Parameter[]): LandingProblem[] {
  const ids = plan.devices.map(({ identity }) => idsOf(identity).slice(0, VENDOR_AND_DEVICE));
  return parameters
    .filter(({ name }) => name.endsWith('.ids') && name !== VFIO_IDS)
    .filter(({ value = '' }) => ids.some(each => value.toLowerCase().includes(each)))
    .map(({ text }) => ({
      problem: `the command line has ${text}, which gives the devices to another driver`,
      remedy: 'Take them out there',
    }));
}

function checkScript(
  plan: LandingPlan,
  parameters: readonly Parameter[],
  initrd: string | Uint8Array | undefined,
  kernel: Syscalls,
): LandingProblem[] {
  const problems: LandingProblem[] = [];
  const rdinit = valuesOf(parameters, 'rdinit').at(-1);
  if (rdinit !== undefined && rdinit !== '/init') {
    problems.push({
      problem: `the command line has rdinit=${rdinit}, which does not run the landing script`,
      remedy: 'Take it out',
    });
  }
  if (parameters.some(({ name }) => name === 'noinitrd')) {
    problems.push({
      problem: 'the command line has noinitrd, without which the landing script does not run',
      remedy: 'Take it out',
    });
  }
  if (initrd === undefined) {
    problems.push({
      problem:
        'there is no initrd, and without the landing script in it other drivers would take the devices',
      remedy: 'Boot with an initrd that has it',
    });
    return problems;
  }
  const image = typeof initrd === 'string' ? readImage(kernel, initrd) : initrd;
  return [...problems, ...(image instanceof Uint8Array ? checkImage(plan, image) : [image])];
}
