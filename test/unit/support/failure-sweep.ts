/**
 * Every system call of a scenario of keepalive fails once, each in a run of its own on a machine of its own.
 *
 * @module
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import { DeviceError, DisposedError, KernelError } from '../../../src/errors.js';
import { HandoffError } from '../../../src/keepalive/handoff/handoff-error.js';
import { KeepAliveError } from '../../../src/keepalive/keepalive-error.js';
import { LandingImageError } from '../../../src/keepalive/landing/image-error.js';
import { LandingError } from '../../../src/keepalive/landing/problem.js';
import { StateError } from '../../../src/keepalive/state/state-error.js';
import { SwapError } from '../../../src/keepalive/swap/swap-error.js';
import type { MachineProfile } from '../../../src/sim/iommu/hardware.js';
import {
  type CallRecord,
  describeInjection,
  type FaultyKernel,
  faulty,
  type Injection,
  usualErrno,
} from '../../../src/testing/faults.js';
import { type Driver, holdings, KeepaliveStage } from './keepalive-stage.js';

/** One run, in which one call fails, and in the last none. */
export interface Run {
  readonly stage: KeepaliveStage;
  /** Of the first process. No call counts until `counting` is set. */
  readonly kernel: FaultyKernel;
  /** What failed, if it has come to that. */
  readonly injection: Injection | undefined;
  /** Something is not as it must be. */
  wrong(what: string): void;
  /** What the library threw. */
  threw(error: unknown): void;
}

export interface FailureSweep {
  readonly profile: MachineProfile;
  /** Plays it, with checks of its own, to the end: nothing is held by anybody afterwards. */
  readonly play: (run: Run) => Promise<void>;
  /** Calls of which this is false do not fail. */
  readonly where?: (call: CallRecord) => boolean;
  /** What may be left after this call has failed; nothing unless told. */
  readonly mayLeave?: (injection: Injection, left: string) => boolean;
}

function callText({ process, call, request, file }: CallRecord): string {
  return [process ?? 'first', call, request?.toString(16), file].filter(part => part !== undefined).join(' ');
}

/** What is wrong with an error: another type than an error of the library has, or a message that does not help. */
export function errorProblem(error: unknown): string | undefined {
  if (error instanceof AggregateError) {
    return error.errors.map(errorProblem).find(problem => problem !== undefined);
  }
  if (error instanceof LandingError) {
    return error.problems.every(({ remedy }) => remedy !== '') ? undefined : `${error} has no remedy`;
  }
  // Its message is that it must not be used any more.
  if (error instanceof DisposedError) return undefined;
  const typed =
    error instanceof KernelError ||
    error instanceof HandoffError ||
    error instanceof KeepAliveError ||
    error instanceof StateError ||
    error instanceof SwapError ||
    error instanceof DeviceError ||
    error instanceof LandingImageError;
  if (!typed) return `${error instanceof Error ? error.stack : String(error)} is no error of the library`;
  return error.hint ? undefined : `${error} does not say what to do`;
}

/** Calls of one kind by one process, and how often there were so many in a run. */
class Uses {
  /** What is still to fail: kinds of call, each with which use of it. */
  readonly todo: (readonly [kind: string, nth: number])[] = [];
  readonly #known = new Map<string, number>();

  /** A run made so many calls of these kinds before any failed. */
  note(counts: ReadonlyMap<string, number>): void {
    for (const [kind, count] of counts) {
      const known = this.#known.get(kind) ?? 0;
      for (let nth = known + 1; nth <= count; nth++) this.todo.push([kind, nth]);
      this.#known.set(kind, Math.max(known, count));
    }
  }
}

/**
 * Runs a scenario until each use of each of its calls has failed once, and looks after each run whether something was left:
 * open files, mappings, pinned pages, a device that is not back with its driver, with what decides on that and on its
 * resets. Calls are told apart by process, kind and file, and not by their place among all: processes run side by side, and
 * are not in the same order each time.
 *
 * @returns how many calls failed, one after the other
 */
