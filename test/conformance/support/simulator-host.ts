/** The simulated host, in this very process. @module */
import { SimulatedHost } from '../../../src/sim/host.js';
import type { MachineProfile } from '../../../src/sim/iommu/hardware.js';
import type { SimulatedProcess } from '../../../src/sim/process/process.js';
import { makeRig } from '../../support/rig.js';
import type { Child } from './case.js';
import { findTask } from './child-tasks.js';
import { Conversation } from './conversation.js';
import { succeeds } from './expect.js';
import type { RunnableHost } from './host.js';

/** What the cases with the largest mappings take, and those that a machine has anyway. */
const HUGE_PAGES = 72;

/** A machine whose kernel can be replaced. */
export interface SimulatorHost extends RunnableHost {
  /** The machine after a kexec, in a new process; this host's own is gone. */
  kexec(): SimulatorHost;
}

/** A simulated machine of the given profile. */
export function simulatorHost(profile: MachineProfile): SimulatorHost {
  return onMachine(
    new SimulatedHost({ profile, memory: { hugePages: HUGE_PAGES }, devices: makeRig().devices }),
  );
}

function onMachine(host: SimulatedHost): SimulatorHost {
  const process = host.process();
  return {
    name: 'simulator',
    kernel: process,
    profile: host.profile,
    dropCapability(capability) {
      const had = process.capabilities.delete(capability);
      return { [Symbol.dispose]: () => had && process.capabilities.add(capability) };
    },
    limitLockedMemory(bytes) {
      const before = process.memlockLimit;
      process.memlockLimit = bytes;
      return {
        [Symbol.dispose]() {
          process.memlockLimit = before;
        },
      };
    },
    spawn: (task, descriptors, argument) => startChild(process, host.process(), task, descriptors, argument),
    descriptors: () => new Map([...process.openFiles].map(([fd, file]) => [fd, file.name])),
    pinnedPages: () => host.physical.pinnedPages,
    kexec() {
      host.kexec();
      return onMachine(host);
    },
    [Symbol.dispose]: () => host[Symbol.dispose](),
  };
}

function startChild(
  parent: SimulatedProcess,
  child: SimulatedProcess,
  task: string,
  descriptors: readonly number[],
  argument: unknown,
): Child {
  const fromChild = new Conversation(`task ${task}`);
  const toChild = new Conversation('the parent');
  const shared = descriptors.map(fd => succeeds(parent.share(fd, child), 'a descriptor for a child'));
  const run = async (): Promise<void> => {
    await findTask(task)({
      kernel: child,
      descriptors: shared,
      argument,
      say: value => fromChild.say(value),
      heard: () => toChild.next(),
    });
  };
  const finished = run()
    .then(() => fromChild.end())
    // The task of a process that was ended fails at its next call, which is as it should be.
    .catch((error: Error) => fromChild.end(error))
    .finally(() => child.exit());
  return {
    heard: () => fromChild.next(),
    tell: value => toChild.say(value),
    async end() {
      child.exit();
      toChild.end();
      await finished;
    },
  };
}