export async function sweepFailures(
  t: Test,
  { profile, play, where, mayLeave = () => false }: FailureSweep,
): Promise<number> {
  const begun = process.cpuUsage();
  const problems: string[] = [];
  const uses = new Uses();
  let failed = 0;
  let notReached = 0;
  let used: KeepaliveStage | undefined;
  const run = async (kind: string, nth: number): Promise<void> => {
    // A machine on which everything ended well is as good as new, and that much faster made. But memory that was used
    // before lies scattered, which makes for another number of calls without an IOMMU.
    const stage = used ?? new KeepaliveStage(profile);
    used = undefined;
    stage.beginAnew();
    const before = problems.length;
    const counts = new Map<string, number>();
    const isMeant = (call: CallRecord): boolean => {
      if (where?.(call) === false) return false;
      const text = callText(call);
      if (kernel.injected.length === 0) counts.set(text, (counts.get(text) ?? 0) + 1);
      return text === kind;
    };
    const fault = { where: isMeant, nth, errno: usualErrno };
    const kernel: FaultyKernel = faulty(stage.process('predecessor').kernel, [fault]);
    const wrong = (what: string): void => {
      const [injection] = kernel.injected;
      problems.push(`${injection ? describeInjection(injection) : 'nothing failed'}: ${what}`);
    };
    const threw = (error: unknown): void => {
      const problem = errorProblem(error);
      if (problem) wrong(problem);
      if (kernel.injected.length === 0) wrong(`${error} although nothing failed`);
    };
    kernel.counting = false;
    try {
      await play({
        stage,
        kernel,
        wrong,
        threw,
        get injection() {
          return kernel.injected[0];
        },
      });
    } catch (error) {
      wrong(`the scenario ended with ${error instanceof Error ? error.stack : String(error)}`);
    }
    const [injection] = kernel.injected;
    const left = [...stage.host.leftovers()];
    if (left.length === 0 && stage.sysfs() !== stage.before) left.push(`in sysfs: ${stage.sysfs()}`);
    for (const each of left) {
      if (injection === undefined || !mayLeave(injection, each)) wrong(`left: ${each}`);
    }
    if (problems.length === before && left.length === 0 && profile !== 'noiommu') used = stage;
    else stage.host[Symbol.dispose]();
    uses.note(counts);
    if (injection) failed++;
    else if (kind !== '') notReached++;
  };
  await run('', 1);
  for (let next = uses.todo.shift(); next; next = uses.todo.shift()) await run(...next);
  for (const problem of problems) t.fail(problem);
  const { user, system } = process.cpuUsage(begun);
  const time = Math.round((user + system) / 1000);
  t.comment(`${failed} calls failed, one after the other, ${notReached} were not made again; ${time} ms`);
  t.ok(notReached <= failed / 10, 'what happened once happens again');
  return failed;
}

/** Nothing of a process is left. */
export function holdsNothing(run: Run, name: string, process: Parameters<typeof holdings>[0]): void {
  const held = holdings(process);
  if (held.length > 0) run.wrong(`the ${name} holds ${held.join(', ')}`);
}

/** I/O that was going on goes on, with the right data, and is stopped. */
export async function checkIo(
  run: Run,
  { lanes, controller }: Driver,
  running?: Promise<void>,
): Promise<void> {
  const { told } = lanes;
  const ended = running ?? lanes.start(controller.inherited);
  for (let waited = 0; lanes.told < told + 64 && waited < 2000; waited++) await sleep(1);
  lanes.stop();
  await ended;
  if (lanes.failure !== undefined) run.wrong(`I/O failed: ${lanes.failure}`);
  if (lanes.wrong > 0) run.wrong(`${lanes.wrong} blocks were wrong`);
  if (lanes.told < told + 64) run.wrong(`I/O does not go on: ${lanes.told - told} operations`);
}

/** @returns what it came to, or undefined when it threw */
export async function attempt<T>(run: Run, action: () => Promise<T>): Promise<T | undefined> {
  try {
    return await action();
  } catch (error) {
    run.threw(error);
    return undefined;
  }
}

/** I/O makes these as often as it likes; whether they may fail is no matter of keepalive. */
export function isIo({ call, file }: CallRecord): boolean {
  if (call === 'read') return file === 'eventfd';
  return (call === 'pread' || call === 'pwrite') && /^\/dev\/vfio\/devices\//.test(file ?? '');
}
